// @ts-check
/** What is marked on a photo: 1 the object, 0 the rest, of every pixel. Pure functions of shapes, and a way back. */

const REMEMBERED = 30;

export class Mask {
  /** @param {number} width @param {number} height @param {Uint8Array<ArrayBuffer>} data */
  constructor(width, height, data = new Uint8Array(width * height)) {
    this.width = width;
    this.height = height;
    this.data = data;
    /** @type {Uint8Array<ArrayBuffer>[]} */
    this.past = [];
  }

  /** The same marking, changed apart from this one. */
  copy() {
    return new Mask(this.width, this.height, this.data.slice());
  }

  /** The marking at another size, by the nearest pixels. @param {number} width @param {number} height */
  resized(width, height) {
    if (width === this.width && height === this.height) return this.data;
    const out = new Uint8Array(width * height);
    const columns = Int32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * this.width) / width));
    for (let y = 0; y < height; y++) {
      const row = Math.floor(((y + 0.5) * this.height) / height) * this.width;
      for (let x = 0; x < width; x++) out[y * width + x] = this.data[row + columns[x]];
    }
    return out;
  }

  /** Call before a change: `undo` brings back what is now. */
  remember() {
    this.past.push(this.data.slice());
    if (this.past.length > REMEMBERED) this.past.shift();
  }

  undo() {
    const before = this.past.pop();
    if (before) this.data = before;
    return before !== undefined;
  }

  clear() {
    this.remember();
    this.data.fill(0);
  }

  /** Of all pixels, the share that is marked. */
  share() {
    let count = 0;
    for (const value of this.data) count += value;
    return count / this.data.length;
  }

  /** A stroke of a round brush from one point to another.
   * @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 @param {number} radius
   * @param {0 | 1} value */
  stroke(x0, y0, x1, y1, radius, value) {
    const [dx, dy] = [x1 - x0, y1 - y0];
    const long = dx * dx + dy * dy;
    this.#paint(Math.min(x0, x1) - radius, Math.min(y0, y1) - radius, Math.max(x0, x1) + radius, Math.max(y0, y1) + radius,
      (x, y) => {
        const along = long ? Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / long)) : 0;
        const [ax, ay] = [x - x0 - along * dx, y - y0 - along * dy];
        return ax * ax + ay * ay <= radius * radius;
      }, value);
  }

  /** The ellipse that touches a box's four sides: what `fewseg segment --box` takes a box for. A part of the box
   * beyond the photo is cut off first.
   * @param {number} left @param {number} top @param {number} right @param {number} bottom */
  ellipse(left, top, right, bottom) {
    [left, right] = [Math.max(0, Math.min(left, right)), Math.min(this.width, Math.max(left, right))];
    [top, bottom] = [Math.max(0, Math.min(top, bottom)), Math.min(this.height, Math.max(top, bottom))];
    const [cx, cy] = [(left + right) / 2, (top + bottom) / 2];
    this.#paint(left, top, right, bottom, (x, y) => {
      const [across, down] = [(2 * (x - cx)) / (right - left), (2 * (y - cy)) / (bottom - top)];
      return across * across + down * down < 1;
    }, 1);
  }

  /** All that is inside a polygon, whatever its corners' order; where it crosses itself, every other part.
   * @param {[number, number][]} corners */
  polygon(corners) {
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    this.#paint(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (x, y) => {
      let inside = false;
      for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
        const [[ax, ay], [bx, by]] = [corners[i], corners[j]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
      }
      return inside;
    }, 1);
  }

  /** @param {number} left @param {number} top @param {number} right @param {number} bottom
   * @param {(x: number, y: number) => boolean} inside of a pixel's middle @param {0 | 1} value */
  #paint(left, top, right, bottom, inside, value) {
    const [x0, x1] = [Math.max(0, Math.floor(left)), Math.min(this.width, Math.ceil(right))];
    const [y0, y1] = [Math.max(0, Math.floor(top)), Math.min(this.height, Math.ceil(bottom))];
    for (let y = y0; y < y1; y++)
      for (let x = x0; x < x1; x++) if (inside(x + 0.5, y + 0.5)) this.data[y * this.width + x] = value;
  }
}
