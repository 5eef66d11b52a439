// @ts-check
/** The dialog in which a photo is marked, or a mask is corrected. */

import { colorFor } from "./colors.js";
import { at, button, by, input, percent, tell, words } from "./dom.js";
import { Editor } from "./editor.js";
import { Mask } from "./mask.js";

/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./editor.js").Tool} Tool */
/** @typedef {"add" | "keep" | "absent" | "leave"} What  teach it; correct it alone; the object is not in it; nothing
 * @typedef {{file: File, photo: Photo, name: string, mask?: Mask, told?: string, add: string, keep?: string, leave: string,
 *   absent?: boolean, others?: (name: string) => Mask | null}} Question  `others`: the masks of a photo by class
 * @typedef {{what: What, name: string, mask: Mask}} Reply */

const HINTS = {
  box: "Drag a box close around the object: the ellipse in it is marked. Brush and eraser then mend its edge.",
  brush: "Paint over the object.",
  eraser: "Rub out what is not the object.",
  polygon: "Click corner after corner; the first one again, a double click or Enter closes it.",
  click: "Click on the object: what looks alike around is marked. More clicks add to it; Not here takes away what is too much.",
  not: "Click where the object is not: what looks alike around is marked no more.",
  hand: "Drag the photo. The wheel, or two fingers, enlarge it.",
};

export class Marking {
  /** @param {import("./engine.js").Engine["readMask"]} readMask */
  constructor(readMask) {
    this.dialog = by("marking", HTMLDialogElement);
    this.editor = new Editor(by("editor", HTMLCanvasElement));
    /** @type {(reply: Reply) => void} */
    this.reply = () => {};
    /** @type {Question | null} */
    this.question = null;
    this.warned = false; // that what was marked is lost
    /** How many more photos wait to be marked. */
    this.waiting = () => 0;
    for (const what of /** @type {What[]} */ (["add", "keep", "absent", "leave"]))
      button(what).addEventListener("click", () => this.#done(what));
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (this.warned || !event.cancelable || !this.editor.mask.past.length) this.#done("leave");
      else tell("marking-told", `What you marked would be lost: once more to ${this.question?.leave.toLowerCase()}.`);
      this.warned = true;
    });
    this.#tools();
    input("mask-file").addEventListener("change", () => this.#load(readMask));
    input("name").addEventListener("input", () => this.#recolor());
    input("name").addEventListener("change", () => this.#other());
    this.editor.onchange = () => {
      this.warned = false;
      tell("marking-told", "");
      this.#show();
    };
  }

  /** Show a photo, and wait for what becomes of it. @param {Question} question @returns {Promise<Reply>} */
  ask(question) {
    this.question = question;
    this.warned = false;
    tell("marking-title", question.file.name);
    input("name").value = question.name;
    button("add").textContent = question.add;
    button("keep").hidden = !question.keep;
    button("keep").textContent = question.keep ?? "";
    button("absent").hidden = !question.absent;
    button("leave").textContent = question.leave;
    at("editor").setAttribute("aria-label", `${question.file.name}, the photo that is being marked`);
    this.dialog.showModal();
    this.editor.open(question.photo.shown, question.mask);
    this.editor.choose(this.editor.tool);
    this.#recolor();
    tell("marking-told", question.told ?? "");
    this.tellWaiting();
    at("editor").focus({ preventScroll: true });
    return new Promise((resolve) => (this.reply = resolve));
  }

  tellWaiting() {
    const count = this.waiting();
    tell("waiting", count ? `${count} more ${count === 1 ? "waits" : "wait"}` : "");
  }

  /** @param {What} what */
  #done(what) {
    const name = input("name").value.trim();
    if (what !== "leave" && !name) {
      tell("marking-told", "Give the object a name first.");
      input("name").focus();
      return;
    }
    if ((what === "add" || what === "keep") && this.editor.corners.length) {
      tell("marking-told", "The polygon is still open: Enter, or a click on its first corner, closes it; Undo takes corners back.");
      return;
    }
    this.dialog.close();
    this.question = null;
    this.reply({ what, name, mask: this.editor.mask });
  }

  #tools() {
    const { editor } = this;
    const choose = (/** @type {Tool} */ tool) => {
      editor.choose(tool);
      input("size").disabled = tool !== "brush" && tool !== "eraser";
      tell("tool-hint", HINTS[tool]);
    };
    const radios = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("input[name=tool]"));
    editor.ontool = (number) => radios[number].click();
    for (const radio of radios) {
      radio.addEventListener("change", () => choose(/** @type {Tool} */ (radio.value)));
      if (radio.checked) choose(/** @type {Tool} */ (radio.value));
    }
    const resize = () => {
      editor.size = Number(input("size").value);
      editor.draw();
    };
    input("size").addEventListener("input", resize);
    resize();
    editor.onsize = (more) => {
      input("size").value = String(editor.size + more);
      resize();
    };
    button("undo").addEventListener("click", () => editor.undo());
    button("clear").addEventListener("click", () => editor.clear());
    button("nearer").addEventListener("click", () => editor.magnify(1.5));
    button("farther").addEventListener("click", () => editor.magnify(1 / 1.5));
  }

  /** What a mask of the photo's size marks, and how it was understood. @param {import("./engine.js").Engine["readMask"]} readMask */
  async #load(readMask) {
    const [file] = input("mask-file").files ?? [];
    input("mask-file").value = "";
    const { question } = this;
    if (!file || !question) return;
    tell("marking-told", "");
    tell("marked", `${file.name} is being read …`);
    button("add").disabled = button("keep").disabled = true; // what it marks is not taught before it is there
    try {
      const { data, width, height, told } = await readMask(file, question.file, question.photo);
      const { mask } = this.editor;
      if (this.question !== question) return; // it was closed meanwhile
      mask.remember();
      mask.data = new Mask(width, height, data).resized(mask.width, mask.height).slice();
      this.editor.changed();
      tell("marked", `${at("marked").textContent}; ${file.name}: ${told}`);
    } catch (error) {
      if (this.question !== question) return;
      this.#show();
      tell("marking-told", `${file.name} ${words(error)}`);
      at("marking-told").scrollIntoView({ block: "nearest" });
    }
  }

  #show() {
    const share = this.editor.mask.share();
    button("undo").disabled = !this.editor.mask.past.length && !this.editor.corners.length;
    button("keep").disabled = false;
    button("add").disabled = button("clear").disabled = share === 0 && !this.editor.corners.length;
    tell("marked", share === 1 ? "all of it is marked: nothing in it is background" : `${percent(share)} marked`);
  }

  #recolor() {
    this.editor.color = colorFor(input("name").value.trim());
    this.editor.draw();
  }

  /** Another class's mask of the same photo, where this one was not touched. */
  #other() {
    const mask = this.question?.others?.(input("name").value.trim());
    if (mask && this.editor.photo && !this.editor.mask.past.length) this.editor.open(this.editor.photo, mask);
  }
}
