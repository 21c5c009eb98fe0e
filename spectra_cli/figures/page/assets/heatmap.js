// Heat maps: drawn by the library, walked through and read by what is here.

const ROW_HEIGHT = 16;
const MOST_ROWS_AT_ONCE = 200;
const ROWS_IN_WINDOW = 60;
const PAGE_OF_ROWS = 10;
const TOP = 4;
const BOTTOM = 42;

/** The share of the width that long labels of rows may take. */
const MOST_LABELS = 0.42;

/** Whether the pointer is where it was: browsers tell a pointer at rest what was scrolled under it. */
let resting = false;
let lastPlace = "";
const notePlace = (event) => {
  const here = `${event.screenX} ${event.screenY}`;
  resting = here === lastPlace;
  lastPlace = here;
};
document.addEventListener("pointermove", notePlace, { capture: true });

/** A pattern of thin stripes, which no value has, for cells without one. */
function hatched(shades) {
  const tile = element("canvas", { width: 8, height: 8 });
  const pen = tile.getContext("2d");
  pen.fillStyle = shades.paper;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = shades.missing;
  pen.lineWidth = 1.5;
  for (const offset of [-8, 0, 8]) {
    pen.beginPath();
    pen.moveTo(offset, 8);
    pen.lineTo(offset + 8, 0);
    pen.stroke();
  }
  return { image: tile, repeat: "repeat" };
}

class HeatMap extends Figure {
  /** `open(detail)` shows what a row opens; null where rows open nothing. */
  constructor(figure, chart, owner, open = null) {
    super(figure, chart, owner);
    this.open = open;
    this.columns = data.axes[chart.x];
    this.names = data.names[chart.names];
    this.rows = this.names.full.length;
    this.values = unpacked(chart.values);
    this.notes = new Map(chart.notes.flatMap(([note, cells]) => cells.map((cell) => [cell, note])));
    this.cursor = null;
    this.walking = false; // what is marked is the cursor of the keyboard, and not the cell under the pointer
    this.first = 0;
    this.build();
    this.listen();
    this.attach();
  }

  get rowHeight() {
    const fewRows = Math.min(28, 110 / Math.max(1, this.rows));
    return this.chart.ordered ? Math.max(fewRows, Math.min(ROW_HEIGHT, 240 / this.rows)) : Math.max(fewRows, ROW_HEIGHT);
  }

  get shownRows() {
    return this.rows > MOST_ROWS_AT_ONCE ? ROWS_IN_WINDOW : this.rows;
  }

  build() {
    const opens = this.chart.details.some((detail) => detail !== null);
    const missing = this.values.some(Number.isNaN);
    const key = element("div", { class: "key" }, element("span", { class: "axis-label" }, this.chart.yLabel), colourBar(this.chart, missing));
    this.rowMark = element("div", { class: "row-mark", hidden: "" });
    this.cellMark = element("div", { class: "cell-mark", hidden: "" });
    this.tip = element("div", { class: "tip", hidden: "" });
    this.stage = element("div", { class: "stage" }, this.canvas, this.rowMark, this.cellMark, this.tip);
    this.scroller = element("div", { class: "scroller" }, this.stage);
    const height = TOP + this.shownRows * this.rowHeight + BOTTOM;
    this.stage.style.height = `${height}px`;
    this.scroller.style.height = `${height + (this.rows - this.shownRows) * this.rowHeight}px`;
    this.plot = element("div", {
      class: "plot",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "heat map",
      "aria-label": `${this.chart.title}: ${this.rows} rows, ${this.columns.length} columns. Arrow keys move from cell to cell${opens ? ", Enter opens the row" : ""}.`,
    }, this.scroller);
    this.plot.style.height = `${height}px`;
    const summary = this.figure.querySelector(".summary");
    if (summary.id) this.plot.setAttribute("aria-describedby", summary.id);
    this.figure.append(key, this.plot);
    if (opens) this.figure.append(element("p", { class: "hint" }, "Click a row, or press Enter on it, to open it."));
  }

  listen() {
    this.stage.addEventListener("pointermove", (event) => (this.walking && resting) || this.hover(this.cellAt(event), event));
    this.stage.addEventListener("pointerleave", () => this.walking || this.hide());
    this.stage.addEventListener("click", (event) => this.choose(this.cellAt(event)));
    this.plot.addEventListener("keydown", (event) => this.press(event));
    this.plot.addEventListener("focus", () => this.plot.matches(":focus-visible") && this.moveTo(this.cursor ?? this.start()));
    this.plot.addEventListener("blur", () => this.hide());
    this.plot.addEventListener("scroll", () => this.scrolled());
  }

  // Where things are, in pixels of the stage.

  layout() {
    const width = this.canvas.clientWidth;
    const fitted = (labels) => ({ labels, left: Math.ceil(widthOf(labels, `11px ${CODE_FONT}`)) + 14 });
    const roomy = fitted(this.chart.ordered ? this.names.full : this.names.wide);
    const fits = this.chart.ordered || (width >= 620 && roomy.left <= MOST_LABELS * width);
    const { labels, left } = fits ? roomy : fitted(this.names.narrow);
    const right = 14;
    return { labels, left, right, cellWidth: (width - left - right) / Math.max(1, this.columns.length), cellHeight: this.rowHeight };
  }

  /** The cell under the pointer; its column is -1 over the label of a row. */
  cellAt(event) {
    const { left, cellWidth, cellHeight } = this.layout();
    const box = this.stage.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top - TOP) / cellHeight);
    const column = Math.floor((event.clientX - box.left - left) / cellWidth);
    if (row < 0 || row >= this.shownRows || column >= this.columns.length) return null;
    return { row: row + this.first, column: Math.max(-1, column) };
  }

  // What a cell says.

  describe({ row, column }) {
    if (column < 0) return "";
    const value = this.values[row * this.columns.length + column];
    const said = Number.isNaN(value) ? this.reason(row, column) : significant(value);
    return `${this.chart.xLabel} ${place(this.columns[column])}: ${said}`;
  }

  reason(row, column) {
    const note = this.notes.get(row * this.columns.length + column);
    return note ? `no value (${note})` : "no value";
  }

  show(cell, x, y) {
    const name = element("span", { class: "name" }, this.names.full[cell.row]);
    const said = this.describe(cell);
    this.tip.replaceChildren(name, ...(said ? [element("span", { class: "value" }, said)] : []));
    this.tip.hidden = false;
    const beside = x + 14 + this.tip.offsetWidth <= this.stage.clientWidth ? x + 14 : x - 14 - this.tip.offsetWidth;
    const below = y + 14 + this.tip.offsetHeight <= this.stage.clientHeight ? y + 14 : y - 14 - this.tip.offsetHeight;
    this.tip.style.left = `${Math.max(0, Math.min(beside, this.stage.clientWidth - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${below}px`;
  }

  mark(cell) {
    const { left, cellWidth, cellHeight } = this.layout();
    this.cellMark.hidden = cell.column < 0 || cell.row < this.first || cell.row >= this.first + this.shownRows;
    Object.assign(this.cellMark.style, {
      left: `${left + cell.column * cellWidth}px`,
      top: `${TOP + (cell.row - this.first) * cellHeight}px`,
      width: `${cellWidth}px`,
      height: `${cellHeight}px`,
    });
  }

  hover(cell, event) {
    if (cell === null) {
      this.hide();
      return;
    }
    this.walking = false;
    const box = this.stage.getBoundingClientRect();
    this.stage.classList.toggle("opens", this.detailOf(cell.row) !== null);
    this.mark(cell);
    this.show(cell, event.clientX - box.left, event.clientY - box.top);
  }

  hide() {
    this.walking = false;
    this.tip.hidden = true;
    this.cellMark.hidden = true;
  }

  // Rows that open something.

  detailOf(row) {
    return this.open === null ? null : (this.chart.details[row] ?? null);
  }

  choose(cell) {
    if (cell === null) return;
    this.cursor = { row: cell.row, column: Math.max(0, cell.column) };
    const detail = this.detailOf(cell.row);
    if (detail !== null) this.open(detail, this);
  }

  /** Marks the row that a detail belongs to, if one does. */
  markRow(detail) {
    this.openRow = detail === null ? -1 : this.chart.details.indexOf(detail);
    this.placeRowMark();
  }

  placeRowMark() {
    const row = this.openRow ?? -1;
    this.rowMark.hidden = row < this.first || row >= this.first + this.shownRows;
    this.rowMark.style.top = `${TOP + (row - this.first) * this.rowHeight}px`;
    this.rowMark.style.height = `${this.rowHeight}px`;
  }

  // The keyboard.

  start() {
    return { row: Math.max(0, this.openRow ?? 0), column: this.columns.length - 1 };
  }

  press(event) {
    if (event.altKey || event.metaKey || this.rows === 0 || this.columns.length === 0) return;
    const { row, column } = this.cursor ?? this.start();
    const lastRow = this.rows - 1;
    const lastColumn = this.columns.length - 1;
    const goes = {
      ArrowUp: () => this.moveTo({ row: row - 1, column }),
      ArrowDown: () => this.moveTo({ row: row + 1, column }),
      ArrowLeft: () => this.moveTo({ row, column: column - 1 }),
      ArrowRight: () => this.moveTo({ row, column: column + 1 }),
      Home: () => this.moveTo({ row: event.ctrlKey ? 0 : row, column: 0 }),
      End: () => this.moveTo({ row: event.ctrlKey ? lastRow : row, column: lastColumn }),
      PageUp: () => this.moveTo({ row: row - PAGE_OF_ROWS, column }),
      PageDown: () => this.moveTo({ row: row + PAGE_OF_ROWS, column }),
      Enter: () => this.choose({ row, column }),
      Escape: () => this.leave(),
    }[event.key];
    if (!goes) return;
    event.preventDefault();
    goes();
  }

  moveTo({ row, column }) {
    this.cursor = {
      row: Math.min(this.rows - 1, Math.max(0, row)),
      column: Math.min(this.columns.length - 1, Math.max(0, column)),
    };
    this.reveal(this.cursor.row);
    this.showCursor();
    say(`${this.names.full[this.cursor.row]}, ${this.describe(this.cursor)}`);
  }

  showCursor() {
    this.walking = true;
    this.mark(this.cursor);
    const { left, cellWidth, cellHeight } = this.layout();
    const y = TOP + (this.cursor.row - this.first + 0.5) * cellHeight;
    this.show(this.cursor, left + (this.cursor.column + 0.5) * cellWidth, y);
  }

  leave() {
    this.hide();
    if (this.open !== null) this.open(null, this);
  }

  /** Scrolls a heat map of many rows, and the page, so that a row can be seen. */
  reveal(row) {
    if (row < this.first) this.plot.scrollTop = row * this.rowHeight;
    if (row >= this.first + this.shownRows) this.plot.scrollTop = (row - this.shownRows + 1) * this.rowHeight;
    this.scrolled();
    const top = this.stage.getBoundingClientRect().top + TOP + (row - this.first) * this.rowHeight;
    const [above, below] = [120, window.innerHeight - 90];
    if (top < above) window.scrollBy(0, top - above);
    else if (top > below) window.scrollBy(0, top - below);
  }

  /** Of many rows only those in the window are drawn, as no canvas is as high as all. */
  scrolled() {
    const first = Math.min(this.rows - this.shownRows, Math.round(this.plot.scrollTop / this.rowHeight));
    if (first === this.first) return;
    this.first = first;
    this.redraw();
  }

  // What the library draws.

  redraw() {
    super.redraw();
    if (this.walking) this.showCursor();
    else this.hide();
  }

  option(shades) {
    const { labels, left, right } = this.layout();
    const stop = this.first + this.shownRows;
    const style = axisStyle(shades);
    const ticks = this.columnTicks(left + right);
    this.placeRowMark();
    return {
      grid: { left, right, top: TOP, bottom: BOTTOM, outerBoundsMode: "none" },
      xAxis: {
        ...style,
        type: "category",
        data: this.columns.map(String),
        name: this.chart.xLabel,
        nameLocation: "middle",
        nameGap: 26,
        axisTick: { ...style.axisTick, alignWithLabel: true, customValues: ticks },
        axisLabel: { ...style.axisLabel, customValues: ticks, formatter: (_, i) => shortened(tickLabel(this.columns[i])) },
      },
      yAxis: {
        ...style,
        type: "category",
        inverse: true,
        data: range(this.first, stop).map(String),
        axisLine: { show: false },
        axisTick: { show: false },
        axisLabel: {
          color: shades.ink,
          fontFamily: CODE_FONT,
          fontSize: 11,
          margin: 7,
          interval: 0,
          ...(this.chart.ordered ? { customValues: this.rowTicks() } : {}),
          formatter: (index) => labels[Number(index)],
        },
      },
      visualMap: [
        { show: false, seriesIndex: 0, dimension: 2, min: this.chart.domain[0], max: this.chart.domain[1], inRange: { color: VIRIDIS } },
      ],
      series: this.cells(shades, stop),
    };
  }

  cells(shades, stop) {
    const [low, high] = this.chart.domain;
    const present = [];
    const missing = [];
    for (let row = this.first; row < stop; row += 1) {
      for (let column = 0; column < this.columns.length; column += 1) {
        const value = this.values[row * this.columns.length + column];
        if (Number.isNaN(value)) missing.push([column, row - this.first, 0]);
        else present.push([column, row - this.first, Math.min(high, Math.max(low, value))]);
      }
    }
    const series = { type: "heatmap", silent: true, progressive: 0, emphasis: { disabled: true } };
    return [
      { ...series, data: present },
      { ...series, data: missing, itemStyle: { color: hatched(shades) } },
    ];
  }

  /** Columns that are labelled: evenly apart, and as many as fit. */
  columnTicks(margins) {
    const widest = widthOf(this.columns.map((value) => shortened(tickLabel(value))), `11.5px ${FONT}`) + 16;
    const most = Math.max(1, Math.floor((this.canvas.clientWidth - margins) / widest));
    const stride = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500].find((step) => this.columns.length <= step * most) ?? 1000;
    return range(0, this.columns.length, stride);
  }

  /** Rows that are labelled where rows are an index and thin. */
  rowTicks() {
    const stride = [1, 2, 5, 10, 20, 25, 50, 100].find((step) => step * this.rowHeight >= 14) ?? 100;
    const first = range(stride - 1, this.rows, stride); // rows 5, 10, 15, ... of 1, 2, 3, ...
    return stride > 2 ? [0, ...first] : first;
  }
}

function shortened(text) {
  const characters = [...text];
  return characters.length > 14 ? `${characters.slice(0, 6).join("")}\u2026${characters.slice(-7).join("")}` : text;
}

/** The colour scale with its ends and middle, and what the absence of a value looks like. */
function colourBar(chart, missing) {
  const [low, high] = chart.domain;
  const strip = element("span", { class: "strip" });
  strip.style.backgroundImage = `linear-gradient(to right, ${VIRIDIS.join(", ")})`;
  const ends = element("span", { class: "ends" }, ...[low, (low + high) / 2, high].map((value) => element("span", {}, significant(value))));
  const bar = element("div", { class: "bar" }, element("span", { class: "axis-label" }, chart.valueLabel), element("span", { class: "scale" }, strip, ends));
  if (missing) bar.append(element("span", { class: "axis-label" }, element("span", { class: "hatch" }), "no value"));
  return bar;
}
