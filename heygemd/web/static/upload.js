// One file on its way to the server, by the tus protocol: it survives broken connections, and the page's reload.

import { address, get, remove } from "./api.js";
import { bytes, t } from "./dom.js";

/* global tus */

const LOOK_EVERY_MS = 400;

export const roles = {
  video: ["video", "image"],
  speech: ["audio", "text", "video"],
  consent: ["document", "text", "image", "audio", "video"],
};

export function kindOf(name, me) {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? null : (me.kinds[name.slice(dot).toLowerCase()] ?? null);
}

// States: sending, retrying, looking, ready, failed. `change` fires at every step; `info` is the server's view of it.
export class Upload extends EventTarget {
  constructor(name, me) {
    super();
    this.name = name;
    this.me = me;
    this.state = "sending";
    this.fraction = 0;
    this.leftSeconds = null;
    this.info = null;
    this.problem = null; // where it failed: message, remedy, details
    this.local = null; // an object URL: played before it is uploaded
    this.file = null;
    this.kind = kindOf(name, me);
    this.ended = false;
  }

  static send(file, role, me) {
    const upload = new Upload(file.name, me);
    upload.file = file;
    upload.local = URL.createObjectURL(file);
    if (!roles[role].includes(upload.kind)) upload.#fail({ message: t("file.wrong_kind", { name: file.name }) });
    else if (file.size === 0) upload.#fail({ message: t("file.empty", { name: file.name }) });
    else if (file.size > me.limits.file_bytes)
      upload.#fail({ message: t("file.too_large", { name: file.name, size: bytes(me.limits.file_bytes) }) });
    else upload.#start();
    return upload;
  }

  // A file that is here already.
  static here(info, me) {
    const upload = new Upload(info.name, me);
    upload.info = info;
    upload.fraction = 1;
    upload.#seen(info);
    return upload;
  }

  get id() {
    return this.info?.id ?? this.tus?.url?.split("/").pop() ?? null;
  }

  get ready() {
    return this.state === "ready";
  }

  get look() {
    return this.info?.look ?? null;
  }

  get source() {
    return this.local ?? address(`api/uploads/${this.id}/content`);
  }

  #change() {
    this.dispatchEvent(new Event("change"));
  }

  #fail(problem) {
    this.state = "failed";
    this.problem = problem;
    // The caller has no chance to listen before the constructor's caller returns.
    queueMicrotask(() => this.#change());
  }

  #start() {
    const began = performance.now();
    let first = null;
    this.tus = new tus.Upload(this.file, {
      endpoint: address("api/uploads"),
      chunkSize: this.me.limits.chunk_bytes,
      retryDelays: [0, 1000, 2000, 4000, 8000, 15000, 30000, 30000, 30000, 60000],
      metadata: { filename: this.file.name },
      removeFingerprintOnSuccess: true,
      onProgress: (sent, total) => {
        first ??= sent;
        const elapsed = (performance.now() - began) / 1000;
        const rate = (sent - first) / Math.max(elapsed, 0.001);
        this.state = "sending";
        this.fraction = sent / total;
        this.leftSeconds = elapsed > 3 && rate > 0 ? (total - sent) / rate : null;
        this.#change();
      },
      onShouldRetry: (error) => {
        const status = error.originalResponse?.getStatus() ?? 0;
        const again = status < 400 || status === 408 || status === 409 || status === 423 || status >= 500;
        if (again && status !== 507) {
          this.state = "retrying";
          this.#change();
        }
        return again && status !== 507;
      },
      onError: (error) => this.#fail(reasonOf(error)),
      onSuccess: () => this.#wait(),
    });
    this.tus
      .findPreviousUploads()
      .then((earlier) => {
        if (earlier.length) this.tus.resumeFromPreviousUpload(earlier[0]);
        if (!this.ended) this.tus.start();
      })
      .catch((error) => this.#fail({ message: String(error) }));
  }

  // The last byte is there: wait until the server has looked into it.
  async #wait() {
    this.state = "looking";
    this.fraction = 1;
    this.#change();
    const id = this.tus.url.split("/").pop();
    while (!this.ended) {
      try {
        const info = await get(`api/uploads/${id}/info`);
        if (info.look) {
          this.#seen(info);
          return;
        }
      } catch (error) {
        if (error.status) {
          this.#fail(error);
          return;
        }
      }
      await new Promise((done) => setTimeout(done, LOOK_EVERY_MS));
    }
  }

  #seen(info) {
    this.info = info;
    if (info.look && !info.look.ok) {
      this.state = "failed";
      this.problem = info.look.error;
    } else {
      this.state = info.look ? "ready" : "looking";
    }
    this.#change();
  }

  again() {
    this.problem = null;
    this.state = "sending";
    this.#start();
    this.#change();
  }

  // Leave it: what was sent of an unfinished one goes away too.
  drop({ forget = true } = {}) {
    this.ended = true;
    if (this.local) URL.revokeObjectURL(this.local);
    if (this.tus && !this.info) this.tus.abort(forget).catch(() => {});
    else if (forget && this.info && this.state === "failed") remove(`api/uploads/${this.info.id}`).catch(() => {});
  }
}

function reasonOf(error) {
  try {
    return JSON.parse(error.originalResponse.getBody()).error;
  } catch {
    return { message: t("file.failed", { reason: error.originalResponse?.getStatus() || t("banner.offline") }) };
  }
}
