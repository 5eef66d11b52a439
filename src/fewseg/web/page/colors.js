// @ts-check
/** The colours of classes in their order, told apart by colour-blind people too; after the last the first again. */

/** @type {[number, number, number][]} */
const COLORS = [[230, 57, 70], [0, 119, 187], [238, 153, 51], [0, 153, 136], [170, 68, 153], [204, 187, 68], [102, 204, 238], [136, 136, 136]];

/** @param {number} index */
export const colorOf = (index) => COLORS[index % COLORS.length];

/** @param {number} index */
export const cssColor = (index) => `rgb(${colorOf(index).join(" ")})`;

/** The colours of label values over a photo, half transparent.
 * @param {Uint8Array} labels 0 nothing, 1.. the classes @param {number} width @param {number} height
 * @param {(label: number) => [number, number, number]} color */
export function tinted(labels, width, height, color) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const known = new Uint32Array(256);
  const bytes = new Uint8Array(known.buffer);
  for (let label = 1; label < 256; label++) bytes.set([...color(label), 130], 4 * label);
  for (let i = 0; i < labels.length; i++) pixels[i] = known[labels[i]];
  return image;
}
