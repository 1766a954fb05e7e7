"""A PNG decoder in plain NumPy, slow and small, that shares nothing with the code under test.

PNG specification, third edition (2025).
"""

import zlib

import numpy as np

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def decode(data):
    """Colours (H, W, 1 or 3) and alpha (H, W) or None, of uint8, or uint16 for 16 bits."""
    chunks = _chunks(data)
    head = chunks[b"IHDR"]
    width, height = (int.from_bytes(head[i : i + 4], "big") for i in (0, 4))
    depth, kind, interlaced = head[8], head[9], head[12]
    raw = zlib.decompressobj().decompress(chunks[b"IDAT"])
    values = np.zeros((height, width, _CHANNELS[kind]), np.uint16)
    for top, left, down, right in _PASSES if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::right]
        if part.size:
            raw = _fill(part, raw, depth)
    return _meaning(values, kind, depth, chunks)


def _chunks(data):
    found, place = {b"IDAT": b""}, 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        found[kind] = found[kind] + content if kind == b"IDAT" else content
        place += length + 12
    return found


def _fill(part, raw, depth):
    height, width, channels = part.shape
    size, step = -(-width * channels * depth // 8), max(1, channels * depth // 8)
    above = bytes(size)
    for y in range(height):
        line = _unfiltered(raw[0], bytearray(raw[1 : 1 + size]), above, step)
        raw, above = raw[1 + size :], line
        part[y] = _unpacked(line, depth)[: width * channels].reshape(width, channels)
    return raw


def _unfiltered(kind, line, above, step):
    for i in range(len(line)):
        a = line[i - step] if i >= step else 0
        b, c = above[i], above[i - step] if i >= step else 0
        line[i] = (line[i] + [0, a, b, (a + b) // 2, _paeth(a, b, c)][kind]) % 256
    return line


def _paeth(a, b, c):
    p = a + b - c
    return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]


def _unpacked(line, depth):
    if depth == 16:
        return np.frombuffer(bytes(line), ">u2")
    bits = np.unpackbits(np.frombuffer(bytes(line), np.uint8)).reshape(-1, depth)
    return bits @ (1 << np.arange(depth)[::-1])


def _meaning(values, kind, depth, chunks):
    full = np.uint16 if depth == 16 else np.uint8
    transparent = chunks.get(b"tRNS")
    if kind == 3:
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
        index = values[..., 0]
        if transparent is None:
            return palette[index], None
        alpha = np.full(256, 255, np.uint8)
        alpha[: len(transparent)] = list(transparent)
        return palette[index], alpha[index]
    alpha = None
    if transparent is not None:
        colour = np.frombuffer(transparent, ">u2").astype(int) % 2**depth
        alpha = np.where((values == colour).all(axis=2), 0, np.iinfo(full).max).astype(full)
    if depth < 8:
        values = values * (255 // (2**depth - 1))
    values = values.astype(full)
    return (values[..., :-1], values[..., -1]) if kind in (4, 6) else (values, alpha)
