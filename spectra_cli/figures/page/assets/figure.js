// What heat maps and line charts have in common: elements, colours, and when they are drawn.

const VIRIDIS = (
  "#440154 #470d60 #48186a #482374 #472d7b #453781 #424086 #3e4989 #3b528b #375b8d #33638d " +
  "#2f6b8e #2c728e #297a8e #26828e #23898e #21918c #1f988b #1fa088 #22a785 #28ae80 #32b67a " +
  "#3fbc73 #4ec36b #5ec962 #70cf57 #84d44b #98d83e #addc30 #c2df23 #d8e219 #ece51b #fde725"
).split(" ");

/** Okabe and Ito's colours, those first that stand out most from the paper. */
const CATEGORIES = {
  light: ["#0072b2", "#d55e00", "#009e73", "#a8568a", "#1b1f24", "#b87a00", "#3a8fc0"],
  dark: ["#56b4e9", "#e69f00", "#2fbf93", "#d88ab8", "#e6e9ec", "#f0e442", "#f07a3c"],
};
const DASHES = ["solid", [7, 3], [2, 2], [8, 3, 2, 3]];
const SYMBOLS = ["circle", "rect", "triangle", "diamond"];

/** An element; strings among its children become text, never markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A dotted name as text that may break after each of its components. */
function breakable(name) {
  return name.split(/(?<=[.\/_])/).flatMap((part) => [part, element("wbr")]);
}

/** Colours of the style sheet as the library needs them, which knows no custom properties. */
function colours() {
  const probe = element("span");
  document.body.append(probe);
  const resolved = {};
  for (const name of ["ink", "muted", "rule", "paper", "accent", "missing"]) {
    probe.style.color = `var(--${name})`;
    resolved[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  const [r, g, b] = resolved.paper.match(/\d+/g).map(Number);
  resolved.dark = r + g + b < 3 * 128;
  return resolved;
}

/** The colour at a share of the scale, 0 to 1. */
function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const low = Math.floor(at);
  const high = Math.min(VIRIDIS.length - 1, low + 1);
  const mixed = [1, 3, 5].map((i) => {
    const [a, b] = [VIRIDIS[low], VIRIDIS[high]].map((hex) => parseInt(hex.slice(i, i + 2), 16));
    return Math.round(a + (b - a) * (at - low));
  });
  return `rgb(${mixed.join(", ")})`;
}

/** How each of `count` lines is drawn: along viridis if they are an index, else by colour, dash and symbol. */
function lineStyles(count, ordered, dark) {
  return range(0, count).map((i) => {
    if (!ordered) {
      const palette = CATEGORIES[dark ? "dark" : "light"];
      return {
        color: palette[i % palette.length],
        dash: DASHES[(i + Math.floor(i / palette.length)) % DASHES.length],
        symbol: SYMBOLS[(i + Math.floor(i / palette.length)) % SYMBOLS.length],
      };
    }
    // The first line stands out most; the end of the scale that is like the paper is left out.
    const share = count > 1 ? i / (count - 1) : 0;
    return { color: viridis(dark ? 1 - 0.7 * share : 0.88 * share), dash: "solid", symbol: "circle" };
  });
}

const measuring = document.createElement("canvas").getContext("2d");

function widthOf(texts, font) {
  measuring.font = font;
  return texts.reduce((widest, text) => Math.max(widest, measuring.measureText(text).width), 0);
}

const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
const CODE_FONT = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

/** The label, line and ticks of an axis whose ticks are given, in the page's type. */
function axisStyle(shades) {
  return {
    axisLine: { show: true, onZero: false, lineStyle: { color: shades.muted } },
    axisTick: { show: true, lineStyle: { color: shades.muted } },
    axisLabel: { color: shades.muted, fontFamily: FONT, fontSize: 11.5 },
    splitLine: { show: false },
    nameTextStyle: { color: shades.muted, fontFamily: FONT, fontSize: 12 },
  };
}

const live = new Set();

/** Draws charts when they come near the window, as a page of many is slow to begin with otherwise. */
const nearby = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => entry.target.chart.mount()),
  { rootMargin: "600px" },
);
const resized = new ResizeObserver((entries) => entries.forEach((entry) => entry.target.chart.redraw()));

/** A chart within a `figure` element that has its caption already. */
class Figure {
  /** `owner` is the name of the matrix or connection that the chart is of; "" where it is of many. */
  constructor(figure, chart, owner) {
    this.figure = figure;
    this.chart = chart;
    this.owner = owner;
    this.canvas = element("div", { class: "canvas" });
    this.canvas.chart = this;
  }

  /** To be called when the canvas is in the page. */
  attach() {
    this.figure.append(dataAsTable(this.chart, this.owner));
    live.add(this);
    nearby.observe(this.canvas);
  }

  mount() {
    if (this.drawn) return;
    nearby.unobserve(this.canvas);
    // At least two pixels to one, so that a printed page is sharp.
    this.drawn = echarts.init(this.canvas, null, { devicePixelRatio: Math.max(2, window.devicePixelRatio) });
    resized.observe(this.canvas);
    this.redraw();
  }

  redraw() {
    if (!this.drawn || this.canvas.clientWidth === 0) return;
    this.drawn.resize();
    this.drawn.setOption({ animation: false, ...this.option(colours()) }, { notMerge: true });
  }

  dispose() {
    live.delete(this);
    nearby.unobserve(this.canvas);
    resized.unobserve(this.canvas);
    if (this.drawn) this.drawn.dispose();
  }
}

window.addEventListener("beforeprint", () => live.forEach((figure) => figure.mount()));
