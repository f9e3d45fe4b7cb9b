// One's jobs: asked for once a second while something moves, shown in place so that nothing that plays is disturbed.

import { address, changedJobs, forgetJobs, post } from "./api.js";
import { announce, errorLine, errorNodes, h, seconds, t, toast } from "./dom.js";
import { progressBar } from "./picker.js";

const MOVING_MS = 1000;
const RESTING_MS = 5000;
export const OVER = ["done", "failed", "cancelled"];

export class Jobs extends EventTarget {
  constructor() {
    super();
    this.list = [];
    this.byName = new Map();
    this.queue = { running: null, paused: null };
    this.problem = null; // the Refusal, where the last question was not answered
    document.addEventListener("visibilitychange", () => document.hidden || this.soon());
  }

  // Ask now, and from then on again and again.
  soon() {
    clearTimeout(this.timer);
    this.#ask();
  }

  async #ask() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const found = await changedJobs();
      if (turn !== this.turn) {
        forgetJobs(); // asked again meanwhile: this may be older than what is shown
        return;
      }
      this.problem = null;
      if (found) this.#take(found);
    } catch (error) {
      if (turn !== this.turn) return;
      this.problem = error;
    }
    this.dispatchEvent(new Event("asked"));
    const moving = this.list.some((job) => !OVER.includes(job.state));
    this.timer = setTimeout(() => this.#ask(), document.hidden ? 4 * RESTING_MS : moving ? MOVING_MS : RESTING_MS);
  }

  #take(found) {
    for (const job of found.jobs) {
      const before = this.byName.get(job.job);
      if (before && before.state !== job.state && (OVER.includes(job.state) || job.state === "rendering"))
        announce(t("job.now", { title: job.title, state: t(`state.${job.state}`) }));
    }
    this.list = found.jobs;
    this.byName = new Map(found.jobs.map((job) => [job.job, job]));
    this.queue = found;
    this.dispatchEvent(new Event("change"));
  }

  async act(job, action) {
    try {
      const answer = await post(`api/jobs/${encodeURIComponent(job.job)}/${action}`);
      if (answer.pending) toast(t("job.asked"), "good");
    } catch (error) {
      toast(errorLine(error));
    }
    forgetJobs();
    this.soon();
  }
}

const url = (job, what) => address(`api/jobs/${encodeURIComponent(job.job)}/${what}`);

function details(job) {
  if (job.state === "queued" && job.position) return job.position === 1 ? t("job.next") : t("job.position", { position: job.position });
  if (!OVER.includes(job.state) && job.eta_seconds != null) return t("job.left", { time: seconds(job.eta_seconds) });
  return "";
}

function subtitle(job) {
  const speech = job.audio_name ?? (job.text ? t("job.text", { text: job.text.slice(0, 60) }) : "");
  return job.video_name ? t("job.with", { video: job.video_name, speech }) : "";
}

// Source and result beside each other.
export function players(job) {
  const source = job.source
    ? job.source.kind === "image"
      ? h("img", { src: address(`api/uploads/${job.source.id}/content`), alt: t("job.source") })
      : h("video", { src: address(`api/uploads/${job.source.id}/content`), controls: true, preload: "metadata", muted: true, "aria-label": t("job.source") })
    : h("p.note", {}, t("job.source_gone"));
  const result = h("video.result", { src: url(job, "video"), controls: true, preload: "metadata", "aria-label": t("job.result") });
  for (const video of [source, result]) if (video instanceof HTMLVideoElement) video.playsInline = true;
  const sheet = () => result.replaceWith(h("img", { src: url(job, "sheet"), alt: t("job.result") }), h("p.dim.small", {}, t("file.no_preview")));
  result.addEventListener("error", sheet);
  return h(
    "div.players",
    {},
    h("figure", {}, source, h("figcaption", {}, t("job.source"))),
    h("figure", {}, result, h("figcaption", {}, t("job.result"))),
  );
}

function button(what, job, onclick, kind = "") {
  const words = t(`job.${what}`);
  return h(`button.button.small${kind}`, { type: "button", "aria-label": t("job.of_title", { action: words, title: job.title }), "data-action": what, onclick }, words);
}

function download(job) {
  const words = t("job.download");
  return h("a.button.small", { href: `${url(job, "video")}?download=true`, "data-action": "download", "aria-label": t("job.of_title", { action: words, title: job.title }) }, words);
}

async function copyLink(job, place) {
  try {
    const { path, expires_seconds: expires } = await post(`api/jobs/${encodeURIComponent(job.job)}/link`);
    const link = new URL(path, location.href).href;
    const until = new Date(expires * 1000).toLocaleString(document.documentElement.lang);
    try {
      await navigator.clipboard.writeText(link);
      toast(t("job.link_copied", { until }), "good");
    } catch {
      const field = h("input.link", { readonly: true, value: link, "aria-label": t("job.link") });
      place.replaceChildren(h("label.small", {}, t("job.link_shown", { until }), field));
      field.select();
    }
  } catch (error) {
    toast(errorLine(error));
  }
}

function actions(job, jobs, place, extra = []) {
  if (job.state === "done") return [...extra, download(job), button("link", job, () => copyLink(job, place))];
  if (job.state === "failed" || job.state === "cancelled") return [button("retry", job, () => jobs.act(job, "retry"))];
  return [button("cancel", job, () => jobs.act(job, "cancel"))];
}

// The keyboard's place stays among the buttons when others take their place.
function refill(place, buttons) {
  const focused = place.contains(document.activeElement);
  place.replaceChildren(...buttons);
  if (focused) buttons[0].focus();
}

// What every view of a job shares: a chip, a bar, words; `update` changes only what differs.
class Progress {
  constructor(job) {
    this.chip = h("span.chip");
    this.bar = progressBar(t("job.progress", { title: job.title }));
    this.words = h("span.dim.small");
    this.error = h("div.error", { hidden: true });
    this.element = h("div.progress", {}, h("div.line", {}, this.chip, this.words), this.bar.element, this.error);
  }

  update(job) {
    this.chip.textContent = t(`state.${job.state}`);
    this.chip.dataset.state = job.state;
    const percent = job.percent ?? 0;
    this.bar.set(percent);
    this.bar.element.hidden = OVER.includes(job.state);
    const moving = !OVER.includes(job.state) && !["submitted", "queued"].includes(job.state);
    this.bar.element.classList.toggle("busy", moving && percent < 1);
    this.words.textContent = [moving ? `${Math.floor(percent)} %` : "", details(job)].filter(Boolean).join(" · ");
    const told = job.state === "failed" && job.error ? JSON.stringify(job.error) : "";
    if (told === this.told) return; // its details may be open
    this.told = told;
    this.error.hidden = !told;
    this.error.replaceChildren(...(told ? errorNodes(job.error) : []));
  }
}

// The panel on the page where a video was just ordered.
export class Panel {
  constructor(name, jobs) {
    this.name = name;
    this.jobs = jobs;
    this.element = h("article.card.panel", { "aria-live": "off", tabIndex: -1 });
    this.state = null;
    this.listen = () => this.update();
    jobs.addEventListener("change", this.listen);
    this.update();
  }

  update() {
    const job = this.jobs.byName.get(this.name);
    if (!job) return;
    if (!this.progress) {
      this.progress = new Progress(job);
      this.media = h("div");
      this.acts = h("div.actions");
      this.link = h("div");
      this.element.append(h("h2", {}, job.title), h("p.dim.small", {}, subtitle(job)), this.progress.element, this.media, this.acts, this.link);
    }
    this.progress.update(job);
    if (this.state === job.state) return;
    this.state = job.state;
    refill(this.acts, actions(job, this.jobs, this.link));
    if (job.state === "done") this.media.replaceChildren(players(job));
    else this.media.replaceChildren();
  }

  close() {
    this.jobs.removeEventListener("change", this.listen);
    this.element.remove();
  }
}

class Row {
  constructor(job, jobs) {
    this.jobs = jobs;
    this.state = null;
    this.progress = new Progress(job);
    this.thumb = h("td.thumb", { role: "cell" });
    this.acts = h("div.actions");
    this.link = h("div");
    this.row = h(
      "tr",
      { role: "row", "data-job": job.job },
      this.thumb,
      h("td.title", { role: "cell" }, h("strong", {}, job.title), h("div.dim.small", {}, subtitle(job))),
      h("td", { role: "cell" }, this.progress.element),
      h("td", { role: "cell" }, this.acts, this.link),
    );
    this.stage = h("tr.stage", { role: "row", hidden: true }, h("td", { role: "cell", colSpan: 4 }));
  }

  update(job) {
    this.job = job;
    this.progress.update(job);
    if (this.state === job.state) return;
    this.state = job.state;
    const picture = job.state === "done" ? url(job, "sheet") : job.source?.poster ? address(`api/uploads/${job.source.id}/poster`) : null;
    if (job.source?.poster) this.thumb.replaceChildren(h("img", { src: address(`api/uploads/${job.source.id}/poster`), alt: "", loading: "lazy" }));
    else this.thumb.replaceChildren(picture ? h("img", { src: picture, alt: "", loading: "lazy" }) : h("span.blank"));
    this.play = button("play", job, () => this.toggle(), ".primary");
    refill(this.acts, actions(job, this.jobs, this.link, [this.play]));
    this.close();
  }

  toggle() {
    if (!this.stage.hidden) {
      this.close();
      return;
    }
    this.stage.firstChild.replaceChildren(players(this.job));
    this.stage.hidden = false;
    this.#name("close");
    this.stage.querySelector("video.result")?.play().catch(() => {});
  }

  close() {
    this.stage.hidden = true;
    this.stage.firstChild.replaceChildren();
    this.#name("play");
  }

  #name(what) {
    const words = t(`job.${what}`);
    this.play.textContent = words;
    this.play.setAttribute("aria-label", t("job.of_title", { action: words, title: this.job.title }));
    this.play.setAttribute("aria-expanded", String(what === "close"));
  }
}

class Group {
  constructor(key, first, jobs) {
    this.jobs = jobs;
    this.rows = new Map();
    this.body = h("tbody", { role: "rowgroup" });
    this.summary = h("span.dim.small");
    const heads = ["thumb", "name", "state", "actions"].map((name) => h("th", { role: "columnheader", scope: "col" }, t(`list.${name}`)));
    const table = h("table.jobs", { role: "table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body);
    if (first.batch) {
      this.zip = h("a.button.primary.small", { href: address(`api/batches/${first.batch}/zip`), "data-action": "zip" }, t("list.zip"));
      this.cancel = h("button.button.small", { type: "button", onclick: () => this.#all("cancel", (job) => !OVER.includes(job.state)) }, t("list.cancel_all"));
      this.retry = h("button.button.small", { type: "button", onclick: () => this.#all("retry", (job) => job.state === "failed") }, t("list.retry_all"));
      this.element = h(
        "article.card.batch",
        { "data-batch": first.batch },
        h("div.line.head", {}, h("div", {}, h("h2", {}, first.batch_title), this.summary), h("div.actions", {}, this.retry, this.cancel, this.zip)),
        table,
      );
    } else {
      this.element = h("article.card", {}, table);
    }
    table.setAttribute("aria-label", first.batch_title ?? t("list.title"));
  }

  async #all(action, which) {
    for (const row of this.rows.values()) if (which(row.job)) await this.jobs.act(row.job, action);
  }

  update(list) {
    const names = new Set(list.map((job) => job.job));
    for (const [name, row] of this.rows)
      if (!names.has(name)) {
        row.row.remove();
        row.stage.remove();
        this.rows.delete(name);
      }
    let before = null;
    for (const job of list) {
      let row = this.rows.get(job.job);
      if (!row) {
        row = new Row(job, this.jobs);
        this.rows.set(job.job, row);
        if (before) before.stage.after(row.row, row.stage);
        else this.body.prepend(row.row, row.stage);
      }
      row.update(job);
      before = row;
    }
    if (!this.zip) return;
    const done = list.filter((job) => job.state === "done").length;
    const failed = list.filter((job) => job.state === "failed").length;
    this.summary.textContent = [t("list.batch_state", { done, count: list.length }), failed ? t("list.batch_failed", { failed }) : ""].filter(Boolean).join(" · ");
    this.zip.hidden = done === 0;
    this.cancel.hidden = !list.some((job) => !OVER.includes(job.state));
    this.retry.hidden = failed === 0;
  }
}

// The view "My videos": batches as tables of their own, single videos in order between them.
export class List {
  constructor(jobs) {
    this.jobs = jobs;
    this.groups = new Map();
    this.empty = h("p.empty", {}, h("a", { href: "#make" }, t("list.empty")));
    this.place = h("div.stack");
    this.element = h("div", {}, h("h1", { id: "videos-title" }, t("list.title")), h("p.lead", {}, t("list.lead")), this.empty, this.place);
    jobs.addEventListener("change", () => this.update());
  }

  update() {
    const order = new Map();
    let single = 0;
    let last = null;
    for (const job of this.jobs.list) {
      if (!job.batch && last !== "single") single += 1;
      last = job.batch ?? "single";
      // The oldest job names a run of single ones, so that a new one on top does not rebuild it.
      const key = job.batch ?? `single-${single}`;
      if (!order.has(key)) order.set(key, []);
      order.get(key).push(job);
    }
    for (const list of order.values()) if (list[0].batch) list.reverse(); // its files in the order they were given
    const named = [...order.entries()].map(([key, list]) => [list[0].batch ? key : `single-${list.at(-1).job}`, list]);
    this.empty.hidden = named.length > 0;
    const kept = new Set(named.map(([key]) => key));
    for (const [key, group] of this.groups)
      if (!kept.has(key)) {
        group.element.remove();
        this.groups.delete(key);
      }
    let before = null;
    for (const [key, list] of named) {
      let group = this.groups.get(key);
      if (!group) {
        group = new Group(key, list[0], this.jobs);
        this.groups.set(key, group);
        if (before) before.element.after(group.element);
        else this.place.prepend(group.element);
      }
      group.update(list);
      before = group;
    }
  }
}
