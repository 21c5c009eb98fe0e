// Scales of line charts: the chart library draws linear axes, and these say what stands where on them.

/** Numbers 1, 2 or 5 times a power of ten apart, at most about `count` of them between two ends. */
function evenTicks(low, high, count) {
  if (!(low < high)) return [low];
  const step = evenStep(low, high, count);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function evenStep(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9));
}

/** Powers of ten, as many as fit; with 2 and 5 times them over a short span, and even ticks over a shorter one. */
function powerTicks(low, high, count) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first >= 2) {
    const stride = Math.ceil((last - first + 1) / Math.max(2, count));
    return range(first, last + 1, stride).map((exponent) => Number(`1e${exponent}`));
  }
  const finer = range(first - 1, last + 2).flatMap((exponent) => [1, 2, 5].map((factor) => Number(`${factor}e${exponent}`)));
  const inside = finer.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  return inside.length >= 3 ? inside : evenTicks(low, high, count).filter((value) => value > 0);
}

function range(start, stop, stride = 1) {
  return Array.from({ length: Math.max(0, Math.ceil((stop - start) / stride)) }, (_, i) => start + i * stride);
}

const SCALES = {
  linear: {
    at: (value) => value,
    ticks: evenTicks,
  },
  log: {
    at: (value) => (value > 0 ? Math.log10(value) : NaN),
    ticks: powerTicks,
  },
  // Step 0 has a place on it, and late steps do not crowd out the first ones.
  step: {
    at: (value) => (value >= 0 ? Math.log10(1 + value) : NaN),
    ticks: (low, high, count) => {
      const positive = high >= 3 ? powerTicks(Math.max(1, low), high, count - 1) : evenTicks(Math.max(1, low), high, count - 1);
      return low <= 0 ? [0, ...positive] : positive;
    },
  },
};

/** [least, greatest] of all finite numbers for which the scale has a place; null where there are none. */
function extentOf(arrays, scale) {
  let low = Infinity;
  let high = -Infinity;
  for (const array of arrays) {
    for (const value of array) {
      if (Number.isFinite(value) && Number.isFinite(scale.at(value))) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
  }
  return low <= high ? [low, high] : null;
}

/** The ends of a vertical axis: with 0 where it is near, on even numbers if linear, with a little room if not. */
function roomFor([low, high], name) {
  if (name === "log") {
    const room = low < high ? 10 ** (0.03 * (Math.log10(high) - Math.log10(low))) : 2; // where high / low is beyond all numbers
    return [Math.max(Number.MIN_VALUE, low / room), Math.min(Number.MAX_VALUE, high * room)];
  }
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  const bottom = low > 0 && low < high / 2 ? 0 : low;
  const step = evenStep(bottom, high, 5);
  return [Math.floor(bottom / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
}
