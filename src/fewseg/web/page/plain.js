// @ts-check
/** What a mask marks, where that is plain: `fewseg segment` takes it alike. What takes a closer look is refused here. */

/** @typedef {import("./graphs.js").Pixels} Pixels */
/** @typedef {Pixels & {told: string}} Understood  1 the object, 0 the rest; `told`: how the file was understood */

export const TO_DO = "load a mask in which the object alone is not black";
export const IGNORED = "what it ignores is background here";
const HIGHEST_ID = 100; // beside 255, which is ignored then
const WHITE = 240;
const MOST_NAMED = 8;

/** @param {Pixels} pixels @param {boolean} lossy whether the file's format changes values @returns {Understood} */
export function understood({ data, width, height }, lossy) {
  const counts = new Float64Array(256);
  const values = new Uint8Array(width * height);
  const colors = new Set();
  let grey = true;
  for (let i = 0; i < values.length; i++) {
    const [red, green, blue] = [data[3 * i], data[3 * i + 1], data[3 * i + 2]];
    counts[(values[i] = Math.max(red, green, blue))]++;
    if (red !== green || red !== blue) grey = false;
    if (colors.size <= MOST_NAMED) colors.add((red << 16) | (green << 8) | blue);
  }
  const found = [...counts.keys()].filter((value) => counts[value]);
  const marks = found.filter(Boolean);
  const from = (/** @type {number} */ least, /** @type {string} */ told) => ({ data: values.map((value) => Number(value >= least)), width, height, told });
  if (!marks.length) throw new Error("marks nothing: it is black all over");
  if (!grey && !(colors.size === 2 && colors.has(0))) {
    const named = [...colors].slice(0, MOST_NAMED).map((code) => `#${code.toString(16).padStart(6, "0")}`);
    throw asked("colours", named, colors.size);
  }
  if (marks.length === 1) return from(1, `${listed(found)}: ${marks[0]} is the object`);
  const [low, top] = marks;
  if (found.length === 3 && found[0] === 0 && low <= HIGHEST_ID && top === 255 && counts[top] < 8 * counts[low] && !lossy)
    return { ...from(0, `${listed(found)}: ${low} is the object, ${top} is ignored; ${IGNORED}`), data: values.map((value) => Number(value === low)) };
  if (isSoft(counts, found, lossy)) return from(128, "from black to white: the upper half is the object");
  throw asked("values", found.slice(0, MOST_NAMED), found.length);
}

/** Whether values go from black to white at once, with few steps between. @param {Float64Array} counts
 * @param {number[]} found @param {boolean} lossy */
function isSoft(counts, found, lossy) {
  const step = 256 - WHITE;
  const between = found.filter((value) => value >= step && value < WHITE);
  const high = found.filter((value) => value >= WHITE);
  const sum = (/** @type {number[]} */ some) => some.reduce((all, value) => all + counts[value], 0);
  const steps = lossy || between.length > 2 || (!between.length && high.length > 1);
  return steps && 10 * sum(between) <= sum([...between, ...high]);
}

/** @param {string} what @param {(number | string)[]} some @param {number} count of all */
function asked(what, some, count) {
  const more = count > some.length ? " and more" : "";
  return new Error(`holds the ${what} ${more ? some.join(", ") : listed(some)}${more}: which is the object? Here, ${TO_DO}`);
}

/** @param {(number | string)[]} some */
const listed = (some) => [some.slice(0, -1).join(", "), ...some.slice(-1)].filter((part) => part !== "").join(" and ");
