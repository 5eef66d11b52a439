// @ts-check
/** Clicks on an object, and beside it: what they mark. */

import { alike, grown } from "./grow.js";

/** @typedef {import("./view.js").Point} Point */

export class Clicks {
  /** @param {ImageBitmap} photo @param {Uint8Array<ArrayBuffer>} before what is marked already, of every pixel */
  constructor(photo, before) {
    this.photo = photo;
    this.before = before.slice();
    /** @type {Point[]} */
    this.on = [];
    /** @type {Point[]} */
    this.off = [];
  }

  /** What is marked with one more: what is like the places on the object, and not like the others, is added; of what was
   * marked before, what is like a place that was marked by mistake is taken away. @param {Point} point @param {boolean} here it is the object */
  add(point, here) {
    (here ? this.on : this.off).push(point);
    const wrong = this.off.filter(([x, y]) => this.before[this.#pixel(x, y)]).map((place) => alike(this.photo, place));
    const more = this.on.length ? grown(this.photo, this.on, []) : null;
    // places beside it open the border to what grows, and must only take away
    if (more && this.off.length) grown(this.photo, this.on, this.off).forEach((value, i) => (more[i] &= value));
    return this.before.map((value, i) => (more?.[i] || (value && !wrong.some((less) => less[i])) ? 1 : 0));
  }

  /** @param {number} x @param {number} y */
  #pixel(x, y) {
    const { width, height } = this.photo;
    return Math.min(height - 1, Math.floor(y)) * width + Math.min(width - 1, Math.floor(x));
  }
}
