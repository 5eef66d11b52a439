// @ts-check
/** Marks an object on a photo: box, polygon, click, brush, eraser; by mouse, pen, finger or keyboard. */

import { Clicks } from "./clicks.js";
import { tinted } from "./colors.js";
import { Mask } from "./mask.js";
import { drawOutlines } from "./outlines.js";
import { View } from "./view.js";

/** @typedef {"box" | "polygon" | "click" | "not" | "brush" | "eraser" | "hand"} Tool  "not": a click where the object is not */
/** @typedef {import("./view.js").Point} Point */

const DRAGGED = ["box", "brush", "eraser"]; // tools that work while a pointer is down; the others where it is lifted
const [REACH, FINGER] = [8, 20]; // how far from its first corner a polygon is closed, on the screen

export class Editor {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.view = new View(canvas);
    /** @type {Tool} */
    this.tool = "box";
    this.size = 40;
    /** @type {import("./colors.js").Color} */
    this.color = [230, 57, 70];
    this.mask = new Mask(1, 1);
    /** @type {ImageBitmap | null} */
    this.photo = null;
    /** @type {Point | null} */
    this.cursor = null;
    /** @type {Point | null} */
    this.from = null; // where a box or a stroke began or went on
    /** @type {Point[]} */
    this.corners = []; // of a polygon that is being drawn
    /** @type {Clicks | null} */
    this.clicks = null; // since another tool was used
    /** @type {Map<number, PointerEvent>} */
    this.fingers = new Map();
    this.several = false; // fingers, since all were lifted
    this.reach = REACH;
    this.asked = 0;
    this.onchange = () => {};
    this.onsize = (/** @type {number} */ _) => {};
    this.ontool = (/** @type {number} */ _) => {};
    const around = canvas.parentElement ?? canvas; // an object at the edge is marked from beside the photo
    around.addEventListener("pointerdown", (event) => this.#down(event));
    around.addEventListener("pointermove", (event) => this.#move(event));
    around.addEventListener("pointerup", (event) => this.#up(event));
    around.addEventListener("pointercancel", (event) => this.#lift(event, () => this.#interrupt()));
    canvas.addEventListener("pointerleave", () => {
      if (!this.from) this.#show(null);
    });
    around.addEventListener("dblclick", () => this.close());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** @param {ImageBitmap} photo @param {Mask} [mask] */
  open(photo, mask) {
    this.photo = photo;
    this.mask = mask ?? new Mask(photo.width, photo.height);
    this.from = this.cursor = this.clicks = null;
    this.corners = [];
    this.canvas.width = photo.width;
    this.canvas.height = photo.height;
    this.canvas.style.aspectRatio = `${photo.width} / ${photo.height}`;
    this.canvas.style.setProperty("--ratio", String(photo.width / photo.height));
    this.view.reset();
    this.changed();
  }

  /** @param {Tool} tool */
  choose(tool) {
    this.cancel();
    this.tool = tool;
    if (tool !== "click" && tool !== "not") this.clicks = null;
    this.canvas.style.cursor = tool === "hand" ? "grab" : "crosshair";
    this.draw();
  }

  changed() {
    this.draw();
    this.onchange();
  }

  undo() {
    this.from = this.clicks = null;
    if (this.corners.length) this.corners.pop();
    else this.mask.undo();
    this.changed();
  }

  clear() {
    this.cancel();
    this.clicks = null;
    this.mask.clear();
    this.changed();
  }

  /** @param {number} factor @param {Point} [point] */
  magnify(factor, point) {
    this.view.magnify(factor, point);
    this.draw();
  }

  /** A polygon's last corner was given. */
  close() {
    const corners = this.corners;
    this.corners = [];
    if (corners.length > 2) {
      this.mask.remember();
      this.mask.polygon(corners);
    }
    this.changed();
  }

  /** Leave what was begun. */
  cancel() {
    this.corners = [];
    this.#interrupt();
  }

  /** Leave a box or a stroke that was begun. */
  #interrupt() {
    if (this.from && this.tool !== "box") this.mask.undo();
    this.from = null;
    this.changed();
  }

  /** Show what is now, once a frame. */
  draw() {
    this.asked ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.asked = 0;
    const context = this.canvas.getContext("2d");
    if (!context || !this.photo) return;
    const { width, height } = this.canvas;
    this.view.apply(context);
    context.drawImage(this.photo, 0, 0);
    const over = new OffscreenCanvas(width, height);
    over.getContext("2d")?.putImageData(tinted(this.mask.data, width, height, () => this.color), 0, 0);
    context.drawImage(over, 0, 0);
    drawOutlines(context, this);
  }

  /** @param {PointerEvent} event */
  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, event);
    this.reach = event.pointerType === "touch" ? FINGER : REACH;
    if (this.fingers.size === 2) {
      this.several = true; // they move the photo
      this.#interrupt();
    }
    if (this.several || event.button || this.from) return;
    if (DRAGGED.includes(this.tool)) this.begin(this.view.at(event));
    else this.#show(this.view.at(event));
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (before && (this.fingers.size > 1 || before.buttons & 6 || this.tool === "hand")) {
      this.#drag(before, event);
      return;
    }
    const drawn = event.getCoalescedEvents?.() ?? [];
    for (const one of drawn.length ? drawn : [event]) this.#show(this.view.at(one));
  }

  /** @param {PointerEvent} event */
  #up(event) {
    this.#lift(event, () => {
      const point = this.view.at(event);
      if (this.from) {
        this.#show(point);
        this.end();
      } else if (!event.button && !DRAGGED.includes(this.tool)) this.begin(point);
      if (event.pointerType !== "mouse") this.#show(null);
    });
  }

  /** @param {PointerEvent} event @param {() => void} last what follows where it was the only finger */
  #lift(event, last) {
    const alone = this.fingers.delete(event.pointerId) && !this.several;
    if (!this.fingers.size) this.several = false;
    if (alone) last();
  }

  /** Pan by one finger; pan and zoom by two. @param {PointerEvent} before @param {PointerEvent} event */
  #drag(before, event) {
    const others = [...this.fingers.values()].filter(({ pointerId }) => pointerId !== event.pointerId);
    const far = (/** @type {PointerEvent} */ one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
    if (others.length) this.view.magnify(far(event) / Math.max(1, far(before)), this.view.at(others[0]));
    const [[x0, y0], [x1, y1]] = [this.view.at(before), this.view.at(event)];
    const share = others.length ? 0.5 : 1;
    this.view.move(share * (x0 - x1), share * (y0 - y1));
    this.fingers.set(event.pointerId, event);
    this.draw();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    if (!event.ctrlKey && this.view.zoom === 1 && event.deltaY > 0) return; // the page scrolls
    event.preventDefault();
    this.magnify(Math.exp(-event.deltaY / 300), this.view.at(event));
  }

  /** @param {Point} point */
  begin(point) {
    this.cursor = point;
    if (this.tool === "click" || this.tool === "not") this.#click(point);
    else if (this.tool === "polygon") {
      const [first] = this.corners;
      const corner = this.#nearest(point);
      if (first && this.corners.length > 2 && Math.hypot(corner[0] - first[0], corner[1] - first[1]) < this.reach * this.view.grain) {
        this.close();
        return;
      }
      this.corners.push(corner);
      this.onchange();
    } else if (this.tool !== "hand") {
      this.from = point;
      if (this.tool !== "box") {
        this.mask.remember();
        this.#stroke(point);
      }
    }
    this.draw();
  }

  /** @param {Point} point */
  #click(point) {
    const [x, y] = this.#nearest(point);
    if (!this.photo || x !== point[0] || y !== point[1]) return; // there is nothing beside the photo
    this.clicks ??= new Clicks(this.photo, this.mask.data);
    this.mask.remember();
    this.mask.data = this.clicks.add(point, this.tool === "click");
    this.changed();
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

  end() {
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

  /** @param {KeyboardEvent} event */
  #key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = /** @type {Record<string, number[]>} */ (ways)[event.key];
    const { key } = event;
    if (way) this.#step(way, event.shiftKey ? 5 : 1);
    else if (key === " ") {
      if (this.from) this.end();
      else this.begin(this.cursor ?? this.#middle());
    } else if (key === "Enter" && this.corners.length) this.close();
    else if (key === "Backspace" && this.corners.length) this.undo();
    else if (key === "Escape" && (this.from || this.corners.length)) this.cancel();
    else if (key >= "1" && key <= "7" && !event.ctrlKey && !event.metaKey && !event.altKey) this.ontool(Number(key) - 1);
    else if (key === "[" || key === "]") this.onsize(key === "[" ? -5 : 5);
    else if (key === "+" || key === "=") this.magnify(1.5, this.cursor ?? undefined);
    else if (key === "-") this.magnify(1 / 1.5);
    else if (key === "0") this.magnify(0);
    else if (key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }

  /** @param {number[]} way @param {number} far */
  #step([dx, dy], far) {
    const step = Math.max(1, Math.round((far * this.canvas.width) / this.view.zoom / 100));
    if (this.tool === "hand") this.view.move(step * dx, step * dy);
    else {
      const [x, y] = this.cursor ?? this.#middle();
      const point = this.#nearest([x + step * dx, y + step * dy]);
      this.view.follow(point);
      this.#show(point);
    }
    this.draw();
  }

  /** In the photo. @param {Point} point @returns {Point} */
  #nearest([x, y]) {
    return [Math.min(this.canvas.width, Math.max(0, x)), Math.min(this.canvas.height, Math.max(0, y))];
  }

  /** @returns {Point} */
  #middle() {
    const [left, top] = this.view.corner;
    return [left + this.canvas.width / this.view.zoom / 2, top + this.canvas.height / this.view.zoom / 2];
  }
}
