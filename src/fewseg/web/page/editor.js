// @ts-check
/** Marks an object on a photo: a box, a brush, an eraser; by mouse, pen, finger or keyboard. */

import { tinted } from "./colors.js";
import { Mask } from "./mask.js";

/** @typedef {"box" | "brush" | "eraser"} Tool */
/** @typedef {[number, number]} Point */

export class Editor {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {Tool} */
    this.tool = "box";
    this.size = 40;
    /** @type {[number, number, number]} */
    this.color = [230, 57, 70];
    this.mask = new Mask(1, 1);
    /** @type {ImageBitmap | null} */
    this.photo = null;
    /** @type {Point | null} */
    this.cursor = null;
    /** @type {Point | null} */
    this.from = null; // where a box or a stroke began or went on
    this.onchange = () => {};
    this.onsize = (/** @type {number} */ _) => {};
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#cancel());
    canvas.addEventListener("pointerleave", () => {
      if (!this.from) this.#show(null);
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {ImageBitmap} photo @param {Mask} [mask] */
  open(photo, mask) {
    this.photo = photo;
    this.mask = mask ?? new Mask(photo.width, photo.height);
    this.from = this.cursor = null;
    this.canvas.width = photo.width;
    this.canvas.height = photo.height;
    this.canvas.style.width = `min(100%, calc(65vh * ${photo.width / photo.height}))`;
    this.changed();
  }

  changed() {
    this.draw();
    this.onchange();
  }

  undo() {
    this.from = null;
    if (this.mask.undo()) this.changed();
  }

  clear() {
    this.from = null;
    this.mask.clear();
    this.changed();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    if (!context || !this.photo) return;
    const { width, height } = this.canvas;
    context.drawImage(this.photo, 0, 0);
    const over = new OffscreenCanvas(width, height);
    over.getContext("2d")?.putImageData(tinted(this.mask.data, width, height, () => this.color), 0, 0);
    context.drawImage(over, 0, 0);
    if (this.cursor) this.#drawCursor(context, this.cursor);
  }

  /** @param {CanvasRenderingContext2D} context @param {Point} cursor */
  #drawCursor(context, [x, y]) {
    const scale = this.canvas.width / Math.max(1, this.canvas.clientWidth);
    const outline = new Path2D();
    if (this.tool === "box" && this.from) {
      const [left, top] = this.from;
      outline.rect(left, top, x - left, y - top);
      const inner = new Path2D();
      inner.ellipse((left + x) / 2, (top + y) / 2, Math.abs(x - left) / 2, Math.abs(y - top) / 2, 0, 0, 2 * Math.PI);
      outline.addPath(inner);
    } else if (this.tool === "box") {
      outline.moveTo(x - 12 * scale, y);
      outline.lineTo(x + 12 * scale, y);
      outline.moveTo(x, y - 12 * scale);
      outline.lineTo(x, y + 12 * scale);
    } else outline.arc(x, y, this.size / 2, 0, 2 * Math.PI);
    for (const [color, wide] of /** @type {[string, number][]} */ ([["#000a", 3], ["#fff", 1.5]])) {
      context.strokeStyle = color;
      context.lineWidth = wide * scale;
      context.stroke(outline);
    }
  }

  /** @param {PointerEvent} event @returns {Point} in the photo's pixels */
  #at(event) {
    const area = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / area.width;
    return [(event.clientX - area.left) * scale, (event.clientY - area.top) * scale];
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button || this.from) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#begin(this.#at(event));
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const drawn = event.getCoalescedEvents?.() ?? [];
    for (const one of drawn.length ? drawn : [event]) this.#show(this.#at(one));
  }

  /** @param {PointerEvent} event */
  #up(event) {
    if (!this.from) return;
    this.#show(this.#at(event));
    this.#end();
    if (event.pointerType !== "mouse") this.#show(null);
  }

  /** @param {Point} point */
  #begin(point) {
    this.from = this.cursor = point;
    if (this.tool !== "box") {
      this.mask.remember();
      this.#stroke(point);
    }
    this.draw();
  }

  /** The cursor is elsewhere. @param {Point | null} point */
  #show(point) {
    this.cursor = point;
    if (point && this.from && this.tool !== "box") this.#stroke(point);
    this.draw();
  }

  /** @param {Point} point */
  #stroke(point) {
    const [x, y] = this.from ?? point;
    this.mask.stroke(x, y, ...point, this.size / 2, this.tool === "eraser" ? 0 : 1);
    this.from = point;
  }

  #end() {
    if (this.tool === "box" && this.from && this.cursor) {
      const [[left, top], [right, bottom]] = [this.from, this.cursor];
      if (Math.abs(right - left) >= 2 && Math.abs(bottom - top) >= 2) {
        this.mask.remember();
        this.mask.ellipse(left, top, right, bottom);
      }
    }
    this.from = null;
    this.changed();
  }

  #cancel() {
    if (this.from && this.tool !== "box") this.mask.undo();
    this.from = null;
    this.changed();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const far = event.shiftKey ? 5 : 1;
    const step = Math.max(1, Math.round((far * this.canvas.width) / 100));
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const way = /** @type {Record<string, number[]>} */ (ways)[event.key];
    if (way) {
      const [x, y] = this.cursor ?? [this.canvas.width / 2, this.canvas.height / 2];
      const within = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(most, Math.max(0, value));
      this.#show([within(x + way[0], this.canvas.width), within(y + way[1], this.canvas.height)]);
    } else if (event.key === " ") {
      if (this.from) this.#end();
      else this.#begin(this.cursor ?? [this.canvas.width / 2, this.canvas.height / 2]);
    } else if (event.key === "Escape" && this.from) this.#cancel();
    else if (event.key === "[" || event.key === "]") this.onsize(event.key === "[" ? -5 : 5);
    else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }
}
