"""How the samples of a TIFF lie in its file, as its tags alone say."""

import math
from typing import Any

import numpy as np

from i2i.errors import ImageError
from i2i.images import tiff_directory as t
from i2i.images.picture import NODATA, Limits

PLAIN, FAX, LZW, OLD_JPEG, JPEG, DEFLATE = 1, (2, 3, 4, 32771), 5, 6, 7, (8, 32946)
_PACKBITS, _LZMA, _ZSTD, _WEBP = 32773, 34925, 50000, 50001
BYTES_BY_PILLOW = (LZW, _PACKBITS, _LZMA, _ZSTD)
_PIXELS_BY_PILLOW = (*FAX, JPEG, OLD_JPEG, _WEBP)
_PREDICTED = (*DEFLATE, LZW, _LZMA, _ZSTD)
_UNPACKED = (PLAIN, *DEFLATE, *BYTES_BY_PILLOW, *_PIXELS_BY_PILLOW)
_PACKINGS = {9: "JBIG", 34661: "JBIG", 34712: "JPEG2000", 33003: "JPEG2000", 33005: "JPEG2000", 34887: "LERC"}
_PACKINGS |= {_WEBP: "WEBP", JPEG: "JPEG", OLD_JPEG: "OJPEG", 34676: "SGILOG", 34677: "SGILOG24", 50002: "JPEGXL"}
DIFFERENCES, FLOAT_DIFFERENCES = 2, 3
_PREMULTIPLIED, _STRAIGHT = 1, 2

COLOURS = {
    t.WHITE_IS_ZERO: 1,
    t.BLACK_IS_ZERO: 1,
    t.RGB: 3,
    t.PALETTE_COLOUR: 1,
    t.CMYK: 4,
    t.YCBCR: 3,
    t.CIELAB: 3,
    t.ICCLAB: 3,
}
"""How many samples of a pixel are its colour."""
_COLOUR_NAMES = {t.PALETTE_COLOUR: "PALETTE", t.YCBCR: "YCBCR", t.CIELAB: "CIELAB", t.ICCLAB: "ICCLAB"}
_COLOUR_NAMES |= {4: "MASK", 32803: "CFA", 32844: "LOGL", 32845: "LOGLUV", 34892: "LINEAR_RAW"}
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_KINDS = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f", _VOID: "u"}
_KIND_NAMES = {_SIGNED: "signed values", _FLOAT: "floating-point values", 5: "complex values", 6: "complex values"}
_BITS = {_UNSIGNED: (*range(1, 33), 64), _VOID: (*range(1, 33), 64), _SIGNED: (8, 16, 32, 64), _FLOAT: (16, 32, 64)}
_UNSIGNED_BITS = {t.PALETTE_COLOUR: range(1, 17), t.YCBCR: (8, 16), t.CIELAB: (8, 16), t.ICCLAB: (8, 16)}
_SINGLE = (t.WIDTH, t.HEIGHT, t.COMPRESSION, t.PHOTOMETRIC, t.SAMPLES, t.PLANAR, t.FILL_ORDER, t.PREDICTOR)
_MAX_CHANNELS = 64
_MIN_TILE_PIXELS = 1 << 24
_OVERLAP = 4  # times the file that packed segments may name in all, for equal ones may be one


class Layout:
    """The layout that the tags of a file describe.

    * Segments are strips or tiles of `segment_width` x `segment_height`, `across` beside each other and `down` below
      each other, of `segment_samples` a pixel; `offsets` and `counts` are their places and packed bytes.
    * A line of `line_bytes` is a row of pixels, or `line_rows` of them that share colours (`subsampling`, across and
      down).
    * `kind` is that of numpy ("u", "i", "f"), `stored_dtype` the smallest type that holds the values, `dtype` that of
      the picture: 8 bits, 16, or float32.
    * `colours` is the kind of colours of unpacked samples: JPEG itself undoes YCbCr, but not in planes.
    * Of the samples behind the colours `alpha` is the index of alpha, perhaps `premultiplied`, `bands` those of data.
    * `no_data` is the file's value for no data, `absent` the value of segments that are left out.

    Raises `ImageError` for a layout that is above the limits or not read here.
    """

    def __init__(self, tags: t.Directory, limits: Limits) -> None:
        if not {t.WIDTH, t.HEIGHT} <= set(tags.tags):
            raise ImageError("damaged: its header names no size")
        if any(len(tags.values(tag)) > 1 for tag in _SINGLE):
            raise ImageError("damaged: its header contradicts itself")
        self.tags, self.order, number = tags, tags.order, tags.number
        self.compression = number(t.COMPRESSION, PLAIN)
        old = self.compression == OLD_JPEG  # whose tags may lack (libtiff, `TIFFReadDirectory`)
        self.width, self.height = number(t.WIDTH, 0), number(t.HEIGHT, 0)
        self.samples = number(t.SAMPLES, 3 if old else 1)
        limits.check_size(self.width, self.height, self.samples)
        # as libtiff has it, where the tag is missing
        self.photometric = number(t.PHOTOMETRIC, t.RGB if self.samples > 2 else t.WHITE_IS_ZERO)
        bits, format = self._same(t.BITS, 8 if old else 1), self._same(t.FORMAT, _UNSIGNED)
        self._check_kind(bits, format)
        self.bits, self.kind = bits, _KINDS[format]
        self.planar, self.fill_order = number(t.PLANAR, 1) == 2 and self.samples > 1, number(t.FILL_ORDER, 1)
        self.predictor = number(t.PREDICTOR, 1) if self.compression in _PREDICTED else 1
        self.by_pillow = self.compression in _PIXELS_BY_PILLOW
        self.tiled = t.TILE_WIDTH in tags.tags
        rows = number(t.STRIP_ROWS, self.height) or self.height
        self.segment_width = number(t.TILE_WIDTH, 0) if self.tiled else self.width
        self.segment_height = number(t.TILE_HEIGHT, 0) if self.tiled else min(rows, self.height)
        places, sizes = (t.TILES, t.TILE_BYTES) if t.TILES in tags.tags else (t.STRIPS, t.STRIP_BYTES)
        self.offsets, self.counts = (tuple(map(int, tags.values(tag))) for tag in (places, sizes))
        self.subsampling = self._subsampling() if self.photometric == t.YCBCR else (1, 1)
        self.subsampled = self.subsampling != (1, 1) and not self.by_pillow
        self.line_rows = self.subsampling[1] if self.subsampled else 1
        self.no_data = _no_data(tags)
        absent = self.no_data or 0
        self.absent = absent if self.kind == "f" or 0 <= absent < 2**self.bits else 0
        self._check()
        undone = self.photometric == t.YCBCR and self.by_pillow and not self.planar
        self.colours = self.photometric if not undone else t.RGB if self.samples > 1 else t.BLACK_IS_ZERO
        self._divide_samples()
        self.segment_samples = 1 if self.planar else self.samples
        self.across, self.down = -(-self.width // self.segment_width), -(-self.height // self.segment_height)
        across, down = self.subsampling
        blocks, values = self.segment_width, self.segment_samples
        if self.subsampled:
            blocks, values = -(-blocks // across), across * down + 2
        self.line_bytes = -(-blocks * values * bits // 8)
        self.segment_bytes = self.bytes_of(self.segment_height)
        self.streamable = not self.tiled and self.compression in (PLAIN, *DEFLATE)
        size = next(size for size in (1, 2, 4, 8) if 8 * size >= bits)
        self.stored_dtype: np.dtype[Any] = np.dtype(f"{self.kind}{size}")
        wide = self.kind == "f" or bits > 16
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if wide else np.uint8 if bits <= 8 else np.uint16)

    def bytes_of(self, rows: int) -> int:
        """Bytes of so many rows of a segment."""
        return -(-rows // self.line_rows) * self.line_bytes

    def check_segments(self, end: int) -> None:
        """Raises `ImageError` unless every segment has a place, and for more bytes than a file of `end` can have.

        A single one whose size is missing goes on to the end, as libtiff has it.
        """
        count = self.across * self.down * (self.samples if self.planar else 1)
        if count == 1 and self.offsets and not self.counts:
            self.counts = (max(0, end - self.offsets[0]),)
        found = min(len(self.offsets), len(self.counts))
        if self.compression != OLD_JPEG and found < count:
            raise ImageError(f"damaged: {found} strips or tiles where {count} are expected")
        if self.by_pillow and self.compression != OLD_JPEG and sum(self.counts[:count]) > _OVERLAP * end:
            raise ImageError("damaged: its strips have more bytes than the file")

    def _same(self, tag: int, default: int) -> int:
        """The number that a tag has for each sample; -1 where they differ."""
        values = self.tags.values(tag)[: max(1, self.samples)]
        return -1 if len(set(values)) > 1 else self.tags.number(tag, default)

    def _divide_samples(self) -> None:
        """Tells alpha from data by ExtraSamples (Sec. 18)."""
        given = [int(value) if math.isfinite(value) else 0 for value in self.tags.values(t.EXTRA_SAMPLES)]
        rest = range(COLOURS[self.colours], self.samples)
        if not given and self.colours == t.RGB and len(rest) == 1:
            given = [_STRAIGHT]  # older writers leave the tag out, and mean alpha
        kinds = dict(zip(rest, given, strict=False))
        self.alpha = next((i for i, kind in kinds.items() if kind in (_PREMULTIPLIED, _STRAIGHT)), None)
        self.premultiplied = self.alpha is not None and kinds[self.alpha] == _PREMULTIPLIED
        self.bands = tuple(i for i in rest if i != self.alpha)

    def _subsampling(self) -> tuple[int, int]:
        """How many pixels across and down share a colour of YCbCr (Sec. 21)."""
        given = self.tags.values(t.SUBSAMPLING)
        if len(given) < 2:
            full = self.width * self.height * self.samples * (self.bits // 8)
            # the default, unless there are bytes for colours of every pixel
            is_full = self.compression == PLAIN and sum(self.counts) >= full
            given = (1, 1) if is_full else (2, 2)
        if not set(given[:2]) <= {1, 2, 4}:
            raise ImageError(f"damaged: colours subsampled by {given[0]:g}x{given[1]:g}")
        return int(given[0]), int(given[1])

    def _check_kind(self, bits: int, format: int) -> None:
        """Raises `ImageError` for kinds of samples and colours that are not read here."""
        kind, depth, number = self.photometric, self.tags.number(t.DEPTH, 1), self.tags.number
        if not 1 <= self.samples <= _MAX_CHANNELS or depth != 1:
            raise ImageError(f"{self.samples} channels, depth {depth}: at most {_MAX_CHANNELS} channels are accepted")
        name = f"TIFF of the kind {_COLOUR_NAMES.get(kind, kind)} with {bits} bits a channel"
        if -1 in (bits, format):
            raise ImageError("TIFF with channels of different types is not read here")
        if kind not in COLOURS:
            raise ImageError(f"{name} is not read here")
        if bits not in _BITS.get(format, ()):
            raise ImageError(f"TIFF of {_KIND_NAMES.get(format, 'values')} of {bits} bits is not read here")
        if kind in _UNSIGNED_BITS and (_KINDS[format] != "u" or bits not in _UNSIGNED_BITS[kind]):
            raise ImageError(f"{name} is not read here")
        if self.samples < COLOURS[kind]:
            raise ImageError(f"damaged: {self.samples} channels where its colours need {COLOURS[kind]}")
        if kind == t.CMYK and (number(t.INK_SET, 1) != 1 or number(t.INKS, 4) != 4):
            raise ImageError("TIFF of other inks than cyan, magenta, yellow and black is not read here")

    def _check(self) -> None:
        """Raises `ImageError` for a combination that is not read here, and for tiles far larger than the picture."""
        packing = _PACKINGS.get(self.compression, f"method {self.compression}")
        if self.compression not in _UNPACKED:
            raise ImageError(f"TIFF packed with {packing} is not read here")
        if self.fill_order not in (1, 2) or min(self.segment_width, self.segment_height) < 1:
            raise ImageError("damaged: its header contradicts itself")
        pixels, tile = self.width * self.height, self.segment_width * self.segment_height
        if self.tiled and tile > max(_MIN_TILE_PIXELS, 4 * pixels):
            raise ImageError(f"damaged: a tile of {tile} pixels in a picture of {pixels}")
        allowed = {1: True, DIFFERENCES: self.bits in (8, 16, 32, 64), FLOAT_DIFFERENCES: self.kind == "f"}
        if not allowed.get(self.predictor) or (self.predictor > 1 and self.subsampled):
            raise ImageError(f"TIFF of {self.bits} bits with predictor {self.predictor} is not read here")
        if self.subsampled and (self.samples != 3 or self.planar):
            raise ImageError("TIFF of subsampled colours with further channels or in planes is not read here")
        if (self.tiled or self.segment_height < self.height) and self.segment_height % self.line_rows:
            each = f"strips or tiles of {self.segment_height} rows"
            raise ImageError(f"TIFF of colours that {self.line_rows} rows share in {each} is not read here")
        if self.compression in FAX and (self.bits > 1 or (self.samples > 1 and not self.planar)):
            raise ImageError("damaged: a fax of more than one bit")
        if self.by_pillow and self.compression not in FAX and self.bits != 8:
            raise ImageError(f"TIFF of {self.bits} bits packed with {packing} is not read here")


def _no_data(tags: t.Directory) -> float | None:
    """The file's value for no data, where it is a number: no other text of a file gets into a message."""
    try:
        return float(tags.text(NODATA) or "")
    except ValueError:
        return None
