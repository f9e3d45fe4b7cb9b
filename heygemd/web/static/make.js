// The view "Make a video": who speaks, what is said, options, an estimate, and then the making of it.

import { forgetJobs, get, post } from "./api.js";
import { Consent } from "./consent.js";
import { announce, errorDetails, errorLine, h, seconds, t, toast } from "./dom.js";
import { Panel } from "./jobs.js";
import { Options } from "./options.js";
import { Slot } from "./picker.js";
import { Speech } from "./speech.js";
import { roles } from "./upload.js";

const THINK_MS = 600;
const ESTIMATE_MS = 700;

export class Make {
  constructor(me, jobs) {
    this.me = me;
    this.jobs = jobs;
    this.options = new Options(me, () => this.update());
    this.video = new Slot({
      role: "video",
      label: t("drop.video"),
      me,
      key: "heygemd-video",
      onface: (value) => this.options.face(value),
      onchange: () => this.update(),
    });
    this.speech = new Speech(me, () => this.update());
    this.consent = new Consent(me, "heygemd-consent", () => this.update());
    this.start = h("button.button.primary.big", { type: "submit" }, t("make.start"));
    this.hint = h("p.dim", { id: "make-hint", "aria-live": "polite" });
    this.estimate = h("div.estimate", { "aria-live": "polite" });
    this.start.setAttribute("aria-describedby", "make-hint");
    this.panels = h("div.stack");
    this.form = h(
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
        h("section.card", { "aria-labelledby": "who" }, h("h2", { id: "who" }, h("span.step", { "aria-hidden": "true" }, "1"), t("make.who")), this.video.element),
        h("section.card", { "aria-labelledby": "what" }, h("h2", { id: "what" }, h("span.step", { "aria-hidden": "true" }, "2"), t("make.what")), this.speech.element),
      ),
      h("section.card.bottom", {}, this.options.element, this.consent.element, h("div.go", {}, h("div", {}, this.estimate, this.hint), this.start)),
    );
    this.element = h("div", {}, h("h1", { id: "make-title" }, t("make.title")), h("p.lead", {}, t("make.lead")), this.form, this.panels);
    this.built = true;
    this.update();
  }

  offer(infos) {
    this.video.offer(infos, roles.video);
    this.speech.slot.offer(infos, ["audio", "text"]);
    this.consent.offer(infos);
  }

  get missing() {
    const video = this.video.upload;
    if (!video || video.state === "failed") return t("make.need_video");
    if (!this.speech.value && !this.speech.pending) return t("make.need_speech");
    if (!video.ready || this.speech.pending) return t("make.wait_upload");
    return this.consent.missing;
  }

  update() {
    if (!this.built) return;
    this.video.faces?.press(this.options.value.face ?? "largest");
    const missing = this.missing;
    this.start.disabled = Boolean(missing) || this.busy;
    this.hint.textContent = missing;
    const question = missing ? null : { video: this.video.upload.id, ...this.speech.value, options: this.options.value };
    const key = JSON.stringify(question);
    if (key === this.asked) return;
    this.asked = key;
    clearTimeout(this.thinking);
    this.estimate.textContent = "";
    if (question && this.me.estimates) this.thinking = setTimeout(() => this.#estimate(question, key), THINK_MS);
  }

  async #estimate(question, key) {
    this.estimate.textContent = t("estimate.working");
    let words;
    let details = null;
    try {
      const { id } = await post("api/estimates", question);
      for (;;) {
        await new Promise((done) => setTimeout(done, ESTIMATE_MS));
        if (key !== this.asked) return;
        const found = await get(`api/estimates/${id}`);
        if (found.state !== "done") continue;
        if (found.error) [words, details] = [errorLine(found.error), errorDetails(found.error)];
        else if (found.estimate_seconds) words = t(found.estimate_basis === "guess" ? "estimate.guess" : "estimate.done", { time: seconds(found.estimate_seconds), frames: found.frames, engine: found.engine });
        else words = t("estimate.unknown");
        break;
      }
    } catch {
      words = t("estimate.unknown");
    }
    if (key === this.asked) this.estimate.replaceChildren(h("p", {}, words), details ?? "");
  }

  async #submit() {
    if (this.missing) return;
    this.busy = true;
    this.start.disabled = true;
    this.start.textContent = t("make.starting");
    try {
      const { audio, text } = this.speech.value;
      const pairs = [{ video: this.video.upload.id, audio: audio ?? null }];
      const wanted = { pairs, text: text ?? null, consent: this.consent.value, turn: this.options.turn, options: this.options.value };
      const { jobs } = await post("api/jobs", wanted);
      forgetJobs();
      announce(t("make.started"));
      const panel = new Panel(jobs[0], this.jobs);
      this.panels.prepend(panel.element);
      this.jobs.soon();
      panel.element.focus({ preventScroll: true }); // the button that had it is disabled for a moment
      panel.element.scrollIntoView({ behavior: "smooth", block: "nearest" });
    } catch (error) {
      toast(errorLine(error));
    } finally {
      this.busy = false;
      this.start.textContent = t("make.start");
      this.update();
    }
  }
}
