// @ts-check
/** Elements of the page by their names, new ones, and numbers in words. */

/** @template {HTMLElement} T @param {string} id @param {new () => T} type @returns {T} */
export function by(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`the page has no ${id}`);
  return element;
}
export const at = (/** @type {string} */ id) => by(id, HTMLElement);
export const button = (/** @type {string} */ id) => by(id, HTMLButtonElement);
export const input = (/** @type {string} */ id) => by(id, HTMLInputElement);
export const select = (/** @type {string} */ id) => by(id, HTMLSelectElement);

/** @template {keyof HTMLElementTagNameMap} K @param {K} tag @param {Record<string, any>} [properties]
 * @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[K]} */
export function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A button that does something. @param {string} text @param {string} label for those who do not see what it stands beside
 * @param {() => void} does @param {string} [className] */
export function action(text, label, does, className = "") {
  const one = made("button", { type: "button", ariaLabel: label, className }, text);
  one.addEventListener("click", does);
  return one;
}

export const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
export const words = (/** @type {unknown} */ error) => (error instanceof Error ? error.message : String(error));

/** Seconds as a person says them. @param {number} seconds */
export const duration = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);

/** @param {string} id @param {string} text */
export function tell(id, text) {
  at(id).textContent = text;
}

/** Files that are chosen; the same ones may be chosen again. @param {string} chooser @param {(files: File[]) => void} take */
export function chooseFiles(chooser, take) {
  input(chooser).addEventListener("change", () => {
    take([...(input(chooser).files ?? [])]);
    input(chooser).value = "";
  });
}

/** Files that are chosen, or dropped on an area. @param {string} area @param {string} chooser
 * @param {(files: File[]) => void} take */
export function takeFiles(area, chooser, take) {
  const zone = at(area);
  chooseFiles(chooser, take);
  for (const event of ["dragenter", "dragover"])
    zone.addEventListener(event, (one) => {
      one.preventDefault();
      zone.classList.add("over");
    });
  for (const event of ["dragleave", "drop"]) zone.addEventListener(event, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    take([...(event.dataTransfer?.files ?? [])]);
  });
}
