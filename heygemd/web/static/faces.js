// Which of several faces speaks: boxes over the poster, each a button.

import { address } from "./api.js";
import { h, t } from "./dom.js";

// A named choice holds when the person moves; a box is for who has no name.
export function faceChoices(look) {
  const boxes = look.faces.map((box, index) => ({ box, index, x: (box[0] + box[2]) / 2 }));
  const leftmost = boxes.reduce((a, b) => (b.x < a.x ? b : a));
  const rightmost = boxes.reduce((a, b) => (b.x > a.x ? b : a));
  return boxes
    .map(({ box, index, x }) => ({
      box,
      x,
      names: [index === 0 && "largest", index === leftmost.index && "leftmost", index === rightmost.index && "rightmost"].filter(Boolean),
    }))
    .map(({ box, x, names }) => ({ box, x, names, value: names[0] ?? box.join(",") }))
    .sort((a, b) => a.x - b.x);
}

// `onface` gets a value for the option `face`. Empty until the file was looked at, and where it has one face.
export class Faces {
  constructor(upload, onface) {
    this.upload = upload;
    this.onface = onface;
    this.buttons = [];
    this.pressed = "largest";
    this.element = h("div.who-speaks");
  }

  get shown() {
    return this.buttons.length > 0;
  }

  show() {
    if (!this.onface) return; // a speech, whose picture nobody needs
    const { look, name, id } = this.upload;
    if (look?.faces?.length === 0) this.element.replaceChildren(h("p.note", {}, t(look.still ? "file.no_face_still" : "file.no_face")));
    if (!(look?.faces?.length > 1)) return;
    this.choices = faceChoices(look);
    this.buttons = this.choices.map((choice, number) => this.#button(choice, number, look));
    const picture = h("img", { src: address(`api/uploads/${id}/poster`), alt: "" });
    this.element.replaceChildren(
      h("p.note", {}, t("faces.title")),
      h("div.faces", { role: "group", "aria-label": t("faces.of", { name }) }, picture, ...this.buttons),
    );
    this.press(this.pressed);
  }

  #button({ box: [x0, y0, x1, y1], value }, number, look) {
    const label = t("faces.one", { number: number + 1, count: this.choices.length });
    const onclick = () => {
      this.press(value);
      this.onface(value);
    };
    const button = h("button.face", { type: "button", "aria-label": label, title: label, onclick }, h("span", {}, String(number + 1)));
    button.style.left = `${(100 * x0) / look.width}%`;
    button.style.top = `${(100 * y0) / look.height}%`;
    button.style.width = `${(100 * (x1 - x0)) / look.width}%`;
    button.style.height = `${(100 * (y1 - y0)) / look.height}%`;
    return button;
  }

  // Show which one is chosen, here or among the options.
  press(value) {
    this.pressed = value;
    this.buttons.forEach((button, number) => {
      const { names, value: own } = this.choices[number];
      button.setAttribute("aria-pressed", String(own === value || names.includes(value)));
    });
  }
}
