// @ts-check
/** Connected parts of label maps: small ones left out, counted, and as outlines. */

/** @typedef {{label: number, pixels: number, box: [number, number, number, number], inside: Int32Array}} Part
 *  Left, top, right, bottom of the box; the places of its pixels. */

/** Every connected part (8 neighbours) of every label above 0. @param {Uint8Array} labels @param {number} width
 * @param {number} height @param {(part: Part) => void} each */
export function parts(labels, width, height, each) {
  const seen = new Uint8Array(labels.length);
  const stack = new Int32Array(labels.length);
  for (let start = 0; start < labels.length; start++) {
    const label = labels[start];
    if (!label || seen[start]) continue;
    let [count, next] = [1, 0];
    stack[0] = start;
    seen[start] = 1;
    /** @type {[number, number, number, number]} */
    const box = [width, height, 0, 0];
    while (next < count) {
      const i = stack[next++];
      const [x, y] = [i % width, Math.floor(i / width)];
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = Math.max(box[3], y + 1);
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++)
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const j = v * width + u;
          if (labels[j] === label && !seen[j]) {
            seen[j] = 1;
            stack[count++] = j;
          }
        }
    }
    each({ label, pixels: count, box, inside: stack.subarray(0, count) });
  }
}

/** Labels without parts of fewer pixels; changed in place. @param {Uint8Array} labels @param {number} width
 * @param {number} height @param {number} least */
export function withoutSpecks(labels, width, height, least) {
  if (least > 1)
    parts(labels, width, height, ({ pixels, inside }) => {
      if (pixels < least) for (const i of inside) labels[i] = 0;
    });
  return labels;
}

/** The rings around all pixels of a label, along their sides: outer ones run so that their area (x y' - x' y) is positive,
 * holes the other way. @param {Uint8Array} labels @param {number} width @param {number} height @param {number} label
 * @returns {[number, number][][]} corners, the first again at the end */
export function rings(labels, width, height, label) {
  const inside = (/** @type {number} */ x, /** @type {number} */ y) => x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === label;
  /** @type {Map<number, number[]>} */
  const sides = new Map(); // from a corner to the next
  const across = width + 1;
  const add = (/** @type {number} */ from, /** @type {number} */ to) => sides.set(from, [...(sides.get(from) ?? []), to]);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (labels[y * width + x] !== label) continue;
      const at = y * across + x;
      if (!inside(x, y - 1)) add(at, at + 1);
      if (!inside(x + 1, y)) add(at + 1, at + 1 + across);
      if (!inside(x, y + 1)) add(at + 1 + across, at + across);
      if (!inside(x - 1, y)) add(at + across, at);
    }
  const found = [];
  for (const start of sides.keys())
    while (sides.get(start)?.length) {
      const ring = [start];
      let [at, way] = [start, 0];
      do {
        const ways = sides.get(at) ?? [];
        // where two parts touch at a corner, turn towards the inside: each is a ring of its own
        const turned = { [1]: across, [across]: -1, [-1]: -across, [-across]: 1 }[way];
        const to = ways.length > 1 && turned !== undefined && ways.includes(at + turned) ? at + turned : ways[0];
        ways.splice(ways.indexOf(to), 1);
        if (to - at === way) ring.pop(); // a straight line goes on
        way = to - at;
        at = to;
        ring.push(at);
      } while (at !== start);
      found.push(ring.map((corner) => /** @type {[number, number]} */ ([corner % across, Math.floor(corner / across)])));
    }
  return found;
}

/** Twice the area of a ring. @param {[number, number][]} ring */
export function area(ring) {
  let sum = 0;
  for (let i = 1; i < ring.length; i++) sum += ring[i - 1][0] * ring[i][1] - ring[i][0] * ring[i - 1][1];
  return sum;
}

/** @param {[number, number]} point @param {[number, number][]} ring */
export function within([x, y], ring) {
  let inside = false;
  for (let i = 1; i < ring.length; i++) {
    const [[ax, ay], [bx, by]] = [ring[i - 1], ring[i]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
