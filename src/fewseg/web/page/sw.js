// @ts-check
/** The service worker: the headers that threads need from any host, the page without a network, and no other origin.
 *
 * Small files are asked of the host first, so that a page is never older than its host's; large ones carry their hash in
 * the address, and are kept. What both are is listed in files.js, which is written beside this file.
 */

/** @type {any} */
const worker = self;
worker.importScripts("files.js");
/** @type {{version: string, page: string[], large: string[]}} */
const { version, page, large } = worker.FEWSEG;

const HOME = new URL("./", worker.location.href).href;
const OURS = `fewseg ${HOME} `;
const CACHE = OURS + version;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy":
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};
const pages = new Set([...page, "index.html"].map((name) => new URL(name, HOME).pathname));
const larges = new Set(large.map((name) => new URL(name, HOME).href));

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(install()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const url = new URL(event.request.url);
  if (url.origin !== worker.location.origin) event.respondWith(Response.error());
  else if (event.request.method === "GET" && (pages.has(url.pathname) || larges.has(url.href)))
    event.respondWith(answer(event.request, url));
});

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(page.map((name) => new Request(new URL(name, HOME), { cache: "no-cache" })));
  await worker.skipWaiting();
}

/** Take over, with what is kept already; forget older versions of this page. */
async function activate() {
  const cache = await caches.open(CACHE);
  for (const url of larges) {
    const kept = await caches.match(url);
    if (kept) await cache.put(url, kept);
  }
  for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
  await worker.clients.claim();
}

/** @param {Request} request @param {URL} url */
async function answer(request, url) {
  const cache = await caches.open(CACHE);
  const home = request.mode === "navigate" || url.pathname.endsWith("/index.html");
  const key = home ? HOME : url.href;
  const kept = await cache.match(key);
  if (kept && larges.has(key)) return isolated(kept);
  try {
    const fresh = await fetch(request, { cache: "no-cache" }); // many hosts say nothing of how long a file holds: browsers guess
    if (fresh.ok && !fresh.redirected) await cache.put(key, fresh.clone());
    return isolated(fresh);
  } catch (error) {
    return kept ? isolated(kept) : Response.error();
  }
}

/** @param {Response} response */
function isolated(response) {
  if (response.type === "opaqueredirect" || response.status < 200) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const { status, statusText } = response;
  const body = [204, 304].includes(status) ? null : response.body;
  return new Response(body, { status, statusText, headers });
}
