// @ts-check
/** Probabilities that were computed elsewhere, at another size than they are shown. */

/** @typedef {{map: Uint16Array<ArrayBuffer>, width: number, height: number, presence: number | null, quality: number | null}} Map
 *  The foreground's probability in 65535ths, rounded up; the probability that the class is there; the overlap to expect. */

/** Of every pixel of another size, between the values of its neighbours. @param {Map} given @param {number} width
 * @param {number} height @returns {Float32Array} */
export function enlarged({ map, width: w, height: h }, width, height) {
  const [columns, rows] = [neighbours(w, width), neighbours(h, height)];
  const out = new Float32Array(width * height);
  for (let y = 0, to = 0; y < height; y++) {
    const [above, below, down] = [rows.first[y] * w, rows.second[y] * w, rows.share[y]];
    for (let x = 0; x < width; x++, to++) {
      const [left, right, across] = [columns.first[x], columns.second[x], columns.share[x]];
      const upper = map[above + left] + across * (map[above + right] - map[above + left]);
      const lower = map[below + left] + across * (map[below + right] - map[below + left]);
      out[to] = (upper + down * (lower - upper)) / 65535;
    }
  }
  return out;
}

/** @param {number} from @param {number} to */
function neighbours(from, to) {
  const [first, second] = [new Int32Array(to), new Int32Array(to)];
  const share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.min(from - 1, Math.max(0, ((i + 0.5) * from) / to - 0.5));
    first[i] = Math.floor(at);
    second[i] = Math.min(from - 1, first[i] + 1);
    share[i] = at - first[i];
  }
  return { first, second, share };
}
