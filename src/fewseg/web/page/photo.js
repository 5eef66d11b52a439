// @ts-check
/** Picture files as pixels, as Python reads them: upright, 8 bit, transparent parts on white, colour profiles left out. */

export const MOST_MEGAPIXELS = 50;
const SHOWN = 1024;
const STRIP = 2 ** 22;

/** @param {Blob} file @param {number} [most] megapixels @param {string} [more] what else helps beyond them @returns {Promise<ImageBitmap>} */
export async function open(file, most = MOST_MEGAPIXELS, more = "") {
  await refuseDeep(file);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Error("cannot be read: it is damaged, or no JPEG, PNG or WebP");
  }
  const { width, height } = bitmap;
  if (width * height <= most * 1e6) return bitmap;
  bitmap.close();
  throw new Error(`has ${width} x ${height} pixels; at most ${most} megapixels are taken here: scale it down${more}`);
}

/** A browser would cut 16 bits to 8 and show some photos nearly black; fewseg segment stretches them.
 * @param {Blob} file */
async function refuseDeep(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const png = String.fromCharCode(...head.slice(1, 4)) === "PNG";
  if (png && head[24] === 16) throw new Error("has 16 bits a channel, which browsers do not read whole; use fewseg segment");
}

/** @param {ImageBitmap} bitmap @returns {import("./graphs.js").Pixels} */
export function pixels(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8Array(width * height * 3);
  let to = 0;
  for (const rgba of strips(bitmap, "white"))
    for (let from = 0; from < rgba.length; from += 4) {
      data[to++] = rgba[from];
      data[to++] = rgba[from + 1];
      data[to++] = rgba[from + 2];
    }
  return { data, width, height };
}

/** Whether any pixel is not opaque. @param {ImageBitmap} bitmap */
export function isSeeThrough(bitmap) {
  for (const rgba of strips(bitmap, "transparent")) for (let at = 3; at < rgba.length; at += 4) if (rgba[at] < 255) return true;
  return false;
}

/** Whether a file is of a format that changes pixels. @param {Blob} file */
export async function isLossy(file) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  return head[0] !== 0x89 && String.fromCharCode(...head.slice(0, 2)) !== "BM" && String.fromCharCode(...head.slice(0, 3)) !== "GIF";
}

/** RGBA of rows, on a ground. @param {ImageBitmap} bitmap @param {string} ground */
function* strips(bitmap, ground) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width))); // some browsers' canvases end at 16 megapixels
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("cannot be drawn here: the browser has no canvas for it");
  context.fillStyle = ground;
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    yield context.getImageData(0, 0, width, Math.min(rows, height - top)).data;
  }
}

/** A small copy to show and to mark on. @param {ImageBitmap} bitmap */
export function shown(bitmap) {
  const scale = Math.min(1, SHOWN / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("cannot be drawn here: the browser has no canvas for it");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.transferToImageBitmap();
}
