// The network and the arithmetic of pictures, apart from the page so that it stays responsive.
//
//   { open: { wasm, model, style } }   a network; `wasm` with the first one alone   → { opened: name }
//   { translate: picture, id }                                   → { translated: picture, before: picture, id, ms }
//   { pair: { before, after } }        two pictures that are there already
//   { mix: strength }                                            → { mixed: picture }
//
// A picture is { pixels, height, width }, RGBA bytes. A failure answers { error, id }.

import * as ort from "./runtime/ort.wasm.bundle.min.js";
import { channel, mixed, toPixels, toPlanes } from "./colour.js";
import { cropped, Enlargement, mirrored, padded, paintedSize, Planes, resized } from "./scaling.js";

const MOST_PIXELS = 1 << 20; // of a picture in a network: a network's memory in a browser

let session = null;
let style = null;
let pair = null;

async function open({ wasm, model, style: next }) {
  if (wasm) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = wasm;
  }
  await session?.release();
  session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: ["wasm"],
    enableCpuMemArena: false,
    enableMemPattern: false,
  });
  style = next;
  return { opened: style.name };
}

async function translate(picture, id) {
  const started = performance.now();
  const before = fitted(picture);
  const after = await translated(before);
  pair = { before, after };
  return { translated: after, before, id, ms: performance.now() - started };
}

// The picture, scaled down where the network would see more than `MOST_PIXELS` of it.
function fitted(picture) {
  const [height, width] = paintedSize([picture.height, picture.width], style.paint_size);
  const share = Math.sqrt(MOST_PIXELS / (height * width));
  if (share >= 1) return picture;
  const size = [height, width].map((length) => Math.max(1, Math.floor(length * share)));
  return toPicture(resized(toPlanes(picture, 3), size));
}

async function translated(picture) {
  const whole = [picture.height, picture.width];
  const size = paintedSize(whole, style.paint_size);
  if (size === whole) return toPicture(await run(toPlanes(picture, style.in_channels)));
  const small = shrunk(picture, size);
  return enlarged(picture, new Enlargement(await run(small), small, whole));
}

// One channel at a time: a photograph of 12 megapixels has 48 MB in each.
function shrunk(picture, size) {
  const small = new Planes(style.in_channels, ...size);
  const one = new Planes(1, picture.height, picture.width);
  for (let i = 0; i < small.count; i++) {
    channel(picture.pixels, small.count, i, 0, one.data.length, one.data);
    small.plane(i).set(resized(one, size).data);
  }
  return small;
}

function enlarged({ pixels, height, width }, enlargement) {
  const result = new Uint8ClampedArray(pixels.length);
  const source = Array.from({ length: style.in_channels }, () => new Float32Array(width));
  for (let y = 0; y < height; y++) {
    source.forEach((line, i) => channel(pixels, source.length, i, y * width, (y + 1) * width, line));
    toPixels(enlargement.row(y, source), result, y * width);
  }
  return { pixels: result, height, width };
}

// Planes through the network: mirrored at the edges to a size that it takes, and cropped back.
async function run(planes) {
  const [rows, columns] = [planes.height, planes.width].map((length) =>
    mirrored(length, style.size_multiple, style.minimum_size));
  const { count, height, width, data } = padded(planes, rows.index, columns.index);
  const { output } = await session.run({ input: new ort.Tensor("float32", data, [1, count, height, width]) });
  const made = new Planes(style.out_channels, height, width, output.data);
  return cropped(made, rows.before, columns.before, planes.height, planes.width);
}

function toPicture(planes) {
  const { count, height, width } = planes;
  const pixels = new Uint8ClampedArray(4 * height * width);
  toPixels(Array.from({ length: count }, (_, i) => planes.plane(i)), pixels, 0);
  return { pixels, height, width };
}

async function answer({ open: opening, translate: picture, pair: given, mix, id }) {
  if (opening) return open(opening);
  if (picture) return translate(picture, id);
  if (given) pair = given;
  if (mix === undefined || !pair) return null;
  const { height, width } = pair.before;
  return { mixed: { pixels: mixed(pair.before.pixels, pair.after.pixels, mix), height, width } };
}

let last = Promise.resolve();
addEventListener("message", ({ data }) => {
  last = last.then(() => answer(data)).then(
    (reply) => reply && postMessage(reply),
    (error) => postMessage({ error: String(error?.message ?? error), id: data.id }),
  );
});
