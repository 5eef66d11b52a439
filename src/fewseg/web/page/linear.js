// @ts-check
/** A linear classifier of positions that a class's supports train: `fewseg.linear`, which says what it is and why. */

/** @typedef {import("./graphs.js").Tensors} Tensors */
/** @typedef {{channels: number, height: number, width: number, values: Float64Array}} Level  (K, C, h, w) */
/** @typedef {{levels: Float64Array[], bias: number}} Weights  of every level's channels, in the order of the names */

const [DECAY, STEPS, POWER_STEPS, SAFETY] = [1e-4, 100, 8, 1.5]; // Python's
const FINEST = "fine";

/** What the supports teach. @param {Tensors} supports of all, (1, K, ...), by Python's names @returns {Weights} */
export function classifier(supports) {
  const levels = levelsOf(supports, "support_");
  const { height, width } = levels[levels.length - 1];
  const { dims, data } = supports.support_mask;
  const [shots, size] = [dims[1], height * width];
  const [share, known] = [new Float64Array(shots * size), new Float64Array(shots * size)];
  const [rows, columns] = [covered(dims[2], height), covered(dims[3], width)];
  for (let k = 0, at = 0; k < shots; k++)
    for (const [top, bottom] of rows)
      for (const [left, right] of columns) {
        let [inside, labelled] = [0, 0];
        for (let y = top; y < bottom; y++)
          for (let x = left; x < right; x++) {
            const value = data[(k * dims[2] + y) * dims[3] + x];
            if (value === 1) inside++;
            if (value !== 255) labelled++;
          }
        share[at] = inside / Math.max(labelled, 1e-12);
        known[at++] = labelled / ((bottom - top) * (right - left));
      }
  return learnt(levels, share, known, shots);
}

/** How far the foreground's logit is above the background's in a photo: (side, side).
 * @param {Tensors} query @param {Weights} weights @param {number} side @returns {Float64Array} */
export function lead(query, weights, side) {
  const levels = levelsOf(query, "query_");
  const { height, width } = levels[levels.length - 1];
  return resized(scores(levels, weights, 1), height, width, side, side);
}

/** Nesterov's steps from the classifier that says the same everywhere.
 * @param {Level[]} levels @param {Float64Array} share @param {Float64Array} known @param {number} shots */
function learnt(levels, share, known, shots) {
  const mean = (/** @type {Float64Array} */ values) => values.reduce((sum, one) => sum + one, 0) / values.length;
  const labelled = Math.max(mean(known), 1e-6);
  const means = back(levels, known, shots).levels.map((level) => level.map((one) => one / labelled));
  for (const [n, { channels, height, width, values }] of levels.entries())
    for (let i = 0; i < values.length; i++) values[i] -= means[n][Math.floor(i / (height * width)) % channels];
  const start = Math.min(Math.max(mean(share.map((one, i) => one * known[i])) / labelled, 1e-4), 1 - 1e-4);

  let steepest = back(levels, share.map((one, i) => (one - start) * known[i]), shots);
  let length = norm(steepest);
  for (let n = 0; n < POWER_STEPS; n++) {
    const unit = combined(steepest, 1 / Math.max(length, 1e-12), steepest, 0);
    steepest = back(levels, scores(levels, unit, shots).map((one, i) => one * known[i]), shots);
    length = norm(steepest);
  }
  const [step, biasStep] = [1 / ((SAFETY * length) / 4 + DECAY), 4 / (SAFETY * labelled)];
  let weights = combined(steepest, 0, steepest, 0);
  weights.bias = Math.log(start / (1 - start));
  let ahead = weights;
  for (let n = 0; n < STEPS; n++) {
    const wrong = scores(levels, ahead, shots).map((one, i) => (sigmoid(one) - share[i]) * known[i]);
    const slope = back(levels, wrong, shots);
    const moved = combined(ahead, 1 - step * DECAY, slope, -step);
    moved.bias = ahead.bias - biasStep * slope.bias;
    const momentum = n / (n + 3);
    ahead = combined(moved, 1 + momentum, weights, -momentum);
    weights = moved;
  }
  for (const [n, level] of weights.levels.entries())
    weights.bias -= level.reduce((sum, one, c) => sum + one * means[n][c], 0);
  return weights;
}

/** The levels of K supports or one photo, by their names' order, the finest last and of unit length, as the others are.
 * @param {Tensors} features @param {string} prefix @returns {Level[]} */
function levelsOf(features, prefix) {
  const names = Object.keys(features).filter((name) => name.startsWith(prefix) && name.endsWith("_unit")).sort();
  return [...names, prefix + FINEST].map((name) => {
    const { dims, data } = features[name];
    const [channels, height, width] = dims.slice(-3);
    const values = Float64Array.from(data);
    if (name === prefix + FINEST) toUnits(values, channels, height * width);
    return { channels, height, width, values };
  });
}

/** @param {Float64Array} values (K, C, size) @param {number} channels @param {number} size */
function toUnits(values, channels, size) {
  for (let first = 0; first < values.length; first += channels * size)
    for (let at = first; at < first + size; at++) {
      let sum = 0;
      for (let c = 0; c < channels; c++) sum += values[at + c * size] ** 2;
      const length = Math.max(Math.sqrt(sum), 1e-12);
      for (let c = 0; c < channels; c++) values[at + c * size] /= length;
    }
}

/** The scores (K, H, W) of the finest level's positions.
 * @param {Level[]} levels @param {Weights} weights @param {number} shots */
function scores(levels, weights, shots) {
  const finest = levels[levels.length - 1];
  const found = new Float64Array(shots * finest.height * finest.width).fill(weights.bias);
  for (const [n, { channels, height, width, values }] of levels.entries()) {
    const size = height * width;
    for (let k = 0; k < shots; k++) {
      const own = new Float64Array(size);
      for (let c = 0; c < channels; c++) {
        const [weight, from] = [weights.levels[n][c], (k * channels + c) * size];
        for (let i = 0; i < size; i++) own[i] += weight * values[from + i];
      }
      const large = resized(own, height, width, finest.height, finest.width);
      for (let i = 0, at = k * large.length; i < large.length; i++) found[at + i] += large[i];
    }
  }
  return found;
}

/** The transpose of `scores`, over the number of positions.
 * @param {Level[]} levels @param {Float64Array} given @param {number} shots @returns {Weights} */
function back(levels, given, shots) {
  const finest = levels[levels.length - 1];
  const per = finest.height * finest.width;
  const slopes = levels.map(({ channels, height, width, values }) => {
    const [slope, size] = [new Float64Array(channels), height * width];
    for (let k = 0; k < shots; k++) {
      const own = gathered(given.subarray(k * per, (k + 1) * per), height, width, finest.height, finest.width);
      for (let c = 0; c < channels; c++) {
        const from = (k * channels + c) * size;
        let sum = 0;
        for (let i = 0; i < size; i++) sum += values[from + i] * own[i];
        slope[c] += sum / given.length;
      }
    }
    return slope;
  });
  return { levels: slopes, bias: given.reduce((sum, one) => sum + one, 0) / given.length };
}

/** a * one + b * other. @param {Weights} one @param {number} a @param {Weights} other @param {number} b @returns {Weights} */
function combined(one, a, other, b) {
  const levels = one.levels.map((level, n) => level.map((value, c) => a * value + b * other.levels[n][c]));
  return { levels, bias: a * one.bias + b * other.bias };
}

/** @param {Weights} weights */
const norm = ({ levels, bias }) =>
  Math.sqrt(levels.reduce((sum, level) => sum + level.reduce((inner, one) => inner + one * one, 0), bias * bias));

/** @param {number} value */
const sigmoid = (value) => 1 / (1 + Math.exp(-Math.min(Math.max(value, -30), 30)));

/** Of each position of a side that is made smaller, the first and the last behind of those that it covers.
 * @param {number} before @param {number} after */
const covered = (before, after) =>
  Array.from({ length: after }, (_, i) => [Math.floor((i * before) / after), Math.ceil(((i + 1) * before) / after)]);

/** Of each position of a resized side, the two that a linear resize takes, and how much of the second.
 * @param {number} before @param {number} after */
const taps = (before, after) =>
  Array.from({ length: after }, (_, i) => {
    const place = Math.min(Math.max(((i + 0.5) * before) / after - 0.5, 0), before - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, before - 1), place - low];
  });

/** A map (h, w), bilinear. @param {Float64Array} map @param {number} h @param {number} w @param {number} height
 * @param {number} width @returns {Float64Array} */
function resized(map, h, w, height, width) {
  if (h === height && w === width) return map;
  const [out, columns] = [new Float64Array(height * width), taps(w, width)];
  for (const [y, [top, bottom, down]] of taps(h, height).entries())
    for (const [x, [left, right, across]] of columns.entries()) {
      const above = map[top * w + left] * (1 - across) + map[top * w + right] * across;
      const below = map[bottom * w + left] * (1 - across) + map[bottom * w + right] * across;
      out[y * width + x] = above * (1 - down) + below * down;
    }
  return out;
}

/** The transpose of `resized`. @param {Float64Array} map (height, width) @param {number} h @param {number} w
 * @param {number} height @param {number} width @returns {Float64Array} */
function gathered(map, h, w, height, width) {
  if (h === height && w === width) return map;
  const [out, columns] = [new Float64Array(h * w), taps(w, width)];
  for (const [y, [top, bottom, down]] of taps(h, height).entries())
    for (const [x, [left, right, across]] of columns.entries()) {
      const value = map[y * width + x];
      out[top * w + left] += value * (1 - down) * (1 - across);
      out[top * w + right] += value * (1 - down) * across;
      out[bottom * w + left] += value * down * (1 - across);
      out[bottom * w + right] += value * down * across;
    }
  return out;
}
