// @ts-check
/** What the page asks of a model, answered by a worker beside it; `remote.js` lets a server answer the same calls. */

import { isConcept } from "./concept.js";

/** @typedef {import("./graphs.js").Lead | import("./maps.js").Map} Answer */
/** @typedef {{name: string, supports: number[], absent: File[]}} Class  by its supports' numbers; photos without it */
/** @typedef {import("./graphs.js").Pixels} Pixels */
/** @typedef {{labels: Uint8Array<ArrayBuffer>, levels: Uint8Array<ArrayBuffer>, heat: Uint8Array<ArrayBuffer>,
 *    maps: Uint8Array<ArrayBuffer>[], sure: number[], most: number[]}} Drawn
 *  Of every pixel its most probable class among those that are there (1.., the first of equals), its probability in
 *  hundredths, rounded up, and that of the most probable one of all; where there are several classes, of each its own, 0 of
 *  one that is not there; of every class how sure its mask is, and the most. */
/** @typedef {{shown: ImageBitmap, width: number, height: number}} Photo */

export class Engine {
  constructor() {
    /** How many photos at once are worth it. */
    this.lanes = 1;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
    this.waiting = new Map();
    this.calls = 0;
    this.worker.onmessage = ({ data: { id, value, error } }) => {
      const call = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) call?.resolve(value);
      else call?.reject(new Error(error));
    };
    this.worker.onerror = (event) => {
      const error = new Error(`the part of the page that computes ended (${event.message ?? "no reason given"}); load the page again`);
      for (const call of this.waiting.values()) call.reject(error);
      this.waiting.clear();
    };
  }

  /** Start; what runs. @param {object} config @param {string | null} want @returns {Promise<{runs: string, note: string}>} */
  open(config, want) {
    return this.#call("open", config, want);
  }

  /** A photo to show. @param {File} file @param {number} [most] megapixels @param {string} [more] what else helps beyond them
   * @returns {Promise<Photo>} */
  async read(file, most, more) {
    if (isConcept(file)) throw new Error("is a concept, which takes a server: open it on the page of fewseg serve, or give it to fewseg segment --concept");
    return this.#call("read", file, most, more);
  }

  /** What is 1 in a mask of a concept's file. @param {Blob} file @returns {Promise<Pixels & {ignored: boolean}>} */
  readOnes(file) {
    return this.#call("readOnes", file);
  }

  /** What a mask marks on a photo; an error where that is not plain, or it is of another size, as `fewseg segment` has it.
   * @param {File} mask @param {File} file of the photo @param {Photo} photo @returns {Promise<import("./plain.js").Understood>} */
  readMask(mask, file, { width, height }) {
    return this.#call("readMask", mask, { width, height });
  }

  /** Learn a support under a number. @param {number} key @param {File} file @param {Pixels} mask @returns {Promise<void>} */
  teach(key, file, mask) {
    return this.#call("teach", key, file, mask);
  }

  /** @param {number} key @returns {Promise<void>} */
  forget(key) {
    return this.#call("forget", key);
  }

  /** An error where nothing of a mask is left at the model's size. @param {Pixels} mask @param {number} side */
  check(mask, side) {
    return this.#call("check", mask, side);
  }

  /** What is known of a class once it is taught, in words. @param {Class} _ @returns {Promise<string>} */
  async told(_) {
    return "";
  }

  /** @param {File} file @param {Class[]} classes @returns {Promise<{answers: Answer[]}>} */
  find(file, classes) {
    return this.#call("find", file, classes);
  }

  /** Answers at a size; classes that are there with less than `presence` are left out.
   * @param {Answer[]} answers @param {number} width @param {number} height @param {number} presence
   * @returns {Promise<Drawn>} */
  draw(answers, width, height, presence) {
    return this.#call("draw", answers, width, height, presence);
  }

  /** @param {string} name @param {any[]} args @returns {Promise<any>} */
  #call(name, ...args) {
    const id = ++this.calls;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, name, args });
    });
  }
}
