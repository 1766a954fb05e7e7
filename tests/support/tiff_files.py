"""A writer of TIFF files for tests, of any kind of samples, and their colours by formulas of their own in float64."""

import itertools
import random
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

WHITE_IS_ZERO, GREY, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, GREY: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
PLAIN, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
UNSPECIFIED, PREMULTIPLIED, STRAIGHT = 0, 1, 2
_SIZES = {"B": 1, "s": 2, "H": 3, "I": 4, "2I": 5, "i": 9, "d": 12, "f": 11, "Q": 16}
REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


@dataclass(frozen=True)
class Kind:
    """How a file holds its samples; `stored` of `written` are (H, W, S) of `kind` ("u", "i", "f") and `bits`."""

    photometric: int = RGB
    bits: int = 8
    kind: str = "u"
    extra: tuple = ()
    planar: bool = False
    order: str = "<"
    compression: int = PLAIN
    predictor: int = 1
    segment: tuple = (5, 0)  # rows of strips, or the sides of tiles
    fill_order: int = 1
    subsampling: tuple = (1, 1)
    big: bool = False
    tags: tuple = field(default=(), compare=False)

    @property
    def samples(self):
        return COLOURS[self.photometric] + len(self.extra)


def directory(order, tags, place, big=False):
    """A directory of (tag, format, values) at `place`; values that do not fit follow it."""
    count, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    fields, behind = b"", b""
    start = place + struct.calcsize("=" + count) + len(tags) * (struct.calcsize("=" + entry) + inline) + inline
    for tag, format, values in sorted(tags, key=lambda t: t[0]):
        data = values if format == "s" else struct.pack(f"{order}{len(values)}{format[-1]}", *values)
        if len(data) > inline:
            behind += b"\0" * (len(behind) % 2)
            value = struct.pack(order + ("Q" if big else "I"), start + len(behind))
            behind += data
        else:
            value = data.ljust(inline, b"\0")
        number = len(data) if format == "s" else len(values) // len(format)
        fields += struct.pack(order + entry, tag, _SIZES[format], number) + value
    return struct.pack(order + count, len(tags)) + fields + bytes(inline) + behind


def written(stored, kind):
    """The bytes of a file with these samples."""
    height, width, samples = stored.shape
    tiled = kind.segment[1] > 0
    segment = (kind.segment[0], kind.segment[1] if tiled else width)
    planes = [stored[..., i : i + 1] for i in range(samples)] if kind.planar else [stored]
    segments = [part for plane in planes for part in _cut(plane, segment, tiled)]
    packed = [_packed(_lines(part, kind), kind) for part in segments]
    offsets = list(itertools.accumulate([16, *map(len, packed[:-1])]))
    place_tag, count_tag = (324, 325) if tiled else (273, 279)
    address = "Q" if kind.big else "I"
    tags = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [kind.bits] * samples),
        (259, "H", [kind.compression]),
    ]
    tags += [(262, "H", [kind.photometric]), (266, "H", [kind.fill_order]), (277, "H", [samples])]
    tags += [(284, "H", [2 if kind.planar else 1]), (339, "H", ["uif".index(kind.kind) + 1] * samples)]
    tags += [(322, "H", [segment[1]]), (323, "H", [segment[0]])] if tiled else [(278, "I", [segment[0]])]
    tags += [(place_tag, address, offsets), (count_tag, address, [len(data) for data in packed])]
    tags += [(338, "H", list(kind.extra))] if kind.extra else []
    tags += [(317, "H", [kind.predictor])] if kind.predictor > 1 else []
    tags += [(530, "H", list(kind.subsampling))] if kind.photometric == YCBCR else []
    tags += [(320, "H", palette(kind.bits).T.ravel().tolist())] if kind.photometric == PALETTE else []
    tags = [tag for tag in tags if tag[0] not in {other[0] for other in kind.tags}] + list(kind.tags)
    place = 16 + sum(map(len, packed))
    sign = b"II" if kind.order == "<" else b"MM"
    head = struct.pack(kind.order + "2sHHHQ", sign, 43, 8, 0, place) if kind.big else b""
    head = head or struct.pack(kind.order + "2sHI", sign, 42, place).ljust(16, b"\0")
    return b"".join([head, *packed, directory(kind.order, tags, place, kind.big)])


def _cut(plane, segment, tiled):
    """Strips or tiles; those at the edges are filled up to the whole tile."""
    rows, columns = segment
    for top in range(0, plane.shape[0], rows):
        for left in range(0, plane.shape[1], columns):
            part = plane[top : top + rows, left : left + columns]
            missing = (rows - part.shape[0], columns - part.shape[1]) if tiled else (0, 0)
            yield np.pad(part, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")


def _lines(part, kind):
    """The bytes of a segment before they are packed."""
    if kind.subsampling != (1, 1):
        return _blocks(part, kind)
    if kind.bits % 8:
        bits = (part.reshape(len(part), -1, 1) >> np.arange(kind.bits - 1, -1, -1, dtype=np.uint64)) & 1
        return np.packbits(bits.reshape(len(part), -1).astype(np.uint8), axis=1).tobytes()
    if kind.bits == 24:
        whole = np.ascontiguousarray(part).astype(kind.order + "u4").view(np.uint8).reshape(-1, 4)
        return (whole[:, :3] if kind.order == "<" else whole[:, 1:]).tobytes()
    if kind.predictor == 3:
        size = kind.bits // 8
        flat = part.reshape(len(part), -1).astype(f">f{size}").view(np.uint8).reshape(len(part), -1, size)
        flat = flat.swapaxes(1, 2).reshape(len(part), -1)
        step = part.shape[2]
        flat[:, step:] = flat[:, step:] - flat[:, :-step]
        return flat.tobytes()
    whole = np.ascontiguousarray(part).view(f"u{kind.bits // 8}").copy()
    if kind.predictor == 2:
        whole[:, 1:] = whole[:, 1:] - whole[:, :-1]
    return whole.astype(whole.dtype.newbyteorder(kind.order)).tobytes()


def _blocks(part, kind):
    across, down = kind.subsampling
    part = np.pad(part, [(0, -part.shape[0] % down), (0, -part.shape[1] % across), (0, 0)], mode="edge")
    data = b""
    for top in range(0, part.shape[0], down):
        for left in range(0, part.shape[1], across):
            block = part[top : top + down, left : left + across]
            values = [*block[..., 0].ravel(), block[0, 0, 1], block[0, 0, 2]]
            data += np.array(values, f"{kind.order}u{kind.bits // 8}").tobytes()
    return data


def _packed(data, kind):
    packed = {PLAIN: bytes, DEFLATE: zlib.compress, LZW: _lzw, PACKBITS: _packbits}[kind.compression](data)
    return packed.translate(REVERSED) if kind.fill_order == 2 else packed


def _packbits(data):
    return b"".join(bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128))


def _lzw(data):
    """Codes of 9 bits alone: the table is cleared before it grows."""
    codes = [256]
    for i, byte in enumerate(data):
        codes += [256, byte] if i and i % 200 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def palette(bits):
    """(2^bits, 3) of 16 bits."""
    return np.random.default_rng(bits).integers(256, 65_536, (1 << bits, 3))


def samples(kind, height=19, width=23, seed=0):
    """Random samples that are a picture: no signed value is below 0, floats are in [0, 1], colours under alpha."""
    dice = np.random.default_rng([seed, kind.bits, kind.photometric])
    units = dice.random((height, width, kind.samples))
    if PREMULTIPLIED in kind.extra:
        units[..., COLOURS[kind.photometric] + kind.extra.index(PREMULTIPLIED)] *= dice.random((height, width)) > 0.2
        alpha = units[..., COLOURS[kind.photometric] + kind.extra.index(PREMULTIPLIED)]
        if kind.photometric in (GREY, WHITE_IS_ZERO, RGB):
            units[..., : COLOURS[kind.photometric]] *= alpha[..., None]
    if kind.subsampling != (1, 1):
        across, down = kind.subsampling
        units[..., 1:] = np.repeat(np.repeat(units[::down, ::across, 1:], down, 0), across, 1)[:height, :width]
    if kind.kind == "f":
        return units.astype(f"f{kind.bits // 8}")
    size = next(size for size in (1, 2, 4, 8) if 8 * size >= kind.bits)
    full = 2 ** (kind.bits - (kind.kind == "i")) - 1
    return (
        (units * float(full))
        .round()
        .clip(0, np.nextafter(float(full), 0) if full > 2**53 else full)
        .astype(f"{kind.kind}{size}")
    )


def expected(stored, kind):
    """(colours, other bands, alpha) in float64, 1 being full; bands (H, W, n); alpha (H, W) or None."""
    full = 1 if kind.kind == "f" else 2 ** (kind.bits - (kind.kind == "i")) - 1
    units = stored.astype(np.float64) / full
    count = COLOURS[kind.photometric]
    where = next((count + i for i, code in enumerate(kind.extra) if code), None)
    alpha = None if where is None else units[..., where]
    others = [i for i in range(count, kind.samples) if i != where]
    base, divide = units[..., :count], where is not None and kind.extra[where - count] == PREMULTIPLIED
    if divide and kind.photometric in (GREY, WHITE_IS_ZERO, RGB, CMYK):
        base = _straight(base, alpha)
    if kind.photometric == WHITE_IS_ZERO:
        base = 1 - base
    elif kind.photometric == PALETTE:
        base = (palette(kind.bits) >> 8)[stored[..., 0]] / 255
    elif kind.photometric == CMYK:
        base = (1 - base[..., :3]) * (1 - base[..., 3:])
    elif kind.photometric == YCBCR:
        base = _from_ycbcr(base, full)
    elif kind.photometric in (CIELAB, ICCLAB):
        base = _from_lab(stored[..., :3].astype(np.float64), kind)
    if divide and kind.photometric in (PALETTE, YCBCR, CIELAB, ICCLAB):
        base = _straight(np.rint(base * 255) / 255 if kind.bits <= 8 or kind.photometric == PALETTE else base, alpha)
    return base, units[..., others], alpha


def _straight(colours, alpha):
    return np.where(alpha[..., None] > 0, np.minimum(colours / np.maximum(alpha, 1e-30)[..., None], 1), 0)


def _from_ycbcr(units, full):
    """By the inverse of the matrix of BT.601."""
    red, green, blue = 0.299, 0.587, 0.114
    to = np.array([[red, green, blue], [-red, -green, 1 - blue], [1 - red, -green, -blue]])
    to[1] /= 2 * (1 - blue)
    to[2] /= 2 * (1 - red)
    middle = (full + 1) / 2 / full
    return np.clip((units - [0, middle, middle]) @ np.linalg.inv(to).T, 0, 1)


def _from_lab(stored, kind):
    """CIE 15:2004 and IEC 61966-2-1, from D50 to D65 by Bradford's matrix."""
    step = 1 if kind.bits == 8 else 256
    if kind.photometric == ICCLAB:
        lightness, a, b = stored[..., 0] / step / 2.55, stored[..., 1] / step - 128, stored[..., 2] / step - 128
    else:
        lightness = stored[..., 0] * 100 / (2**kind.bits - 1)
        a, b = ((stored[..., i] + 2 ** (kind.bits - 1)) % 2**kind.bits - 2 ** (kind.bits - 1) for i in (1, 2))
        a, b = a / step, b / step
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    d50, d65 = np.array([0.9642, 1, 0.8249]), np.array([0.95047, 1, 1.08883])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841) * d50
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d65) / (bradford @ d50)) @ bradford
    corners = np.array([[0.64, 0.33, 0.03], [0.3, 0.6, 0.1], [0.15, 0.06, 0.79]]).T
    to_xyz = corners * np.linalg.solve(corners, d65)
    linear = np.clip(xyz @ adapt.T @ np.linalg.inv(to_xyz).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


NAMES = {
    "grey": GREY,
    "white is zero": WHITE_IS_ZERO,
    "RGB": RGB,
    "palette": PALETTE,
    "CMYK": CMYK,
    "YCbCr": YCBCR,
    "CIELAB": CIELAB,
    "ICCLAB": ICCLAB,
}
UNSIGNED = [("u", bits) for bits in (1, 2, 4, 8, 10, 12, 16, 24, 32, 64)]
EVERY_DEPTH = [*UNSIGNED, *(("i", bits) for bits in (8, 16, 32, 64)), *(("f", bits) for bits in (16, 32, 64))]
DEPTHS = {GREY: EVERY_DEPTH, WHITE_IS_ZERO: EVERY_DEPTH, RGB: EVERY_DEPTH, CMYK: EVERY_DEPTH}
DEPTHS[PALETTE] = [("u", bits) for bits in (1, 2, 4, 8, 12, 16)]
DEPTHS |= {photometric: [("u", 8), ("u", 16)] for photometric in (YCBCR, CIELAB, ICCLAB)}
EXTRA = [(), (UNSPECIFIED,), (STRAIGHT,), (PREMULTIPLIED,), (UNSPECIFIED, STRAIGHT), (UNSPECIFIED, UNSPECIFIED)]
SEGMENTS = [(5, 0), (16, 16), (19, 0)]
SHARED = [(1, 1), (2, 2), (2, 1), (4, 2)]


def settings(photometric, kind, bits):
    """Every way to store samples of that kind and depth."""
    predictors = [1, *([2] if bits in (8, 16, 32, 64) else []), *([3] if kind == "f" else [])]
    product = itertools.product(EXTRA, (False, True), "<>", (PLAIN, DEFLATE, LZW, PACKBITS), predictors, SEGMENTS)
    for extra, planar, order, compression, predictor, segment in product:
        if predictor == 1 or compression in (DEFLATE, LZW):
            for fill_order in (1, 2) if compression in (PLAIN, DEFLATE) else (1,):
                yield Kind(photometric, bits, kind, extra, planar, order, compression, predictor, segment, fill_order)
    if photometric == YCBCR:
        for order, compression, across_down in itertools.product("<>", (PLAIN, LZW), SHARED):
            for segment in [(8, 0), (16, 16)]:
                yield Kind(YCBCR, bits, "u", (), False, order, compression, segment=segment, subsampling=across_down)


def sampled(photometric, each):
    """So many settings of each depth, the same at each run."""
    for kind, bits in DEPTHS[photometric]:
        every = list(settings(photometric, kind, bits))
        yield from random.Random(f"{photometric} {kind} {bits}").sample(every, min(each, len(every)))
