// @ts-check
/** What is taught: marked photos, changed, switched off and removed one by one; photos without the object. */

import { colorOf, paint, swatch, tinted } from "./colors.js";
import { isConcept } from "./concept.js";
import { action, at, button, chooseFiles, input, made, percent, takeFiles, tell, words } from "./dom.js";
import { Mask } from "./mask.js";
import { save } from "./pack.js";
import { RemoteEngine } from "./remote.js";

/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./engine.js").Class} Class */
/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./marking.js").Marking} Marking */
/** @typedef {Photo & {id: number, name: string, file: File, mask: Mask | null, on: boolean, kept?: number}} Support
 *  no mask: without it; `kept`: by so many photos it was taught, of which its concept's file keeps features alone */

const MOST_TOLD = 3; // files that cannot be read, by their names

export class Teaching {
  /** @param {Engine} engine @param {Marking} marking @param {Promise<any>} ready */
  constructor(engine, marking, ready) {
    this.engine = engine;
    this.marking = marking;
    this.ready = ready;
    this.onchange = () => {};
    /** @type {Support[]} */
    this.supports = [];
    /** @type {File[]} */
    this.waiting = [];
    this.numbers = 0;
    this.busy = false;
    /** Counts changes: masks are of one of its values. */
    this.state = 0;
    this.last = "object";
    this.own = false; // whether more than the example was taught
    marking.waiting = () => this.waiting.length;
    takeFiles("teach-drop", "teach-files", (files) => this.#take(files));
    chooseFiles("concept-files", (files) => this.#open(files));
  }

  /** What can be looked for, in the order in which it was first taught. @returns {Class[]} */
  classes() {
    const on = this.supports.filter((one) => one.on);
    const names = [...new Set(on.filter(shows).map(({ name }) => name))];
    return names.map((name) => {
      const own = on.filter((one) => one.name === name);
      return {
        name,
        supports: own.filter(shows).map(({ id }) => id),
        absent: own.filter((one) => !shows(one)).map(({ file }) => file),
      };
    });
  }

  /** Photos, and concepts that were taught before. @param {File[]} files */
  #take(files) {
    const concepts = this.engine instanceof RemoteEngine ? files.filter(isConcept) : [];
    if (concepts.length) this.#open(concepts);
    const photos = files.filter((file) => !concepts.includes(file));
    if (photos.length) this.mark(photos);
  }

  /** Concepts' files, each a class with its examples. @param {File[]} files */
  async #open(files) {
    const { engine } = this;
    if (!(engine instanceof RemoteEngine)) return;
    tell("teach-told", "");
    input("concept-files").disabled = true;
    const failed = [];
    for (const file of files) {
      try {
        await this.ready;
        await this.#adopt(engine, await engine.taken(file));
      } catch (error) {
        const text = words(error);
        failed.push(text.startsWith(file.name) ? text : `${file.name}: ${text}`);
      }
    }
    tell("teach-told", failed.join("; "));
    input("concept-files").disabled = false;
  }

  /** @param {RemoteEngine} engine @param {Awaited<ReturnType<RemoteEngine["taken"]>>} taken */
  async #adopt(engine, { file, concept, supports, absent }) {
    const { name } = concept;
    if (this.supports.some((one) => one.name === name)) {
      engine.refuse(concept);
      throw new Error(`it is of ${name}, which is taught here already: remove its photos first, then open the file`);
    }
    const [given, added] = [/** @type {import("./remote.js").Given[]} */ ([]), /** @type {Support[]} */ ([])];
    for (const { photo: one, mask } of supports) {
      const [id, photo] = [++this.numbers, await engine.read(one)];
      const { data, width, height } = await engine.readOnes(mask);
      const { width: across, height: down } = photo.shown;
      const shown = new Mask(across, down, new Mask(width, height, data).resized(across, down));
      given.push({ key: id, file: one, mask });
      added.push({ ...photo, id, name, file: one, mask: shown, on: true });
    }
    if (!supports.length) {
      const blank = new OffscreenCanvas(1, 1);
      blank.getContext("2d"); // without it there is nothing to hand over
      const id = ++this.numbers;
      given.push({ key: id, file: null, mask: null });
      added.push({ shown: blank.transferToImageBitmap(), width: 1, height: 1, id, name, file, mask: null, on: true, kept: concept.supports });
    }
    for (const { photo } of absent) added.push({ ...(await engine.read(photo)), id: ++this.numbers, name, file: photo, mask: null, on: true });
    engine.adopt(concept, file, given, absent.map(({ photo }) => photo));
    colorOf(name);
    this.last = name;
    this.supports = [...this.supports, ...added];
    this.#changed();
  }

  /** Photos to be marked, one after the other. @param {File[]} files */
  async mark(files) {
    this.waiting.push(...files);
    this.marking.tellWaiting();
    if (this.busy) return;
    this.busy = true;
    tell("teach-told", "");
    /** @type {string[]} */
    const failed = [];
    for (let file = this.waiting.shift(); file; file = this.waiting.shift()) {
      try {
        await this.#ask(file, await this.engine.read(file), null);
      } catch (error) {
        failed.push(`${file.name} ${words(error)}`);
        const more = failed.length > MOST_TOLD ? `; and ${failed.length - MOST_TOLD} more` : "";
        tell("teach-told", failed.slice(0, MOST_TOLD).join("; ") + more);
      }
    }
    this.busy = false;
  }

  /** @param {File} file @param {Photo} photo @param {Support | null} former that is changed */
  async #ask(file, photo, former) {
    let [name, mask, told] = [former?.name ?? this.last, former?.mask?.copy(), ""];
    for (;;) {
      const question = { file, photo, name, mask, told, absent: this.engine instanceof RemoteEngine };
      const labels = former ? { add: "Teach it anew", leave: "Leave it as it was" } : { add: "Teach this photo", leave: "Leave it out" };
      const reply = await this.marking.ask({ ...question, ...labels });
      if (reply.what === "leave") return;
      [name, mask] = [reply.name, reply.mask];
      told = await this.teach(file, photo, reply.what === "absent" ? null : mask, name, former);
      if (!told) return;
    }
  }

  /** Take a support, in place of a former one if there is one. @param {File} file @param {Photo} photo @param {Mask | null} mask
   * @param {string} name @param {Support | null} former @returns {Promise<string>} what is wrong */
  async teach(file, photo, mask, name, former = null) {
    const id = former?.id ?? ++this.numbers;
    try {
      await this.ready;
      if (mask) await this.engine.teach(id, file, { data: mask.data, width: mask.width, height: mask.height });
    } catch (error) {
      return `${file.name}: ${words(error)}`;
    }
    const support = { ...photo, id, name, file, mask, on: true };
    colorOf(name);
    this.last = name;
    this.own = true;
    this.supports = former ? this.supports.map((one) => (one.id === id ? support : one)) : [...this.supports, support];
    this.#changed();
    return "";
  }

  #changed() {
    this.state++;
    at("supports").replaceChildren(...this.supports.map((one) => this.#card(one)));
    const names = [...new Set(this.supports.map(({ name }) => name))];
    at("names").replaceChildren(...names.map((value) => made("option", { value })));
    this.#tellClasses();
    this.onchange();
  }

  /** What the tool expects of itself, as soon as it is known. */
  #tellClasses() {
    const { engine, state } = this;
    const lines = this.classes().map((one) => {
      const text = made("span", {}, engine instanceof RemoteEngine ? "being taught …" : "");
      const line = made("li", {}, swatch(one.name), made("b", {}, ` ${one.name} `), text);
      if (engine instanceof RemoteEngine) {
        line.append(" ", action("Download concept", `Download concept ${one.name}, for fewseg segment`, () => this.#takeConcept(one)));
        engine.told(one).then(
          (told) => (text.textContent = told),
          (error) => (text.textContent = state === this.state ? words(error) : ""),
        );
      }
      return line;
    });
    at("classes").replaceChildren(...(engine instanceof RemoteEngine ? lines : []));
  }

  /** @param {Class} one */
  async #takeConcept(one) {
    try {
      if (this.engine instanceof RemoteEngine) save(`${one.name}.concept`, await this.engine.conceptFile(one));
    } catch (error) {
      tell("teach-told", words(error));
    }
  }

  /** @param {Support} support */
  #card(support) {
    const { name, file, mask, shown, kept } = support;
    const what = mask ? `${name} marked` : `no ${name}`;
    const said = mask ? ` ${name}, ${percent(mask.share())} marked` : kept ? ` ${name}, by ${kept} ${kept === 1 ? "photo" : "photos"} that ${file.name} does not keep` : ` no ${name} in it`;
    const canvas = made("canvas", { width: shown.width, height: shown.height, role: "img", ariaLabel: `${file.name}: ${what}` });
    paint(canvas, shown, mask && tinted(mask.data, shown.width, shown.height, () => colorOf(name)));
    const used = made("input", { type: "checkbox", checked: support.on, ariaLabel: `Use ${file.name}` });
    used.addEventListener("change", () => {
      support.on = used.checked;
      this.#changed();
      const cards = at("supports").querySelectorAll("input");
      cards[this.supports.indexOf(support)]?.focus();
    });
    const change = action("Change", `Change the marking of ${file.name}`, () => this.#ask(file, support, support));
    const remove = action("Remove", `Remove ${file.name}`, () => this.#remove(support));
    return made(
      "li",
      { className: support.on ? "" : "off" },
      ...(kept ? [] : [canvas]),
      made("p", {}, swatch(name), said),
      made("p", { className: "row" }, made("label", {}, used, " Use"), ...(kept ? [] : [change]), remove),
    );
  }

  /** @param {Support} support */
  async #remove(support) {
    this.supports = this.supports.filter((one) => one !== support);
    await this.engine.forget(support.id);
    this.#changed();
    at("teach-files").focus();
  }

  /** Teach a scene that was drawn. @param {{name: string, supports: {photo: string, mask: string}[], queries: string[]}} example
   * @returns {Promise<File[]>} photos to search */
  async example({ name, supports, queries }) {
    button("example").disabled = true;
    const { own } = this;
    try {
      for (const { photo, mask } of supports) {
        const file = await fetched(photo);
        const read = await this.engine.read(file);
        const { data, width, height } = await this.engine.readMask(await fetched(mask), file, read);
        const told = await this.teach(file, read, new Mask(width, height, data), name);
        if (told) throw new Error(told);
      }
      this.own = own;
      return await Promise.all(queries.map(fetched));
    } catch (error) {
      tell("teach-told", `The example cannot be read (${words(error)}).`);
      return [];
    } finally {
      button("example").disabled = false;
    }
  }
}

/** Whether a support shows its class. @param {Support} support */
const shows = ({ mask, kept }) => Boolean(mask || kept);

/** @param {string} path @returns {Promise<File>} */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return new File([await response.blob()], path.split("/").pop() ?? path);
}
