// Pixels (RGBA bytes) to the planes of a network and back; styles mixed, and pictures blended, in linear light, as
// i2i/inference/mix.py and blend.py do it. The tests hold these functions to those files.

import { Planes } from "./scaling.js";

// Rec. 601, with the weights of i2i/images/picture.py.
const grey = (pixels, at) => (pixels[at] * 19595 + pixels[at + 1] * 38470 + pixels[at + 2] * 7471 + 0x8000) >> 16;

// One channel of the pixels from `from` to `to`, in [-1, 1]; of a network with one channel, the luminance.
export function channel(pixels, channels, i, from, to, line) {
  for (let at = 4 * from, x = 0; at < 4 * to; at += 4, x++) {
    line[x] = (channels === 1 ? grey(pixels, at) : pixels[at + i]) / 127.5 - 1;
  }
  return line;
}

export function toPlanes({ pixels, height, width }, channels) {
  const planes = new Planes(channels, height, width);
  for (let i = 0; i < channels; i++) channel(pixels, channels, i, 0, height * width, planes.plane(i));
  return planes;
}

// Writes lines of one or three planes as opaque pixels; a `Uint8ClampedArray` rounds half to even, as NumPy.
export function toPixels(lines, pixels, from) {
  for (let x = 0, at = 4 * from; x < lines[0].length; x++, at += 4) {
    for (let i = 0; i < 3; i++) pixels[at + i] = (lines[lines.length === 1 ? 0 : i][x] + 1) * 127.5;
    pixels[at + 3] = 255;
  }
}

// sRGB in [0, 1] as linear light (IEC 61966-2-1), and back.
const toLinear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const fromLinear = (light) => (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055);

const STEPS = 65535;
const LINEAR = Float64Array.from({ length: 256 }, (_, i) => toLinear(i / 255));
const SRGB = Uint8ClampedArray.from({ length: STEPS + 1 }, (_, i) => 255 * fromLinear(i / STEPS));
const toByte = (light) => SRGB[Math.round(STEPS * Math.min(1, Math.max(0, light)))];

// The sum of [planes, share], whose shares add up to 1. A single one stays as it is.
export function mixed(parts) {
  const [[first]] = parts;
  if (parts.length === 1) return first;
  const light = new Float64Array(first.data.length);
  for (const [{ data }, share] of parts) {
    for (let i = 0; i < light.length; i++) light[i] += share * toLinear((data[i] + 1) / 2);
  }
  const values = Float32Array.from(light, (value) => fromLinear(value) * 2 - 1);
  return new Planes(first.count, first.height, first.width, values);
}

// A share `strength` of `after` in `before`, for each pixel times that of `shares`, if there are any. `keep` first gives
// `after` the luminance or the colours of `before`. A share of 0 is `before`, of 1 without `keep` `after`, to the bit.
export function blended(before, after, strength, keep, shares) {
  if (strength === 0) return before.slice();
  if (strength === 1 && !keep && !shares) return after.slice();
  const result = new Uint8ClampedArray(before.length);
  for (let at = 0; at < result.length; at += 4) {
    const share = strength * (shares ? shares[at / 4] : 1);
    const made = keep && share > 0 ? kept(before, after, at, keep) : null;
    for (let i = at; i < at + 3; i++) {
      const from = LINEAR[before[i]];
      if (share === 0) result[i] = before[i];
      else if (made) result[i] = toByte(from + share * (made[i - at] - from));
      else result[i] = share === 1 ? after[i] : toByte(from + share * (LINEAR[after[i]] - from));
    }
    result[at + 3] = 255;
  }
  return result;
}

// The linear light of a pixel of `after` with the luminance or the colours of `before`.
function kept(before, after, at, keep) {
  const [own, made] = [before, after].map((pixels) => [0, 1, 2].map((i) => LINEAR[pixels[at + i]]));
  return keep === "luminance" ? withLuminance(made, own) : withLuminance(own, made);
}

// Linear sRGB to XYZ relative to its white, D65, and the inverse.
const TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]].map((row) => {
  const sum = row[0] + row[1] + row[2];
  return row.map((value) => value / sum);
});
const FROM_XYZ = inverse(TO_XYZ);

function inverse([[a, b, c], [d, e, f], [g, h, i]]) {
  const adjugate = [[e * i - f * h, c * h - b * i, b * f - c * e], [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d]];
  const determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0];
  return adjugate.map((row) => row.map((value) => value / determinant));
}

const times = (matrix, [x, y, z]) => matrix.map(([a, b, c]) => a * x + b * y + c * z);
const KNEE = 6 / 29;
const curve = (t) => (t > KNEE ** 3 ? Math.cbrt(t) : t / (3 * KNEE ** 2) + 4 / 29);
const uncurved = (t) => (t > KNEE ? t ** 3 : 3 * KNEE ** 2 * (t - 4 / 29));

// The a* and b* of `colours` with the luminance of `other`, as i2i/images/colours.py has it.
function withLuminance(colours, other) {
  const [, y] = times(TO_XYZ, other);
  const [fx, fy, fz] = times(TO_XYZ, colours).map(curve);
  const shift = curve(y) - fy;
  const chroma = times(FROM_XYZ, [uncurved(fx + shift), y, uncurved(fz + shift)]).map((value) => value - y);
  const share = Math.min(1, ...chroma.map((value) => {
    const room = value > 0 ? 1 - y : y;
    return Math.abs(value) > room ? Math.max(0, room / Math.abs(value)) : 1;
  }));
  return chroma.map((value) => y + share * value);
}
