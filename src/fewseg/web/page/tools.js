// @ts-check
/** What annotation tools open: Label Studio, CVAT, LabelMe, VIA; as `fewseg segment --format` writes it. */

import { joined, polygons } from "./parts.js";

/** @typedef {import("./taking.js").Taken} Taken */
/** @typedef {{add: (taken: Taken) => void, file: () => {name: string, bytes: Uint8Array<ArrayBuffer>}}} Whole
 *  A file that tells of all photos. */

export const text = (/** @type {string} */ content) => new TextEncoder().encode(content);
const json = (/** @type {string} */ name, /** @type {any} */ content) => ({ name, bytes: text(`${JSON.stringify(content)}\n`) });

/** A task for each photo with a prediction of brushes, for BrushLabels called `tag` of an Image `image`. @returns {Whole} */
export function labelStudio() {
  /** @type {any[]} */
  const tasks = [];
  return {
    add({ one: { classes, file, answers }, labels, width, height }) {
      const place = { from_name: "tag", to_name: "image", type: "brushlabels", image_rotation: 0, original_width: width, original_height: height };
      const shown = classes.map((name, index) => ({ name, label: index + 1, score: answers[index]?.presence }));
      const result = shown.filter(({ label }) => labels.includes(label)).map(({ name, label, score }, index) => ({
        ...{ id: `r${index + 1}`, ...place, value: { format: "rle", rle: brush(labels, label), brushlabels: [name] } },
        ...(score == null ? {} : { score }),
      }));
      const known = shown.flatMap(({ score }) => (score == null ? [] : [score]));
      const prediction = { result, model_version: "fewseg", ...(known.length ? { score: Math.min(...known) } : {}) };
      tasks.push({ data: { image: `/data/local-files/?d=${encodeURIComponent(file.name)}` }, predictions: [prediction] });
    },
    file: () => json("labelstudio.json", tasks),
  };
}

/** Label Studio's run lengths of a label as RGBA of 0 and 255: bits, the highest first; see `encode_rle` in Python.
 * @param {Uint8Array} labels @param {number} label */
export function brush(labels, label) {
  /** @type {number[]} */
  const bytes = [];
  let [held, count] = [0, 0];
  const put = (/** @type {number} */ value, /** @type {number} */ bits) => {
    for (let bit = bits - 1; bit >= 0; bit--) {
      held = (held << 1) | ((value >>> bit) & 1);
      if (++count < 8) continue;
      bytes.push(held);
      [held, count] = [0, 0];
    }
  };
  put(4 * labels.length, 32);
  put(7, 5);
  for (const size of [2, 3, 7, 15]) put(size, 4);
  for (let begin = 0, end = 0; begin < labels.length; begin = end) {
    const inside = labels[begin] === label;
    while (end < labels.length && (labels[end] === label) === inside) end++;
    for (let left = 4 * (end - begin); left > 0; left -= 65536) {
      put(7, 3); // a repeated word, its length in 16 bits
      put(Math.min(left, 65536) - 1, 16);
      put(inside ? 255 : 0, 8);
    }
  }
  if (count) put(0, 8 - count);
  return bytes;
}

/** CVAT for images 1.1: a mask for each class of a photo, as run lengths in its box. @returns {Whole} */
export function cvat() {
  /** @type {string[]} */
  const images = [];
  const names = new Set();
  return {
    add({ one: { classes, file }, labels, width, height }) {
      const masks = classes.map((name, index) => {
        names.add(name);
        const box = boxOf(labels, width, height, index + 1);
        if (!box) return "";
        const [left, top, right, bottom] = box;
        const runs = [];
        let [length, value] = [0, false];
        for (let y = top; y < bottom; y++)
          for (let x = left; x < right; x++, length++) {
            if ((labels[y * width + x] === index + 1) === value) continue;
            runs.push(length);
            [length, value] = [0, !value];
          }
        const at = `left="${left}" top="${top}" width="${right - left}" height="${bottom - top}" z_order="0"`;
        return `<mask label="${escaped(name)}" source="auto" occluded="0" rle="${[...runs, length].join(", ")}" ${at}></mask>\n`;
      });
      const size = `width="${width}" height="${height}"`;
      images.push(`<image id="${images.length}" name="${escaped(file.name)}" ${size}>\n${masks.join("")}</image>\n`);
    },
    file: () => {
      const labels = [...names].map((name) => `<label><name>${escaped(name)}</name><attributes/></label>`).join("");
      const meta = `<version>1.1</version>\n<meta><task><labels>${labels}</labels></task></meta>\n`;
      const bytes = text(`<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n${meta}${images.join("")}</annotations>\n`);
      return { name: "annotations.xml", bytes };
    },
  };
}

/** VIA 2: polygons with the attribute `class`. @returns {Whole} */
export function via() {
  /** @type {Record<string, any>} */
  const entries = {};
  return {
    add(taken) {
      const { file } = taken.one;
      const regions = outlines(taken).map(({ name, corners }) => ({
        shape_attributes: { name: "polygon", all_points_x: corners.map(([x]) => x), all_points_y: corners.map(([, y]) => y) },
        region_attributes: { class: name },
      }));
      entries[`${file.name}${file.size}`] = { filename: file.name, size: file.size, regions, file_attributes: {} };
    },
    file: () => json("via.json", entries),
  };
}

/** LabelMe's file of a photo, to lie beside it. @param {Taken} taken */
export function labelMe(taken) {
  const shapes = outlines(taken).map(({ name, corners }) => ({ label: name, points: corners, group_id: null, shape_type: "polygon", flags: {} }));
  const size = { imageHeight: taken.height, imageWidth: taken.width };
  return [json(`${taken.stem}.json`, { version: "5.5.0", flags: {}, shapes, imagePath: taken.one.file.name, imageData: null, ...size })];
}

/** Every polygon's class and corners, holes joined to it. @param {Taken} taken */
function outlines({ one: { classes }, labels, width, height }) {
  return classes.flatMap((name, index) =>
    polygons(labels, width, height, index + 1).map((polygon) => ({ name, corners: joined(polygon).slice(0, -1) })));
}

/** Left, top, right, bottom of a label; null where it is not there. @param {Uint8Array} labels @param {number} width
 * @param {number} height @param {number} label @returns {[number, number, number, number] | null} */
function boxOf(labels, width, height, label) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let at = labels.indexOf(label); at >= 0; at = labels.indexOf(label, at + 1)) {
    const [x, y] = [at % width, Math.floor(at / width)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
  }
  return right ? [left, top, right, bottom] : null;
}

/** @param {string} value */
const escaped = (value) => value.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
