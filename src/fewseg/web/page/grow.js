// @ts-check
/** What a click on an object means: all that is like it, as `fewseg segment --point` grows it (fewseg/data/marks.py).
 *
 * Walkers go from pixel to pixel, between like colours more often; what is more likely to meet the object's places than
 * the background's is the object (Grady, "Random Walks for Image Segmentation", TPAMI 2006).
 */

/** @typedef {import("./view.js").Point} Point */

const SIDE = 256;
const [BETA, BETA_BORDER] = [130, 30];
const [OBJECT, BACKGROUND] = [1, 2];
const [ALIKE_SIDE, ALIKE_RADIUS, ALIKE_SPREADS, ALIKE_LEAST] = [192, 0.03, 2.5, 0.05]; // small, so that texture is even
const [STEPS, CLOSE] = [2000, 1e-6]; // at most; of the first residual's square

/** @param {ImageBitmap} photo @param {Point[]} on places on the object @param {Point[]} off places beside it
 * @returns {Uint8Array} 1 the object, of every pixel of the photo */
export function grown(photo, on, off) {
  const { colors, width, height, scale } = reduced(photo, SIDE);
  const seeds = new Uint8Array(width * height);
  const radius = Math.max(1, 0.01 * Math.max(width, height));
  for (const [value, points] of /** @type {[number, Point[]][]} */ ([[OBJECT, on], [BACKGROUND, off]]))
    for (const [x, y] of points) disc(seeds, width, height, x * scale, y * scale, radius, value);
  if (!off.length)
    for (let i = 0; i < seeds.length; i++) {
      const [x, y] = [i % width, Math.floor(i / width)];
      if (!seeds[i] && (!x || !y || x === width - 1 || y === height - 1)) seeds[i] = BACKGROUND;
    }
  const chance = metFirst(colors, seeds, width, height, off.length ? BETA : BETA_BORDER);
  return enlarged(chance, width, height, photo.width, photo.height);
}

/** What hangs together with a place and has the colours of what is close around it: 1, of every pixel.
 * @param {ImageBitmap} photo @param {Point} place @returns {Uint8Array} */
export function alike(photo, [x, y]) {
  const { colors, width, height, scale } = reduced(photo, ALIKE_SIDE);
  const [cx, cy] = [Math.min(width - 1, Math.floor(x * scale)), Math.min(height - 1, Math.floor(y * scale))];
  const around = new Uint8Array(width * height);
  disc(around, width, height, cx + 0.5, cy + 0.5, Math.max(1.5, ALIKE_RADIUS * Math.max(width, height)), 1);
  const bands = [0, 1, 2].map((band) => colors.filter((_, i) => i % 3 === band));
  const means = bands.map((values) => meanOf(values.filter((_, i) => around[i])));
  const far = colors.slice(0, width * height).map((_, i) => bands.reduce((sum, values, band) => sum + (values[i] - means[band]) ** 2, 0));
  const most = Math.max(ALIKE_SPREADS ** 2 * meanOf(far.filter((_, i) => around[i])), ALIKE_LEAST ** 2);
  const found = new Float64Array(width * height);
  const open = [cy * width + cx];
  for (let i = open.pop(); i !== undefined; i = open.pop()) {
    if (found[i] || (far[i] > most && !around[i])) continue;
    found[i] = 1;
    if (i % width) open.push(i - 1);
    if (i % width < width - 1) open.push(i + 1);
    if (i >= width) open.push(i - width);
    if (i + width < found.length) open.push(i + width);
  }
  return enlarged(found, width, height, photo.width, photo.height);
}

const meanOf = (/** @type {Float64Array} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** A photo's colours, CIE Lab, at a size of which no side is longer. @param {ImageBitmap} photo @param {number} longest */
function reduced(photo, longest) {
  const scale = Math.min(1, longest / Math.max(photo.width, photo.height));
  const [width, height] = [photo.width, photo.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser draws no pictures");
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, 0, 0, width, height);
  return { colors: lab(context.getImageData(0, 0, width, height).data), width, height, scale };
}

/** @param {Uint8Array} seeds @param {number} width @param {number} height @param {number} cx @param {number} cy
 * @param {number} radius @param {number} value */
function disc(seeds, width, height, cx, cy, radius, value) {
  for (let y = Math.max(0, Math.floor(cy - radius)); y <= Math.min(height - 1, cy + radius); y++)
    for (let x = Math.max(0, Math.floor(cx - radius)); x <= Math.min(width - 1, cx + radius); x++)
      if ((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius ** 2) seeds[y * width + x] = value;
}

/** CIE Lab of sRGB, D65, in hundredths. @param {Uint8ClampedArray} rgba */
function lab(rgba) {
  const linear = Float64Array.from({ length: 256 }, (_, v) => (v / 255 > 0.04045 ? ((v / 255 + 0.055) / 1.055) ** 2.4 : v / 255 / 12.92));
  const root = (/** @type {number} */ t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  const out = new Float64Array((3 * rgba.length) / 4);
  for (let i = 0, to = 0; i < rgba.length; i += 4) {
    const [r, g, b] = [linear[rgba[i]], linear[rgba[i + 1]], linear[rgba[i + 2]]];
    const x = root((0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.95047);
    const y = root(0.212671 * r + 0.71516 * g + 0.072169 * b);
    const z = root((0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883);
    out[to++] = 1.16 * y - 0.16;
    out[to++] = 5 * (x - y);
    out[to++] = 2 * (y - z);
  }
  return out;
}

/** The chance of each pixel that a walker meets the object first: conjugate gradients on the pixels that are open.
 * @param {Float64Array} colors @param {Uint8Array} seeds @param {number} width @param {number} height @param {number} beta */
function metFirst(colors, seeds, width, height, beta) {
  const mean = meanOf(colors);
  const spread = Math.sqrt(colors.reduce((sum, value) => sum + (value - mean) ** 2, 0) / colors.length);
  const scale = beta / (10 * Math.max(spread, 1e-9) * Math.sqrt(3));
  const like = (/** @type {number} */ i, /** @type {number} */ j) => {
    const [a, b, c] = [0, 1, 2].map((band) => colors[3 * i + band] - colors[3 * j + band]);
    return Math.exp(-scale * (a * a + b * b + c * c)) + 1e-10;
  };
  const count = width * height;
  const [right, down, degree] = [new Float64Array(count), new Float64Array(count), new Float64Array(count)];
  for (let i = 0; i < count; i++) {
    if (i % width < width - 1) right[i] = like(i, i + 1);
    if (i + width < count) down[i] = like(i, i + width);
    degree[i] += right[i] + down[i];
    if (right[i]) degree[i + 1] += right[i];
    if (down[i]) degree[i + width] += down[i];
  }
  const sums = (/** @type {Float64Array} */ values, /** @type {Float64Array} */ out) => {
    out.fill(0);
    for (let i = 0; i < count; i++) {
      if (right[i]) {
        out[i] += right[i] * values[i + 1];
        out[i + 1] += right[i] * values[i];
      }
      if (down[i]) {
        out[i] += down[i] * values[i + width];
        out[i + width] += down[i] * values[i];
      }
    }
  };
  const chance = Float64Array.from(seeds, (seed) => (seed === OBJECT ? 1 : 0));
  const [residual, product] = [new Float64Array(count), new Float64Array(count)];
  sums(chance, residual);
  for (let i = 0; i < count; i++) if (seeds[i]) residual[i] = 0;
  const towards = residual.map((value, i) => value / degree[i]);
  let size = residual.reduce((sum, value, i) => sum + value * towards[i], 0);
  let left = residual.reduce((sum, value) => sum + value * value, 0);
  const enough = CLOSE * left;
  for (let step = 0; step < STEPS && left > enough; step++) {
    sums(towards, product);
    let along = 0;
    for (let i = 0; i < count; i++) {
      product[i] = seeds[i] ? 0 : degree[i] * towards[i] - product[i];
      along += towards[i] * product[i];
    }
    const far = size / along;
    let next = (left = 0);
    for (let i = 0; i < count; i++) {
      chance[i] += far * towards[i];
      residual[i] -= far * product[i];
      next += (residual[i] * residual[i]) / degree[i];
      left += residual[i] * residual[i];
    }
    for (let i = 0; i < count; i++) towards[i] = residual[i] / degree[i] + (next / size) * towards[i];
    size = next;
  }
  return chance;
}

/** Where a chance is above one half, at the photo's size. @param {Float64Array} chance @param {number} w @param {number} h
 * @param {number} width @param {number} height */
function enlarged(chance, w, h, width, height) {
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const v = Math.min(h - 1, Math.max(0, ((y + 0.5) * h) / height - 0.5));
    const [top, bottom] = [Math.floor(v) * w, Math.ceil(v) * w];
    for (let x = 0; x < width; x++) {
      const u = Math.min(w - 1, Math.max(0, ((x + 0.5) * w) / width - 0.5));
      const [left, right, across, below] = [Math.floor(u), Math.ceil(u), u % 1, v % 1];
      const upper = chance[top + left] * (1 - across) + chance[top + right] * across;
      const lower = chance[bottom + left] * (1 - across) + chance[bottom + right] * across;
      out[y * width + x] = upper * (1 - below) + lower * below > 0.5 ? 1 : 0;
    }
  }
  return out;
}
