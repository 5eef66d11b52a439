// @ts-check
/** The colours of classes, told apart by colour-blind people too, and of probabilities; what is painted over a photo. */

/** @typedef {[number, number, number]} Color */

/** @type {Color[]} */
const COLORS = [[230, 57, 70], [0, 119, 187], [238, 153, 51], [0, 153, 136], [170, 68, 153], [204, 187, 68], [102, 204, 238], [136, 136, 136]];
/** @type {Color[]} from improbable to probable, dark to light: readable without colours */
const HEAT = [[13, 8, 60], [110, 20, 110], [200, 65, 75], [250, 155, 40], [252, 250, 160]];
const TINT = 130; // of 255: the photo is seen through it
const [LIGHT, DARK] = [0xe0ffffff, 0x90000000]; // opacity, then white and black, as ImageData has them in memory

/** @type {Map<string, number>} */
const known = new Map();

/** A class's colour: it keeps the one that it had first. After the last colour comes the first again. @param {string} name
 * @returns {Color} */
export function colorOf(name) {
  if (!known.has(name)) known.set(name, known.size);
  return COLORS[(known.get(name) ?? 0) % COLORS.length];
}

/** The colour that a name has, or will have. @param {string} name @returns {Color} */
export const colorFor = (name) => COLORS[(known.get(name) ?? known.size) % COLORS.length];

/** A dot of a class's colour. @param {string} name */
export function swatch(name) {
  const dot = document.createElement("span");
  dot.className = "swatch";
  dot.style.background = `rgb(${colorOf(name).join(" ")})`;
  return dot;
}

/** The colours of label values over a photo, half transparent, with a light line within their edges and a dark one beside it: a mask
 * is seen on a photo of its own colour, too.
 * @param {Uint8Array} labels 0 nothing, 1.. the classes @param {number} width @param {number} height
 * @param {(label: number) => Color} color */
export function tinted(labels, width, height, color) {
  const image = mapped(labels, width, height, (label) => (label ? [...color(label), TINT] : [0, 0, 0, 0]));
  const pixels = new Uint32Array(image.data.buffer);
  const line = Math.ceil(Math.max(width, height) / 500);
  for (let y = 0, i = 0; y < height; y++) {
    const [above, below] = [y < line ? 0 : line * width, y < height - line ? line * width : 0];
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      const [left, right] = [x < line ? 0 : line, x < width - line ? line : 0];
      if (labels[i - above] === label && labels[i + below] === label && labels[i - left] === label && labels[i + right] === label) continue;
      pixels[i] = label ? LIGHT : DARK;
    }
  }
  return image;
}

/** Probabilities as colours. @param {Uint8Array} levels in hundredths @param {number} width @param {number} height */
export function heated(levels, width, height) {
  return mapped(levels, width, height, (level) => {
    const place = (Math.min(level, 100) / 100) * (HEAT.length - 1);
    const [from, to] = [HEAT[Math.floor(place)], HEAT[Math.ceil(place)]];
    const share = place - Math.floor(place);
    return [...from.map((value, i) => value + share * (to[i] - value)), 175];
  });
}

/** @param {Uint8Array} values @param {number} width @param {number} height @param {(value: number) => number[]} rgba */
function mapped(values, width, height, rgba) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  for (let value = 0; value < 256; value++) bytes.set(rgba(value), 4 * value);
  for (let i = 0; i < values.length; i++) pixels[i] = table[values[i]];
  return image;
}

/** A photo with something over it. @param {HTMLCanvasElement} canvas @param {ImageBitmap} photo @param {ImageData | null} over */
export function paint(canvas, photo, over) {
  const context = canvas.getContext("2d");
  if (!context) return;
  context.drawImage(photo, 0, 0);
  if (!over) return;
  const layer = new OffscreenCanvas(photo.width, photo.height);
  layer.getContext("2d")?.putImageData(over, 0, 0);
  context.drawImage(layer, 0, 0);
}
