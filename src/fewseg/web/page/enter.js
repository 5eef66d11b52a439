// @ts-check
/** The way in: the token that stands behind # in the address, which no server or log is told, or that is typed. */

import { at, input, tell, words } from "./dom.js";

/** @param {string} token */
async function enter(token) {
  const headers = { Authorization: `Bearer ${encodeURIComponent(token)}` }; // of plain letters, so it stays as it is
  const answer = await fetch("/v1/session", { method: "POST", headers }).catch(() => null);
  if (!answer) throw new Error("the server does not answer; is it running?");
  if (answer.ok) return location.replace("/");
  if (answer.status === 401) throw new Error("This is not the server's token.");
  const { error } = await answer.json().catch(() => ({ error: `the server says ${answer.status}` }));
  throw new Error(error);
}

/** By the address, as it is now. */
function byAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  history.replaceState(null, "", location.pathname); // it stays on no screen
  if (token) enter(token).catch((error) => tell("told", words(error)));
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(input("token").value.trim()).catch((error) => tell("told", words(error)));
});
addEventListener("hashchange", byAddress);
byAddress();
