// @ts-check
/** The gallery: photos that are searched, what was found in them, and corrections. */

import { colorOf, heated, paint, swatch, tinted } from "./colors.js";
import { action, at, button, by, duration, input, made, percent, select, takeFiles, tell, words } from "./dom.js";
import { leftOf, settled, shareOf, sureness } from "./found.js";
import { Mask } from "./mask.js";
import { RemoteEngine } from "./remote.js";
import { takeAway } from "./taking.js";

/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./teaching.js").Teaching} Teaching */
/** @typedef {import("./found.js").Found} Found */

const LARGEST_PART = 0.02; // share of a photo, at the slider's end

export class Finding {
  /** @param {Engine} engine @param {Teaching} teaching @param {Promise<any>} ready @param {boolean} presence whether it is told */
  constructor(engine, teaching, ready, presence) {
    this.engine = engine;
    this.teaching = teaching;
    this.ready = ready;
    this.presence = presence;
    /** @type {Found[]} */
    this.found = [];
    /** @type {Found[]} */
    this.queue = [];
    /** Of those that were queued since nothing ran, what was searched. @type {Set<Found>} */
    this.searched = new Set();
    this.numbers = this.running = this.taking = this.began = 0;
    at("presence-row").hidden = !presence;
    takeFiles("find-drop", "find-files", (files) => this.search(files));
    teaching.onchange = () => this.#taught();
    this.#settings();
  }

  /** @param {File[]} files */
  search(files) {
    const added = files.map((file) => {
      const card = made("li", {}, made("p", {}, file.name));
      return { id: ++this.numbers, file, photo: null, answers: [], classes: [], of: -1, drawn: null, labels: null, fixed: new Map(), left: [], error: "", card };
    });
    this.found.push(...added);
    this.#again(added);
    this.#arrange();
  }

  #taught() {
    if (this.teaching.classes().length) this.#again(this.found.filter((one) => !one.answers.length && !one.error)); // they waited
    const names = this.teaching.classes().map(({ name }) => name);
    const chosen = select("which").value;
    const options = names.map((name) => made("option", { value: `=${name}` }, name));
    select("which").replaceChildren(made("option", { value: "" }, "all classes"), ...options);
    select("which").value = names.includes(chosen.slice(1)) ? chosen : "";
    this.#stale();
  }

  /** @param {Found[]} these */
  #again(these) {
    this.queue.push(...these.filter((one) => !this.queue.includes(one)));
    for (const one of these) this.searched.delete(one); // it is told once, as it is in the end
    if (!this.running) {
      this.searched.clear();
      this.began = performance.now();
      tell("find-told", "");
    }
    while (this.running < this.engine.lanes && this.queue.length > this.running) this.#work();
    this.#stale();
  }

  /** Search one photo after the other; several of these run side by side. */
  async #work() {
    this.running++;
    const busy = this.#busy;
    for (let one = this.queue.find((other) => !busy.has(other)); one; one = this.queue.find((other) => !busy.has(other))) {
      busy.add(one);
      this.#tellWork();
      await this.#searchIn(one);
      busy.delete(one);
      this.queue = this.queue.filter((other) => other !== one);
      this.searched.add(one);
      this.#arrange();
      this.#stale();
    }
    this.running--;
    this.#tellWork();
  }
  /** @type {Set<Found>} */
  #busy = new Set();

  #tellWork() {
    this.#allowAll();
    const searched = this.searched.size;
    const all = searched + this.queue.length;
    at("work").hidden = !this.running;
    by("bar", HTMLProgressElement).value = all ? searched / all : 0;
    const seconds = ((performance.now() - this.began) / 1000 / Math.max(1, searched)) * this.queue.length;
    tell("done", `${searched} of ${all}${searched && this.queue.length ? `, about ${duration(seconds)} left` : ""}`);
    if (this.running || !searched) return;
    const failed = [...this.searched].filter(({ error }) => error).length;
    const well = searched - failed;
    const photos = `${well} ${well === 1 ? "photo" : "photos"} done${failed ? `, ${failed} not, as told there` : ""}.`;
    const taught = this.teaching.classes().length;
    tell("find-told", taught ? photos : "Show what to find first: these photos are searched then.");
  }

  /** @param {Found} one */
  async #searchIn(one) {
    one.error = "";
    try {
      one.photo ??= await this.engine.read(one.file);
      this.#show(one);
      const classes = this.teaching.classes();
      if (!classes.length) return; // what is taught later is searched in it then
      await this.ready;
      const of = this.teaching.state;
      const { answers } = await this.engine.find(one.file, classes);
      Object.assign(one, { answers, classes: classes.map(({ name }) => name), of });
      await this.#draw(one);
    } catch (error) {
      one.error = words(error);
      this.#show(one);
    }
  }

  /** @param {Found} one */
  async #draw(one) {
    if (!one.photo || !one.answers.length) return;
    const { width, height } = one.photo.shown;
    one.drawn = await this.engine.draw(one.answers, width, height, this.least());
    this.#settle(one);
  }

  least() {
    return this.presence ? Number(input("presence").value) / 100 : 0;
  }

  #limits() {
    return { threshold: Number(input("threshold").value), smallest: this.#smallest() };
  }

  #smallest() {
    return LARGEST_PART * (Number(input("part").value) / 100) ** 2;
  }

  /** @param {Found} one */
  #settle(one) {
    if (one.photo && one.drawn) {
      one.labels = settled(one, one.drawn, one.photo.shown.width, one.photo.shown.height, this.#limits());
      one.left = leftOf(one.drawn, one.labels, this.#limits().threshold);
    }
    this.#show(one);
  }

  /** @param {Found} one */
  #show(one) {
    const { file, photo, card, labels, error } = one;
    if (error || !photo) {
      const retry = action("Try again", `Try again to search ${file.name}`, () => this.#again([one]));
      const row = made("p", { className: "row" }, ...(error ? [retry] : []), this.#remover(one));
      card.replaceChildren(made("p", { className: "alert" }, `${file.name} ${error}`), row);
      return;
    }
    let canvas = card.querySelector("canvas");
    if (!canvas) {
      canvas = made("canvas", { width: photo.shown.width, height: photo.shown.height, role: "img" });
      const take = action("Download", `Download what is chosen of ${file.name}`, () => this.take([one]), "take");
      const correct = action("Correct", `Correct the mask of ${file.name}`, () => this.#correct(one), "correct");
      card.replaceChildren(canvas, made("p", { className: "told" }), made("p", { className: "row" }, take, correct, this.#remover(one)));
    }
    paint(canvas, photo.shown, this.#over(one));
    const told = labels ? this.#shares(one, labels) : [this.teaching.classes().length ? "…" : "waits for what to find"];
    canvas.ariaLabel = `${file.name}: ${told.map((part) => (typeof part === "string" ? part : part.textContent)).join(" ")}`;
    card.querySelector(".told")?.replaceChildren(made("b", {}, file.name), made("br"), ...told);
    for (const one of card.querySelectorAll(".take, .correct")) one.toggleAttribute("disabled", !labels);
  }

  /** @param {Found} one @returns {ImageData | null} */
  #over({ photo, drawn, labels, classes }) {
    const how = select("show").value;
    if (!photo || !drawn || !labels || how === "photo") return null;
    const { width, height } = photo.shown;
    if (how === "heat") return heated(drawn.heat, width, height);
    const which = select("which").value;
    const shown = which ? labels.map((label) => (`=${classes[label - 1]}` === which ? label : 0)) : labels;
    return tinted(shown, width, height, (label) => colorOf(classes[label - 1] ?? ""));
  }

  /** How much of each class was found. @param {Found} one @param {Uint8Array} labels @returns {(Node | string)[]} */
  #shares(one, labels) {
    const counts = new Float64Array(256);
    for (const label of labels) counts[label]++;
    const sure = sureness(one);
    const told = one.classes.map((name, index) => {
      const there = one.answers[index].presence;
      const share = counts[index + 1] / labels.length;
      const said = one.fixed.has(name) ? " (corrected)" : there === null ? "" : ` (${percent(there)} likely${share ? "" : " there"})`;
      return made("span", { className: "line" }, swatch(name), ` ${name}: ${share ? `${percent(share)} of the photo` : "not found"}${said}`);
    });
    return [...told, made("span", { className: "hint", title: at("sure-says").textContent }, sure > 1 ? "" : `sure: ${percent(sure)}`)];
  }

  /** Mend a mask, and teach with it or not. @param {Found} one */
  async #correct(one) {
    const { photo, labels, classes, file } = one;
    if (!photo || !labels) return;
    const { width, height } = photo.shown;
    const maskOf = (/** @type {string} */ name) => {
      const index = classes.indexOf(name) + 1;
      return index ? new Mask(width, height, labels.map((label) => (label === index ? 1 : 0))) : null;
    };
    let name = select("which").value.slice(1) || classes.find((_, index) => labels.includes(index + 1)) || classes[0];
    let [mask, told] = [maskOf(name) ?? undefined, ""];
    for (;;) {
      const question = { file, photo, name, mask, told, others: maskOf, absent: this.engine instanceof RemoteEngine };
      const labelled = { add: "Teach with it and find again", keep: "Only correct this mask", leave: "Leave it as it was" };
      const reply = await this.teaching.marking.ask({ ...question, ...labelled });
      if (reply.what === "leave") break;
      const absent = reply.what === "absent"; // all of what was found is wrong
      [name, mask] = [reply.name, absent ? new Mask(width, height) : reply.mask];
      told = reply.what === "keep" ? "" : await this.teaching.teach(file, photo, absent ? null : mask, name);
      if (told) continue;
      one.fixed.set(name, mask);
      this.#settle(one);
      if (reply.what !== "keep") this.again();
      break;
    }
    /** @type {HTMLElement | null} */ (one.card.querySelector(".correct"))?.focus();
  }

  /** @param {Found} one */
  #remover(one) {
    return action("Remove", `Remove ${one.file.name}`, () => {
      [this.found, this.queue] = [this.found, this.queue].map((all) => all.filter((other) => other !== one));
      one.card.remove();
      this.#arrange();
      this.#stale();
    });
  }

  /** Search all photos that were not searched for what is taught now. */
  again() {
    this.#again(this.found.filter((one) => one.error || one.of !== this.teaching.state));
  }

  /** Masks of what was taught before, and photos that were not searched or failed, are told as such. */
  #stale() {
    const { state } = this.teaching;
    const any = this.teaching.classes().length > 0;
    const resting = this.found.filter((one) => !this.queue.includes(one));
    const stale = resting.some((one) => one.of !== state && !one.error && (one.answers.length || any));
    const failed = resting.filter((one) => one.error && one.photo).length; // what cannot be read cannot be the second time
    at("stale").hidden = !stale && !(any && failed > 1); // a single one has its own button
    tell("stale-told", stale ? "Not all photos were searched for what is taught now." : `${failed} photos could not be searched.`);
    tell("again", stale ? "Find again" : "Try all again");
    button("again").disabled = !any;
  }

  /** The cards in their order, without those that are not asked for. */
  #arrange() {
    at("settings").hidden = at("sure").hidden = !this.found.length;
    const by = select("sort").value;
    const rank = { given: (/** @type {Found} */ one) => one.id, doubt: sureness, most: (/** @type {Found} */ one) => -shareOf(one, select("which").value) }[by];
    const ordered = rank ? [...this.found].sort((a, b) => rank(a) - rank(b)) : this.found;
    const there = select("there").value;
    const share = (/** @type {Found} */ one) => shareOf(one, select("which").value);
    let hidden = 0;
    for (const one of ordered) {
      const off = one.labels !== null && ((there === "yes" && !share(one)) || (there === "no" && share(one) > 0));
      one.card.hidden = off;
      hidden += Number(off);
    }
    tell("hidden", hidden ? `${hidden} of ${this.found.length} are not shown.` : "");
    const list = at("found");
    const cards = ordered.map(({ card }) => card);
    if (cards.length === list.children.length && cards.every((card, i) => card === list.children[i])) return;
    const focused = document.activeElement;
    list.replaceChildren(...cards);
    if (focused instanceof HTMLElement && focused !== document.activeElement && list.contains(focused)) focused.focus();
  }

  #settings() {
    const wide = matchMedia("(min-width: 40rem)"); // a phone shows masks first
    const fold = () => at("settings").toggleAttribute("open", wide.matches);
    wide.addEventListener("change", fold);
    fold();
    button("again").addEventListener("click", () => this.again());
    button("stop").addEventListener("click", () => {
      this.queue = this.queue.filter((one) => this.#busy.has(one));
      this.#stale();
    });
    button("empty").addEventListener("click", () => {
      this.found = this.queue = [];
      this.#arrange();
      this.#stale();
    });
    for (const id of ["sort", "there"]) select(id).addEventListener("change", () => this.#arrange());
    for (const id of ["show", "which"])
      select(id).addEventListener("change", () => {
        this.found.forEach((one) => this.#show(one));
        this.#arrange();
      });
    let asked = 0;
    const settle = () => {
      tell("threshold-value", (Number(input("threshold").value) / 100).toFixed(2));
      tell("part-value", `${(100 * this.#smallest()).toFixed(2)} %`);
      cancelAnimationFrame(asked);
      asked = requestAnimationFrame(() => {
        for (const one of this.found) if (one.drawn) this.#settle(one);
        this.#arrange();
      });
    };
    for (const id of ["threshold", "part"]) input(id).addEventListener("input", settle);
    input("presence").addEventListener("input", () => tell("presence-value", `${input("presence").value} %`));
    input("presence").addEventListener("change", async () => {
      for (const one of this.found) await this.#draw(one);
      this.#arrange();
    });
    button("all").addEventListener("click", () => this.take(this.found.filter((one) => one.answers.length)));
  }

  /** All are taken away once a search has ended: before, some masks are of what was taught before. */
  #allowAll() {
    button("all").disabled = this.running > 0 || this.taking > 0;
    button("all").title = this.running ? "Once the search has ended" : "";
  }

  /** @param {Found[]} these */
  async take(these) {
    this.taking++;
    this.#allowAll();
    try {
      const given = these.flatMap((one) => (one.photo ? [{ ...one, photo: one.photo }] : []));
      const drawn = async (/** @type {Found} */ one, /** @type {number} */ width, /** @type {number} */ height) =>
        settled(one, await this.engine.draw(one.answers, width, height, this.least()), width, height, this.#limits());
      const far = (/** @type {number} */ done) => tell("find-told", `Writing ${done + 1} of ${given.length} …`);
      tell("find-told", (await takeAway(given, select("kind").value, drawn, far)) ? "" : "There is no mask yet.");
    } catch (error) {
      tell("find-told", `It could not be written (${words(error)}).`);
    }
    this.taking--;
    this.#allowAll();
  }
}
