"""How the samples of a TIFF lie in its file, as tifffile interprets a bounded copy of the tags."""

import io
import math
from functools import cached_property
from typing import Any

import numpy as np
from tifffile import COMPRESSION, TiffFile

from i2i.errors import ImageError
from i2i.images import tiff_directory as t
from i2i.images.picture import NODATA, Limits

PLAIN, FAX, LZW, OLD_JPEG, JPEG, DEFLATE = 1, (2, 3, 4, 32771), 5, 6, 7, (8, 32946)
_PACKBITS, _LZMA, _ZSTD, _WEBP = 32773, 34925, 50000, 50001
BYTES_BY_PILLOW = (LZW, _PACKBITS, _LZMA, _ZSTD)
PIXELS_BY_PILLOW = (*FAX, JPEG, OLD_JPEG, _WEBP)
_PREDICTED = (*DEFLATE, LZW, _LZMA, _ZSTD)
_UNPACKED = (PLAIN, *DEFLATE, *BYTES_BY_PILLOW, *PIXELS_BY_PILLOW)
DIFFERENCES, FLOAT_DIFFERENCES = 2, 3

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
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_KINDS = {_UNSIGNED: "u", _SIGNED: "i", _FLOAT: "f", _VOID: "u"}
_KIND_NAMES = {_SIGNED: "signed values", _FLOAT: "floating-point values", 5: "complex values", 6: "complex values"}
_BITS = {_UNSIGNED: (*range(1, 33), 64), _VOID: (*range(1, 33), 64), _SIGNED: (8, 16, 32, 64), _FLOAT: (16, 32, 64)}
_UNSIGNED_BITS = {t.PALETTE_COLOUR: range(1, 17), t.YCBCR: (8, 16), t.CIELAB: (8, 16), t.ICCLAB: (8, 16)}
_MAX_CHANNELS = 64
_MIN_TILE_PIXELS = 1 << 24
_OVERLAP = 4  # times the file that packed segments may name in all, for equal ones may be one
_WHOLE_NUMBERS = (
    *("imagewidth", "imagelength", "imagedepth", "samplesperpixel", "rowsperstrip", "tilewidth", "tilelength"),
    *("compression", "planarconfig", "fillorder", "photometric", "predictor"),
)


class Layout:
    """The layout that the tags of a file describe.

    Segments are strips or tiles of `segment_width` x `segment_height`, `offsets` and `counts` their places and packed
    bytes. `kind` is that of numpy ("u", "i", "f"). `subsampling` is that of chroma, across and down. `no_data` is the
    file's value for no data, `absent` the value of segments that are left out. Raises `ImageError` for a layout that is
    above the limits or not read here.
    """

    def __init__(self, tags: t.Directory, limits: Limits) -> None:
        page = _page(tags)
        limits.check_size(page.imagewidth, page.imagelength, page.samplesperpixel)
        self.tags, self.order = tags, tags.order
        self.width, self.height, self.samples = page.imagewidth, page.imagelength, page.samplesperpixel
        # as libtiff has it, where the tag is missing
        guessed = t.PHOTOMETRIC not in tags.tags and self.samples > 2
        self.photometric = t.RGB if guessed else int(page.photometric)
        _check_kind(page, self.photometric, tags)
        self.bits, self.kind = page.bitspersample, _KINDS[page.sampleformat]
        self.planar = page.planarconfig == 2 and self.samples > 1
        self.compression, self.fill_order = int(page.compression), page.fillorder
        self.predictor = int(page.predictor) if self.compression in _PREDICTED else 1
        self.subsampling = _subsampling(page, tags) if self.photometric == t.YCBCR else (1, 1)
        self.tiled = t.TILE_WIDTH in tags.tags
        self.segment_width = page.tilewidth if self.tiled else self.width
        self.segment_height = page.tilelength if self.tiled else page.rowsperstrip or self.height
        self.offsets, self.counts = page.dataoffsets, page.databytecounts
        self.no_data = _no_data(tags)
        absent = self.no_data or 0
        self.absent = absent if self.kind == "f" or 0 <= absent < 2**self.bits else 0
        self._check()

    @property
    def colours(self) -> int:
        """The kind of colours of unpacked samples: JPEG itself undoes YCbCr, but not in planes."""
        undone = self.photometric == t.YCBCR and self.compression in PIXELS_BY_PILLOW and not self.planar
        return self.photometric if not undone else t.RGB if self.samples > 1 else t.BLACK_IS_ZERO

    @property
    def subsampled(self) -> bool:
        """Whether unpacked samples of chroma are fewer than pixels; JPEG undoes that itself."""
        return self.subsampling != (1, 1) and self.compression not in PIXELS_BY_PILLOW

    @property
    def across(self) -> int:
        """Segments beside each other."""
        return -(-self.width // self.segment_width)

    @property
    def down(self) -> int:
        """Segments below each other."""
        return -(-self.height // self.segment_height)

    @property
    def segment_samples(self) -> int:
        """Samples of a pixel in one segment."""
        return 1 if self.planar else self.samples

    @cached_property
    def line_rows(self) -> int:
        """Rows of pixels in one line of bytes, which is a row, or a row of blocks of subsampled colours."""
        return self.subsampling[1] if self.subsampled else 1

    @cached_property
    def line_bytes(self) -> int:
        """Bytes of one line of a segment."""
        across, down = self.subsampling
        if self.subsampled:
            return -(-self.segment_width // across) * (across * down + 2) * self.bits // 8
        return -(-self.segment_width * self.segment_samples * self.bits // 8)

    def bytes_of(self, rows: int) -> int:
        """Bytes of so many rows of a segment."""
        return -(-rows // self.line_rows) * self.line_bytes

    @property
    def segment_bytes(self) -> int:
        """Bytes of an unpacked segment."""
        return self.bytes_of(self.segment_height)

    @property
    def streamable(self) -> bool:
        """Whether a segment can be unpacked by rows."""
        return not self.tiled and self.compression in (PLAIN, *DEFLATE)

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The smallest type that holds the stored values."""
        size = next(size for size in (1, 2, 4, 8) if 8 * size >= self.bits)
        return np.dtype(f"{self.kind}{size}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the picture: 8 bits, 16, or float32."""
        wide = self.kind == "f" or self.bits > 16
        return np.dtype(np.float32 if wide else np.uint8 if self.bits <= 8 else np.uint16)

    def check_segments(self, end: int) -> None:
        """Raises `ImageError` unless every segment has a place, and for more bytes than a file of `end` can have."""
        if self.compression == OLD_JPEG:
            return
        count = self.across * self.down * (self.samples if self.planar else 1)
        if len(self.offsets) < count or len(self.counts) < count:
            found = min(len(self.offsets), len(self.counts))
            raise ImageError(f"damaged: {found} strips or tiles where {count} are expected")
        if self.compression in PIXELS_BY_PILLOW and sum(map(int, self.counts[:count])) > _OVERLAP * end:
            raise ImageError("damaged: its strips have more bytes than the file")

    def _check(self) -> None:
        """Raises `ImageError` for a combination that is not read here, and for tiles far larger than the picture."""
        if self.compression not in _UNPACKED:
            raise ImageError(f"TIFF packed with {_packing(self.compression)} is not read here")
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
        if (self.tiled or self.down > 1) and self.segment_height % self.line_rows:
            each = f"strips or tiles of {self.segment_height} rows"
            raise ImageError(f"TIFF of colours that {self.line_rows} rows share in {each} is not read here")
        if self.compression in FAX and (self.bits > 1 or self.segment_samples > 1):
            raise ImageError("damaged: a fax of more than one bit")
        if self.compression in PIXELS_BY_PILLOW and self.compression not in FAX and self.bits != 8:
            raise ImageError(f"TIFF of {self.bits} bits packed with {_packing(self.compression)} is not read here")


def _no_data(tags: t.Directory) -> float | None:
    """The file's value for no data, where it is a number: no other text of a file gets into a message."""
    try:
        return float(tags.text(NODATA) or "")
    except ValueError:
        return None


def _page(tags: t.Directory) -> Any:
    """The tags as tifffile understands them."""
    if not {t.WIDTH, t.HEIGHT} <= set(tags.tags):
        raise ImageError("damaged: its header names no size")
    layout = {tag: found for tag, found in tags.tags.items() if tag in t.LAYOUT}
    try:
        with TiffFile(io.BytesIO(t.file_of(tags.order, layout, big=True)), name="picture") as file:
            page = file.pages[0]
    except Exception:
        raise ImageError("damaged: its header contradicts itself") from None
    if not all(isinstance(getattr(page, name), int) for name in _WHOLE_NUMBERS):
        raise ImageError("damaged: its header contradicts itself")
    return page


def _check_kind(page: Any, photometric: int, tags: t.Directory) -> None:
    """Raises `ImageError` for kinds of samples and colours that are not read here."""
    if not 1 <= page.samplesperpixel <= _MAX_CHANNELS or page.imagedepth != 1:
        count = f"{page.samplesperpixel} channels, depth {page.imagedepth}"
        raise ImageError(f"{count}: at most {_MAX_CHANNELS} channels are accepted")
    bits, format = page.bitspersample, page.sampleformat
    name = f"TIFF of the kind {getattr(page.photometric, 'name', photometric)} with {bits} bits a channel"
    if photometric not in COLOURS:
        raise ImageError(f"{name} is not read here")
    if not isinstance(bits, int) or not isinstance(format, int):
        raise ImageError(f"TIFF with channels of different types ({bits} bits) is not read here")
    if bits not in _BITS.get(format, ()):
        raise ImageError(f"TIFF of {_KIND_NAMES.get(format, 'values')} of {bits} bits is not read here")
    if photometric in _UNSIGNED_BITS and (_KINDS[format] != "u" or bits not in _UNSIGNED_BITS[photometric]):
        raise ImageError(f"{name} is not read here")
    if page.samplesperpixel < COLOURS[photometric]:
        raise ImageError(f"damaged: {page.samplesperpixel} channels where its colours need {COLOURS[photometric]}")
    if photometric == t.CMYK and (tags.number(t.INK_SET, 1) != 1 or tags.number(t.INKS, 4) != 4):
        raise ImageError("TIFF of other inks than cyan, magenta, yellow and black is not read here")


def _subsampling(page: Any, tags: t.Directory) -> tuple[int, int]:
    """How many pixels across and down share a colour of YCbCr (Sec. 21)."""
    given = tags.values(t.SUBSAMPLING)
    if len(given) < 2:
        full = math.prod(page.shape) * (page.bitspersample // 8)
        # the default, unless there are bytes for colours of every pixel
        is_full = page.compression == PLAIN and sum(page.databytecounts) >= full
        given = (1, 1) if is_full else (2, 2)
    if not set(given[:2]) <= {1, 2, 4}:
        raise ImageError(f"damaged: colours subsampled by {given[0]:g}x{given[1]:g}")
    return int(given[0]), int(given[1])


def _packing(compression: int) -> str:
    try:
        return str(COMPRESSION(compression).name)
    except ValueError:
        return f"method {compression}"
