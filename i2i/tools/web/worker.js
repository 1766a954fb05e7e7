// The networks and the arithmetic of pictures, apart from the page so that it stays responsive.
//
//   { open: { wasm, model, style } }     a network; `wasm` with the first one alone           → { opened: name }
//   { close: name }                      a network that is not needed any more
//   { translate: picture, shares, id }   `shares` has a [name, share] for each style; without a picture the last one
//                                        → { translated: picture, before: picture, id, ms }
//   { pair: { before, after } }          two pictures that are there already
//   { mask: picture }                    white where the translation shows; null for all
//   { blend: { strength, keep }, id }    → { blended: picture, id }
//
// A picture is { pixels, height, width }, RGBA bytes. A failure answers { error, id }. A wish that a newer one of its
// kind has overtaken is left out.

import * as ort from "./runtime/ort.wasm.bundle.min.js";
import { blended, channel, mixed, toPixels, toPlanes } from "./colour.js";
import { cropped, Enlargement, mirrored, padded, paintedSize, Planes, resized } from "./scaling.js";

const MOST_PIXELS = 1 << 20; // of a picture in a network: a network's memory in a browser

const networks = new Map(); // by the name of their style: { session, style }
let source = null; // the picture at hand, and what the networks made of it: see `prepared`
let pair = null;
let mask = null;
const newest = {}; // of each kind of wish: the number of the last one

async function open({ wasm, model, style }) {
  if (wasm) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = wasm;
  }
  const session = await ort.InferenceSession.create(new Uint8Array(model), {
    executionProviders: ["wasm"],
    enableCpuMemArena: false,
    enableMemPattern: false,
  });
  networks.set(style.name, { session, style });
  return { opened: style.name };
}

async function close(name) {
  await networks.get(name)?.session.release();
  networks.delete(name);
}

async function translate(picture, shares, id) {
  const started = performance.now();
  const styles = shares.map(([name]) => networks.get(name).style);
  const form = formOf(styles);
  if (picture || source.form.join() !== form.join()) source = prepared(picture ?? source.picture, form);
  for (const { name } of styles) {
    if (!source.made.has(name)) source.made.set(name, await run(networks.get(name), source.small, form));
  }
  const painted = mixed(shares.map(([name, share]) => [source.made.get(name), share]));
  pair = { before: source.before, after: atFullSize(painted) };
  return { translated: pair.after, before: pair.before, id, ms: performance.now() - started };
}

// The sizes that suit all of these styles: the side at which they paint, their channels, the multiple that a height
// and a width must be, and the least that they must be.
function formOf(styles) {
  const multiple = styles.map((style) => style.size_multiple).reduce(leastCommonMultiple);
  const least = Math.max(...styles.map((style) => style.minimum_size));
  return [styles[0].paint_size, styles[0].in_channels, multiple, least];
}

function leastCommonMultiple(a, b) {
  let [one, other] = [a, b];
  while (other) [one, other] = [other, one % other];
  return (a * b) / one;
}

// `before` is the picture as the page shows it, `small` the planes for the networks, `made` has theirs by the styles.
function prepared(picture, form) {
  const [side, channels] = form;
  const before = fitted(picture, side);
  const whole = [before.height, before.width];
  const size = paintedSize(whole, side);
  const small = size === whole ? toPlanes(before, channels) : shrunk(before, size, channels);
  return { picture, form, before, small, made: new Map() };
}

// The picture, scaled down where a network would see more than `MOST_PIXELS` of it.
function fitted(picture, side) {
  const [height, width] = paintedSize([picture.height, picture.width], side);
  const share = Math.sqrt(MOST_PIXELS / (height * width));
  if (share >= 1) return picture;
  const size = [height, width].map((length) => Math.max(1, Math.floor(length * share)));
  return toPicture(resized(toPlanes(picture, 3), size));
}

// One channel at a time: a photograph of 12 megapixels has 48 MB in each.
function shrunk(picture, size, channels) {
  const small = new Planes(channels, ...size);
  const one = new Planes(1, picture.height, picture.width);
  for (let i = 0; i < small.count; i++) {
    channel(picture.pixels, small.count, i, 0, one.data.length, one.data);
    small.plane(i).set(resized(one, size).data);
  }
  return small;
}

function atFullSize(painted) {
  const { before, small } = source;
  const { pixels, height, width } = before;
  if (small.height === height && small.width === width) return toPicture(painted);
  const enlargement = new Enlargement(painted, small, [height, width]);
  const result = new Uint8ClampedArray(pixels.length);
  const lines = Array.from({ length: small.count }, () => new Float32Array(width));
  for (let y = 0; y < height; y++) {
    lines.forEach((line, i) => channel(pixels, lines.length, i, y * width, (y + 1) * width, line));
    toPixels(enlargement.row(y, lines), result, y * width);
  }
  return { pixels: result, height, width };
}

// Planes through a network: mirrored at the edges to a size that it takes, and cropped back.
async function run({ session, style }, planes, [, , multiple, least]) {
  const [rows, columns] = [planes.height, planes.width].map((length) => mirrored(length, multiple, least));
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

function blend({ strength, keep }, id) {
  const { height, width } = pair.before;
  const pixels = blended(pair.before.pixels, pair.after.pixels, strength, keep, sharesOfMask(height, width));
  return { blended: { pixels, height, width }, id };
}

// For each pixel of a picture of that size the share that the mask leaves, 0 to 1; null without one.
function sharesOfMask(height, width) {
  if (!mask) return null;
  if (mask.shares?.height !== height || mask.shares.width !== width) {
    const grey = toPlanes(mask.picture, 1);
    mask.shares = grey.height === height && grey.width === width ? grey : resized(grey, [height, width]);
    mask.shares.data = mask.shares.data.map((value) => (value + 1) / 2);
  }
  return mask.shares.data;
}

async function answer({ data }) {
  if (data.open) return open(data.open);
  if (data.close) return close(data.close);
  if (data.pair) pair = data.pair;
  if (data.mask !== undefined) mask = data.mask && { picture: data.mask };
  const kind = ["shares", "blend"].find((name) => data[name]);
  if (!kind) return null;
  await new Promise((resolve) => setTimeout(resolve)); // wishes that are waiting are counted meanwhile
  if (data.id < newest[kind]) {
    if (data.translate) source = { picture: data.translate, form: [] };
    return null;
  }
  if (kind === "shares") return translate(data.translate, data.shares, data.id);
  return pair ? blend(data.blend, data.id) : null;
}

let last = Promise.resolve();
addEventListener("message", (event) => {
  for (const kind of ["shares", "blend"]) if (event.data[kind]) newest[kind] = event.data.id;
  last = last.then(() => answer(event)).then(
    (reply) => reply && postMessage(reply),
    (error) => postMessage({ error: String(error?.message ?? error), id: event.data.id }),
  );
});
