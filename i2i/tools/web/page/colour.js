// Pixels (RGBA bytes) to the planes of a network and back, and two pictures mixed in linear light.

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

const STEPS = 65535;
const LINEAR = Float64Array.from({ length: 256 }, (_, i) => {
  const value = i / 255;
  return STEPS * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
});
const SRGB = Uint8ClampedArray.from({ length: STEPS + 1 }, (_, i) => {
  const value = i / STEPS;
  return 255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055);
});

// `strength` 0 is `before`, 1 is `after`, to the bit.
export function mixed(before, after, strength) {
  if (strength <= 0 || strength >= 1) return (strength > 0 ? after : before).slice();
  const result = new Uint8ClampedArray(before.length);
  for (let at = 0; at < result.length; at++) {
    const [from, to] = [LINEAR[before[at]], LINEAR[after[at]]];
    result[at] = at % 4 === 3 ? 255 : SRGB[Math.round(from + strength * (to - from))];
  }
  return result;
}
