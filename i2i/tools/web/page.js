// The page: pictures in, the worker's pictures out. site.json names the styles and the size of each file.

import { Mask } from "./mask.js";
import { pictureAt, pixelsOf } from "./pictures.js";
import { percent, Styles } from "./styles.js";

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
let own = null; // the visitor's picture, its size before it was reduced, and the name and type of its file
let job = 0; // the number of the last wish
let translation = 0; // and of the last one for a translation
let worker = start();
let running = false; // whether the worker has the runtime
let sent = null; // the picture that it has
const opened = new Set(); // the styles whose networks it has
let awaited = []; // the files that the last translation needs
const styles = new Styles(site, choose, say);
const mask = new Mask(masked, say);
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
  mask.size = own.size;
  mask.clear();
  draw(before, own.picture);
  await translate();
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
  const id = translation = ++job;
  awaited = [];
  const shares = styles.chosen;
  const picture = own?.picture ?? await examplePicture();
  show(shares.length > 1 && picture === sent && !pair.classList.contains("waiting"), true);
  try {
    await open(shares.map(([style]) => style), id);
  } catch (error) {
    if (id === translation) failed(error.message);
    return;
  }
  if (id !== translation) return;
  say("Translating …", { part: null });
  const named = shares.map(([{ name }, share]) => [name, share]);
  worker.postMessage({ translate: picture === sent ? null : picture, shares: named, id });
  sent = picture;
}

async function open(wanted, id) {
  const missing = wanted.filter((style) => !opened.has(style));
  awaited = [...(running || !missing.length ? [] : [RUNTIME]), ...missing.map(({ file }) => file)];
  const data = await Promise.all(awaited.map(load));
  if (id !== translation) return;
  let wasm = running ? null : data.shift();
  for (const style of styles.areMixed ? [] : opened) if (!wanted.includes(style)) close(style);
  for (const [i, style] of missing.entries()) {
    worker.postMessage({ open: { model: data[i], wasm, style } }, [data[i], ...(wasm ? [wasm] : [])]);
    [wasm, running] = [null, true];
    opened.add(style);
  }
  for (const file of awaited) delete loading[file];
}

function close(style) {
  worker.postMessage({ close: style.name });
  opened.delete(style);
}

// The bytes of a file. One that is on its way already is not asked for again.
function load(file) {
  loading[file] ??= { there: 0 };
  loading[file].data ??= download(file).catch((error) => {
    delete loading[file];
    throw error instanceof TypeError ? new Error(`${file} cannot be loaded. Is there a connection?`) : error;
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
    if (data.id === translation || data.id === job || data.id === undefined) failed(data.error);
  } else if (data.opened) {
    keepOffline(site.styles.filter(({ name }) => name === data.opened).map(({ file }) => file));
  } else if (data.blended) {
    if (pair.classList.contains("waiting")) return;
    draw(after, data.blended);
    show(true, data.id !== job);
  } else if (data.id === translation) {
    translated(data);
  }
}

function translated({ before: seen, translated: made, ms }) {
  draw(before, seen);
  draw(after, made);
  show(true);
  const [width, height] = own?.size ?? [made.width, made.height];
  const reduced = width !== made.width || height !== made.height ? `, reduced from ${width} × ${height}` : "";
  say(`${made.width} × ${made.height} pixels${reduced}, in ${(ms / 1000).toFixed(1)} s.`);
  if (blends()) blend();
}

// A network that failed, for want of memory above all, may be beyond repair: the next one starts anew.
function failed(reason) {
  const memory = /alloc|memory|buffer|RangeError/i.test(reason);
  const advice = memory ? "This browser has too little memory for it. Try a smaller picture." : reason;
  worker.terminate();
  worker = start();
  [running, sent, awaited] = [false, null, []];
  opened.clear();
  masked();
  show(false);
  say(`The picture was not translated. ${advice}`, { wrong: true });
}

// Whether there is a result to show, and whether one is on its way.
function show(result, coming = false) {
  pair.classList.toggle("waiting", !result);
  pair.setAttribute("aria-busy", coming);
  save.disabled = coming || !result || !own;
}

// --- strength, mask, colours: the worker blends the picture with its translation ---

const kept = () => document.querySelector("#keep input:checked").value;
const blends = () => strength.valueAsNumber < 100 || kept() || mask.picture;

function blend() {
  if (pair.hidden || pair.classList.contains("waiting")) return;
  show(true, true);
  worker.postMessage({ blend: { strength: strength.valueAsNumber / 100, keep: kept() }, id: ++job });
}

strength.addEventListener("input", () => {
  find("output[for=strength]").textContent = `${strength.value} %`;
  blend();
});
find("#keep").addEventListener("change", blend);

function masked() {
  worker.postMessage({ mask: mask.picture });
  blend();
}

// --- the example: pictures that were translated when the page was made ---

let shown = null;
const examplePicture = () => (shown ??= pictureAt(site.example));

async function example(style) {
  const [seen, made] = await Promise.all([examplePicture(), pictureAt(style.example)]);
  if (own || styles.areMixed || styles.chosen[0][0] !== style) return;
  translation = ++job; // an earlier wish is not awaited any more
  draw(before, seen);
  draw(after, made);
  show(true);
  worker.postMessage({ pair: { before: seen, after: made } });
  say(`An example. ${IDLE}`);
  if (blends()) blend();
}

function choose() {
  const shares = styles.chosen;
  const [[first]] = shares;
  find("#card div").replaceChildren(...shares.flatMap(card));
  if (own || (styles.areMixed && first.example)) translate();
  else if (first.example) example(first);
  else {
    pair.hidden = true;
    find("#empty").hidden = false;
    say(IDLE);
  }
}

function card([style, share], _, { length }) {
  const name = length > 1 ? `${percent(share)} ${style.name}: ` : "";
  const lines = [`${name}${style.from} → ${style.to}`, ...style.card, `Licence: ${style.licence || "not stated"}`];
  return lines.map((line) => Object.assign(document.createElement("p"), { textContent: line }));
}

// --- results out ---

save.addEventListener("click", () => {
  const jpeg = own.type === "image/jpeg";
  after.toBlob((blob) => {
    const stem = own.name.replace(/\.[^.]*$/, "");
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    const shares = styles.chosen;
    const named = shares.map(([{ name }, share]) => (shares.length > 1 ? `${name}-${Math.round(100 * share)}` : name));
    link.download = `${stem}_${named.join("_")}.${jpeg ? "jpg" : "png"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }, jpeg ? "image/jpeg" : "image/png", 0.95);
});

// --- without a network connection ---

async function keepOffline(files) {
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
const keepAll = () => keepOffline(site.styles.map(({ file }) => file));
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

choose();
document.body.dataset.ready = "";
