// The view "Batch": several videos with one speech, or one video with several speeches.

import { forgetJobs, post } from "./api.js";
import { Consent } from "./consent.js";
import { errorLine, h, newId, t, toast } from "./dom.js";
import { Options } from "./options.js";
import { Faces } from "./faces.js";
import { dropZone, fileCard } from "./picker.js";
import { Upload } from "./upload.js";

class Many {
  // `face`: what holds for a video whose face nobody chose; where it is missing, faces are no matter.
  constructor(role, label, me, onchange, face = null) {
    this.uploads = [];
    this.chosen = new Map(); // upload → value of the option `face`
    this.faces = new Map();
    this.face = face;
    this.onchange = onchange;
    this.list = h("ul.files");
    this.element = h("div", {}, dropZone({ role, many: true, label, me, onfiles: (files) => files.forEach((file) => this.add(Upload.send(file, role, me))) }), this.list);
  }

  add(upload) {
    this.uploads.push(upload);
    const item = h("li");
    const onremove = () => {
      const focused = item.contains(document.activeElement);
      const next = item.nextElementSibling ?? item.previousElementSibling;
      upload.drop();
      this.uploads = this.uploads.filter((other) => other !== upload);
      this.chosen.delete(upload);
      this.faces.delete(upload);
      item.remove();
      if (focused) (next?.querySelector(".icon-button") ?? this.element.querySelector("input")).focus(); // what had it is gone
      this.onchange();
    };
    const faces = new Faces(upload, this.face && ((value) => this.chosen.set(upload, value)));
    this.faces.set(upload, faces);
    if (this.face) faces.press(this.face());
    item.append(fileCard(upload, { onremove, faces, preview: false }));
    this.list.append(item);
    upload.addEventListener("change", this.onchange);
    this.onchange();
  }

  // Another face holds for all whose own nobody chose.
  press() {
    for (const [upload, faces] of this.faces) if (!this.chosen.has(upload)) faces.press(this.face());
  }

  clear() {
    for (const upload of this.uploads) upload.drop({ forget: false });
    this.uploads = [];
    this.chosen.clear();
    this.faces.clear();
    this.list.replaceChildren();
    this.onchange();
  }
}

export class Batch {
  constructor(me, jobs) {
    this.me = me;
    this.jobs = jobs;
    this.options = new Options(me, () => this.videos.press());
    this.videos = new Many("video", t("drop.videos"), me, () => this.update(), () => this.options.value.face ?? "largest");
    this.speeches = new Many("speech", t("drop.speeches"), me, () => this.update());
    this.consent = new Consent(me, null, () => this.update());
    this.title = h("input", { id: newId("title"), type: "text", maxlength: "200" });
    this.words = h("p.estimate", { "aria-live": "polite" });
    this.start = h("button.button.primary.big", { type: "submit" }, t("make.start"));
    const form = h(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      h(
        "div.pair",
        {},
        h("section.card", {}, h("h2", {}, h("span.step", { "aria-hidden": "true" }, "1"), t("batch.videos")), this.videos.element),
        h("section.card", {}, h("h2", {}, h("span.step", { "aria-hidden": "true" }, "2"), t("batch.speeches")), this.speeches.element),
      ),
      h(
        "section.card.bottom",
        {},
        h("label", { for: this.title.id }, t("batch.name")),
        this.title,
        this.options.element,
        this.consent.element,
        h("div.go", {}, this.words, this.start),
      ),
    );
    this.element = h("div", {}, h("h1", { id: "batch-title" }, t("batch.title")), h("p.lead", {}, t("batch.lead")), form);
    this.update();
  }

  get pairs() {
    const [videos, speeches] = [this.videos.uploads, this.speeches.uploads];
    if (videos.length > 1 && speeches.length > 1) return null;
    return videos.flatMap((video) => speeches.map((audio) => ({ video, audio })));
  }

  update() {
    if (!this.start) return;
    const all = [...this.videos.uploads, ...this.speeches.uploads];
    const bad = all.filter((upload) => upload.state === "failed").length;
    const pairs = this.pairs;
    const limit = this.me.limits.batch_items;
    let problem = "";
    if (pairs === null) problem = t("batch.both");
    else if (!this.videos.uploads.length) problem = t("make.need_video");
    else if (!pairs.length) problem = t("make.need_speech");
    else if (bad) problem = bad === 1 ? t("batch.bad_one") : t("batch.bad", { count: bad });
    else if (pairs.length > limit) problem = t("batch.limit", { limit });
    else if (!all.every((upload) => upload.ready)) problem = t("make.wait_upload");
    else problem = this.consent.missing;
    this.words.textContent = problem || (pairs.length === 1 ? t("batch.count_one") : t("batch.count", { count: pairs.length }));
    this.start.disabled = Boolean(problem) || this.busy;
  }

  async #submit() {
    this.busy = true;
    this.update();
    try {
      const pairs = this.pairs.map(({ video, audio }) => ({ video: video.id, audio: audio.id, face: this.videos.chosen.get(video) ?? null }));
      const wanted = { pairs, title: this.title.value || null, consent: this.consent.value };
      await post("api/jobs", { ...wanted, turn: this.options.turn, options: this.options.value });
      forgetJobs();
      this.jobs.soon();
      this.videos.clear();
      this.speeches.clear();
      this.title.value = "";
      location.hash = "#videos";
    } catch (error) {
      toast(errorLine(error));
    } finally {
      this.busy = false;
      this.update();
    }
  }
}
