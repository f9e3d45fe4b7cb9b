// What one keeps on the server, and how to take it away.

import { get, remove } from "./api.js";
import { bytes, crossButton, errorLine, h, t, toast } from "./dom.js";

export class Files {
  constructor(me) {
    this.list = h("ul.files");
    const lead = h("p.dim.small", {}, t("files.lead", { days: me.limits.upload_days }));
    this.element = h("details.card.kept", { ontoggle: () => this.element.open && this.#show() }, h("summary", {}, t("files.title")), lead, this.list);
  }

  async #show() {
    let infos;
    try {
      infos = await get("api/uploads");
    } catch (error) {
      toast(errorLine(error));
      return;
    }
    this.list.replaceChildren(...infos.map((info) => this.#item(info)));
    if (!infos.length) this.list.replaceChildren(h("li.dim", {}, t("files.none")));
  }

  #item(info) {
    const size = bytes(info.size);
    const words = info.whole ? size : t("files.part", { percent: Math.floor((100 * info.offset) / info.size), size });
    const label = t("file.remove", { name: info.name });
    const onclick = async () => {
      try {
        await remove(`api/uploads/${info.id}`);
        item.remove();
      } catch (error) {
        toast(errorLine(error));
      }
    };
    const item = h("li.line", {}, h("span", {}, info.name), h("span.dim.small", {}, words), crossButton(label, onclick));
    return item;
  }
}
