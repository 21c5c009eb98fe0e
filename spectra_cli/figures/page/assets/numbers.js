// Numbers as the page embeds them, and as people read them.

const NOTHING = "\u2013";
const data = JSON.parse(document.getElementById("data").textContent);

/** Values of which the page holds the upper three bytes of a little-endian float32 each, as base64, or a list of them all. */
function unpacked(text) {
  if (Array.isArray(text)) return Float64Array.from(text, (value) => (value === null ? NaN : Number(value)));
  const bytes = atob(text);
  const words = new Uint32Array(bytes.length / 3);
  for (let i = 0; i < words.length; i += 1) {
    const at = 3 * i;
    words[i] = (bytes.charCodeAt(at) << 8) | (bytes.charCodeAt(at + 1) << 16) | (bytes.charCodeAt(at + 2) << 24);
  }
  return new Float32Array(words.buffer);
}

/** Four significant digits without zeros at the end; whole numbers whole where the page holds them exactly. */
function significant(value) {
  if (Number.isNaN(value)) return NOTHING;
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Number.isInteger(value) && Math.abs(value) <= 65536) return String(value);
  const [digits, power] = value.toExponential(3).split("e");
  const exponent = Number(power);
  return exponent >= -4 && exponent < 7 ? String(Number(`${digits}e${power}`)) : `${Number(digits)}e${exponent}`;
}

/** A place on an axis: a step, which is never rounded, or the name of a category. */
function place(value) {
  return typeof value === "string" || Number.isInteger(value) ? String(value) : significant(value);
}

const SUPERSCRIPT = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079";

/** The label of a tick: short, as there is little room, and never rounded to something else. */
function tickLabel(value) {
  if (typeof value === "string") return value;
  const size = Math.abs(value);
  if (size >= 1e4 || (size > 0 && size < 1e-3)) {
    const [digits, exponent] = value.toExponential().split("e");
    const power = `10${Number(exponent) < 0 ? "\u207b" : ""}${[...String(Math.abs(exponent))].map((d) => SUPERSCRIPT[d]).join("")}`;
    if (digits === "1" && (size < 1e-3 || size >= 1e7)) return power;
    if (size < 1e-3 || size >= 1e9) return `${digits.slice(0, 5)}\u00b7${power}`;
    if (size >= 1e6 && value % 1e4 === 0) return `${value / 1e6}M`;
    if (value % 100 === 0) return `${value / 1e3}k`;
  }
  return String(Number(value.toPrecision(12)));
}
