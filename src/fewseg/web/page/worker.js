// @ts-check
/** Runs the graphs beside the page, which stays free. Answers one call at a time. */

import { Graphs } from "./graphs.js";
import { classifier } from "./linear.js";
import { enlarged } from "./maps.js";
import * as photos from "./photo.js";
import { understood } from "./plain.js";

/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Class} Class */
/** @typedef {import("./graphs.js").Tensors} Tensors */
/** @typedef {{record: {image_size: number, shots: number | null, presence: boolean, method: string, methods: string[]},
 *   graphs: Record<string, string>,
 *   weights: {path: string, file: string}, ort: {webgpu: boolean}, hashes: Record<string, string>,
 *   example: {supports: {photo: string, mask: string}[], queries: string[],
 *             check: {supports: number, side: number, proba: number[]}}}} Config */

const FURTHEST = 0.02; // most that a probability may be from Python's
const PATIENCE = 90_000; // milliseconds that a graphics processor has to prove itself
const MOST_THREADS = 8;

/** @type {any} */
const worker = self;
/** @type {Config} */
let config;
/** @type {Graphs} */
let graphs;
/** @type {Map<number, Tensors>} */
const taught = new Map();
/** What classes with several supports taught a classifier, by the supports' numbers.
 * @type {Map<string, import("./linear.js").Weights>} */
const learnt = new Map();

const calls = { open, read, readMask, readOnes, check, teach, forget, find, draw };

let before = Promise.resolve();
worker.onmessage = (/** @type {MessageEvent} */ { data: { id, name, args } }) => {
  const answer = async () => {
    try {
      const value = await /** @type {any} */ (calls)[name](...args);
      const given = Object.values(value ?? {}).map((one) => one?.buffer ?? one);
      worker.postMessage({ id, value }, given.filter((one) => one instanceof ArrayBuffer || one instanceof ImageBitmap));
    } catch (error) {
      worker.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
    }
  };
  if (name.startsWith("read")) answer();
  else before = before.then(answer);
};

/** Start the runtime; what runs, in words. @param {Config} given @param {string | null} want webgpu, wasm, or either */
async function open(given, want) {
  config = given;
  let note = "";
  if (want !== "wasm" && config.ort.webgpu && (want === "webgpu" || (await hasGraphicsProcessor()))) {
    try {
      const off = await inTime(start("webgpu").then(difference));
      if (off <= FURTHEST) return { runs: "WebGPU", note };
      note = `WebGPU's answers are wrong here (by ${off.toFixed(2)})`;
    } catch (error) {
      note = `WebGPU does not work here (${error instanceof Error ? error.message.split("\n")[0].slice(0, 160) : error})`;
    }
    await graphs?.release();
  }
  const threads = worker.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  await start("wasm", threads);
  const off = await difference();
  if (off > FURTHEST) throw new Error(`this browser computes something else than Python does (by ${off.toFixed(2)}); use another one`);
  if (!worker.crossOriginIsolated) note ||= "the host's headers and the service worker allow no threads";
  return { runs: `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`, note };
}

/** Whether there is one, and not a program that plays it. */
async function hasGraphicsProcessor() {
  const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter().catch(() => null);
  if (!adapter || adapter.isFallbackAdapter || adapter.info?.isFallbackAdapter) return false;
  return !/swiftshader|llvmpipe|basic render/i.test(`${adapter.info?.architecture} ${adapter.info?.description}`);
}

/** @template T @param {Promise<T>} work @returns {Promise<T>} */
function inTime(work) {
  return Promise.race([work, new Promise((_, fail) => setTimeout(() => fail(new Error("it takes too long")), PATIENCE))]);
}

/** @param {string} path */
const address = (path) => new URL(config.hashes[path] ? `${path}?${config.hashes[path]}` : path, import.meta.url).href;

/** @param {string} path */
async function bytes(path) {
  const response = await fetch(address(path)).catch(() => null);
  if (!response?.ok) throw new Error(`${path} cannot be fetched (${response?.status ?? "no answer"}); open the page with a network once`);
  return response.blob();
}

/** @param {"webgpu" | "wasm"} provider @param {number} threads */
async function start(provider, threads = 1) {
  const ort = await import(address(`ort/ort.${provider}.min.js`));
  const binary = provider === "webgpu" ? "ort-wasm-simd-threaded.asyncify" : "ort-wasm-simd-threaded";
  ort.env.wasm.wasmPaths = { mjs: address(`ort/${binary}.js`), wasm: address(`ort/${binary}.wasm`) };
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const data = new Uint8Array(await (await bytes(config.weights.file)).arrayBuffer());
  /** @type {any} */
  const sessions = {};
  for (const [name, path] of Object.entries(config.graphs)) {
    const graph = new Uint8Array(await (await bytes(path)).arrayBuffer());
    const externalData = [{ path: config.weights.path, data }];
    // threads that wait in a loop take the processor from others
    const extra = { session: { intra_op: { allow_spinning: "0" } } };
    sessions[name] = await ort.InferenceSession.create(graph, { executionProviders: [provider], externalData, extra });
  }
  graphs = new Graphs(ort, sessions);
}

/** How far probabilities are from those that Python's graphs gave when the page was made. */
async function difference() {
  const { supports, queries, check } = config.example;
  const several = [];
  for (let i = 0; i < check.supports; i++) {
    const { photo, mask } = supports[i % supports.length];
    several.push(await graphs.support(await pixelsOf(await bytes(photo)), await readMask(await bytes(mask))));
  }
  const answer = await graphs.match(await graphs.query(await pixelsOf(await bytes(queries[0]))), graphs.together(several));
  const found = await graphs.draw(answer, check.side, check.side);
  return check.proba.reduce((most, value, i) => {
    const off = Math.abs(value - found[i]);
    return off > most || Number.isNaN(off) ? (Number.isNaN(off) ? Infinity : off) : most;
  }, 0);
}

/** @param {Blob} file */
async function pixelsOf(file) {
  const bitmap = await photos.open(file);
  const found = photos.pixels(bitmap);
  bitmap.close();
  return found;
}

/** A photo to show, and its own size. @param {Blob} file @param {number} [most] @param {string} [more] as `photos.open` takes them */
async function read(file, most, more) {
  const bitmap = await photos.open(file, most, more);
  const { width, height } = bitmap;
  const shown = photos.shown(bitmap);
  bitmap.close();
  return { shown, width, height };
}

/** A mask of a photo's size. @param {Blob} file @param {{width: number, height: number}} [photo] */
async function readMask(file, photo) {
  const bitmap = await photos.open(file);
  const { width, height } = bitmap;
  try {
    if (photo && (width !== photo.width || height !== photo.height))
      throw new Error(`is ${width} x ${height} but its image is ${photo.width} x ${photo.height} pixels; give a mask of the image's size`);
    if (photos.isSeeThrough(bitmap)) throw new Error("is partly see-through; save the mask without transparency");
    return understood(photos.pixels(bitmap), await photos.isLossy(file));
  } finally {
    bitmap.close();
  }
}

/** What is 1 in a mask of 0, 1 and 255, as a concept's file keeps them; whether some of it is 255. @param {Blob} file */
async function readOnes(file) {
  const { data, width, height } = await pixelsOf(file);
  return { data: Uint8Array.from({ length: width * height }, (_, i) => Number(data[3 * i] === 1)), width, height, ignored: data.includes(255) };
}

/** Learn a support under a number. @param {number} key @param {Blob} file @param {import("./graphs.js").Pixels} mask */
async function teach(key, file, mask) {
  check(mask, config.record.image_size);
  taught.set(key, await graphs.support(await pixelsOf(file), mask));
}

/** @param {import("./graphs.js").Pixels} mask @param {number} side */
function check(mask, side) {
  if (vanishes(mask, side)) throw new Error(`what is marked is so small that it vanishes at ${side} x ${side} pixels; crop the photo closer`);
}

/** Whether no marked pixel is left when a mask is squeezed as the graph does it.
 * @param {import("./graphs.js").Pixels} mask @param {number} side */
function vanishes({ data, width, height }, side) {
  const [down, across] = [height, width].map((n) =>
    Array.from({ length: side }, (_, i) => Math.min(n - 1, Math.floor(Math.fround(i * Math.fround(n / side))))));
  return !down.some((y) => across.some((x) => data[y * width + x] === 1));
}

/** @param {number} key */
function forget(key) {
  taught.delete(key);
  learnt.clear();
}

/** What is found of classes. @param {Blob} file @param {Class[]} classes */
async function find(file, classes) {
  const query = await graphs.query(await pixelsOf(file));
  const answers = [];
  for (const { supports } of classes) {
    const together = graphs.together(supports.flatMap((key) => [taught.get(key) ?? []].flat()));
    answers.push(await graphs.match(query, together, classifierOf(supports, together)));
  }
  return { answers };
}

/** Python's rule: of a class with several supports, where the model's features serve one.
 * @param {number[]} keys @param {Tensors} supports */
function classifierOf(keys, supports) {
  if (keys.length < 2 || !config.record.methods.includes(`${config.record.method}+linear`)) return null;
  const name = keys.join();
  if (!learnt.has(name)) learnt.set(name, classifier(supports));
  return learnt.get(name) ?? null;
}

/** What `Drawn` of engine.js says; a pixel's probability is above T / 100 where its level is above T.
 * @param {Answer[]} answers @param {number} width @param {number} height @param {number} presence */
async function draw(answers, width, height, presence) {
  const [best, any] = [new Float32Array(width * height), new Float32Array(width * height)];
  const labels = new Uint8Array(width * height).fill(1);
  const [sure, most] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
  const maps = [];
  for (const [index, answer] of answers.entries()) {
    const proba = "map" in answer ? enlarged(answer, width, height) : await graphs.draw(answer, width, height);
    const there = answer.presence === null || answer.presence >= presence;
    let [area, inside, outside, highest] = [0, 0, 0, 0];
    for (let i = 0; i < proba.length; i++) {
      const value = proba[i];
      if (value > 0.5) {
        area++;
        inside += value;
      } else outside += value;
      if (value > highest) highest = value;
      if (value > any[i]) any[i] = value;
      if (there && value > best[i]) {
        best[i] = value;
        labels[i] = index + 1;
      }
    }
    sure.push(area ? inside / (area + outside) : 0); // the overlap to expect if the probabilities hold
    most.push(highest);
    if (answers.length > 1) maps.push(there ? hundredths(proba) : new Uint8Array(proba.length));
  }
  for (let i = 0; i < labels.length; i++) if (!best[i]) labels[i] = 0;
  return { labels, levels: hundredths(best), heat: hundredths(any), maps, sure, most };
}

/** Rounded up. @param {Float32Array} values */
function hundredths(values) {
  const out = new Uint8Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = Math.ceil(100 * values[i]); // Uint8Array.from takes twenty times as long
  return out;
}
