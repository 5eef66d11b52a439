// @ts-check
/** What was found in a photo: which pixels count, how much of it, and how sure that is. */

import { whole, withoutSpecks } from "./parts.js";

/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Drawn} Drawn */
/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {{id: number, file: File, photo: Photo | null, answers: Answer[], classes: string[], of: number,
 *   drawn: Drawn | null, labels: Uint8Array<ArrayBuffer> | null, fixed: Map<string, Mask>, left: number[], error: string, card: HTMLLIElement}} Found
 *  `of`: the state of what was taught; `fixed`: masks that were corrected, by class; `left`: see `leftOf`. */

const CORRECTED = 1.01; // sorted last: nobody needs to look at it again

/** What of what was drawn at a size is above the threshold, in hundredths, and in parts that are large enough, as a share
 * of the photo; or was corrected.
 * @param {Found} one @param {Drawn} drawn @param {number} width @param {number} height
 * @param {{threshold: number, smallest: number}} limits */
export function settled(one, { labels, levels, maps }, width, height, { threshold, smallest }) {
  const kept = whole(labels.map((label, i) => (levels[i] > threshold ? label : 0)), maps, width, height, threshold);
  withoutSpecks(kept, width, height, smallest * width * height);
  for (const [name, mask] of one.fixed) {
    const label = one.classes.indexOf(name) + 1;
    if (!label) continue;
    const inside = mask.resized(width, height);
    for (let i = 0; i < kept.length; i++) {
      if (inside[i]) kept[i] = label;
      else if (kept[i] === label) kept[i] = 0;
    }
  }
  return kept;
}

/** Of every class, how far what is left of it is all that its own map marks (intersection over union): others, and the limit
 * of size, take from it. @param {Drawn} drawn @param {Uint8Array} left @param {number} threshold */
export function leftOf({ levels, maps }, left, threshold) {
  return (maps.length ? maps : [levels]).map((own, index) => {
    let [both, either] = [0, 0];
    for (let i = 0; i < left.length; i++) {
      const [here, there] = [left[i] === index + 1, own[i] > threshold];
      if (here && there) both++;
      if (here || there) either++;
    }
    return either ? both / either : 1;
  });
}

/** Of a photo, the share of a class (`=NAME`), or of all. @param {Found} one @param {string} which */
export function shareOf({ labels, classes }, which) {
  if (!labels) return 0;
  let count = 0;
  for (const label of labels) if (label && (!which || `=${classes[label - 1]}` === which)) count++;
  return count / labels.length;
}

/** How sure the masks of a photo are, of 1: 1 less the doubt in the most doubtful. @param {Found} one */
export function sureness(one) {
  if (!one.drawn || !one.labels) return CORRECTED;
  const each = one.classes.map((_, index) => expected(one, index));
  return Math.min(CORRECTED, ...each.map((told) => (told ? 1 - told.doubt : CORRECTED)));
}

/** The overlap to expect of a class's mask and the doubt in it, as Python's `told_of`: what a concept expects, or else the
 * overlap if the mask's probabilities hold, less where others took from it; of what was not found the chance that it is not there. Null of a corrected mask.
 * @param {Found} one @param {number} index @returns {{overlap: number, doubt: number} | null} */
export function expected({ drawn, answers, classes, fixed, labels, left }, index) {
  if (!drawn || !labels || fixed.has(classes[index])) return null;
  const answer = answers[index];
  if (!labels.includes(index + 1)) {
    const likely = answer.presence ?? drawn.most[index];
    return { overlap: 1 - likely, doubt: likely };
  }
  const sure = drawn.sure[index]; // 0 of a mask that a lower threshold brought, which no concept told of
  const overlap = (sure && "map" in answer ? answer.quality ?? sure : sure) * (left[index] ?? 1);
  return { overlap, doubt: 1 - overlap * (answer.presence ?? 1) };
}
