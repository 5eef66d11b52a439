// @ts-check
/** A concept's file: the examples in it. Whoever reads one lets the server judge it first, which trusts nothing of it. */

/** @typedef {{photo: File, mask: Blob}} Example  the mask: 1 the object, 255 ignored, 0 all else */

export const isConcept = (/** @type {File} */ { name }) => /\.concept$/i.test(name);

/** @param {File} file @returns {Promise<{supports: Example[], absent: Example[]}>} none where it keeps features alone */
export async function examples(file) {
  // safetensors: the header's length, the header as JSON, all tensors one after the other
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  const header = JSON.parse(await file.slice(8, 8 + length).text());
  const told = JSON.parse(header.__metadata__.concept);
  const content = (/** @type {string} */ name) => {
    const [from, to] = header[name].data_offsets;
    return file.slice(8 + length + from, 8 + length + to);
  };
  const of = (/** @type {string} */ group) =>
    told[group].map((/** @type {{name: string}} */ { name }, /** @type {number} */ i) => ({
      photo: new File([content(`${group}.${i}.jpeg`)], name, { type: "image/jpeg", lastModified: 0 }),
      mask: content(`${group}.${i}.png`),
    }));
  return { supports: of("supports"), absent: of("absent") };
}
