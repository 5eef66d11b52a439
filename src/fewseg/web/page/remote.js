// @ts-check
/** The engine of a page that `fewseg serve` gives out: the server computes, by the API that is open to programs too. */

import { examples, isConcept } from "./concept.js";
import { words } from "./dom.js";
import { Engine } from "./engine.js";
import { Mask } from "./mask.js";
import { png } from "./pack.js";
import { MOST_MEGAPIXELS } from "./photo.js";
import { IGNORED, TO_DO } from "./plain.js";

/** @typedef {import("./engine.js").Class} Class */
/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./graphs.js").Pixels} Pixels */
/** @typedef {{concept: string, name: string, supports: number, choice: string, notes: string[],
 *   expected_iou: {mean: number, low: number, high: number}}} Concept */
/** @typedef {{key: number, file: File | null, mask: Blob | null}} Given  no file where a concept's keeps none */
/** @typedef {{limits: {file_mb: number, megapixels: number}, record: {image_size: number}, runtime: string}} Config */

const SIDE = 768; // of probabilities that are fetched: the model sees no more detail
const TRIES = 60;
const PATIENCE = 20_000; // milliseconds that a server may take to be back, as after a restart

export class RemoteEngine extends Engine {
  /** @param {Config} config */
  constructor(config) {
    super();
    this.lanes = 2;
    this.config = config;
    /** @type {Map<number, Given & {version: number}>} */
    this.given = new Map();
    /** Files of classes that were opened: each stands for its class while that is as it was. @type {Map<string, {signature: string, file: File}>} */
    this.opened = new Map();
    /** @type {Map<string, {signature: string, supports: number[], concept: Promise<Concept>, taught: string}>}  taught: its name, once it is */
    this.concepts = new Map();
    /** @type {WeakMap<File, {width: number, height: number}>} */
    this.sizes = new WeakMap();
    this.changes = 0;
    addEventListener("pagehide", () => this.#leave());
  }

  /** @override @returns {Promise<{runs: string, note: string}>} */
  async open() {
    const { runtime } = await (await ask("v1/status")).json();
    return { runs: runtime, note: "" };
  }

  /** @override @param {File} file @returns {Promise<Photo>} */
  async read(file) {
    if (isConcept(file)) throw new Error("is a concept, and no photo: open it above, where it says Open a concept");
    const { file_mb: most, megapixels } = this.config.limits;
    if (file.size > most * 1e6) throw new Error(`has ${(file.size / 1e6).toFixed(0)} MB; at most ${most} are taken here: scale it down (or start the server with --limit file_mb=N)`);
    const ours = megapixels < MOST_MEGAPIXELS; // what a browser takes binds a server that takes more
    const photo = await (ours ? super.read(file, megapixels, " (or start the server with --limit megapixels=N)") : super.read(file));
    this.sizes.set(file, photo);
    return photo;
  }

  /** @override @param {File} mask @param {File} file of the photo @returns {Promise<import("./plain.js").Understood>} */
  async readMask(mask, file) {
    const form = new FormData();
    form.append("photo", file);
    form.append("mask", mask);
    const answer = await ask("v1/mask", { method: "POST", body: form }).catch((error) => {
      throw new Error(told(words(error), mask).replace(/[^.?:]*--label.*/s, ` Here, ${TO_DO}`)); // in place of the option
    });
    const { ignored, ...ones } = await this.readOnes(await answer.blob());
    const meaning = decodeURIComponent(answer.headers.get("Fewseg-Told") ?? "");
    return { ...ones, told: ignored ? `${meaning}; ${IGNORED}` : meaning };
  }

  /** @override @param {number} key @param {File} file @param {Pixels} mask */
  async teach(key, file, mask) {
    await this.check(mask, this.config.record.image_size);
    const { width, height } = this.sizes.get(file) ?? mask; // a server wants masks of the photo's own size
    const values = new Mask(mask.width, mask.height, mask.data).resized(width, height).map((value) => 255 * value);
    const blob = new Blob([await png(values, width, height)]);
    this.given.set(key, { key, file, mask: blob, version: ++this.changes });
  }

  /** A concept that was taught before, once the server has judged its file, and the examples in it. @param {File} given */
  async taken(given) {
    const { file_mb: most } = this.config.limits;
    if (given.size > most * 1e6) throw new Error(`it has ${(given.size / 1e6).toFixed(0)} MB; at most ${most} are taken here: teach it of fewer photos (or start the server with --limit file_mb=N)`);
    const file = new File([await given.arrayBuffer()], given.name); // the one on the disk may change
    const form = new FormData();
    form.append("concept", file);
    return { file, concept: await this.#sent(form), ...(await examples(file)) };
  }

  /** A class as a concept tells it, with its supports and its photos without it. @param {Concept} concept @param {File} file
   * @param {Given[]} supports @param {File[]} absent */
  adopt(concept, file, supports, absent) {
    for (const one of supports) this.given.set(one.key, { ...one, version: ++this.changes });
    const one = { name: concept.name, supports: supports.map(({ key }) => key), absent };
    this.opened.set(one.name, { signature: this.#signature(one), file });
    this.#enter(one, Promise.resolve(concept));
  }

  /** Of a concept that is not wanted. @param {Concept} concept */
  refuse({ concept }) {
    removed(concept);
  }

  /** @override @param {number} key */
  async forget(key) {
    this.given.delete(key);
  }

  /** @override @param {Class} one @returns {Promise<string>} */
  async told(one) {
    const { expected_iou: { mean, low, high }, choice, notes } = await this.#concept(one);
    const [iou, from, to] = [mean, low, high].map((share) => Math.round(100 * share));
    return [`Expected overlap with the true mask (IoU): ${iou} % (${from} to ${to}); found by ${choice}: that is 0.50 on the slider.`, ...notes].join(" ");
  }

  /** @override @param {File} file @param {Class[]} classes @returns {Promise<{answers: Answer[]}>} */
  async find(file, classes) {
    const used = [...this.concepts.values()];
    try {
      return await this.#find(file, classes);
    } catch (error) {
      if (!(error instanceof Gone)) throw error; // the server was started anew, or has forgotten this visitor
      for (const [name, one] of this.concepts) if (used.includes(one)) this.concepts.delete(name); // others may be of the new server
      return this.#find(file, classes).catch((again) => {
        throw again instanceof Gone ? new Error("was not searched: the server has forgotten what was taught; try again") : again;
      });
    }
  }

  /** The file of a class's concept. @param {Class} one @returns {Promise<Blob>} */
  async conceptFile(one) {
    return (await ask(`v1/concepts/${(await this.#concept(one)).concept}/file`)).blob();
  }

  /** @param {File} file @param {Class[]} classes @returns {Promise<{answers: Answer[]}>} */
  async #find(file, classes) {
    const form = new FormData();
    // one after the other: to a server that does not know this visitor two at once would be of two visitors
    for (const one of classes) form.append("concept", (await this.#concept(one)).concept);
    form.append("photo", file);
    const job = await (await ask("v1/segment", { method: "POST", body: form })).json();
    try {
      const found = (await followed(job.events)).get("photo");
      if (!found) throw new Error("was not searched");
      if (found.error) throw failure({ ...found, error: told(found.error, file) });
      const answer = await ask(`${job.url}/photos/0/probability?side=${SIDE}`);
      const [, height, width] = (answer.headers.get("Fewseg-Shape") ?? "").split(",").map(Number);
      const all = new Uint16Array(await answer.arrayBuffer());
      /** @type {{presence: number | null, expected_iou: number | null}[]} */
      const classes = found.classes;
      const answers = classes.map(({ presence, expected_iou: quality }, i) => ({
        map: all.slice(i * width * height, (i + 1) * width * height), width, height, presence, quality }));
      return { answers };
    } finally {
      ask(job.url, { method: "DELETE" }).catch(() => {}); // the photo is gone already; now the rest
    }
  }

  /** The concept of a class, taught anew where something of it has changed. @param {Class} one @returns {Promise<Concept>} */
  #concept(one) {
    const known = this.concepts.get(one.name);
    return known?.signature === this.#signature(one) ? known.concept : this.#enter(one, this.#taught(one));
  }

  /** What tells a class from itself after a change. @param {Class} one */
  #signature({ supports, absent }) {
    return JSON.stringify([
      supports.map((key) => [key, this.given.get(key)?.version]),
      absent.map(({ name, size, lastModified }) => [name, size, lastModified]),
    ]);
  }

  /** @param {Class} one @param {Promise<Concept>} concept */
  #enter(one, concept) {
    this.concepts.get(one.name)?.concept.then((former) => removed(former.concept), () => {});
    const entry = { signature: this.#signature(one), supports: one.supports, concept, taught: "" };
    this.concepts.set(one.name, entry);
    entry.concept.then(
      ({ concept }) => (entry.taught = concept),
      () => this.concepts.get(one.name) === entry && this.concepts.delete(one.name),
    );
    return entry.concept;
  }

  /** @param {Class} one @returns {Promise<Concept>} */
  async #taught(one) {
    const { name, supports, absent } = one;
    const form = new FormData();
    const opened = this.opened.get(name);
    if (opened?.signature === this.#signature(one)) {
      form.append("concept", opened.file);
      return this.#sent(form);
    }
    form.append("name", name);
    for (const key of supports) {
      const given = this.given.get(key);
      if (given?.file === null) throw new Error("The concept that was opened keeps no photos, so nothing can be added to it: remove it, or teach the new photos under another name.");
      const { file, mask } = given ?? {};
      if (!file || !mask) continue;
      form.append("photo", file);
      form.append("mask", mask, "mask.png");
    }
    for (const file of absent) form.append("absent", file);
    return this.#sent(form);
  }

  /** The concept that a form teaches. @param {FormData} form @returns {Promise<Concept>} */
  #sent(form) {
    return this.#sentOnce(form).catch((error) => {
      if (error instanceof Gone) return this.#sentOnce(form);
      throw error;
    });
  }

  /** @param {FormData} form @returns {Promise<Concept>} */
  async #sentOnce(form) {
    const send = () => ask("v1/concepts", { method: "POST", body: form });
    const { events } = await (await send().catch((error) => this.#tidied(error).then(send))).json();
    const concept = (await followed(events)).get("concept");
    if (!concept) throw new Gone("the server has forgotten what it was taught");
    return concept;
  }

  /** Remove what pages left that were open before, and classes without a support, where there is no room for more. Those that are being
   * taught are not waited for: this one is among them. @param {Error} error */
  async #tidied(error) {
    if (!(error instanceof Full)) throw error;
    const used = [...this.concepts.values()].filter(({ supports }) => supports.some((key) => this.given.has(key)));
    const ours = new Set(used.map(({ taught }) => taught));
    for (const { concept } of await (await ask("v1/concepts")).json()) if (!ours.has(concept)) await removed(concept);
  }

  /** What was taught is gone with the page; one that comes back teaches anew. */
  #leave() {
    for (const { concept } of this.concepts.values()) concept.then((one) => removed(one.concept), () => {});
  }
}

/** @param {string} concept */
const removed = (concept) => fetch(`v1/concepts/${concept}`, { method: "DELETE", keepalive: true }).catch(() => {});

/** What the server has forgotten; what it has no room for. */
class Gone extends Error {}
class Full extends Error {}

/** @param {{error: string, status: number}} told */
const failure = ({ error, status }) => new ({ 404: Gone, 409: Full }[status] ?? Error)(error);

/** What is told of an answer that fewseg did not write. @param {number} status */
function foreign(status) {
  if (status === 413) return "413: not fewseg but a proxy before it says that this is too large; whoever runs it can let it take more (nginx: client_max_body_size)";
  if ([502, 503, 504].includes(status)) return `${status}: a proxy reaches no server behind it; try again once that is back`;
  return `the server says ${status}`;
}

/** Whether a server that is not up yet may be behind it, and has done nothing: no answer, or a proxy's that reached none. What was to make
 * a job is not sent again where the proxy waited in vain (504): it may have made one.
 * @param {Response | null} answer @param {RequestInit} [options] */
const away = (answer, options) => !answer || (!answer.headers.get("Content-Type")?.startsWith("application/json")
  && (options?.method === "POST" ? [502, 503] : [502, 503, 504]).includes(answer.status));

/** @param {number} seconds */
const rest = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** An answer of the server; waits where it is busy, or away for a little. @param {string} path @param {RequestInit} [options] */
async function ask(path, options) {
  let since = 0;
  for (let left = TRIES; ; left--) {
    const answer = await fetch(path, options).catch(() => null);
    if (answer?.ok) return answer;
    const wait = Number(answer?.headers.get("Retry-After") ?? 0);
    if (answer && wait && left) {
      await rest(Math.min(wait, 30));
      continue;
    }
    if (!answer && options?.method === "POST" && (await fetch("v1/status").catch(() => null))?.ok)
      throw new Error("it could not be sent whole: the connection broke off, or a file has changed since it was chosen");
    since ||= performance.now();
    if (away(answer, options) && performance.now() - since < PATIENCE) {
      await rest(1);
      continue;
    }
    if (!answer) throw new Error("the server does not answer; is it running?");
    const { error } = await answer.json().catch(() => ({ error: foreign(answer.status) }));
    throw failure({ error, status: answer.status });
  }
}

/** A job's last event of each name, once it has ended. @param {string} path @returns {Promise<Map<string, any>>} */
function followed(path) {
  return new Promise((resolve, reject) => {
    const found = new Map();
    const stream = new EventSource(path);
    const end = (/** @type {() => void} */ then) => {
      stream.close();
      then();
    };
    for (const name of ["concept", "photo", "failed"])
      stream.addEventListener(name, (event) => found.set(name, JSON.parse(event.data)));
    stream.addEventListener("done", () => end(() => (found.has("failed") ? reject(failure(found.get("failed"))) : resolve(found))));
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) end(() => reject(new Gone("the server does not answer; is it running?")));
    };
  });
}

/** What is wrong with a photo, without its name. @param {string} text @param {File} file */
function told(text, file) {
  return text.startsWith(`${file.name} `) ? text.slice(file.name.length + 1) : text;
}
