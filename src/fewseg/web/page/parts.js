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

const HARDLY = 20;

/** Labels in which no object is torn into two classes; changed in place. Pieces that touch, that both classes mark on
 * average, and where one leads by less than HARDLY hundredths, are one, of the class of the higher mean: the rule of
 * Python's `label_map`.
 * @template {Uint8Array} Labels @param {Labels} labels @param {Uint8Array[]} maps of every class its probability in
 * hundredths @param {number} width @param {number} height @param {number} threshold in hundredths @returns {Labels} */
export function whole(labels, maps, width, height, threshold) {
  if (!markedTwice(maps, threshold)) return labels;
  const pieces = new Int32Array(labels.length);
  const [owners, sizes, totals] = [[-1], [0], [maps.map(() => 0)]];
  for (const owner of maps.keys()) // class by class: of pieces of one size, the order decides which are joined first
    parts(labels.map((label) => (label === owner + 1 ? label : 0)), width, height, ({ pixels, inside }) => {
      for (const i of inside) pieces[i] = owners.length;
      owners.push(owner);
      sizes.push(pixels);
      totals.push(maps.map((map) => inside.reduce((sum, i) => sum + map[i], 0)));
    });
  const root = owners.map((_, piece) => piece);
  const top = (/** @type {number} */ piece) => {
    while (root[piece] !== piece) piece = root[piece] = root[root[piece]];
    return piece;
  };
  const smaller = (/** @type {[number, number]} */ [one, other]) => Math.min(sizes[one], sizes[other]);
  const pairs = neighbours(pieces, width).map((pair) => ({ pair, size: smaller(pair) }));
  for (const { pair } of pairs.sort((a, b) => a.size - b.size)) {
    const [one, other] = pair.map(top);
    const [mine, its] = [owners[one], owners[other]];
    if (mine !== its) {
      const [ours, theirs] = [one, other].map((piece) => [mine, its].map((owner) => totals[piece][owner] / sizes[piece]));
      if (Math.min(...ours, ...theirs) <= threshold || Math.min(ours[0] - ours[1], theirs[1] - theirs[0]) >= HARDLY) continue;
    }
    sizes[one] += sizes[other];
    totals[one] = totals[one].map((sum, owner) => sum + totals[other][owner]);
    if (mine !== its && totals[one][its] > totals[one][mine]) owners[one] = its;
    root[other] = one;
  }
  for (let i = 0; i < labels.length; i++) if (pieces[i]) labels[i] = owners[top(pieces[i])] + 1;
  return labels;
}

/** Whether any pixel is above the threshold in two maps. @param {Uint8Array[]} maps @param {number} threshold */
function markedTwice(maps, threshold) {
  const once = new Uint8Array(maps[0]?.length ?? 0);
  for (const map of maps)
    for (let i = 0; i < map.length; i++) {
      if (map[i] <= threshold) continue;
      if (once[i]) return true;
      once[i] = 1;
    }
  return false;
}

/** Pairs of pieces of which a pixel of one lies beside, above or below one of the other.
 * @param {Int32Array} pieces their numbers from 1 @param {number} width @returns {[number, number][]} in order */
function neighbours(pieces, width) {
  const [found, most] = [new Set(), pieces.reduce((a, b) => Math.max(a, b), 0) + 1];
  const add = (/** @type {number} */ one, /** @type {number} */ other) => {
    if (one && other && one !== other) found.add(Math.min(one, other) * most + Math.max(one, other));
  };
  for (let i = 0; i < pieces.length; i++) {
    if ((i + 1) % width) add(pieces[i], pieces[i + 1]);
    if (i + width < pieces.length) add(pieces[i], pieces[i + width]);
  }
  return [...found].sort((a, b) => a - b).map((pair) => [Math.floor(pair / most), pair % most]);
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

/** The polygons of a label: each an outer ring and its holes. @param {Uint8Array} labels @param {number} width
 * @param {number} height @param {number} label @returns {[number, number][][][]} */
export function polygons(labels, width, height, label) {
  const all = rings(labels, width, height, label);
  const found = all.filter((ring) => area(ring) > 0).sort((a, b) => area(a) - area(b)).map((outer) => [outer]);
  for (const hole of all.filter((ring) => area(ring) < 0)) {
    const [x, y] = hole[0]; // the first corner of its upper side: just above lies what is around it
    found.find(([outer]) => within([x - 1e-3, y - 1e-3], outer))?.push(hole);
  }
  return found;
}

/** A polygon as one ring: its holes are reached, and left, by the shortest lines. @param {[number, number][][]} polygon */
export function joined([outer, ...holes]) {
  let whole = outer;
  for (const hole of holes) {
    let [least, start, place] = [Infinity, 0, 0];
    for (let i = 1; i < hole.length; i++)
      for (let j = 0; j < whole.length; j++) {
        const far = (hole[i][0] - whole[j][0]) ** 2 + (hole[i][1] - whole[j][1]) ** 2;
        if (far < least) [least, start, place] = [far, i, j];
      }
    const turned = [...hole.slice(start), ...hole.slice(1, start + 1)];
    whole = [...whole.slice(0, place + 1), ...turned, ...whole.slice(place)];
  }
  return whole;
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
