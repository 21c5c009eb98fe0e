// Tables: the numbers of a chart, made when they are asked for, and the page's own, sorted by a reader.

/** A `details` element whose table is made when it is first opened; `owner` is the matrix that the chart is of. */
function dataAsTable(chart, owner) {
  const holder = element("details", { class: "as-table" }, element("summary", {}, "Data as a table"));
  holder.addEventListener("toggle", () => {
    if (!holder.open || holder.querySelector("table")) return;
    const table = chart.type === "grid" ? gridTable(chart) : linesTable(chart);
    holder.append(element("div", { class: "scroll", role: "group", tabindex: "0", "aria-label": `Data of ${owner === "" ? "" : `${owner}: `}${chart.title}` }, table));
  });
  return holder;
}

function gridTable(chart) {
  const columns = data.axes[chart.x];
  const values = unpacked(chart.values);
  const notes = new Map(chart.notes.flatMap(([note, cells]) => cells.map((cell) => [cell, note])));
  const said = (at) => (Number.isNaN(values[at]) ? (notes.get(at) ?? NOTHING) : significant(values[at]));
  const rows = data.names[chart.names].full.map((name, row) => [name, columns.map((_, column) => said(row * columns.length + column))]);
  return filledTable(`${chart.valueLabel}, by ${chart.xLabel}`, [chart.yLabel, ...columns.map(place)], rows);
}

function linesTable(chart) {
  const lines = chart.series.map((series) => {
    const y = unpacked(series.y);
    const band = series.band === null ? null : unpacked(series.band);
    const said = (i) => significant(y[i]) + (band && Number.isFinite(band[i]) ? ` ± ${significant(band[i])}` : "");
    return new Map(data.axes[series.x].map((x, i) => [x, said(i)]));
  });
  const places = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  const rows = places.map((x) => [place(x), lines.map((line) => line.get(x) ?? NOTHING)]);
  return filledTable(chart.yLabel, [chart.xLabel, ...chart.series.map((series) => series.name)], rows);
}

function filledTable(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((text, i) => element("th", { scope: "col", class: i > 0 ? "number" : "text" }, text)));
  const body = rows.map(([name, cells]) => element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((text) => element("td", { class: "number" }, text))));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...body));
}

/** Puts a button into each heading of a table that sorts by it, first one way and then the other. */
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      sortRows(table.tBodies[0], column, order === "ascending" ? 1 : -1);
    });
    head.replaceChildren(button);
  });
}

/** Numbers by value, text as people sort it (layer 2 before layer 10), nothing last either way. */
function sortRows(body, column, sign) {
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const keyed = [...body.rows].map((row) => {
    const cell = row.cells[column];
    const nothing = cell.classList.contains("nothing");
    return { row, nothing, key: "value" in cell.dataset ? pythonNumber(cell.dataset.value) : cell.textContent };
  });
  keyed.sort((a, b) => {
    if (a.nothing || b.nothing) return a.nothing - b.nothing;
    if (typeof a.key === "number" && typeof b.key === "number") return sign * (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
    return sign * compare(String(a.key), String(b.key));
  });
  body.append(...keyed.map(({ row }) => row));
}

function pythonNumber(text) {
  return Number(text.replace("inf", "Infinity"));
}
