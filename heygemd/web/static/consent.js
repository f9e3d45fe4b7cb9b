// What shows that the people in a video agreed: it goes with the job, and is kept beside its result.

import { h, t } from "./dom.js";
import { Slot } from "./picker.js";

export class Consent {
  constructor(me, key, onchange) {
    this.demanded = me.consent_demanded;
    this.slot = new Slot({ role: "consent", label: t("drop.consent"), me, key, onchange });
    this.element = h(
      "details.options",
      { open: this.demanded },
      h("summary", {}, t("consent.title")),
      h("p.dim", {}, t(this.demanded ? "consent.demanded" : "consent.lead")),
      this.slot.element,
    );
  }

  offer(infos) {
    this.slot.offer(infos, ["document"]);
  }

  // Its upload's id, or null.
  get value() {
    return this.slot.upload?.ready ? this.slot.upload.id : null;
  }

  get missing() {
    const upload = this.slot.upload;
    if (upload?.state === "failed" || (this.demanded && !upload)) return t("consent.need");
    return upload && !upload.ready ? t("make.wait_upload") : "";
  }
}
