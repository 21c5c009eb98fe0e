// The page: which run, which colours, and the detail that a row of a heat map opens.

const spoken = document.getElementById("spoken");
const wide = window.matchMedia("(min-width: 1180px)");

/** Tells those who listen to the page what changed. */
function say(text) {
  spoken.textContent = text;
}

function chartOf(figure, chart, { owner = "", open = null } = {}) {
  return chart.type === "grid" ? new HeatMap(figure, chart, owner, open) : new LineChart(figure, chart, owner);
}

/** The panel of one run in which the detail of a row is shown. */
class DetailPanel {
  constructor(run, index, maps) {
    this.run = run;
    this.maps = maps;
    this.layout = element("div", { class: "maps-and-detail" });
    maps.replaceWith(this.layout);
    this.panel = element("section", { class: "detail", hidden: "", "aria-label": "Detail" });
    this.layout.append(maps, this.panel);
    this.heatMaps = [];
    this.charts = [];
    this.shown = null;
    this.origin = null;
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.goBack());
    wide.addEventListener("change", () => this.settle());
    this.id = `detail-${index}`;
  }

  /** Opens a detail on behalf of a heat map or a button, to which Escape returns; null closes what is open. */
  open(detail, origin, origins = { focus: true }) {
    this.close();
    if (detail === null) return;
    this.origin = origin;
    this.shown = detail;
    this.panel.hidden = false;
    this.layout.classList.add("opened");
    this.settle();
    this.fill(this.run.details[detail]);
    this.heatMaps.forEach((heatMap) => heatMap.markRow(detail));
    if (origins.focus) {
      this.heading.focus({ preventScroll: wide.matches && this.panel.getBoundingClientRect().top >= 0 });
      say(`${this.run.details[detail].name} is open. Escape goes back.`);
    }
  }

  close() {
    this.charts.forEach((chart) => chart.dispose());
    this.charts = [];
    this.panel.replaceChildren();
    this.panel.hidden = true;
    this.layout.classList.remove("opened");
    this.heatMaps.forEach((heatMap) => heatMap.markRow(null));
    this.shown = null;
  }

  goBack() {
    const target = this.origin instanceof HeatMap ? this.origin.plot : this.origin;
    if (target) target.focus();
  }

  /** Beside the heat maps where there is room, else right below the one that opened it. */
  settle() {
    const figure = this.origin instanceof HeatMap ? this.origin.figure : this.maps.firstElementChild;
    if (wide.matches || figure === null) this.layout.append(this.panel);
    else figure.after(this.panel);
  }

  fill(detail) {
    this.heading = element("h4", { class: "name", tabindex: "-1", id: this.id }, ...breakable(detail.name));
    this.panel.setAttribute("aria-labelledby", this.id);
    const close = element("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", () => {
      this.goBack();
      this.close();
    });
    const facts = detail.facts.flatMap(([what, value]) => [element("dt", {}, what), element("dd", {}, value)]);
    this.panel.append(element("div", { class: "head" }, this.heading, close), element("p", { class: "caption" }, detail.caption));
    if (facts.length > 0) this.panel.append(element("dl", {}, ...facts));
    for (const chart of detail.charts) {
      const caption = element("figcaption", {}, element("h5", {}, chart.title), element("p", { class: "summary" }, chart.summary));
      const figure = element("figure", { class: "chart", "data-key": chart.key }, caption);
      this.panel.append(figure);
      this.charts.push(chartOf(figure, chart, { owner: detail.name }));
    }
  }
}

/** Fills the figures of one run, and returns its panel (null where no row opens anything). */
function buildRun(run, index) {
  const figures = [...document.querySelectorAll(`figure[data-run="${index}"]`)];
  const maps = document.querySelector(`.run[data-run="${index}"] .maps`);
  const panel = maps && run.details.length > 0 ? new DetailPanel(run, index, maps) : null;
  for (const figure of figures) {
    const chart = [...run.grids, ...run.lines].find((each) => each.key === figure.dataset.key);
    const made = chartOf(figure, chart, { open: panel && ((detail, origin) => panel.open(detail, origin)) });
    if (panel && made instanceof HeatMap) panel.heatMaps.push(made);
  }
  if (panel && run.opened !== null) panel.open(run.opened, panel.heatMaps[0], { focus: false });
  return panel;
}

// Runs are built when they are first shown.

const panels = new Map();
const chooseRun = document.getElementById("choose-run");

function showRun(index) {
  const before = panels.get(Number(chooseRun.dataset.shown));
  const name = before?.shown == null ? null : before.run.details[before.shown].name;
  chooseRun.value = String(index);
  chooseRun.dataset.shown = String(index);
  for (const part of document.querySelectorAll(".run")) part.hidden = part.dataset.run !== String(index);
  if (!panels.has(index)) panels.set(index, buildRun(data.runs[index], index));
  followDetail(panels.get(index), name);
}

/** Opens in a run what was open in the one shown before, if it has a detail of that name. */
function followDetail(panel, name) {
  if (!panel || name === null) return;
  const same = panel.run.details.findIndex((detail) => detail.name === name);
  if (same >= 0 && same !== panel.shown) panel.open(same, panel.heatMaps[0], { focus: false });
}

/** Turns the cells of tables that name a matrix into buttons that open it. */
function linkRows() {
  for (const row of document.querySelectorAll("tr[data-target]")) {
    const [run, detail] = row.dataset.target.split(" ").map(Number);
    const cell = row.cells[Number(row.dataset.column)];
    const button = element("button", { type: "button", class: "opens" }, ...breakable(cell.textContent));
    button.addEventListener("click", () => {
      showRun(run);
      panels.get(run)?.open(detail, button);
      panels.get(run)?.panel.scrollIntoView({ block: "nearest" });
    });
    cell.replaceChildren(button);
  }
}

function followControls() {
  chooseRun.addEventListener("change", () => {
    showRun(Number(chooseRun.value));
    say(`Run ${data.runs[Number(chooseRun.value)].name} is shown.`);
  });
  document.getElementById("choose-steps").addEventListener("change", (event) => {
    stepScale = event.target.value;
    live.forEach((figure) => figure instanceof LineChart && figure.redraw());
  });
  document.getElementById("choose-theme").addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.target.value;
    live.forEach((figure) => figure.redraw());
  });
  const redraw = () => live.forEach((figure) => figure.redraw());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function start() {
  const everyChart = [...data.across, ...data.runs.flatMap((run) => [...run.lines, ...run.details.flatMap((detail) => detail.charts)])];
  const controls = document.querySelector(".controls");
  controls.querySelector('[data-control="run"]').hidden = data.runs.length < 2;
  controls.querySelector('[data-control="steps"]').hidden = !everyChart.some((chart) => chart.xScale === "step");
  controls.hidden = false;
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  for (const figure of document.querySelectorAll("figure[data-across]")) {
    chartOf(figure, data.across.find((chart) => chart.key === figure.dataset.key));
  }
  followControls();
  linkRows();
  if (data.runs.length > 0) showRun(0);
}

start();
