// @ts-check
/** What is taken away: masks as PNG, COCO, GeoJSON, a table, pictures, and what annotation tools open. */

import { colorOf, tinted } from "./colors.js";
import { expected } from "./found.js";
import { png, save, zip } from "./pack.js";
import { area, joined, parts, polygons } from "./parts.js";
import { cvat, labelMe, labelStudio, text, via } from "./tools.js";

/** @typedef {import("./found.js").Found} Found */
/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {Found & {photo: Photo}} Read */
/** @typedef {{name: string, bytes: Uint8Array<ArrayBuffer>}} Packed */
/** @typedef {{one: Read, stem: string, labels: Uint8Array<ArrayBuffer>, width: number, height: number, names: string[]}} Taken  `names`: the classes of all photos */

/** How a zip of several files is called. @type {Record<string, string>} */
const ZIPS = {
  each: "masks.zip", labels: "label-maps.zip", geojson: "geojson.zip", yolo: "yolo.zip", labelme: "labelme.zip", pictures: "pictures.zip",
};

/** Save what was found in photos: one file as it is, several in a zip. False where there is nothing.
 * @param {Read[]} these @param {string} kind @param {(one: Found, width: number, height: number) => Promise<Uint8Array<ArrayBuffer>>} draw
 * @param {(done: number) => void} far @returns {Promise<boolean>} */
export async function takeAway(these, kind, draw, far) {
  /** @type {Packed[]} */
  const files = [];
  const used = new Set(kind === "yolo" || kind === "labels" ? ["classes"] : []);
  /** @type {Record<string, () => import("./tools.js").Whole>} */
  const wholes = { coco, csv: table, labelstudio: labelStudio, cvat, via };
  const whole = wholes[kind]?.();
  /** @type {Record<string, (taken: Taken, used: Set<string>) => Packed[] | Promise<Packed[]>>} */
  const apart = { each, labels: map, geojson: outlines, yolo, labelme: labelMe, pictures };
  const names = [...new Set(these.flatMap(({ classes }) => classes))]; // photos may have been searched for others
  for (const [number, one] of these.entries()) {
    far(number);
    const { width, height } = one.photo;
    const labels = await draw(one, width, height);
    const taken = { one, stem: free(one.file.name.replace(/\.[^.]*$/, ""), used), labels, width, height, names };
    if (whole) whole.add(taken);
    else files.push(...(await apart[kind](taken, used)));
  }
  if (whole && these.length) files.push(whole.file());
  if ((kind === "yolo" && names.length) || (kind === "labels" && names.length > 1))
    files.push({ name: "classes.txt", bytes: text(names.map((name) => `${name}\n`).join("")) });
  if (files.length === 1) save(files[0].name, new Blob([files[0].bytes]));
  else if (files.length) save(ZIPS[kind], zip(files));
  return files.length > 0;
}

/** Black and white, a file a class. @param {Taken} taken @param {Set<string>} used @returns {Promise<Packed[]>} */
async function each({ one: { classes }, stem, labels, width, height }, used) {
  const files = [];
  for (const [index, name] of classes.entries()) {
    const values = labels.map((label) => (label === index + 1 ? 255 : 0));
    const end = classes.length === 1 ? "" : `-${name.replace(/[^\p{L}\p{N}._-]+/gu, "-")}`;
    files.push({ name: `${free(stem + end, used, stem)}.png`, bytes: await png(values, width, height) });
  }
  return files;
}

/** 0, 1, 2, ... in one file: the lines of classes.txt. @param {Taken} taken @returns {Promise<Packed[]>} */
async function map({ one: { classes }, stem, labels, width, height, names }) {
  const values = [0, ...classes.map((name) => names.indexOf(name) + 1)];
  return [{ name: `${stem}.png`, bytes: await png(labels.map((label) => values[label]), width, height) }];
}

/** The photo as it is shown, with its masks. @param {Taken} taken @returns {Promise<Packed[]>} */
async function pictures({ one: { photo, classes, labels }, stem }) {
  const { width, height } = photo.shown;
  const canvas = new OffscreenCanvas(width, height);
  const layer = new OffscreenCanvas(width, height);
  if (labels) layer.getContext("2d")?.putImageData(tinted(labels, width, height, (label) => colorOf(classes[label - 1] ?? "")), 0, 0);
  const context = canvas.getContext("2d");
  context?.drawImage(photo.shown, 0, 0);
  context?.drawImage(layer, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  return [{ name: `${stem}-overlay.jpg`, bytes: new Uint8Array(await blob.arrayBuffer()) }];
}

/** Outlines in pixels, with their holes. @param {Taken} taken @returns {Packed[]} */
function outlines({ one: { classes }, stem, labels, width, height, names }) {
  const features = classes.flatMap((name, index) =>
    polygons(labels, width, height, index + 1).map((coordinates) => {
      const pixels = coordinates.reduce((sum, ring) => sum + area(ring) / 2, 0);
      return { type: "Feature", properties: { class: name, class_id: names.indexOf(name) + 1, pixels }, geometry: { type: "Polygon", coordinates } };
    }));
  const content = { type: "FeatureCollection", image: { width, height }, features };
  return [{ name: `${stem}.geojson`, bytes: text(`${JSON.stringify(content)}\n`) }];
}

/** A line a polygon: its class, from 0, and its corners as shares of the sides. @param {Taken} taken @returns {Packed[]} */
function yolo({ one: { classes }, stem, labels, width, height, names }) {
  const lines = classes.flatMap((name, index) =>
    polygons(labels, width, height, index + 1).map((polygon) => {
      const corners = joined(polygon).slice(0, -1).map(([x, y]) => `${+(x / width).toPrecision(6)} ${+(y / height).toPrecision(6)}`);
      return `${names.indexOf(name)} ${corners.join(" ")}\n`;
    }));
  return [{ name: `${stem}.txt`, bytes: text(lines.join("")) }];
}

/** One COCO file of all photos; masks as runs. */
function coco() {
  /** @type {any[]} */
  const [images, annotations, categories] = [[], [], []];
  return {
    /** @param {Taken} taken */
    add({ one: { classes, file }, labels, width, height }) {
      const image_id = images.push({ id: images.length + 1, file_name: file.name, width, height });
      for (const [index, name] of classes.entries()) {
        const known = categories.find((/** @type {any} */ one) => one.name === name);
        const category_id = known?.id ?? categories.push({ id: categories.length + 1, name });
        const { counts, pixels, box } = runs(labels, width, height, index + 1);
        if (!pixels) continue;
        const segmentation = { size: [height, width], counts };
        annotations.push({ id: annotations.length + 1, image_id, category_id, segmentation, area: pixels, bbox: box, iscrowd: 0 });
      }
    },
    file: () => ({ name: "annotations.json", bytes: text(JSON.stringify({ info: { description: "fewseg" }, images, categories, annotations })) }),
  };
}

/** A mask's lengths of 0s and 1s by turns, column by column, as COCO has it. @param {Uint8Array} labels @param {number} width
 * @param {number} height @param {number} label */
function runs(labels, width, height, label) {
  const counts = [];
  let [length, value, pixels, left, top, right, bottom] = [0, false, 0, width, height, 0, 0];
  for (let x = 0; x < width; x++)
    for (let y = 0; y < height; y++) {
      const inside = labels[y * width + x] === label;
      if (inside !== value) {
        counts.push(length);
        [length, value] = [0, inside];
      }
      length++;
      if (!inside) continue;
      pixels++;
      [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
  counts.push(length);
  return { counts, pixels, box: [left, top, right - left, bottom - top] };
}

/** One table of all photos, a line a class: the columns of `fewseg segment` but for those of mask files. */
function table() {
  const lines = ["photo,class,presence,expected_iou,doubt,share,parts,sizes,boxes"];
  const quoted = (/** @type {string} */ value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  return {
    /** @param {Taken} taken */
    add({ one, labels, width, height }) {
      const { classes, file, answers } = one;
      /** @type {{pixels: number, box: number[]}[][]} */
      const found = classes.map(() => []);
      parts(labels, width, height, ({ label, pixels, box }) => found[label - 1]?.push({ pixels, box }));
      for (const [index, name] of classes.entries()) {
        const largest = found[index].sort((a, b) => b.pixels - a.pixels).slice(0, 100);
        const share = found[index].reduce((sum, { pixels }) => sum + pixels, 0) / labels.length;
        const told = expected(one, index);
        const shares = [answers[index]?.presence, told?.overlap, told?.doubt].map((share) => share?.toFixed(3) ?? "");
        const [sizes, boxes] = [largest.map(({ pixels }) => pixels).join(" "), largest.map(({ box }) => box.join(",")).join(" ")];
        const cells = [file.name, name, ...shares, share.toFixed(6), String(found[index].length), sizes, boxes];
        lines.push(cells.map(quoted).join(","));
      }
    },
    file: () => ({ name: "results.csv", bytes: text(`${lines.join("\n")}\n`) }),
  };
}

/** A name that is not taken; `own` may be used again. @param {string} name @param {Set<string>} used @param {string} [own] */
function free(name, used, own) {
  let chosen = name;
  for (let n = 2; used.has(chosen) && chosen !== own; n++) chosen = `${name}-${n}`;
  used.add(chosen);
  return chosen;
}
