"use strict";

for (const hint of document.querySelectorAll(".hint")) hint.hidden = false;

// The scrubber: all grids in one place, one of them visible.
for (const grids of document.querySelectorAll(".grids")) {
  const scrubber = grids.querySelector(".scrubber");
  if (!scrubber) continue;
  const figures = [...grids.querySelectorAll("figure")].sort((a, b) => a.dataset.step - b.dataset.step);
  grids.append(...figures);
  grids.querySelector(".earlier").remove();
  const range = scrubber.querySelector("input");
  const output = scrubber.querySelector("output");
  const [earlier, later] = scrubber.querySelectorAll("button");
  const show = () => {
    const at = Number(range.value);
    figures.forEach((figure, i) => { figure.hidden = i !== at; });
    output.textContent = "Step " + Number(figures[at].dataset.step).toLocaleString("en");
    range.setAttribute("aria-valuetext", output.textContent);
  };
  const move = (by) => { range.value = Number(range.value) + by; show(); };
  range.max = figures.length - 1;
  range.value = figures.length - 1;
  range.addEventListener("input", show);
  earlier.addEventListener("click", () => move(-1));
  later.addEventListener("click", () => move(1));
  scrubber.hidden = false;
  show();
}

// Comparison: the second picture over the first, cut off at the slider.
for (const figure of document.querySelectorAll(".compare")) {
  const pair = figure.querySelector(".pair");
  const range = document.createElement("input");
  range.type = "range";
  range.min = 0;
  range.max = 100;
  range.value = 50;
  range.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
  const show = () => {
    pair.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", range.value + " percent of the first picture");
  };
  range.addEventListener("input", show);
  const first = pair.querySelector("img");
  pair.style.setProperty("--ratio", first.getAttribute("width") / first.getAttribute("height"));
  const enlarge = () => { if (figure.classList.toggle("wide")) figure.scrollIntoView({ block: "nearest" }); };
  range.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(); });
  range.addEventListener("dblclick", enlarge);
  pair.append(range);
  figure.classList.add("slider");
  show();
}

// Charts: the value under the pointer, or by arrow keys.
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const points = JSON.parse(svg.dataset.points);
  const readout = svg.closest("figure").querySelector(".readout");
  const plain = readout.textContent;
  const cursor = document.createElementNS(svg.namespaceURI, "g");
  const line = document.createElementNS(svg.namespaceURI, "path");
  const dot = document.createElementNS(svg.namespaceURI, "circle");
  cursor.setAttribute("class", "cursor");
  dot.setAttribute("r", 3.5);
  cursor.append(line, dot);
  let at = points.length - 1;
  const show = (i) => {
    at = Math.min(Math.max(i, 0), points.length - 1);
    const [step, value, x, y] = points[at];
    line.setAttribute("d", `M${x} 10V174`);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    svg.append(cursor);
    readout.textContent = `step ${step.toLocaleString("en")}: ${Number(value.toPrecision(4))}`;
  };
  const hide = () => { cursor.remove(); readout.textContent = plain; };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let nearest = 0;
    points.forEach((point, i) => { if (Math.abs(point[2] - x) < Math.abs(points[nearest][2] - x)) nearest = i; });
    show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("focus", () => show(at));
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(at + by);
  });
  svg.setAttribute("tabindex", 0);
}
