// @ts-check
/** openapi.json as a page to read: what `fewseg serve` answers, what it wants to be sent, and what comes back. */

import { at, made } from "./dom.js";

const all = await (await fetch("openapi.json")).json();
const METHODS = ["get", "post", "put", "delete"];

/** What a reference names. @param {any} one */
const meant = (one) => (one?.$ref ? one.$ref.slice(2).split("/").reduce((/** @type {any} */ place, /** @type {string} */ key) => place[key], all) : one);

/** Text with `code` in it. @param {string} text */
const prose = (text) => text.split("`").map((part, i) => (i % 2 ? made("code", {}, part) : part));

/** A type in words. @param {any} given @returns {string} */
function kind(given) {
  const { type, items, format, enum: values, minimum, maximum, default: usual } = meant(given) ?? {};
  const range = minimum === undefined ? "" : maximum === undefined ? `, from ${minimum}` : `, ${minimum} to ${maximum}`;
  const name = items ? `${kind(items)}, may be repeated` : values ? values.join(" | ") : format === "binary" ? "file" : `${type ?? ""}${range}`;
  return usual === undefined ? name : `${name} [${usual}]`;
}

/** @param {string} caption @param {[string, any, string][]} rows name, type, meaning */
function table(caption, rows) {
  const lines = rows.map(([name, type, told]) =>
    made("tr", {}, made("th", { scope: "row" }, made("code", {}, name)), made("td", {}, kind(type)), made("td", {}, ...prose(told))));
  return rows.length ? [made("table", {}, made("caption", {}, caption), ...lines)] : [];
}

/** @param {any} schema */
const fields = (schema) => Object.entries(meant(schema)?.properties ?? {}).map(([name, one]) => /** @type {[string, any, string]} */ ([name, one, meant(one)?.description ?? ""]));

/** @param {string} path @param {string} method @param {any} one @param {any[]} shared */
function operation(path, method, one, shared) {
  const parameters = [...shared, ...(one.parameters ?? [])].map(meant);
  const form = one.requestBody?.content["multipart/form-data"]?.schema;
  const answers = Object.entries(one.responses).map(([status, given]) => {
    const answer = meant(given);
    const [[type, what] = ["", {}]] = Object.entries(answer.content ?? {});
    const schema = /** @type {any} */ (what).schema;
    const names = fields(meant(schema)?.items ?? schema).map(([name]) => name);
    const told = [answer.description, type, names.join(", ")].filter(Boolean);
    return made("li", {}, made("b", {}, status), ` ${told.join(": ")}`);
  });
  return made("section", {},
    made("h2", {}, made("code", {}, `${method.toUpperCase()} ${path}`)),
    made("p", {}, ...prose(one.summary)),
    ...(one.description ? [made("p", {}, ...prose(one.description))] : []),
    ...table("In the address", parameters.map((/** @type {any} */ given) => [given.name, given.schema, given.description ?? ""])),
    ...table("Fields of the form (multipart/form-data)", fields(form)),
    made("ul", { ariaLabel: "Answers" }, ...answers));
}

at("lead").append(...prose(all.info.description));
for (const [path, methods] of Object.entries(all.paths))
  for (const method of METHODS)
    if (methods[method]) at("paths").append(operation(path, method, methods[method], methods.parameters ?? []));
