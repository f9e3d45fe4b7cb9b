// What is said: a file, a recording from the microphone, or a text.

import { h, newId, t } from "./dom.js";
import { Slot } from "./picker.js";
import { Upload } from "./upload.js";

const WAYS = ["file", "record", "text"];

export class Speech {
  constructor(me, onchange) {
    this.me = me;
    this.onchange = onchange;
    this.way = "file";
    this.slot = new Slot({ role: "speech", label: t("drop.speech"), me, onchange: () => this.#changed(), key: "heygemd-speech" });
    this.recorder = new Recorder(me, (file) => this.recorded.set(Upload.send(file, "speech", me)));
    this.recorded = new Slot({ role: "speech", label: "", me, onchange: () => this.#changed() });
    this.recorded.zone.remove();
    const limit = me.limits.text_characters;
    const count = h("p.dim.small");
    this.text = h("textarea", {
      id: newId("text"),
      rows: 6,
      maxlength: String(limit),
      placeholder: t("text.hint"),
      oninput: () => {
        count.textContent = t("text.count", { count: [...this.text.value].length, limit });
        this.#changed();
      },
    });
    const panels = {
      file: [this.slot.element],
      record: [this.recorder.element, this.recorded.element],
      text: [h("label", { for: this.text.id }, t("text.label")), this.text, count],
    };
    const name = newId("way");
    this.panels = Object.fromEntries(WAYS.map((way) => [way, h("div", {}, panels[way])]));
    this.element = h(
      "div",
      {},
      h(
        "div.segments",
        { role: "radiogroup", "aria-label": t("speech.how") },
        WAYS.map((way) =>
          h("label", {}, h("input", { type: "radio", name, value: way, checked: way === "file", onchange: () => this.#show(way) }), h("span", {}, t(`speech.${way}`))),
        ),
      ),
      Object.values(this.panels),
    );
    this.#show("file");
  }

  #show(way) {
    this.way = way;
    for (const [name, panel] of Object.entries(this.panels)) panel.hidden = name !== way;
    this.#changed();
  }

  #changed() {
    if (this.panels) this.onchange();
  }

  get upload() {
    return { file: this.slot, record: this.recorded }[this.way]?.upload ?? null;
  }

  // What the server takes: an id or a text; null while it is not there.
  get value() {
    if (this.way === "text") return this.text.value.trim() ? { text: this.text.value } : null;
    return this.upload?.ready ? { audio: this.upload.id } : null;
  }

  get pending() {
    return Boolean(this.upload && !this.upload.ready && this.upload.state !== "failed");
  }
}

class Recorder {
  constructor(me, onfile) {
    this.onfile = onfile;
    this.button = h("button.button.record", { type: "button", onclick: () => this.#toggle() }, t("record.start"));
    this.time = h("span.time", { role: "timer" }, "0:00");
    this.problem = h("p.note", { role: "alert", hidden: true });
    const possible = Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);
    this.element = h("div.recorder", {}, possible ? [this.button, this.time] : h("p.note", {}, t("record.none")), this.problem);
  }

  async #toggle() {
    if (this.media?.state === "recording") {
      this.media.stop();
      return;
    }
    this.problem.hidden = true;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch {
      this.problem.textContent = t("record.denied");
      this.problem.hidden = false;
      return;
    }
    const [type, suffix] = [["audio/webm;codecs=opus", "webm"], ["audio/mp4", "m4a"], ["audio/ogg", "ogg"]].find(([one]) => MediaRecorder.isTypeSupported(one)) ?? ["", "webm"];
    const parts = [];
    this.media = new MediaRecorder(stream, type ? { mimeType: type } : {});
    this.media.ondataavailable = (event) => parts.push(event.data);
    this.media.onstop = () => {
      clearInterval(this.clock);
      for (const track of stream.getTracks()) track.stop();
      this.button.textContent = t("record.again");
      this.button.classList.remove("on");
      // Matroska with sound alone: its usual suffix says so, .webm would pass for a video.
      const name = `${t("record.name")} ${new Date().toLocaleString("sv").replaceAll(":", "-")}.${suffix === "webm" ? "mka" : suffix}`;
      this.onfile(new File(parts, name, { type }));
    };
    this.media.start(1000);
    const began = Date.now();
    this.clock = setInterval(() => {
      const whole = Math.floor((Date.now() - began) / 1000);
      this.time.textContent = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
    }, 250);
    this.button.textContent = t("record.stop");
    this.button.classList.add("on");
  }
}
