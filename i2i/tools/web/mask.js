// The mask, which is white where the translation shows: painted over the picture, or a picture of the same size.

import { pixelsOf } from "./pictures.js";

const LONGEST = 1024; // the longer side of what is painted on

const find = (selector) => document.querySelector(selector);
const [pair, button] = ["#pair", "#paint"].map(find);
const [before, , paper] = pair.querySelectorAll("canvas");

export class Mask {
  picture = null; // null: the translation shows everywhere
  #isPainted = false; // whether `paper` has strokes
  #last = null;

  // Calls `changed` whenever there is another mask, and `say` with what the visitor should know.
  constructor(changed, say) {
    Object.assign(this, { changed, say });
    button.addEventListener("click", () => (this.isPainting ? this.#stop() : this.#start()));
    find("#unmask").addEventListener("click", () => {
      this.clear();
      say("");
    });
    find("#mask").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.#take(target.files[0]);
      target.value = "";
    });
    paper.addEventListener("pointerdown", (event) => {
      paper.setPointerCapture(event.pointerId);
      this.#last = null;
      this.#stroke(event);
    });
    paper.addEventListener("pointermove", (event) => event.buttons & 1 && this.#stroke(event));
    paper.addEventListener("lostpointercapture", () => this.#painted());
  }

  get isPainting() {
    return pair.classList.contains("painting");
  }

  clear() {
    this.#show(false);
    this.#isPainted = false;
    if (this.picture) this.#set(null);
  }

  #set(picture) {
    this.picture = picture;
    find("#unmask").hidden = !picture;
    this.changed();
  }

  #show(isPainting) {
    pair.classList.toggle("painting", isPainting);
    button.setAttribute("aria-pressed", isPainting);
    find("#brush").hidden = !isPainting;
  }

  #start() {
    if (pair.hidden) return;
    if (!this.#isPainted) {
      const share = Math.min(1, LONGEST / Math.max(before.width, before.height));
      [paper.width, paper.height] = [before.width, before.height].map((side) => Math.max(1, Math.round(side * share)));
    }
    this.#show(true);
    this.say("Paint where the translation shows.");
    this.#painted();
  }

  #stop() {
    if (!this.#isPainted) this.clear();
    this.#show(false);
    this.say("");
  }

  #stroke(event) {
    const box = paper.getBoundingClientRect();
    const scale = paper.width / box.width;
    const here = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const context = paper.getContext("2d");
    Object.assign(context, { strokeStyle: "white", lineCap: "round", lineWidth: find("#width").valueAsNumber * scale });
    context.beginPath();
    context.moveTo(...(this.#last ?? here));
    context.lineTo(...here);
    context.stroke();
    this.#last = here;
    this.#isPainted = true;
  }

  // Takes what is on the paper, white on black, as the mask.
  #painted() {
    const canvas = Object.assign(document.createElement("canvas"), { width: before.width, height: before.height });
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(paper, 0, 0, canvas.width, canvas.height);
    this.#set(pixelsOf(canvas));
  }

  async #take(file) {
    const bitmap = pair.hidden ? null : await createImageBitmap(file).catch(() => null);
    const expected = this.size ?? [before.width, before.height]; // of the picture that is there by now
    if (pair.hidden) {
      this.say("Choose a picture first, then its mask.", { wrong: true });
    } else if (!bitmap) {
      this.say(`${file.name} is no picture that this browser can read.`, { wrong: true });
    } else if (bitmap.width !== expected[0] || bitmap.height !== expected[1]) {
      const [found, wanted] = [[bitmap.width, bitmap.height], expected].map((sides) => sides.join(" × "));
      this.say(`${file.name} has ${found} pixels; expected ${wanted}, the size of the picture.`, { wrong: true });
    } else {
      this.clear();
      this.#set(pixelsOf(bitmap, "black"));
      this.say(`The white parts of ${file.name} are translated.`);
    }
    bitmap?.close();
  }
}
