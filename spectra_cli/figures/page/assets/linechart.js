// Line charts: categories or an index, on linear or logarithmic scales that a reader can change.

const LINE_CHART_HEIGHT = 270;
const MOST_POINTS_WITH_SYMBOLS = 30;
const MOST_VALUES_OVER_LINES = 8;

/** How steps are laid out in all line charts of the page. */
let stepScale = "linear";

class LineChart extends Figure {
  constructor(figure, chart, owner) {
    super(figure, chart, owner);
    this.series = chart.series.map((series) => ({
      name: series.name,
      x: data.axes[series.x],
      y: unpacked(series.y),
      band: series.band === null ? null : unpacked(series.band),
    }));
    this.hidden = new Set();
    this.logarithmic = chart.yScale === "log";
    this.build();
    this.attach();
  }

  build() {
    this.legend = element("div", { class: this.chart.ordered ? "legend index" : "legend" });
    this.dropped = element("p", { class: "note", hidden: "" });
    const log = element("input", { type: "checkbox" });
    log.checked = this.logarithmic;
    log.addEventListener("change", () => {
      this.logarithmic = log.checked;
      this.redraw();
    });
    const key = element(
      "div",
      { class: "key" },
      element("span", { class: "axis-label" }, this.chart.yLabel),
      element("label", { class: "log" }, log, " log scale"),
    );
    this.canvas.style.height = `${LINE_CHART_HEIGHT}px`;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${this.chart.title}. ${this.chart.summary}`);
    this.figure.append(this.legend, key, this.canvas, this.dropped);
  }

  get scales() {
    return {
      x: SCALES[this.chart.xScale === "step" ? stepScale : "linear"],
      y: SCALES[this.logarithmic ? "log" : "linear"],
    };
  }

  // The legend, which also hides and shows lines.

  drawLegend(styles) {
    if (this.series.length < 2 && !this.chart.ordered) {
      this.legend.hidden = this.series.length === 0;
      this.legend.replaceChildren(...this.series.map((series, i) => element("span", { class: "entry" }, sample(styles[i]), series.name)));
      return;
    }
    this.legend.replaceChildren(...(this.chart.ordered ? this.indexLegend(styles) : this.series.map((_, i) => this.switchOf(i, styles[i]))));
  }

  indexLegend(styles) {
    const swatches = styles.map((style, i) => {
      const swatch = element("span", { class: "swatch", title: this.series[i].name });
      swatch.style.backgroundColor = style.color;
      return swatch;
    });
    const [first, last] = [this.series.at(0)?.name ?? "", this.series.at(-1)?.name ?? ""];
    return [element("span", {}, first), element("span", { class: "swatches" }, ...swatches), element("span", {}, last)];
  }

  switchOf(i, style) {
    const button = element("button", { type: "button", class: "entry", "aria-pressed": String(!this.hidden.has(i)) }, sample(style), this.series[i].name);
    button.addEventListener("click", () => {
      if (!this.hidden.delete(i)) this.hidden.add(i);
      this.redraw();
      this.legend.children[i].focus();
    });
    return button;
  }

  // What the library draws.

  option(shades) {
    const styles = lineStyles(this.series.length, this.chart.ordered, shades.dark);
    this.drawLegend(styles);
    this.tellDropped();
    this.shown = range(0, this.series.length).filter((i) => !this.hidden.has(i));
    const { x, y } = this.scales;
    const xEnds = extentOf(this.series.map((series) => series.x), x) ?? [0, 1];
    const yEnds = roomFor(extentOf(this.shown.flatMap((i) => this.reach(i)), y) ?? [0.1, 1], this.logarithmic ? "log" : "linear");
    const xTicks = this.wholeTicks(x.ticks(...xEnds, Math.max(2, Math.floor(this.canvas.clientWidth / 80))));
    const yTicks = y.ticks(...yEnds, 5);
    const left = Math.ceil(widthOf(yTicks.map(tickLabel), `11.5px ${FONT}`)) + 14;
    const style = axisStyle(shades);
    return {
      grid: { left, right: 22, top: 10, bottom: 44, outerBoundsMode: "none" },
      xAxis: { ...axis(style, x, xEnds, xTicks), name: this.chart.xLabel, nameLocation: "middle", nameGap: 27 },
      yAxis: { ...axis(style, y, yEnds, yTicks), axisLine: { show: false }, axisTick: { show: false, customValues: yTicks.map(y.at) }, splitLine: { lineStyle: { color: shades.rule } } },
      tooltip: this.tooltip(shades),
      series: [...this.shown.map((i) => this.line(i, styles[i], shades)), ...this.bands(styles, yEnds)],
    };
  }

  /** Between two steps there is none. */
  wholeTicks(ticks) {
    const whole = ticks.filter(Number.isInteger);
    return whole.length > 0 && this.series.every((series) => series.x.every(Number.isInteger)) ? whole : ticks;
  }

  /** The numbers that must fit: a line, and both sides of its band. */
  reach(i) {
    const { y, band } = this.series[i];
    return band === null ? [y] : [y, y.map((value, at) => value + (band[at] || 0)), y.map((value, at) => value - (band[at] || 0))];
  }

  line(i, style, shades) {
    const { x, y } = this.scales;
    const series = this.series[i];
    const few = series.x.length <= MOST_POINTS_WITH_SYMBOLS;
    const alone = (at) => !Number.isFinite(series.y[at - 1]) && !Number.isFinite(series.y[at + 1]);
    return {
      type: "line",
      // A point between two gaps has no line, so that only a symbol shows it.
      data: series.x.map((value, at) => ({ value: [x.at(value), finite(y.at(series.y[at]))], symbolSize: few || alone(at) ? (this.chart.ordered ? 3.5 : 5) : 0 })),
      showSymbol: true,
      showAllSymbol: true,
      symbol: style.symbol,
      itemStyle: { color: style.color },
      lineStyle: { color: style.color, width: this.chart.ordered ? 1.2 : 1.8, type: style.dash },
      emphasis: { disabled: true },
      z: 3,
      tooltip: { borderColor: shades.rule },
    };
  }

  /** Bands as polygons in front of the paper and behind the lines; cut off at the lower end of a log scale. */
  bands(styles, yEnds) {
    const { x, y } = this.scales;
    const place = (value) => y.at(Math.max(yEnds[0], Math.min(yEnds[1], value)));
    return this.shown
      .filter((i) => this.series[i].band !== null)
      .flatMap((i) => stretches(this.series[i]).map((stretch) => ({
        type: "custom",
        silent: true,
        tooltip: { trigger: "none" },
        axisPointer: { show: false },
        data: [[x.at(stretch[0].x), place(stretch[0].low)]],
        z: 1,
        renderItem: (_, api) => ({
          type: "polygon",
          shape: {
            points: [
              ...stretch.map((point) => api.coord([x.at(point.x), place(point.high)])),
              ...stretch.toReversed().map((point) => api.coord([x.at(point.x), place(point.low)])),
            ],
          },
          style: { fill: styles[i].color, opacity: 0.18 },
        }),
      })));
  }

  tellDropped() {
    const dropped = this.logarithmic ? this.series.reduce((sum, { y }) => sum + y.filter((value) => value <= 0).length, 0) : 0;
    this.dropped.hidden = dropped === 0;
    this.dropped.textContent = `${dropped} ${dropped === 1 ? "value" : "values"} of 0 or less have no place on a log scale.`;
  }

  tooltip(shades) {
    return {
      trigger: "axis",
      confine: this.shown.length <= MOST_VALUES_OVER_LINES,
      position: this.shown.length <= MOST_VALUES_OVER_LINES ? null : (_point, _values, _tip, _box, size) => this.besideLines(size.contentSize[1]),
      className: "line-tip",
      transitionDuration: 0,
      backgroundColor: shades.paper,
      borderColor: shades.muted,
      borderWidth: 1,
      padding: [6, 9],
      textStyle: { color: shades.ink, fontFamily: FONT, fontSize: 12.5 },
      extraCssText: "box-shadow:none;max-width:100%;",
      axisPointer: { type: "line", lineStyle: { color: shades.muted, type: "solid", width: 1 } },
      formatter: (points) => this.tipOf(points.filter((point) => point.seriesIndex < this.shown.length)),
    };
  }

  /** A tooltip of many values would hide the lines that it is about: below or above the chart there is room. */
  besideLines(height) {
    const box = this.canvas.getBoundingClientRect();
    return [0, box.bottom + height <= window.innerHeight ? LINE_CHART_HEIGHT : -height];
  }

  tipOf(points) {
    if (points.length === 0) return "";
    const at = points.map((point) => ({ ...this.series[this.shown[point.seriesIndex]], i: point.dataIndex, color: point.color }));
    const values = at.map((series) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.backgroundColor = series.color;
      const spread = series.band && Number.isFinite(series.band[series.i]) ? ` ± ${significant(series.band[series.i])}` : "";
      return element("span", { class: "entry" }, swatch, element("span", { class: "name" }, series.name), element("span", { class: "value" }, significant(series.y[series.i]) + spread));
    });
    const head = element("div", { class: "where" }, `${this.chart.xLabel} ${place(at[0].x[at[0].i])}`);
    return element("div", {}, head, element("div", { class: values.length > MOST_VALUES_OVER_LINES ? "values many" : "values" }, ...values));
  }
}

function finite(value) {
  return Number.isFinite(value) ? value : NaN;
}

function axis(style, scale, ends, ticks) {
  const places = ticks.map(scale.at);
  const nearest = (value) => ticks[places.reduce((best, at, i) => (Math.abs(at - value) < Math.abs(places[best] - value) ? i : best), 0)];
  const [min, max] = ends.map(scale.at);
  return {
    ...style,
    type: "value",
    min: min === max ? min - 0.5 : min,
    max: min === max ? max + 0.5 : max,
    axisTick: { ...style.axisTick, customValues: places },
    axisLabel: { ...style.axisLabel, customValues: places, hideOverlap: true, formatter: (value) => tickLabel(nearest(value)) },
  };
}

/** Runs of points of a series that have a band: {x, low, high} each. */
function stretches({ x, y, band }) {
  const found = [[]];
  y.forEach((value, i) => {
    if (Number.isFinite(value) && Number.isFinite(band[i])) found.at(-1).push({ x: x[i], low: value - band[i], high: value + band[i] });
    else if (found.at(-1).length > 0) found.push([]);
  });
  return found.filter((stretch) => stretch.length > 1);
}

const SVG = "http://www.w3.org/2000/svg";

/** A piece of a line as it is drawn. */
function sample(style) {
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "line");
  const dash = style.dash === "solid" ? "none" : style.dash.join(" ");
  const attributes = { x1: 0, y1: 5, x2: 26, y2: 5, stroke: style.color, "stroke-width": 2, "stroke-dasharray": dash };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  for (const [name, value] of Object.entries({ width: 26, height: 10, "aria-hidden": true })) svg.setAttribute(name, value);
  svg.append(line);
  return svg;
}
