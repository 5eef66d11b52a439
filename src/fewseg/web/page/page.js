// @ts-check
/** The page: what is in its other modules, started with the engine that its host has. */

import { at, button, input, made, tell, words } from "./dom.js";
import { Engine } from "./engine.js";
import { Finding } from "./finding.js";
import { Marking } from "./marking.js";
import { RemoteEngine } from "./remote.js";
import { Teaching } from "./teaching.js";

/** @typedef {import("./remote.js").Config & {engine?: "server", fewseg: string, model: string,
 *   record: {presence: boolean, image_size: number}, ort: {version: string},
 *   example: {name: string, supports: {photo: string, mask: string}[], queries: string[]}}} Config */

const given = await fetch("config.json");
if (!given.ok) {
  const { error } = await given.json().catch(() => ({ error: `the server says ${given.status}` }));
  status(error, "failed");
  throw new Error(error);
}
/** @type {Config} */
const config = await given.json();
const served = config.engine === "server";
await (served ? alone() : isolated());
if (served) tidied();

status(served ? "Starting …" : "Starting: the model is fetched (once) and checked on a drawn scene …", "busy");
at("lead").textContent += served ? "." : ", in this browser: no photo leaves this device.";
const runs = served ? config.runtime : `onnxruntime-web ${config.ort.version}`;
tell("about", `fewseg ${config.fewseg}, model ${config.model}, ${runs}. Look at masks before anything depends on them.`);
if (served) at("about").append(" ", made("a", { href: "api.html" }, "For programs: the API."));

const engine = served ? new RemoteEngine(config) : new Engine();
const ready = engine.open(config, new URLSearchParams(location.search).get("runtime"));
ready.then(
  ({ runs, note }) => {
    const offline = navigator.serviceWorker?.controller ? "works without a network from now on" : "needs the network at each visit";
    const where = served ? "on the server, which removes your photos as soon as they were searched" : offline;
    status(`Ready: ${runs}; ${where}.${note ? ` Note: ${note}.` : ""}`, "ready");
  },
  (error) => status(`It cannot run here: ${words(error)}`, "failed"),
);

const teaching = new Teaching(engine, new Marking((mask, file, photo) => engine.readMask(mask, file, photo)), ready);
const finding = new Finding(engine, teaching, ready, config.record.presence);
at("open").hidden = !served;
for (const id of ["teach-files", "concept-files", "find-files"]) input(id).disabled = false;
button("example").disabled = false;
button("example").addEventListener("click", async () => {
  finding.search(await teaching.example(config.example));
});
addEventListener("beforeunload", (event) => {
  if (teaching.own && teaching.supports.length) event.preventDefault(); // the browser asks: all of it would be lost
});
// a photo dropped beside the fields must not replace the page
for (const event of ["dragover", "drop"]) addEventListener(event, (one) => one.preventDefault());

/** @param {string} text @param {"" | "busy" | "ready" | "failed"} state */
function status(text, state) {
  tell("status", text);
  at("status").className = state;
}

/** The token of an address that is opened again stays on no screen. */
function tidied() {
  if (location.hash.startsWith("#token=")) history.replaceState(null, "", location.pathname + location.search);
  addEventListener("hashchange", tidied, { once: true });
}

/** A page without a server that was here before, at the same address, must not answer for this one. */
async function alone() {
  for (const one of (await navigator.serviceWorker?.getRegistrations()) ?? []) await one.unregister();
}

/** A service worker gives the page the headers that threads need, and keeps it for use without a network. */
async function isolated() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await controlled(await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" }));
  } catch {
    return; // some browsers' private windows have none: one thread, and only with a network
  }
  if (crossOriginIsolated || !navigator.serviceWorker.controller || sessionStorage.getItem("isolated")) return;
  sessionStorage.setItem("isolated", "tried");
  location.reload();
  await new Promise(() => {});
}

/** Once the host's present worker answers for this page: one of a former version does not know all of its files. A page that was
 * loaded past it is not waited for long. @param {ServiceWorkerRegistration} registration */
async function controlled(registration) {
  const taken = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve));
  const late = new Promise((resolve) => setTimeout(resolve, 8000));
  if (navigator.serviceWorker.controller) {
    await Promise.race([registration.update().catch(() => {}), late]); // without a network the one that is here is the latest
    if (!registration.installing && !registration.waiting) return;
  }
  await Promise.race([taken, late]);
}
