// The options of a job, folded away: every one has a sane default, and only what was changed is sent.

import { h, newId, t, has } from "./dom.js";

// As espeak-ng calls them, which are names that browsers know, too.
const LANGUAGES = ["en-us", "en-gb", "cmn", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ja", "ko", "ar", "hi", "tr"];

function languageName(tag) {
  try {
    return new Intl.DisplayNames([document.documentElement.lang], { type: "language" }).of(tag);
  } catch {
    return tag; // a browser without names
  }
}

// An option's own words for a value, else the words that all options share, else the value.
function wordsFor(name, value) {
  const key = [`value.${name}.${value}`, `value.${value}`].find(has);
  return key ? t(key) : value;
}

export class Options {
  constructor(me, onchange) {
    this.onchange = onchange;
    this.fields = {};
    this.clicked = null;
    const rows = [
      this.#choice("quality", me.qualities, "high"),
      this.#choice("engine", me.engines, "auto"),
      this.#choice("face", ["largest", "leftmost", "rightmost"], "largest"),
      this.#choice("extend", ["pingpong", "loop", "freeze"], "pingpong"),
      this.#choice("tail", ["trim", "keep"], "trim"),
      this.#choice("silence", ["rest", "follow"], "rest"),
      this.#choice("liveliness", ["on", "off"], "on"),
      this.#choice("language", ["", ...LANGUAGES], "", t("options.guess"), languageName),
      this.#choice("resolution_limit", ["", "3840", "1920", "1280", "960", "640"], "", t("options.none")),
      this.#choice("mark", ["", "off", "en", "zh", "both"], "", t("options.server")),
      this.#number("sync_offset_seconds", { min: -2, max: 2, step: 0.02, value: 0 }),
      this.#choice("turn", ["", "later", ...(me.admin ? ["first"] : [])], "", t("value.turn")),
    ];
    this.element = h("details.options", {}, h("summary", {}, t("options.title")), h("div.grid", {}, rows));
  }

  #row(name, field) {
    this.fields[name] = { field, initial: field.value };
    field.addEventListener("change", () => this.onchange());
    return h("div", {}, h("label", { for: field.id }, t(`options.${name}`)), field);
  }

  #choice(name, values, initial, noneWords, words = (value) => wordsFor(name, value)) {
    const field = h(
      "select",
      { id: newId(name), name },
      values.map((value) => h("option", { value, selected: value === initial }, value === "" ? noneWords : words(value))),
    );
    return this.#row(name, field);
  }

  #number(name, { min, max, step, value }) {
    return this.#row(name, h("input", { id: newId(name), name, type: "number", min: String(min), max: String(max), step: String(step), value: String(value) }));
  }

  // A click on a face: shows in the list of faces too. null: back to the default.
  face(value) {
    const { field } = this.fields.face;
    field.querySelector("option[data-clicked]")?.remove();
    if (value?.includes(",")) field.append(h("option", { value, "data-clicked": "" }, t("value.clicked")));
    field.value = value ?? "largest";
    this.onchange();
  }

  // Whether it lets others go first: of the order as a whole, no matter of the render. null: it does not.
  get turn() {
    return this.fields.turn.field.value || null;
  }

  get value() {
    const changed = {};
    for (const [name, { field, initial }] of Object.entries(this.fields)) {
      if (name === "turn" || field.value === initial || field.value === "") continue;
      changed[name] = name === "sync_offset_seconds" || name === "resolution_limit" ? Number(field.value) : field.value;
    }
    return changed;
  }
}
