"""How the samples of a TIFF lie in its file, as its tags alone say, and its strips and tiles unpacked to them, from top
to bottom (TIFF 6.0, Sec. 3, 9 to 11, 14, 15, 21).

Deflated ones are unpacked here, no further than the picture needs. Pillow unpacks LZW, PackBits, Zstandard, LZMA, fax,
JPEG and WebP: it gets strips alone, under a directory made here, so its idea of the picture does not count.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import TiffImagePlugin

from i2i.errors import ImageError
from i2i.images import containers
from i2i.images import tiff_directory as t
from i2i.images.picture import NODATA, Limits, Pixels
from i2i.images.png import Inflating
from i2i.images.units import no_data_of

_PLAIN, _LZW, OLD_JPEG, _JPEG, _PACKBITS, _LZMA, _ZSTD, _WEBP = 1, 5, 6, 7, 32773, 34925, 50000, 50001
_FAX, _DEFLATE = (2, 3, 4, 32771), (8, 32946)
_PIXELS_BY_PILLOW = (*_FAX, _JPEG, OLD_JPEG, _WEBP)
_PREDICTED = (*_DEFLATE, _LZW, _LZMA, _ZSTD)
_UNPACKED = (_PLAIN, _PACKBITS, *_PREDICTED, *_PIXELS_BY_PILLOW)
_PACKINGS = {9: "JBIG", 34661: "JBIG", 34712: "JPEG2000", 33003: "JPEG2000", 33005: "JPEG2000", 34887: "LERC"}
_PACKINGS |= {_WEBP: "WEBP", _JPEG: "JPEG", OLD_JPEG: "OJPEG", 34676: "SGILOG", 34677: "SGILOG24", 50002: "JPEGXL"}
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
_STRAIGHT = 2

COLOURS = {t.WHITE_IS_ZERO: 1, t.BLACK_IS_ZERO: 1, t.RGB: 3, t.PALETTE_COLOUR: 1}
COLOURS |= {t.CMYK: 4, t.YCBCR: 3, t.CIELAB: 3, t.ICCLAB: 3}
"""How many samples of a pixel are its colour."""
_COLOUR_NAMES = {t.PALETTE_COLOUR: "PALETTE", t.YCBCR: "YCBCR", t.CIELAB: "CIELAB", t.ICCLAB: "ICCLAB"}
_COLOUR_NAMES |= {4: "MASK", 32803: "CFA", 32844: "LOGL", 32845: "LOGLUV", 34892: "LINEAR_RAW"}
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # unsigned, signed, floating point, undefined
_KIND_NAMES = {2: "signed values", 3: "floating-point values", 5: "complex values", 6: "complex values"}
_BITS = {"u": (*range(1, 33), 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_UNSIGNED_BITS = {t.PALETTE_COLOUR: range(1, 17), t.YCBCR: (8, 16), t.CIELAB: (8, 16), t.ICCLAB: (8, 16)}
_SINGLE = (t.WIDTH, t.HEIGHT, t.COMPRESSION, t.PHOTOMETRIC, t.SAMPLES, t.PLANAR, t.FILL_ORDER, t.PREDICTOR)
_MAX_CHANNELS = 64
_MIN_TILE_PIXELS = 1 << 24
_OVERLAP = 4  # times the file that packed segments may name in all, for equal ones may be one

_UNIT_BYTES = 1 << 22
# how much longer than its pixels a strip can get: a packed one of noise, a fax of single dots
_SWELLING, _FAX_SWELLING, _HEADS = 2, 16, 1024
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
_MODES = {(1, t.BLACK_IS_ZERO): "L", (2, t.BLACK_IS_ZERO): "LA", (3, t.RGB): "RGB", (3, t.YCBCR): "RGB"}
_MODES |= {(4, t.RGB): "RGBA", (4, t.CMYK): "CMYK"}
_HEADER_BYTES = 8


class Samples:
    """The samples that the tags of a file describe.

    * Segments are strips or tiles of `segment_width` x `segment_height`, `across` beside each other and `down` below
      each other, of `segment_samples` a pixel; `offsets` and `counts` are their places and packed bytes.
    * A line of `line_bytes` is a row of pixels, or `line_rows` of them that share colours (`subsampling`, across and
      down).
    * `kind` is that of numpy ("u", "i", "f"), `stored_dtype` the smallest type that holds the values.
    * `no_data` is the file's value for no data, `absent` the value of segments that are left out.

    Raises `ImageError` for a layout that is damaged, above the limits or not read here.
    """

    def __init__(self, file: BinaryIO, tags: t.Directory, limits: Limits) -> None:
        if t.WIDTH not in tags.tags or t.HEIGHT not in tags.tags:
            raise ImageError("damaged: its header names no size")
        if any(len(tags.values(tag)) > 1 for tag in _SINGLE):
            raise ImageError("damaged: its header contradicts itself")
        self._file, self._end = file, file.seek(0, io.SEEK_END)
        self.tags, self.order, number = tags, tags.order, tags.number
        self.compression = number(t.COMPRESSION, _PLAIN)
        old = self.compression == OLD_JPEG  # whose tags may lack (libtiff, `TIFFReadDirectory`)
        self.width, self.height = number(t.WIDTH, 0), number(t.HEIGHT, 0)
        self.samples = number(t.SAMPLES, 3 if old else 1)
        limits.check_size(self.width, self.height, self.samples)
        # as libtiff has it, where the tag is missing
        self.photometric = number(t.PHOTOMETRIC, t.RGB if self.samples > 2 else t.WHITE_IS_ZERO)
        self.bits, format = self._same(t.BITS, 8 if old else 1), self._same(t.FORMAT, 1)
        self.kind = _KINDS.get(format, "")
        self._check_kind(format)
        self.planar, self.fill_order = number(t.PLANAR, 1) == 2 and self.samples > 1, number(t.FILL_ORDER, 1)
        self.predictor = number(t.PREDICTOR, 1) if self.compression in _PREDICTED else 1
        self.by_pillow = self.compression in _PIXELS_BY_PILLOW
        self.tiled = t.TILE_WIDTH in tags.tags
        self.segment_width = number(t.TILE_WIDTH, 0) if self.tiled else self.width
        rows = number(t.STRIP_ROWS, self.height) or self.height
        self.segment_height = number(t.TILE_HEIGHT, 0) if self.tiled else min(rows, self.height)
        places, sizes = (t.TILES, t.TILE_BYTES) if t.TILES in tags.tags else (t.STRIPS, t.STRIP_BYTES)
        self.offsets, self.counts = (tuple(map(int, tags.values(tag))) for tag in (places, sizes))
        self.subsampling = self._subsampling() if self.photometric == t.YCBCR else (1, 1)
        self.subsampled = self.subsampling != (1, 1) and not self.by_pillow
        self.line_rows = self.subsampling[1] if self.subsampled else 1
        self._check()
        self._planes = self.samples if self.planar else 1
        self.segment_samples = self.samples // self._planes
        self.across, self.down = -(-self.width // self.segment_width), -(-self.height // self.segment_height)
        blocks, values = self.segment_width, self.segment_samples
        if self.subsampled:
            blocks, values = -(-blocks // self.subsampling[0]), math.prod(self.subsampling) + 2
        self.line_bytes = -(-blocks * values * self.bits // 8)
        self.segment_bytes = self._bytes_of(self.segment_height)
        if not old:
            self._check_segments()
        self.is_streamable = not self.tiled and self.compression in (_PLAIN, *_DEFLATE)
        self.stored_dtype: np.dtype[Any] = np.dtype(f"{self.kind}{1 << max(0, (self.bits - 1).bit_length() - 3)}")
        # no other text of a file gets into a message
        self.no_data = no_data_of({NODATA: tags.text(NODATA) or ""})
        absent = self.no_data or 0
        self.absent = absent if self.kind == "f" or 0 <= absent < 2**self.bits else 0

    def _same(self, tag: int, default: int) -> int:
        """The number that a tag has for each sample; -1 where they differ."""
        values = self.tags.values(tag)[: max(1, self.samples)]
        return -1 if len(set(values)) > 1 else self.tags.number(tag, default)

    def _subsampling(self) -> tuple[int, int]:
        """How many pixels across and down share a colour of YCbCr (Sec. 21)."""
        given = self.tags.values(t.SUBSAMPLING)
        if len(given) < 2:
            full = self.width * self.height * self.samples * (self.bits // 8)
            # the default, unless there are bytes for colours of every pixel
            given = (1, 1) if self.compression == _PLAIN and sum(self.counts) >= full else (2, 2)
        if not set(given[:2]) <= {1, 2, 4}:
            raise ImageError(f"damaged: colours subsampled by {given[0]:g}x{given[1]:g}")
        return int(given[0]), int(given[1])

    def _check_kind(self, format: int) -> None:
        """Raises `ImageError` for kinds of samples and colours that are not read here."""
        colours, bits, number, depth = self.photometric, self.bits, self.tags.number, self.tags.number(t.DEPTH, 1)
        if not 1 <= self.samples <= _MAX_CHANNELS or depth != 1:
            raise ImageError(f"{self.samples} channels, depth {depth}: at most {_MAX_CHANNELS} channels are accepted")
        if -1 in (bits, format):
            raise ImageError("TIFF with channels of different types is not read here")
        name = f"TIFF of the kind {_COLOUR_NAMES.get(colours, colours)} with {bits} bits a channel"
        if colours not in COLOURS:
            raise ImageError(f"{name} is not read here")
        if bits not in _BITS.get(self.kind, ()):
            raise ImageError(f"TIFF of {_KIND_NAMES.get(format, 'values')} of {bits} bits is not read here")
        if colours in _UNSIGNED_BITS and (self.kind != "u" or bits not in _UNSIGNED_BITS[colours]):
            raise ImageError(f"{name} is not read here")
        if self.samples < COLOURS[colours]:
            raise ImageError(f"damaged: {self.samples} channels where its colours need {COLOURS[colours]}")
        if colours == t.CMYK and (number(t.INK_SET, 1) != 1 or number(t.INKS, 4) != 4):
            raise ImageError("TIFF of other inks than cyan, magenta, yellow and black is not read here")

    def _check(self) -> None:
        """Raises `ImageError` for a combination that is not read here, and for tiles far larger than the picture."""
        packing, is_fax = _PACKINGS.get(self.compression, f"method {self.compression}"), self.compression in _FAX
        if self.compression not in _UNPACKED:
            raise ImageError(f"TIFF packed with {packing} is not read here")
        if self.fill_order not in (1, 2) or min(self.segment_width, self.segment_height) < 1:
            raise ImageError("damaged: its header contradicts itself")
        pixels, tile = self.width * self.height, self.segment_width * self.segment_height
        if self.tiled and tile > max(_MIN_TILE_PIXELS, 4 * pixels):
            raise ImageError(f"damaged: a tile of {tile} pixels in a picture of {pixels}")
        allowed = {1: True, _DIFFERENCES: self.bits in (8, 16, 32, 64), _FLOAT_DIFFERENCES: self.kind == "f"}
        if not allowed.get(self.predictor) or (self.predictor > 1 and self.subsampled):
            raise ImageError(f"TIFF of {self.bits} bits with predictor {self.predictor} is not read here")
        if self.subsampled and (self.samples != 3 or self.planar):
            raise ImageError("TIFF of subsampled colours with further channels or in planes is not read here")
        if (self.tiled or self.segment_height < self.height) and self.segment_height % self.line_rows:
            each = f"strips or tiles of {self.segment_height} rows"
            raise ImageError(f"TIFF of colours that {self.line_rows} rows share in {each} is not read here")
        if is_fax and (self.bits > 1 or (self.samples > 1 and not self.planar)):
            raise ImageError("damaged: a fax of more than one bit")
        if self.by_pillow and not is_fax and self.bits != 8:
            raise ImageError(f"TIFF of {self.bits} bits packed with {packing} is not read here")

    def _check_segments(self) -> None:
        """Raises `ImageError` unless every segment has a place, and for more bytes than the file can have.

        A single one whose size is missing goes on to the end, as libtiff has it.
        """
        count = self.across * self.down * self._planes
        if count == 1 and self.offsets and not self.counts:
            self.counts = (max(0, self._end - self.offsets[0]),)
        found = min(len(self.offsets), len(self.counts))
        if found < count:
            raise ImageError(f"damaged: {found} strips or tiles where {count} are expected")
        if self.by_pillow and sum(self.counts[:count]) > _OVERLAP * self._end:
            raise ImageError("damaged: its strips have more bytes than the file")

    def stored(self) -> Iterator[Pixels]:
        """Rows (h, W, S) of the samples as they are stored, in native byte order, from top to bottom."""
        if self.compression == OLD_JPEG:
            yield self._old_jpeg()
            return
        each = self.across * self.down
        planes = [self._plane(first) for first in range(0, each * self._planes, each)]
        for parts in zip(*planes, strict=True):
            yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _plane(self, first: int) -> Iterator[Pixels]:
        """One plane of the samples, or all where they are interleaved, whose segments begin at number `first`.

        By rows of tiles, by some strips, and a strip that is too large to be held by some of its lines.
        """
        most = _UNIT_BYTES // self._planes
        if self.segment_bytes > most and self.is_streamable:
            each = max(1, most // self.line_bytes) * self.line_rows
            for i in range(self.down):
                take, height = self._stream(first + i), self._rows(i)
                for rows in (min(each, height - top) for top in range(0, height, each)):
                    size = self._bytes_of(rows)
                    yield samples_of(_whole(take(size), size), rows, self)[:, : self.width]
            return
        each = 1 if self.tiled else max(1, most // self.segment_bytes)
        for top in range(0, self.down, each):
            heights = [self._rows(i) for i in range(top, min(top + each, self.down)) for _ in range(self.across)]
            pixels = self._unit(list(enumerate(heights, first + top * self.across)))
            if self.tiled:
                tiles = pixels.reshape(self.across, self.segment_height, self.segment_width, -1)
                pixels = tiles.transpose(1, 0, 2, 3).reshape(self.segment_height, -1, tiles.shape[-1])
            yield pixels[: self.height - top * self.segment_height, : self.width]

    def _rows(self, down: int) -> int:
        """Rows of the segments in that row of them; tiles are whole also at the edge."""
        left = self.height - down * self.segment_height
        return self.segment_height if self.tiled else min(self.segment_height, left)

    def _unit(self, segments: Sequence[tuple[int, int]]) -> Pixels:
        """Segments, each with its rows, below each other; those that sparse files leave out are `absent`."""
        shape = self.segment_width, self.segment_samples
        there = [self.offsets[i] != 0 or self.counts[i] != 0 for i, _ in segments]
        if all(there):
            return self._decoded(segments)
        parts = [
            self._decoded([segment]) if is_there else np.full((segment[1], *shape), self.absent, self.stored_dtype)
            for segment, is_there in zip(segments, there, strict=True)
        ]
        return np.concatenate(parts)

    def _decoded(self, segments: Sequence[tuple[int, int]]) -> Pixels:
        """Segments, each with its rows, below each other: (rows, segment width, segment samples)."""
        if self.by_pillow:
            return self._pixels_by_pillow(segments)
        if self.compression in (_PLAIN, *_DEFLATE):
            sizes = [(i, self._bytes_of(rows)) for i, rows in segments]
            # one byte more is asked for, for the checksum behind the last one
            data: bytes | Pixels = b"".join([_whole(self._stream(i)(size + 1), size) for i, size in sizes])
        else:  # strips of bytes, unpacked as a grey picture of so many bytes a line
            lines = [(i, -(-rows // self.line_rows)) for i, rows in segments]
            values = {t.BITS: [8], t.PHOTOMETRIC: [t.BLACK_IS_ZERO]}
            data = self._by_pillow(lines, self.line_bytes, _SWELLING * self.line_bytes, "L", values)
        return samples_of(data, sum(rows for _, rows in segments), self)

    def _bytes_of(self, rows: int) -> int:
        """Bytes of so many rows of a segment."""
        return -(-rows // self.line_rows) * self.line_bytes

    def _stream(self, index: int) -> Callable[[int], bytes]:
        """Gives the next bytes of a segment that is plain or deflated, fewer where it ends."""
        if self.compression == _PLAIN:  # some writers' counts are wrong there
            return self._packed(index, self.segment_bytes)
        return Inflating(self._packed(index, min(self.counts[index], _SWELLING * self.segment_bytes + _HEADS))).read

    def _packed(self, index: int, count: int) -> Callable[[int], bytes]:
        """Gives the next of so many bytes of a segment as they are in the file, their bits in order."""
        place = self.offsets[index]
        # as libtiff has it: the bits of a JPEG are in order, whatever the tag says
        reverse = self.fill_order == 2 and self.compression != _JPEG

        def read(size: int) -> bytes:
            nonlocal place, count
            if not 0 <= place <= self._end:
                raise ImageError("damaged: it is truncated")
            self._file.seek(place)
            data = self._file.read(min(size, count, self._end - place))
            place, count = place + len(data), count - len(data)
            return data.translate(_REVERSED) if reverse else data

        return read

    def _pixels_by_pillow(self, segments: Sequence[tuple[int, int]]) -> Pixels:
        is_fax, samples = self.compression in _FAX, self.segment_samples
        kept = samples > 2 and self.photometric in (t.RGB, t.CMYK, t.YCBCR)
        photometric = self.photometric if kept else t.BLACK_IS_ZERO if samples < 3 else t.RGB
        mode = "1" if is_fax else _MODES.get((samples, photometric))
        if mode is None:
            raise ImageError(f"JPEG of {samples} channels in a TIFF is not read here")
        values: dict[int, Sequence[int]] = {t.BITS: [self.bits] * samples, t.PHOTOMETRIC: [photometric]}
        values |= {t.SAMPLES: [samples], t.SUBSAMPLING: self.subsampling}
        values |= {t.EXTRA_SAMPLES: [_STRAIGHT]} if mode in ("LA", "RGBA") else {}
        values |= {tag: [self.tags.number(tag, 0)] for tag in (t.FAX_3, t.FAX_4)} if is_fax else {}
        most = _FAX_SWELLING * self.line_bytes if is_fax else self._end
        found = self._by_pillow(segments, self.segment_width, most, mode, values)
        return found.astype(np.uint8, copy=False).reshape(len(found), self.segment_width, samples)

    def _by_pillow(
        self, segments: Sequence[tuple[int, int]], width: int, most: int, mode: str, values: dict[int, Any]
    ) -> Pixels:
        """Segments, each with its rows, unpacked by Pillow as strips under a directory of these numbers.

        A row takes at most so many bytes, and a little.
        """
        strips = []
        for index, rows in segments:
            count = min(self.counts[index], most * rows + _HEADS)
            strips.append(_whole(self._packed(index, count)(count), max(1, count)))
            if self.compression == _JPEG:  # no more scans than an encoder makes
                strips[-1] = containers.jpeg(io.BytesIO(strips[-1])).pixels
        sizes, height = [len(strip) for strip in strips], sum(rows for _, rows in segments)
        places = np.cumsum([_HEADER_BYTES, *sizes]).tolist()
        values |= {t.WIDTH: [width], t.HEIGHT: [height], t.STRIP_ROWS: [segments[0][1]], t.STRIPS: places[:-1]}
        values |= {t.COMPRESSION: [self.compression], t.STRIP_BYTES: sizes}
        tags = {tag: t.numbers("I", *found) for tag, found in values.items()}
        if self.compression == _JPEG and (tables := self.tags.tags.get(t.JPEG_TABLES)):
            tags[t.JPEG_TABLES] = tables
        parts = [t.header_of("<", places[-1]), *strips, t.directory_of("<", tags, places[-1])]
        return _opened(parts, (width, height), mode)

    def _old_jpeg(self) -> Pixels:
        """The pixels of an old-style JPEG (Sec. 22), whose parts lie anywhere in the file; (H, W, 1 or 3)."""
        self._file.seek(0)
        data = self._file.read()
        tags, end = {tag: found for tag, found in self.tags.tags.items() if tag in t.SHOWN}, len(data)
        parts = [t.header_of(self.order, end), data[_HEADER_BYTES:], t.directory_of(self.order, tags, end)]
        found = _opened(parts, (self.width, self.height), "L" if self.samples == 1 else "RGB")
        return found.reshape(self.height, self.width, self.samples)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ImageError("damaged: it is truncated")
    return data[:size]


def _opened(parts: Sequence[bytes], size: tuple[int, int], mode: str) -> Pixels:
    # not `Image.open`, whose limit on pixels is for files that nobody has looked at
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(b"".join(parts)))
    if image.size != size or image.mode != mode:
        raise ImageError("damaged: its compressed pixels are not of the kind that its tags name")
    return np.asarray(image)


def samples_of(data: bytes | Pixels, rows: int, of: Samples) -> Pixels:
    """Unpacked lines as samples (rows, segment width, samples), differences summed up."""
    if of.subsampled:
        return _upsampled(data, rows, of)
    shape = (rows, of.segment_width, of.segment_samples)
    if of.bits % 8 or of.bits == 24:
        return _few_bits(np.frombuffer(data, np.uint8).reshape(rows, -1), shape, of)
    if of.predictor == _FLOAT_DIFFERENCES:
        return _float_sums(np.frombuffer(data, np.uint8), shape, of)
    whole = np.frombuffer(data, f"{of.order}u{of.bits // 8}").reshape(shape)
    whole = whole if whole.dtype.isnative else whole.astype(whole.dtype.newbyteorder("="))
    if of.predictor == _DIFFERENCES:
        whole = _sums(whole)
    return whole.view(of.stored_dtype)


def _sums(differences: Pixels) -> Pixels:
    """Each row's running sums, channel by channel, modulo the range of the type (Sec. 14)."""
    sums = np.empty_like(differences)
    for i in range(differences.shape[-1]):
        np.add.accumulate(differences[..., i], axis=1, dtype=differences.dtype, out=sums[..., i])
    return sums


def _float_sums(data: Pixels, shape: tuple[int, int, int], of: Samples) -> Pixels:
    """Floats of which all first bytes come first (TIFF Technical Note 3)."""
    rows, width, samples = shape
    size = of.bits // 8
    summed = _sums(data.reshape(rows, width * size, samples))
    ordered = summed.reshape(rows, size, width * samples).swapaxes(1, 2)
    return np.ascontiguousarray(ordered).view(f">f{size}").astype(of.stored_dtype).reshape(shape)


def _few_bits(lines: Pixels, shape: tuple[int, int, int], of: Samples) -> Pixels:
    """Values that share bytes, the highest bits first, each line from a byte on."""
    rows, count, bits = shape[0], shape[1] * shape[2], of.bits
    if bits == 24 and of.order == "<":
        lines = lines.reshape(rows, count, 3)[..., ::-1].reshape(rows, -1)
    single = np.unpackbits(lines, axis=1, count=count * bits)
    if bits == 1:
        return single.reshape(shape)
    dtype = of.stored_dtype
    padded = np.zeros((rows, count, 8 * dtype.itemsize), np.uint8)
    padded[..., -bits:] = single.reshape(rows, count, bits)
    return np.packbits(padded, axis=-1).view(dtype.newbyteorder(">")).astype(dtype).reshape(shape)


def _upsampled(data: bytes | Pixels, rows: int, of: Samples) -> Pixels:
    """Blocks of luminance with one value each of two colours (Sec. 21), as pixels with the colours of their block."""
    across, down = of.subsampling
    blocks = np.frombuffer(data, f"{of.order}u{of.bits // 8}").astype(of.stored_dtype, copy=False)
    blocks = blocks.reshape(-1, -(-of.segment_width // across), across * down + 2)
    inner = blocks[..., :-2].reshape(*blocks.shape[:2], down, across).swapaxes(1, 2)
    light = inner.reshape(blocks.shape[0] * down, -1)
    colours = [np.repeat(np.repeat(blocks[..., i], across, axis=1), down, axis=0) for i in (-2, -1)]
    return np.stack([light, *colours], axis=-1)[:rows, : of.segment_width]
