// Questions to the server. Every failure becomes an Error whose message is for people.

import { t } from "./dom.js";

export class Refusal extends Error {
  constructor(status, error) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.remedy = error.remedy;
    this.details = error.details;
  }
}

export const address = (path) => new URL(path, document.baseURI).href;

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(address(path), { credentials: "same-origin", redirect: "manual", ...options });
  } catch {
    throw new Refusal(0, { code: "offline", message: t("banner.offline") });
  }
  // Nothing here redirects: a proxy in front wants a new login, which only a whole page can show.
  if (response.type === "opaqueredirect") throw new Refusal(401, { code: "no_session", message: t("refused.no_session") });
  if (response.ok || response.status === 304) return response;
  let error = { code: "unknown", message: `${response.status} ${response.statusText}` };
  try {
    error = (await response.json()).error;
  } catch {
    // A proxy answered, not our server: its status has to do.
  }
  throw new Refusal(response.status, error);
}

export const get = async (path) => (await ask(path)).json();

export async function post(path, body) {
  const response = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  return response.json();
}

export const remove = (path) => ask(path, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0" } });

let tag = null;
// All jobs, or null while nothing changed since the last call.
export async function changedJobs() {
  const response = await ask("api/jobs", tag ? { headers: { "If-None-Match": tag } } : {});
  if (response.status === 304) return null;
  tag = response.headers.get("ETag");
  return response.json();
}

export const forgetJobs = () => {
  tag = null;
};
