// The size at which a picture goes through a network, and the way back: i2i/inference/scaling.py in JavaScript.
// The tests hold it to that file. A size is [height, width]; planes hold numbers in [-1, 1].

const RADIUS = 2;
const EPSILON = 0.04;

const CUBIC = {
  reach: 2,
  at(x) {
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((2.5 - 0.5 * x) * x - 4) * x + 2 : 0;
  },
};
const LINEAR = { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) };

export class Planes {
  constructor(count, height, width, data = new Float32Array(count * height * width)) {
    Object.assign(this, { count, height, width, data });
  }

  plane(i) {
    const area = this.height * this.width;
    return this.data.subarray(i * area, (i + 1) * area);
  }

  clamped() {
    for (let i = 0; i < this.data.length; i++) this.data[i] = Math.min(1, Math.max(-1, this.data[i]));
    return this;
  }
}

export function paintedSize(size, side) {
  const [height, width] = size;
  const shorter = Math.min(height, width);
  if (!(side > 0 && side < shorter)) return size;
  return [height, width].map((length) => Math.max(side, roundedHalfToEven(length * (side / shorter))));
}

function roundedHalfToEven(x) {
  const up = Math.round(x);
  return up - x === 0.5 && up % 2 ? up - 1 : up;
}

// Indices that pad `length` pixels to a multiple, at least `least`, mirrored as often as need be; and how many of them
// come before the first pixel.
export function mirrored(length, multiple, least) {
  const padded = Math.ceil(Math.max(length, least) / multiple) * multiple;
  const before = Math.floor((padded - length) / 2);
  const period = Math.max(1, 2 * (length - 1));
  const index = Int32Array.from({ length: padded }, (_, i) => {
    const at = (((i - before) % period) + period) % period;
    return length > 1 ? Math.min(at, period - at) : 0;
  });
  return { index, before };
}

export function padded(planes, rows, columns) {
  const result = new Planes(planes.count, rows.length, columns.length);
  for (let i = 0; i < planes.count; i++) {
    const [from, to] = [planes.plane(i), result.plane(i)];
    for (let y = 0, at = 0; y < rows.length; y++) {
      const start = rows[y] * planes.width;
      for (let x = 0; x < columns.length; x++) to[at++] = from[start + columns[x]];
    }
  }
  return result;
}

export function cropped(planes, top, left, height, width) {
  const rows = Int32Array.from({ length: height }, (_, y) => y + top);
  const columns = Int32Array.from({ length: width }, (_, x) => x + left);
  return padded(planes, rows, columns);
}

// For each of `target` pixels, the first of the `length` pixels that it depends on, and their weights. A kernel is
// widened when a picture shrinks, as Pillow has it.
function taps(length, target, kernel) {
  const scale = length / target;
  const stretch = Math.max(1, scale);
  const reach = kernel.reach * stretch;
  return Array.from({ length: target }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const behind = Math.min(length, Math.trunc(centre + reach + 0.5));
    const weights = Float64Array.from({ length: behind - first }, (_, k) =>
      kernel.at((first + k - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

function widened(planes, width, kernel) {
  const columns = taps(planes.width, width, kernel);
  const result = new Planes(planes.count, planes.height, width);
  for (let row = 0, at = 0; row < planes.count * planes.height; row++) {
    const start = row * planes.width;
    for (const { first, weights } of columns) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * planes.data[start + first + k];
      result.data[at++] = sum;
    }
  }
  return result;
}

function weightedRow({ first, weights }, planes, i, line) {
  const plane = planes.plane(i);
  line.fill(0);
  weights.forEach((weight, k) => {
    const start = (first + k) * planes.width;
    for (let x = 0; x < line.length; x++) line[x] += weight * plane[start + x];
  });
}

// Bicubic, antialiased.
export function resized(planes, [height, width]) {
  const wide = widened(planes, width, CUBIC);
  const result = new Planes(planes.count, height, width);
  taps(planes.height, height, CUBIC).forEach((tap, y) => {
    for (let i = 0; i < planes.count; i++) {
      weightedRow(tap, wide, i, result.plane(i).subarray(y * width, (y + 1) * width));
    }
  });
  return result.clamped();
}

// A painting of `small` at the `size` of the picture that `small` shows: its own enlargement, and the details of the
// picture by the linear map of the guided filter. See `Enlargement` in scaling.py for the formula.
export class Enlargement {
  constructor(painted, small, [height, width]) {
    this.painted = widened(painted, width, CUBIC);
    this.guide = widened(small, width, CUBIC);
    this.maps = widened(linearMaps(small, painted), width, LINEAR);
    this.cubic = taps(small.height, height, CUBIC);
    this.linear = taps(small.height, height, LINEAR);
    this.lines = [painted.count, small.count, this.maps.count].map((count) =>
      Array.from({ length: count }, () => new Float32Array(width)));
  }

  // A line for each plane of the result at row `y`, where `source` has a line for each plane of the picture.
  row(y, source) {
    const [result, blurred, maps] = this.lines;
    result.forEach((line, i) => weightedRow(this.cubic[y], this.painted, i, line));
    blurred.forEach((line, i) => weightedRow(this.cubic[y], this.guide, i, line));
    maps.forEach((line, i) => weightedRow(this.linear[y], this.maps, i, line));
    source.forEach((line, i) => {
      for (let j = 0; j < result.length; j++) {
        const map = maps[i * result.length + j];
        for (let x = 0; x < line.length; x++) result[j][x] += (line[x] - blurred[i][x]) * map[x];
      }
    });
    return result;
  }
}

function linearMaps(guide, painted) {
  const { height, width } = guide;
  const [guideMeans, paintedMeans] = [means(guide), means(painted)];
  const own = covariances(guide, guideMeans, guide, guideMeans);
  const shared = covariances(guide, guideMeans, painted, paintedMeans);
  const maps = new Planes(guide.count * painted.count, height, width);
  const area = height * width;
  const matrix = new Float64Array(guide.count ** 2);
  const right = new Float64Array(guide.count * painted.count);
  for (let at = 0; at < area; at++) {
    for (let i = 0; i < matrix.length; i++) matrix[i] = own.data[i * area + at];
    for (let i = 0; i < guide.count; i++) matrix[i * guide.count + i] += EPSILON;
    for (let i = 0; i < right.length; i++) right[i] = shared.data[i * area + at];
    solve(matrix, right, guide.count, painted.count);
    for (let i = 0; i < right.length; i++) maps.data[i * area + at] = right[i];
  }
  return means(maps);
}

function covariances(one, oneMeans, other, otherMeans) {
  const area = one.height * one.width;
  const result = new Planes(one.count * other.count, one.height, one.width);
  for (let i = 0; i < one.count; i++) {
    for (let j = 0; j < other.count; j++) {
      const [a, b, to] = [one.plane(i), other.plane(j), result.plane(i * other.count + j)];
      for (let at = 0; at < area; at++) to[at] = a[at] * b[at];
    }
  }
  const products = means(result);
  for (let i = 0; i < one.count; i++) {
    for (let j = 0; j < other.count; j++) {
      const [a, b, to] = [oneMeans.plane(i), otherMeans.plane(j), products.plane(i * other.count + j)];
      for (let at = 0; at < area; at++) to[at] -= a[at] * b[at];
    }
  }
  return products;
}

// Means over the windows around each pixel, mirrored at the edges with the last pixel twice.
function means(planes) {
  const { count, height, width } = planes;
  const middle = new Planes(count, height, width);
  const result = new Planes(count, height, width);
  const [rows, columns] = [height, width].map(windows);
  for (let row = 0, at = 0; row < count * height; row++) {
    for (let x = 0; x < width; x++, at++) {
      let sum = 0;
      for (const column of columns[x]) sum += planes.data[row * width + column];
      middle.data[at] = sum / columns[x].length;
    }
  }
  for (let i = 0; i < count; i++) {
    const [from, to] = [middle.plane(i), result.plane(i)];
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        let sum = 0;
        for (const row of rows[y]) sum += from[row * width + x];
        to[at] = sum / rows[y].length;
      }
    }
  }
  return result;
}

function windows(length) {
  return Array.from({ length }, (_, i) => Int32Array.from({ length: 2 * RADIUS + 1 }, (_, k) => {
    let at = i + k - RADIUS;
    while (at < 0 || at >= length) at = at < 0 ? -at - 1 : 2 * length - 1 - at;
    return at;
  }));
}

// Solves `matrix` X = `right` in place of `right`: `matrix` is n × n, symmetric and positive definite, X is n × m.
function solve(matrix, right, n, m) {
  for (let i = 0; i < n; i++) {
    for (let row = i + 1; row < n; row++) {
      const factor = matrix[row * n + i] / matrix[i * n + i];
      for (let k = i; k < n; k++) matrix[row * n + k] -= factor * matrix[i * n + k];
      for (let k = 0; k < m; k++) right[row * m + k] -= factor * right[i * m + k];
    }
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = 0; k < m; k++) {
      let value = right[i * m + k];
      for (let j = i + 1; j < n; j++) value -= matrix[i * n + j] * right[j * m + k];
      right[i * m + k] = value / matrix[i * n + i];
    }
  }
}
