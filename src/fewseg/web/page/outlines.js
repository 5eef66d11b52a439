// @ts-check
/** What an editor draws above photo and mask: places that were clicked, a polygon's corners, a box, the cursor. */

/** @typedef {import("./editor.js").Editor} Editor */
/** @typedef {import("./view.js").Point} Point */

/** @param {CanvasRenderingContext2D} context @param {Editor} editor */
export function drawOutlines(context, editor) {
  const { cursor, corners, clicks } = editor;
  const { grain } = editor.view;
  const outline = new Path2D();
  for (const [x, y] of [...corners, ...(clicks?.on ?? [])]) {
    outline.moveTo(x + 4 * grain, y);
    outline.arc(x, y, 4 * grain, 0, 2 * Math.PI);
  }
  for (const point of clicks?.off ?? []) cross(outline, point, 5 * grain, 5 * grain);
  const line = cursor && corners.length ? [...corners, cursor] : corners;
  line.forEach(([x, y], i) => (i ? outline.lineTo(x, y) : outline.moveTo(x, y)));
  if (cursor) drawCursor(outline, editor, cursor, grain);
  for (const [color, wide] of /** @type {[string, number][]} */ ([["#000a", 3], ["#fff", 1.5]])) {
    context.strokeStyle = color;
    context.lineWidth = wide * grain;
    context.stroke(outline);
  }
}

/** @param {Path2D} outline @param {Editor} editor @param {Point} cursor @param {number} grain */
function drawCursor(outline, { tool, from, size }, [x, y], grain) {
  if (tool === "box" && from) {
    const [left, top] = from;
    outline.rect(left, top, x - left, y - top);
    const inner = new Path2D();
    inner.ellipse((left + x) / 2, (top + y) / 2, Math.abs(x - left) / 2, Math.abs(y - top) / 2, 0, 0, 2 * Math.PI);
    outline.addPath(inner);
  } else if (tool === "brush" || tool === "eraser") {
    outline.moveTo(x + size / 2, y);
    outline.arc(x, y, size / 2, 0, 2 * Math.PI);
  } else if (tool !== "hand") {
    cross(outline, [x, y], 12 * grain, 0);
  }
}

/** Two lines through a point. @param {Path2D} outline @param {Point} point @param {number} dx @param {number} dy */
function cross(outline, [x, y], dx, dy) {
  outline.moveTo(x - dx, y - dy);
  outline.lineTo(x + dx, y + dy);
  outline.moveTo(x - dy, y + dx);
  outline.lineTo(x + dy, y - dx);
}
