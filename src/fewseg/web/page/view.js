// @ts-check
/** Which part of a photo a canvas shows: zoom and pan, by wheel, two fingers, or keys. */

/** @typedef {[number, number]} Point */

const MOST = 16;

export class View {
  /** @param {HTMLCanvasElement} canvas as many pixels as its photo */
  constructor(canvas) {
    this.canvas = canvas;
    this.zoom = 1;
    /** @type {Point} the photo's pixel at the upper left corner */
    this.corner = [0, 0];
  }

  reset() {
    this.zoom = 1;
    this.corner = [0, 0];
  }

  /** @param {{clientX: number, clientY: number}} event @returns {Point} in the photo's pixels */
  at({ clientX, clientY }) {
    const area = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / area.width / this.zoom;
    return [this.corner[0] + (clientX - area.left) * scale, this.corner[1] + (clientY - area.top) * scale];
  }

  /** How many of the photo's pixels one of the screen is. */
  get grain() {
    return this.canvas.width / Math.max(1, this.canvas.clientWidth) / this.zoom;
  }

  /** Zoom so that a point of the photo stays where it is. @param {number} factor @param {Point} [point] the middle */
  magnify(factor, point) {
    const before = this.zoom;
    this.zoom = Math.min(MOST, Math.max(1, before * factor));
    const [x, y] = point ?? this.corner.map((left, i) => left + [this.canvas.width, this.canvas.height][i] / before / 2);
    this.corner = [x - ((x - this.corner[0]) * before) / this.zoom, y - ((y - this.corner[1]) * before) / this.zoom];
    this.#stay();
  }

  /** @param {number} dx in the photo's pixels @param {number} dy */
  move(dx, dy) {
    this.corner = [this.corner[0] + dx, this.corner[1] + dy];
    this.#stay();
  }

  /** Show a point that is outside. @param {Point} point */
  follow([x, y]) {
    const [width, height] = [this.canvas.width / this.zoom, this.canvas.height / this.zoom];
    const [left, top] = this.corner;
    this.move(Math.min(0, x - left) + Math.max(0, x - left - width), Math.min(0, y - top) + Math.max(0, y - top - height));
  }

  /** @param {CanvasRenderingContext2D} context */
  apply(context) {
    context.setTransform(this.zoom, 0, 0, this.zoom, -this.corner[0] * this.zoom, -this.corner[1] * this.zoom);
    context.imageSmoothingEnabled = this.zoom < 3;
  }

  #stay() {
    const { width, height } = this.canvas;
    const within = (/** @type {number} */ value, /** @type {number} */ side) => Math.min(side - side / this.zoom, Math.max(0, value));
    this.corner = [within(this.corner[0], width), within(this.corner[1], height)];
  }
}
