// @ts-check
/** What was found in a photo: which pixels count, how much of it, and how sure that is. */

import { withoutSpecks } from "./parts.js";

/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Drawn} Drawn */
/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {{id: number, file: File, photo: Photo | null, answers: Answer[], classes: string[], of: number,
 *   drawn: Drawn | null, labels: Uint8Array<ArrayBuffer> | null, fixed: Map<string, Mask>, error: string, card: HTMLLIElement}} Found
 *  `of`: the state of what was taught; `fixed`: masks that were corrected, by class. */

const CORRECTED = 1.01; // sorted last: nobody needs to look at it again

/** What of what was drawn at a size is above the threshold, in hundredths, and in parts that are large enough, as a share
 * of the photo; or was corrected.
 * @param {Found} one @param {Drawn} drawn @param {number} width @param {number} height
 * @param {{threshold: number, smallest: number}} limits */
export function settled(one, { labels, levels }, width, height, { threshold, smallest }) {
  const kept = labels.map((label, i) => (levels[i] > threshold ? label : 0));
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

/** Of a photo, the share of a class (`=NAME`), or of all. @param {Found} one @param {string} which */
export function shareOf({ labels, classes }, which) {
  if (!labels) return 0;
  let count = 0;
  for (const label of labels) if (label && (!which || `=${classes[label - 1]}` === which)) count++;
  return count / labels.length;
}

/** How sure the masks of a photo are, of 1: of what was found the expected overlap if its probabilities hold, of what was
 * not how unlikely it is. @param {Found} one */
export function sureness({ drawn, answers, classes, fixed, labels }) {
  if (!drawn || !labels) return CORRECTED;
  const sure = classes.map((name, index) => {
    if (fixed.has(name)) return CORRECTED;
    const there = answers[index].presence;
    const found = labels.includes(index + 1);
    if (there === null) return found ? drawn.sure[index] : 1 - drawn.most[index];
    return found ? Math.min(there, drawn.sure[index]) : 1 - there;
  });
  return Math.min(CORRECTED, ...sure);
}
