// Where files are dropped or chosen, and what they look like then: preview, progress, faces.

import { address } from "./api.js";
import { announce, bytes, crossButton, errorDetails, errorLine, h, newId, seconds, t } from "./dom.js";
import { Faces } from "./faces.js";
import { Upload } from "./upload.js";

const ACCEPT = {
  video: "video/*,image/*,.mkv,.mxf,.ts,.y4m",
  speech: "audio/*,text/plain,.txt,video/*",
  consent: ".pdf,.docx,.odt,text/plain,.txt,image/*,audio/*,video/*",
};

// A drop zone. `onfiles` gets the File objects.
export function dropZone({ role, many, label, me, onfiles }) {
  const id = newId("file");
  const input = h("input.hidden", {
    type: "file",
    id,
    multiple: many,
    accept: ACCEPT[role],
    onchange: () => {
      onfiles([...input.files]);
      input.value = "";
    },
    // As on any button: browsers differ on whether Enter opens the dialog, or would send the form.
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      input.click();
    },
  });
  const zone = h(
    "label.drop",
    { for: id },
    input,
    icon(role),
    h("strong", {}, label),
    h("span.button.small", { "aria-hidden": "true" }, t(many ? "drop.choose_many" : "drop.choose")),
    h("span.dim.small", {}, t("drop.limit", { size: bytes(me.limits.file_bytes) })),
  );
  for (const kind of ["dragenter", "dragover"])
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length) onfiles(many ? files : files.slice(0, 1));
  });
  return zone;
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  video: "M4 6h11v12H4zM15 10l5-3v10l-5-3",
  consent: "M7 3h7l5 5v13H7zM14 3v5h5M10 13h6M10 17h6",
  speech: "M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3M5 11a7 7 0 0 0 14 0M12 18v3",
};
function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

export function progressBar(label) {
  const fill = h("div.fill");
  const bar = h("div.bar", { role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
  return {
    element: bar,
    set(percent) {
      const shown = Math.max(0, Math.min(100, percent ?? 0));
      fill.style.width = `${shown}%`;
      bar.setAttribute("aria-valuenow", String(Math.round(shown)));
    },
  };
}

export function stateWords(upload) {
  const percent = Math.floor(upload.fraction * 100);
  if (upload.state === "sending")
    return upload.leftSeconds === null
      ? t("file.uploading", { percent })
      : t("file.uploading_rate", { percent, left: seconds(upload.leftSeconds) });
  if (upload.state === "retrying") return t("file.retrying");
  if (upload.state === "looking") return t("file.looking");
  if (upload.state === "failed") return errorLine(upload.problem);
  return facts(upload) || t("file.ready");
}

function facts(upload) {
  const look = upload.look;
  if (!look) return "";
  if (look.width && look.still) return t("file.facts_still", look);
  if (look.width) return t("file.facts", { ...look, seconds: seconds(look.seconds) });
  if (look.seconds) return seconds(look.seconds);
  return look.text ? `“${look.text.slice(0, 60)}${look.characters > 60 ? "…" : ""}”` : "";
}

// The card of one chosen file. `faces`: where it shows which of several faces speaks.
export function fileCard(upload, { onremove, faces, preview = true }) {
  const bar = progressBar(t("file.uploading", { percent: "" }).trim());
  const words = h("span.words", { role: "status" });
  const again = h("button.button.small", { type: "button", onclick: () => upload.again() }, t("file.again"));
  const removeButton = crossButton(t("file.remove", { name: upload.name }), onremove);
  const details = h("div", { hidden: true });
  const media = preview ? player(upload) : h("span.mini", { hidden: true });
  const card = h("div.file", {}, media, h("div.line", {}, h("span.name", {}, upload.name), removeButton), bar.element, h("div.line", {}, words, again), details, faces.element);
  let shown = "";
  const update = () => {
    bar.set(upload.fraction * 100);
    bar.element.hidden = upload.state === "ready" || upload.state === "failed";
    words.textContent = stateWords(upload);
    card.dataset.state = upload.state;
    again.hidden = !(upload.state === "failed" && upload.file && !upload.info && upload.kind);
    if (shown !== upload.state) {
      shown = upload.state;
      const told = upload.state === "failed" && errorDetails(upload.problem);
      details.replaceChildren(...(told ? [told] : []));
      details.hidden = !told;
      if (upload.ready) faces.show();
      // The faces of a picture are shown on the picture itself: once is enough.
      if (preview) media.hidden = faces.shown && upload.kind === "image";
      else if (upload.look?.poster && !faces.shown) {
        media.hidden = false;
        media.replaceChildren(h("img", { src: address(`api/uploads/${upload.id}/poster`), alt: "" }));
      }
      if (upload.ready || upload.state === "failed") announce(`${upload.name}: ${words.textContent}`);
    }
  };
  upload.addEventListener("change", update);
  update();
  return card;
}

function player(upload) {
  const box = h("div.preview");
  const label = t("file.preview", { name: upload.name });
  const fallback = () => {
    const poster = upload.look?.poster ? [h("img", { src: address(`api/uploads/${upload.id}/poster`), alt: label })] : [];
    box.replaceChildren(...poster, h("p.dim.small", {}, t("file.no_preview")));
  };
  const source = upload.source;
  if (upload.kind === "image") box.append(h("img", { src: source, alt: label, onerror: fallback }));
  else if (upload.kind === "audio") box.append(h("audio", { src: source, controls: true, preload: "metadata", "aria-label": label }));
  else if (upload.kind === "video") {
    const video = h("video", { src: source, controls: true, preload: "metadata", "aria-label": label, onerror: fallback });
    video.playsInline = true;
    box.append(video);
    upload.addEventListener("change", () => {
      if (upload.ready && !box.contains(video)) fallback(); // now there is a poster
    });
  }
  return box;
}

// One file of one role, with what is here already. `onchange` gets the Upload or null.
export class Slot {
  constructor({ role, label, me, onchange, onface, key }) {
    Object.assign(this, { role, me, onchange, onface, key, upload: null });
    this.zone = dropZone({ role, many: false, label, me, onfiles: ([file]) => this.set(Upload.send(file, role, me)) });
    this.place = h("div");
    this.earlier = h("div");
    this.element = h("div.slot", {}, this.zone, this.place, this.earlier);
  }

  set(upload) {
    this.clear({ forget: false });
    this.upload = upload;
    upload.addEventListener("change", () => {
      if (this.upload !== upload) return;
      if (upload.id && this.key) sessionStorage.setItem(this.key, upload.id);
      this.onchange(upload);
    });
    const focused = this.element.contains(document.activeElement);
    this.zone.hidden = true;
    this.earlier.hidden = true;
    const onremove = () => {
      upload.drop();
      this.clear();
      this.zone.querySelector("input").focus();
    };
    this.faces = new Faces(upload, this.onface);
    this.place.replaceChildren(fileCard(upload, { onremove, faces: this.faces }));
    if (focused) this.place.querySelector(".icon-button").focus(); // what had it is hidden now
    this.onchange(upload);
  }

  clear({ forget = true } = {}) {
    if (this.upload && !forget) this.upload.ended = true;
    this.upload = null;
    this.faces = null;
    this.place.replaceChildren();
    this.zone.hidden = false;
    this.earlier.hidden = false;
    if (this.key) sessionStorage.removeItem(this.key);
    this.onface?.(null);
    this.onchange(null);
  }

  // What the server has: the file that was chosen before a reload, whole ones to take again, unfinished ones to go on.
  offer(infos, kinds) {
    const fitting = infos.filter((info) => kinds.includes(info.kind));
    const chosen = this.key && sessionStorage.getItem(this.key);
    const again = fitting.find((info) => info.id === chosen);
    if (again?.whole && again.look?.ok && !this.upload) {
      this.set(Upload.here(again, this.me));
    }
    const whole = fitting.filter((info) => info.whole && info.look?.ok);
    const unfinished = fitting.filter((info) => !info.whole && info.offset > 0);
    const parts = unfinished.slice(0, 3).map((info) =>
      h("p.note", {}, t("drop.unfinished", { name: info.name, percent: Math.floor((100 * info.offset) / info.size) })),
    );
    if (whole.length) {
      const select = h(
        "select",
        {
          onchange: () => {
            const info = whole.find((one) => one.id === select.value);
            if (info) this.set(Upload.here(info, this.me));
          },
        },
        h("option", { value: "" }, t("drop.earlier_choose")),
        whole.slice(0, 30).map((info) => h("option", { value: info.id }, info.name)),
      );
      parts.push(h("label.earlier", {}, t("drop.earlier"), select));
    }
    this.earlier.replaceChildren(...parts);
  }
}
