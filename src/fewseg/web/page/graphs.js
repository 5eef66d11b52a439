// @ts-check
/** A model's four graphs, as `fewseg.runtime.graphs` runs them in Python. What they take and give they tell themselves. */

import { lead as classified } from "./linear.js";

/** @typedef {{dims: readonly number[], data: any, type: string}} Tensor */
/** @typedef {Record<string, Tensor>} Tensors */
/** @typedef {{data: Uint8Array<ArrayBuffer>, width: number, height: number}} Pixels  RGB, row by row */
/** @typedef {{inputNames: readonly string[], outputNames: readonly string[],
 *    run(given: Tensors): Promise<Tensors>, release(): Promise<void>}} Session */
/** @typedef {{lead: Float32Array, side: number, presence: number | null}} Lead
 *  How far the foreground's logit is above the background's, (side, side); the probability that the class is there. */

/** @typedef {import("./linear.js").Weights} Weights */

export class Graphs {
  /** @param {any} ort onnxruntime-web @param {Record<string, Session>} sessions */
  constructor(ort, sessions) {
    this.ort = ort;
    this.sessions = sessions;
  }

  /** A photo's features. @param {Pixels} photo */
  async query(photo) {
    return this.#run("query", { image: this.#image(photo) });
  }

  /** A support's features. @param {Pixels} photo @param {Pixels} mask of any size; 1 the object, 0 the rest */
  async support(photo, mask) {
    /** @type {Tensors} */
    let given = { mask: new this.ort.Tensor("uint8", mask.data, [mask.height, mask.width]), image: this.#image(photo) };
    if (!this.sessions.support.inputNames.includes("image")) given = { ...(await this.query(photo)), ...given };
    return this.#run("support", given);
  }

  /** A class's supports as one. @param {Tensors[]} supports @returns {Tensors} */
  together(supports) {
    const names = Object.keys(supports[0]);
    return Object.fromEntries(names.map((name) => [name, this.#joined(supports.map((one) => one[name]))]));
  }

  /** What is found of a class, by the model, or by the mean of its logits and a classifier's.
   * @param {Tensors} query @param {Tensors} supports @param {Weights | null} learnt @returns {Promise<Lead>} */
  async match(query, supports, learnt = null) {
    const { lead, presence } = await this.#run("match", { ...query, ...supports });
    const side = lead.dims[0];
    const other = learnt && classified(query, learnt, side);
    return {
      lead: other ? lead.data.map((/** @type {number} */ value, /** @type {number} */ i) => (value + other[i]) / 2) : lead.data,
      side,
      presence: presence ? 1 / (1 + Math.exp(-presence.data[0])) : null,
    };
  }

  /** The foreground's probability of every pixel. @param {Lead} answer @param {number} width @param {number} height
   * @returns {Promise<Float32Array>} */
  async draw({ lead, side }, width, height) {
    const given = {
      lead: new this.ort.Tensor("float32", lead, [side, side]),
      size: new this.ort.Tensor("int64", BigInt64Array.of(BigInt(height), BigInt(width)), [2]),
    };
    return (await this.#run("draw", given)).proba.data;
  }

  async release() {
    for (const session of Object.values(this.sessions)) await session.release();
  }

  /** @param {Pixels} photo */
  #image({ data, width, height }) {
    return new this.ort.Tensor("uint8", data, [height, width, 3]);
  }

  /** A graph's outputs by name; what it has no input for is left out. @param {string} name @param {Tensors} given */
  async #run(name, given) {
    const session = this.sessions[name];
    return session.run(Object.fromEntries(session.inputNames.map((input) => [input, given[input]])));
  }

  /** Supports side by side: axis 1; axis 0 has one. @param {Tensor[]} tensors @returns {Tensor} */
  #joined(tensors) {
    if (tensors.length === 1) return tensors[0];
    const [{ dims, type, data: first }] = tensors;
    const length = tensors.reduce((sum, { data }) => sum + data.length, 0);
    const data = new first.constructor(length);
    let place = 0;
    for (const tensor of tensors) {
      data.set(tensor.data, place);
      place += tensor.data.length;
    }
    const shots = tensors.reduce((sum, tensor) => sum + tensor.dims[1], 0);
    return new this.ort.Tensor(type, data, [dims[0], shots, ...dims.slice(2)]);
  }
}
