// @ts-check
/** The page: photos are marked and taught, others are searched, and masks are taken away. */

import { colorOf, cssColor, tinted } from "./colors.js";
import { Editor } from "./editor.js";
import { Engine } from "./engine.js";
import { Mask } from "./mask.js";
import { png, save, zip } from "./pack.js";
import { RemoteEngine } from "./remote.js";

/** @typedef {import("./engine.js").Photo} Photo */
/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {Photo & {id: number, name: string, file: File, mask: Mask}} Support */
/** @typedef {{id: number, file: File, photo: Photo | null, answers: Answer[], classes: string[], of: number,
 *   drawn: {labels: Uint8Array<ArrayBuffer>, levels: Uint8Array<ArrayBuffer>} | null, error: string, card: HTMLLIElement}} Found */
/** @typedef {import("./remote.js").Config & {engine?: "server", fewseg: string, model: string,
 *   record: {presence: boolean, image_size: number}, ort: {version: string},
 *   example: {name: string, supports: {photo: string, mask: string}[], queries: string[]}}} Config */

/** @template {HTMLElement} T @param {string} id @param {new () => T} type @returns {T} */
function by(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${id}`);
  return element;
}
const at = (/** @type {string} */ id) => by(id, HTMLElement);
const button = (/** @type {string} */ id) => by(id, HTMLButtonElement);
const input = (/** @type {string} */ id) => by(id, HTMLInputElement);

/** @template {keyof HTMLElementTagNameMap} K @param {K} tag @param {Record<string, any>} [properties]
 * @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[K]} */
function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const words = (/** @type {unknown} */ error) => (error instanceof Error ? error.message : String(error));

/** @type {Config} */
const config = await (await fetch("config.json")).json();
const served = config.engine === "server";
await (served ? alone() : isolated());
const engine = served ? new RemoteEngine(config) : new Engine();
const editor = new Editor(by("editor", HTMLCanvasElement));

let numbers = 0;
/** Counts changes of what is taught: masks are of one of its values. */
let taught = 0;
/** @type {Support[]} */
let supports = [];
/** @type {Found[]} */
let found = [];
/** @type {File[]} */
let toMark = [];
/** @type {{file: File, photo: Photo, support: Support | null} | null} */
let marked = null;
/** @type {Map<string, number>} */
const colors = new Map();
/** @type {Found[]} */
let toSearch = [];
let searching = false;
let searched = 0;

/** Classes in the order in which they were first taught. */
const classes = () => [...new Set(supports.map(({ name }) => name))];
/** @param {string} name */
function colorIndex(name) {
  if (!colors.has(name)) colors.set(name, colors.size);
  return colors.get(name) ?? 0;
}

/* ---- starting ---- */

/** A service worker gives the page the headers that threads need, and keeps it for use without a network. */
async function isolated() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    await controlled();
  } catch {
    return; // some browsers' private windows have none: one thread, and only with a network
  }
  if (crossOriginIsolated || !navigator.serviceWorker.controller || sessionStorage.getItem("isolated")) return;
  sessionStorage.setItem("isolated", "tried");
  location.reload();
  await new Promise(() => {});
}

/** A page without a server that was here before, at the same address, must not answer for this one. */
async function alone() {
  for (const one of (await navigator.serviceWorker?.getRegistrations()) ?? []) await one.unregister();
}

/** Once the worker answers for this page; a page that was loaded past it is not waited for long. */
async function controlled() {
  if (navigator.serviceWorker.controller) return;
  const taken = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
  await Promise.race([taken, new Promise((resolve) => setTimeout(resolve, 8000))]);
}

/** @param {string} text @param {"" | "busy" | "ready" | "failed"} state */
function status(text, state) {
  at("status").textContent = text;
  at("status").className = state;
}

status(served ? "Starting …" : "Starting: the model is fetched (once) and checked on a drawn scene …", "busy");
at("lead").textContent += served ? "." : ", in this browser: no photo leaves this device.";
const ready = engine.open(config, new URLSearchParams(location.search).get("runtime")).then(
  ({ runs, note }) => {
    const offline = navigator.serviceWorker?.controller ? "works without a network from now on" : "needs the network at each visit";
    const where = served ? "on the server, which removes your photos as soon as they were searched" : offline;
    status(`Ready: ${runs}; ${where}.${note ? ` Note: ${note}.` : ""}`, "ready");
  },
  (error) => {
    status(`It cannot run here: ${words(error)}`, "failed");
    throw error;
  },
);
ready.catch(() => {});
at("about").textContent = `fewseg ${config.fewseg}, model ${config.model}, ${served ? config.runtime : `onnxruntime-web ${config.ort.version}`}. It is asked where, not whether: look at masks before anything depends on them.`;
for (const id of ["teach-files", "find-files"]) input(id).disabled = false;
button("example").disabled = false;
at("presence-row").hidden = !config.record.presence;

/* ---- files in ---- */

/** @param {string} area @param {string} chooser @param {(files: File[]) => void} take */
function takeFiles(area, chooser, take) {
  const zone = at(area);
  const given = (/** @type {FileList | null | undefined} */ files) => take([...(files ?? [])]);
  input(chooser).addEventListener("change", () => {
    given(input(chooser).files);
    input(chooser).value = "";
  });
  for (const event of ["dragenter", "dragover"])
    zone.addEventListener(event, (one) => {
      one.preventDefault();
      zone.classList.add("over");
    });
  for (const event of ["dragleave", "drop"]) zone.addEventListener(event, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    given(event.dataTransfer?.files);
  });
}
// a photo dropped beside the fields must not replace the page
for (const event of ["dragover", "drop"]) addEventListener(event, (one) => one.preventDefault());
takeFiles("teach-drop", "teach-files", (files) => {
  toMark.push(...files);
  if (marked) tellWaiting();
  else openNext();
});
takeFiles("find-drop", "find-files", search);

/** @param {"teach-told" | "find-told"} place @param {string} text */
function tell(place, text) {
  at(place).textContent = text;
}

/* ---- 1. marking and teaching ---- */

async function openNext() {
  marked = null;
  const file = toMark.shift();
  at("marking").hidden = !file;
  if (!file) return;
  try {
    openMarking(file, await engine.read(file), null);
  } catch (error) {
    tell("teach-told", `${file.name} ${words(error)}`);
    await openNext();
  }
}

/** @param {File} file @param {Photo} photo @param {Support | null} support that is changed */
function openMarking(file, photo, support) {
  marked = { file, photo, support };
  if (support) input("name").value = support.name;
  at("marking").hidden = false;
  at("editor").setAttribute("aria-label", `${file.name}, the photo that is being marked`);
  button("add").textContent = support ? "Teach it anew" : "Teach this photo";
  button("leave").textContent = support ? "Leave it as it was" : "Leave it out";
  recolor();
  editor.open(photo.shown, support?.mask.copy());
  tellWaiting();
}

function tellWaiting() {
  at("waiting").textContent = toMark.length ? `${toMark.length} more ${toMark.length === 1 ? "waits" : "wait"}` : "";
}

function recolor() {
  const name = input("name").value.trim();
  editor.color = colorOf(colors.get(name) ?? colors.size);
  if (editor.photo) editor.draw();
}

/** @param {"box" | "brush" | "eraser"} tool */
function choose(tool) {
  editor.tool = tool;
  input("size").disabled = tool === "box";
}

for (const radio of document.querySelectorAll("input[name=tool]"))
  radio.addEventListener("change", () => choose(/** @type {any} */ (radio).value));
choose(/** @type {any} */ (document.querySelector("input[name=tool]:checked")).value);
input("size").addEventListener("input", () => (editor.size = Number(input("size").value)));
editor.size = Number(input("size").value);
editor.onsize = (/** @type {number} */ more) => {
  input("size").value = String(editor.size + more);
  editor.size = Number(input("size").value);
  editor.draw();
};
editor.onchange = () => {
  const share = editor.mask.share();
  button("undo").disabled = !editor.mask.past.length;
  button("add").disabled = button("clear").disabled = share === 0;
};
input("name").addEventListener("input", recolor);
button("undo").addEventListener("click", () => editor.undo());
button("clear").addEventListener("click", () => editor.clear());
button("leave").addEventListener("click", openNext);
button("add").addEventListener("click", async () => {
  if (!marked) return;
  const { file, photo, support } = marked;
  const name = input("name").value.trim();
  if (!name) {
    tell("teach-told", "Give the object a name first.");
    input("name").focus();
    return;
  }
  button("add").disabled = true;
  at("waiting").textContent = "It is being read …";
  const done = await teach(file, photo, editor.mask, name, support);
  tellWaiting();
  if (done) await openNext();
  else editor.onchange();
});

/** @param {File} file @param {Photo} photo @param {Mask} mask @param {string} name @param {Support | null} former
 * @returns {Promise<boolean>} whether it was learned */
async function teach(file, photo, mask, name, former) {
  tell("teach-told", mask.share() === 1 ? `${file.name} is marked all over: nothing in it is background.` : "");
  const id = former?.id ?? ++numbers;
  try {
    await ready;
    await engine.teach(id, file, { data: mask.data, width: mask.width, height: mask.height });
  } catch (error) {
    tell("teach-told", `${file.name}: ${words(error)}`);
    return false;
  }
  const support = { ...photo, id, name, file, mask };
  colorIndex(name);
  supports = former ? supports.map((one) => (one.id === id ? support : one)) : [...supports, support];
  changed();
  return true;
}

/** @param {Support} support */
async function forget(support) {
  supports = supports.filter((one) => one !== support);
  await engine.forget(support.id);
  changed();
}

/** What is taught has changed. */
function changed() {
  taught++;
  at("supports").replaceChildren(...supports.map(supportCard));
  at("names").replaceChildren(...classes().map((value) => made("option", { value })));
  if (supports.length) again(found.filter((one) => !one.answers.length && !one.error)); // they waited for it
  showStale();
}

/** @param {Support} support */
function supportCard(support) {
  const { name, file, mask, shown } = support;
  const canvas = made("canvas", { width: shown.width, height: shown.height, role: "img", ariaLabel: `${file.name} with ${name} marked` });
  paint(canvas, shown, mask.data, () => colorOf(colorIndex(name)));
  const change = made("button", { type: "button", ariaLabel: `Change the marking of ${file.name}` }, "Change");
  const remove = made("button", { type: "button", ariaLabel: `Remove ${file.name}` }, "Remove");
  change.addEventListener("click", () => {
    if (marked && !marked.support) toMark.unshift(marked.file);
    openMarking(file, support, support);
    at("editor").focus();
  });
  remove.addEventListener("click", () => forget(support));
  return made("li", {}, canvas, made("p", {}, swatch(name), ` ${name}, ${percent(mask.share())} marked`), made("p", { className: "row" }, change, remove));
}

/** @param {string} name */
function swatch(name) {
  const dot = made("span", { className: "swatch" });
  dot.style.background = cssColor(colorIndex(name));
  return dot;
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} photo @param {Uint8Array | null} labels
 * @param {(label: number) => [number, number, number]} color */
function paint(canvas, photo, labels, color) {
  const context = canvas.getContext("2d");
  if (!context) return;
  context.drawImage(photo, 0, 0);
  if (!labels) return;
  const over = new OffscreenCanvas(photo.width, photo.height);
  over.getContext("2d")?.putImageData(tinted(labels, photo.width, photo.height, color), 0, 0);
  context.drawImage(over, 0, 0);
}

button("example").addEventListener("click", async () => {
  button("example").disabled = true;
  const { name, supports: examples, queries } = config.example;
  try {
    for (const { photo, mask } of examples) {
      const file = await fetched(photo);
      const { data, width, height } = await engine.readMask(await fetched(mask));
      await teach(file, await engine.read(file), new Mask(width, height, data), name, null);
    }
    search(await Promise.all(queries.map(fetched)));
  } catch (error) {
    tell("teach-told", `The example cannot be read (${words(error)}).`);
  }
  button("example").disabled = false;
});

/** @param {string} path @returns {Promise<File>} */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return new File([await response.blob()], path.split("/").pop() ?? path);
}

/* ---- 2. finding ---- */

/** @param {File[]} files */
function search(files) {
  const added = files.map((file) => {
    const card = made("li", {}, made("p", {}, file.name));
    return { id: ++numbers, file, photo: null, answers: [], classes: [], of: -1, drawn: null, error: "", card };
  });
  found.push(...added);
  at("found").append(...added.map(({ card }) => card));
  at("settings").hidden = !found.length;
  again(added);
}

/** @param {Found[]} these */
function again(these) {
  toSearch.push(...these.filter((one) => !toSearch.includes(one)));
  if (!searching) work();
  showStale();
}

async function work() {
  searching = true;
  searched = 0;
  tell("find-told", "");
  while (toSearch.length) {
    tellWork();
    const one = toSearch[0];
    await searchIn(one);
    toSearch = toSearch.filter((other) => other !== one);
    searched++;
    showStale();
  }
  searching = false;
  tellWork();
}

function tellWork() {
  const all = searched + toSearch.length;
  at("work").hidden = !searching;
  by("bar", HTMLProgressElement).value = all ? searched / all : 0;
  at("done").textContent = `${searched} of ${all}`;
  if (searching || !searched) return;
  const photos = searched === 1 ? "1 photo" : `${searched} photos`;
  tell("find-told", supports.length ? `${photos} done.` : "Show what to find first: these photos are searched then.");
}

/** @param {Found} one */
async function searchIn(one) {
  one.error = "";
  try {
    one.photo ??= await engine.read(one.file);
    showFound(one);
    if (!supports.length) return; // what is taught later is searched in it then
    await ready;
    const [names, of] = [classes(), taught];
    const { answers } = await engine.find(one.file, names.map(classOf));
    Object.assign(one, { answers, classes: names, of });
    await drawAgain(one);
  } catch (error) {
    one.error = words(error);
    showFound(one);
  }
}

/** @param {string} name @returns {import("./engine.js").Class} */
function classOf(name) {
  return { name, supports: supports.filter((support) => support.name === name).map(({ id }) => id), absent: [] };
}

const presence = () => (config.record.presence ? Number(input("presence").value) / 100 : 0);

/** @param {Found} one */
async function drawAgain(one) {
  if (!one.photo || !one.answers.length) return;
  const { width, height } = one.photo.shown;
  one.drawn = await engine.draw(one.answers, width, height, presence());
  showFound(one);
}

/** Labels of what is above the threshold. @param {{labels: Uint8Array<ArrayBuffer>, levels: Uint8Array<ArrayBuffer>}} drawn */
function above({ labels, levels }) {
  const threshold = Number(input("threshold").value);
  return labels.map((label, i) => (levels[i] > threshold ? label : 0));
}

/** @param {Found} one */
function showFound(one) {
  const { file, photo, card, drawn, error } = one;
  if (error || !photo) {
    card.replaceChildren(made("p", { className: "alert" }, `${file.name} ${error}`), remover(one));
    return;
  }
  let canvas = card.querySelector("canvas");
  if (!canvas) {
    canvas = made("canvas", { width: photo.shown.width, height: photo.shown.height, role: "img" });
    const take = made("button", { type: "button", ariaLabel: `Download the mask of ${file.name}`, className: "take" }, "Download mask");
    take.addEventListener("click", () => takeAway([one]));
    card.replaceChildren(canvas, made("p", { className: "told" }), made("p", { className: "row" }, take, remover(one)));
  }
  const labels = drawn && above(drawn);
  paint(canvas, photo.shown, input("show").checked ? labels : null, (label) => colorOf(colorIndex(one.classes[label - 1] ?? "")));
  const told = labels ? shares(one, labels) : [supports.length ? "…" : "waits for what to find"];
  canvas.ariaLabel = `${file.name}: ${told.map((part) => (typeof part === "string" ? part : "")).join("")}`;
  card.querySelector(".told")?.replaceChildren(made("b", {}, file.name), made("br"), ...told);
  /** @type {HTMLButtonElement | null} */ (card.querySelector(".take"))?.toggleAttribute("disabled", !labels);
}

/** How much of each class was found. @param {Found} one @param {Uint8Array} labels @returns {(Node | string)[]} */
function shares(one, labels) {
  const counts = new Float64Array(256);
  for (const label of labels) counts[label]++;
  return one.classes.flatMap((name, index) => {
    const there = one.answers[index].presence;
    const sure = there === null ? "" : ` (there with ${percent(there)})`;
    const share = counts[index + 1] / labels.length;
    return [swatch(name), ` ${name} ${share ? percent(share) : "not found"}${sure}  `];
  });
}

/** @param {Found} one */
function remover(one) {
  const remove = made("button", { type: "button", ariaLabel: `Remove ${one.file.name}` }, "Remove");
  remove.addEventListener("click", () => {
    [found, toSearch] = [found, toSearch].map((all) => all.filter((other) => other !== one));
    one.card.remove();
    at("settings").hidden = !found.length;
    showStale();
  });
  return remove;
}

/** Masks of what was taught before, and photos that were not searched, are told as such. */
function showStale() {
  const open = found.filter((one) => one.of !== taught && !one.error && !toSearch.includes(one));
  at("stale").hidden = !open.some((one) => one.answers.length || supports.length);
  button("again").disabled = !supports.length;
}

button("again").addEventListener("click", () => again(found.filter((one) => one.of !== taught)));
button("stop").addEventListener("click", () => {
  toSearch = toSearch.slice(0, 1);
  showStale();
});
button("empty").addEventListener("click", () => {
  found = toSearch = [];
  at("found").replaceChildren();
  at("settings").hidden = true;
  showStale();
});
input("show").addEventListener("change", () => found.forEach(showFound));
let asked = 0;
input("threshold").addEventListener("input", () => {
  at("threshold-value").textContent = (Number(input("threshold").value) / 100).toFixed(2);
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(() => found.filter((one) => one.drawn).forEach(showFound));
});
input("presence").addEventListener("change", async () => {
  for (const one of found) await drawAgain(one);
});
input("presence").addEventListener("input", () => (at("presence-value").textContent = `${input("presence").value} %`));

/* ---- taking away ---- */

button("all").addEventListener("click", () => takeAway(found.filter((one) => one.answers.length)));

/** One PNG is saved as it is, several in a zip. @param {Found[]} these */
async function takeAway(these) {
  button("all").disabled = true;
  try {
    const files = [];
    const used = new Set();
    for (const one of these) files.push(...(await masksOf(one, used)));
    if (!files.length) tell("find-told", "There is no mask yet.");
    else if (files.length === 1) save(files[0].name, new Blob([files[0].bytes], { type: "image/png" }));
    else save("masks.zip", zip(files));
  } catch (error) {
    tell("find-told", `The masks could not be written (${words(error)}).`);
  }
  button("all").disabled = false;
}

/** The PNGs of a photo, of its own size. @param {Found} one @param {Set<string>} used names that are taken */
async function masksOf({ file, photo, answers, classes: names }, used) {
  if (!photo) return [];
  const { width, height } = photo;
  const labels = above(await engine.draw(answers, width, height, presence()));
  const stem = free(file.name.replace(/\.[^.]*$/, ""), used);
  if (by("kind", HTMLSelectElement).value === "labels") {
    const listed = ["0 background", ...names.map((name, index) => `${index + 1} ${name}`)].join("\n");
    const map = { name: `${stem}.png`, bytes: await png(labels, width, height) };
    return names.length === 1 ? [map] : [map, { name: `${stem}.txt`, bytes: new TextEncoder().encode(`${listed}\n`) }];
  }
  const files = [];
  for (const [index, name] of names.entries()) {
    const values = labels.map((label) => (label === index + 1 ? 255 : 0));
    const end = names.length === 1 ? "" : `-${name.replace(/[^\p{L}\p{N}._-]+/gu, "-")}`;
    files.push({ name: `${free(stem + end, used, stem)}.png`, bytes: await png(values, width, height) });
  }
  return files;
}

/** A name that is not taken; `own` may be used again. @param {string} name @param {Set<string>} used @param {string} [own] */
function free(name, used, own) {
  let chosen = name;
  for (let n = 2; used.has(chosen) && chosen !== own; n++) chosen = `${name}-${n}`;
  used.add(chosen);
  return chosen;
}
