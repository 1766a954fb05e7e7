// The page: pictures in, the worker's pictures out. site.json names the styles and the size of each file.

const MOST_PIXELS = 1 << 24; // of a picture: the most that a canvas holds on a phone
const RUNTIME = "runtime/ort-wasm-simd-threaded.wasm";
const IDLE = "Choose, drop or paste a picture of your own.";

const find = (selector) => document.querySelector(selector);
const [pair, divider, strength, save] = ["#pair", "#divider", "#strength", "#save"].map(find);
const [before, after] = pair.querySelectorAll("canvas");
find(".hint").remove();

// "no-cache" asks the server whether its copy is newer: a browser may hold an earlier network of the same name.
const get = (file) => fetch(file, { cache: "no-cache" });

const site = await get("site.json").then((response) => response.json()).catch(() => {
  say("site.json cannot be loaded: this folder is not whole.", { wrong: true });
});
let style = site.styles[0];
let own = null; // the visitor's picture, its size before it was reduced, and the name and type of its file
let job = 0; // the number of the last translation that was asked for
let worker = start();
let opened = null; // the style whose network the worker has
let awaited = []; // the files that the last translation needs
const loading = {}; // of files on their way: the bytes that are there, and the promise of all

function say(text, { wrong = false, part } = {}) {
  const [status, progress] = [find("#status"), find("#progress")];
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
  progress.hidden = part === undefined;
  if (part === undefined || part === null) progress.removeAttribute("value");
  else progress.value = part;
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

// --- pictures in ---

async function take(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    say(`${file.name || "This"} is no picture that this browser can read.`, { wrong: true });
    return;
  }
  await use(bitmap, file.name || "picture.png", file.type);
}

async function use(bitmap, name, type) {
  own = { picture: pixelsOf(bitmap), size: [bitmap.width, bitmap.height], name, type };
  bitmap.close();
  draw(before, own.picture);
  await translate();
}

// The pixels of an image on white, scaled down if they are too many.
function pixelsOf(image) {
  const { width, height } = image;
  const share = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * share));
  canvas.height = Math.max(1, Math.floor(height * share));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { pixels: data, width: canvas.width, height: canvas.height };
}

function draw(canvas, { pixels, width, height }) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  pair.style.setProperty("--ratio", width / height);
  pair.hidden = false;
  find("#empty").hidden = true;
}

// --- the network ---

function start() {
  const made = new Worker("worker.js", { type: "module" });
  made.addEventListener("message", ({ data }) => heard(data));
  made.addEventListener("error", () => {
    say("The worker does not start: this folder is not whole, or this browser is too old.", { wrong: true });
  });
  return made;
}

async function translate() {
  const id = ++job;
  awaited = [];
  show(false, true);
  try {
    await open(style, id);
  } catch (error) {
    if (id === job) failed(error.message);
    return;
  }
  if (id !== job) return;
  say("Translating …", { part: null });
  worker.postMessage({ translate: own.picture, id });
}

async function open(next, id) {
  if (opened === next) return;
  awaited = [...(opened ? [] : [RUNTIME]), next.file];
  const data = await Promise.all(awaited.map(load));
  if (id !== job) return;
  worker.postMessage({ open: { model: data.at(-1), wasm: opened ? null : data[0], style: next } }, data);
  for (const file of awaited) delete loading[file];
  opened = next;
}

// The bytes of a file. One that is on its way already is not asked for again.
function load(file) {
  loading[file] ??= { there: 0 };
  loading[file].data ??= download(file).catch((error) => {
    delete loading[file];
    throw error;
  });
  return loading[file].data;
}

async function download(file) {
  const response = await get(file);
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  const data = new Uint8Array(site.files[file].bytes);
  const reader = response.body.getReader();
  let there = 0;
  for (let { value } = await reader.read(); value; { value } = await reader.read()) {
    if (there + value.length <= data.length) data.set(value, there);
    there += value.length;
    loading[file].there = there;
    progressed();
  }
  if (there !== data.length) throw new Error(`${file} has ${there} bytes, not ${data.length}. Reload the page.`);
  return data.buffer;
}

function progressed() {
  if (!awaited.length) return; // what still comes belongs to an earlier wish
  const there = awaited.reduce((sum, file) => sum + (loading[file]?.there ?? 0), 0);
  const total = awaited.reduce((sum, file) => sum + site.files[file].bytes, 0);
  const [done, all] = [there, total].map(megabytes);
  say(`Loading the network: ${done} of ${all} MB`, { part: there / total });
}

function heard(data) {
  if (data.error) {
    if (data.id === job || data.id === undefined) failed(data.error);
  } else if (data.opened) {
    keep([style.file]);
  } else if (data.mixed) {
    mixing = false;
    if (pair.classList.contains("waiting")) return;
    draw(after, data.mixed);
    show(true);
    if (wanted !== null) mix();
  } else if (data.id === job) {
    translated(data);
  }
}

function translated({ before: seen, translated: made, ms }) {
  draw(before, seen);
  draw(after, made);
  show(true);
  const [width, height] = own.size;
  const reduced = width !== made.width || height !== made.height ? `, reduced from ${width} × ${height}` : "";
  say(`${made.width} × ${made.height} pixels${reduced}, in ${(ms / 1000).toFixed(1)} s.`);
  if (strength.valueAsNumber < 100) mix();
}

// A network that failed, for want of memory above all, may be beyond repair: the next one starts anew.
function failed(reason) {
  const memory = /alloc|memory|buffer|RangeError/i.test(reason);
  const advice = memory ? "This browser has too little memory for it. Try a smaller picture." : reason;
  worker.terminate();
  worker = start();
  opened = null;
  awaited = [];
  mixing = false;
  show(false);
  say(`The picture was not translated. ${advice}`, { wrong: true });
}

// Whether there is a result to show, and whether one is on its way.
function show(result, coming = false) {
  pair.classList.toggle("waiting", !result);
  pair.setAttribute("aria-busy", coming);
  save.disabled = coming || !result || !own;
}

// --- strength: the worker mixes, one at a time; the last wish counts ---

let mixing = false;
let wanted = null;

function mix() {
  wanted = strength.valueAsNumber / 100;
  if (mixing) return;
  mixing = true;
  show(true, true);
  worker.postMessage({ mix: wanted });
  wanted = null;
}

strength.addEventListener("input", () => {
  find(".strength output").textContent = `${strength.value} %`;
  if (!pair.hidden && !pair.classList.contains("waiting")) mix();
});

// --- the example: pictures that were translated when the page was made ---

async function example() {
  const images = [site.example, style.example].map((file) => Object.assign(new Image(), { src: file }));
  const asked = style;
  await Promise.all(images.map((image) => image.decode()));
  if (own || asked !== style) return;
  const [seen, made] = images.map(pixelsOf);
  draw(before, seen);
  draw(after, made);
  show(true);
  worker.postMessage({ pair: { before: seen, after: made } });
  say(`An example. ${IDLE}`);
  if (strength.valueAsNumber < 100) mix();
}

function choose(next) {
  style = next;
  const lines = [`${style.from} → ${style.to}`, ...style.card, `Licence: ${style.licence || "not stated"}`];
  find("#card div").replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
  if (own) translate();
  else if (style.example) example();
  else {
    pair.hidden = true;
    find("#empty").hidden = false;
    say(IDLE);
  }
}

// --- results out ---

save.addEventListener("click", () => {
  const jpeg = own.type === "image/jpeg";
  after.toBlob((blob) => {
    const stem = own.name.replace(/\.[^.]*$/, "");
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    link.download = `${stem}_${style.name}.${jpeg ? "jpg" : "png"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }, jpeg ? "image/jpeg" : "image/png", 0.95);
});

// --- without a network connection ---

async function keep(files) {
  if (!navigator.serviceWorker) return; // the page is neither on https nor on this machine
  try {
    await navigator.serviceWorker.register("sw.js");
  } catch {
    return; // a private window may keep nothing
  }
  const { active } = await navigator.serviceWorker.ready;
  active.postMessage({ keep: files });
}

navigator.serviceWorker?.addEventListener("message", ({ data }) => {
  if (data.kept) find("#offline").textContent = "From now on this style works without a connection too.";
});
navigator.serviceWorker?.startMessages();
const keepAll = () => keep(site.styles.map(({ file }) => file));
addEventListener("appinstalled", keepAll);
if (matchMedia("(display-mode: standalone)").matches) keepAll();

// --- the camera ---

const [viewfinder, video] = ["#viewfinder", "video"].map(find);
find("#camera").hidden = !navigator.mediaDevices?.getUserMedia;
find("#camera").addEventListener("click", async () => {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1440 } },
    });
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`, { wrong: true });
    return;
  }
  viewfinder.showModal();
  await video.play();
});
find("#shoot").addEventListener("click", async () => {
  const bitmap = await createImageBitmap(video);
  viewfinder.close();
  await use(bitmap, "camera.jpg", "image/jpeg");
});
find("#close").addEventListener("click", () => viewfinder.close());
viewfinder.addEventListener("close", () => video.srcObject.getTracks().forEach((track) => track.stop()));

// --- the rest ---

divider.addEventListener("input", () => {
  pair.style.setProperty("--at", `${divider.value}%`);
  divider.setAttribute("aria-valuetext", `${divider.value} percent before`);
});
find("#file").addEventListener("change", ({ target }) => {
  if (target.files[0]) take(target.files[0]);
  target.value = "";
});
addEventListener("paste", ({ clipboardData }) => clipboardData.files[0] && take(clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

function styleButton(entry) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "style", checked: entry === style });
  input.setAttribute("aria-label", entry.name);
  input.addEventListener("change", () => choose(entry));
  const name = Object.assign(document.createElement("span"), { textContent: entry.name });
  const size = Object.assign(document.createElement("small"), { textContent: `${megabytes(site.files[entry.file].bytes)} MB` });
  label.append(input, ...(entry.example ? [Object.assign(new Image(), { src: entry.example, alt: "" })] : []), name, size);
  return label;
}

const buttons = document.createElement("div");
buttons.append(...site.styles.map(styleButton));
find("#styles").append(buttons);
find("#styles").hidden = site.styles.length < 2;
choose(style);
document.body.dataset.ready = "";
