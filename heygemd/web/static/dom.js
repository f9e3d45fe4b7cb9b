// Elements, sentences, numbers in words. No HTML is ever made of text: names of files stay names.

const sentences = JSON.parse(document.getElementById("texts").textContent);

export function t(key, values = {}) {
  const text = sentences[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

export const has = (key) => key in sentences;

// h("button.primary", {type: "button", onclick: f}, "words", node, …)
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function seconds(value) {
  const whole = Math.max(0, Math.round(value));
  if (whole < 60) return t("time.seconds", { s: whole });
  if (whole < 3600) return t("time.minutes", { m: Math.floor(whole / 60), s: String(whole % 60).padStart(2, "0") });
  return t("time.hours", { h: Math.floor(whole / 3600), m: String(Math.floor((whole % 3600) / 60)).padStart(2, "0") });
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: value < 10 && unit ? 1 : 0 })} ${units[unit]}`;
}

// What is wrong, and what to do about it.
const errorWords = ({ message, remedy }) => (remedy ? [message, t("job.what_to_do", { remedy })] : [message]);

const CHINESE = document.documentElement.lang.startsWith("zh");
export const errorLine = (error) =>
  errorWords(error)
    .map((words) => (/[.。…!?！？]$/.test(words) ? words : `${words}${CHINESE ? "。" : "."}`))
    .join(CHINESE ? "" : " ");

// What the daemon said, word for word, folded away; null for a refusal of the page's own.
export const errorDetails = ({ details }) =>
  details ? h("details.told", {}, h("summary", {}, t("job.details")), h("p", { lang: "en" }, details)) : null;

// A button that says × to the eye and its label to the ear.
export const crossButton = (label, onclick) =>
  h("button.icon-button", { type: "button", "aria-label": label, title: label, onclick }, h("span", { "aria-hidden": "true" }, "×"));

export const errorNodes = (error) => [...errorWords(error).map((words) => h("p", {}, words)), errorDetails(error)].filter(Boolean);

const spoken = document.getElementById("spoken");
// For screen readers.
export function announce(text) {
  spoken.textContent = text;
}

const toasts = document.getElementById("toasts");
export function toast(text, kind = "bad") {
  const note = h(`p.toast.${kind}`, {}, text);
  toasts.append(note);
  setTimeout(() => note.remove(), 8000);
}

let counter = 0;
export const newId = (prefix) => `${prefix}-${(counter += 1)}`;
