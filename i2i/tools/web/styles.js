// The styles of the page: one of them, or several mixed by their shares.

const find = (selector) => document.querySelector(selector);
const [field, mix] = ["#styles", "#mix"].map(find);

export const percent = (share) => `${Math.round(100 * share)} %`;

// Styles go together that take and give the same channels, and paint at the same size.
const alike = (one, other) => ["in_channels", "out_channels", "paint_size"].every((name) => one[name] === other[name]);

export class Styles {
  // Calls `changed` whenever other styles or shares are chosen, and `say` with what the visitor should know.
  constructor(site, changed, say) {
    Object.assign(this, { site, changed, say, style: site.styles[0] });
    this.tiles = site.styles.map((style) => this.#tile(style));
    const grid = document.createElement("div");
    grid.append(...this.tiles.map(({ element }) => element));
    field.querySelector("legend").after(grid);
    field.hidden = site.styles.length < 2;
    mix.addEventListener("change", () => this.#toggle());
    this.#show();
  }

  // Each chosen style with its share. Without a share above 0 it is the style alone.
  get chosen() {
    const given = mix.checked ? this.tiles.filter(({ range }) => range.valueAsNumber) : [];
    const total = given.reduce((sum, { range }) => sum + range.valueAsNumber, 0);
    return total ? given.map(({ style, range }) => [style, range.valueAsNumber / total]) : [[this.style, 1]];
  }

  get areMixed() {
    return this.chosen.length > 1;
  }

  #toggle() {
    for (const { style, range } of this.tiles) range.value = style === this.style ? 50 : 0;
    this.#show();
    if (mix.checked) this.say("Raise the share of a second style.");
    else this.changed();
  }

  #show() {
    field.classList.toggle("mixing", mix.checked);
    find("#styles .switch").hidden = this.tiles.every(({ style }) => style === this.style || !alike(style, this.style));
    for (const { style, element, radio } of this.tiles) {
      radio.disabled = mix.checked;
      element.hidden = mix.checked && !alike(style, this.style);
    }
    this.#showShares();
  }

  #showShares() {
    const shares = new Map(this.chosen);
    for (const { style, output } of this.tiles) output.textContent = percent(shares.get(style) ?? 0);
  }

  #tile(style) {
    const [element, label, share] = ["div", "label", "div"].map((name) => document.createElement(name));
    [element.className, share.className] = ["tile", "share"];
    const radio = Object.assign(document.createElement("input"), {
      type: "radio", name: "style", autocomplete: "off", checked: style === this.style,
    });
    radio.setAttribute("aria-label", style.name);
    radio.addEventListener("change", () => {
      this.style = style;
      this.#show();
      this.changed();
    });
    const name = Object.assign(document.createElement("span"), { textContent: style.name });
    const bytes = (this.site.files[style.file].bytes / 1e6).toFixed(1);
    const size = Object.assign(document.createElement("small"), { textContent: `${bytes} MB` });
    const images = style.example ? [Object.assign(new Image(), { src: style.example, alt: "" })] : [];
    label.append(radio, ...images, name, size);
    const range = Object.assign(document.createElement("input"), { type: "range", autocomplete: "off", min: 0, max: 100, value: 0 });
    range.setAttribute("aria-label", `Share of ${style.name}`);
    range.addEventListener("input", () => {
      this.#showShares();
      this.changed();
    });
    const output = document.createElement("output");
    share.append(range, output);
    element.append(label, share);
    return { style, element, radio, range, output };
  }
}
