"""The strips and tiles of a TIFF unpacked to its samples, from top to bottom (TIFF 6.0, Sec. 3, 9 to 11, 14, 15, 21).

Deflated ones are unpacked here, no further than the picture needs. Pillow unpacks LZW, PackBits, Zstandard, LZMA, fax,
JPEG and WebP: it gets strips alone, under a directory made here, so its idea of the picture does not count.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from PIL import TiffImagePlugin

from i2i.errors import ImageError
from i2i.images import containers
from i2i.images import tiff_directory as t
from i2i.images.picture import Pixels
from i2i.images.png import Inflating
from i2i.images.tiff_layout import (
    BYTES_BY_PILLOW,
    DIFFERENCES,
    FAX,
    FLOAT_DIFFERENCES,
    JPEG,
    OLD_JPEG,
    PLAIN,
    Layout,
)

Source = Callable[[int, int], bytes]
"""Gives bytes of the file from a place on, fewer where it ends."""

_UNIT_BYTES = 1 << 22
# how much longer than its pixels a strip can get: a packed one of noise, a fax of single dots
_SWELLING, _FAX_SWELLING, _HEADS = 2, 16, 1024
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
_ALPHA = 2
_MODES = {(1, t.BLACK_IS_ZERO): "L", (2, t.BLACK_IS_ZERO): "LA", (3, t.RGB): "RGB", (3, t.YCBCR): "RGB"}
_MODES |= {(4, t.RGB): "RGBA", (4, t.CMYK): "CMYK"}
_HEADER_BYTES = 8
_ANY = _WHOLE = 1 << 40


def bands(layout: Layout, source: Source) -> Iterator[Pixels]:
    """Rows (h, W, S) of the samples as they are stored, in native byte order, from top to bottom."""
    if layout.compression == OLD_JPEG:
        yield _old_jpeg(layout, source)
        return
    planes = [_Plane(layout, source, i).bands() for i in range(layout.samples if layout.planar else 1)]
    for parts in zip(*planes, strict=True):
        yield parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


class _Plane:
    """One plane of the samples, or all of them where they are interleaved."""

    def __init__(self, layout: Layout, source: Source, index: int) -> None:
        self._layout, self._source = layout, source
        self._first = index * layout.across * layout.down
        self._most = _UNIT_BYTES // (layout.samples if layout.planar else 1)

    def bands(self) -> Iterator[Pixels]:
        layout = self._layout
        if layout.segment_bytes > self._most and layout.streamable:
            for i in range(layout.down):
                yield from self._streamed(i)
            return
        each = 1 if layout.tiled else max(1, self._most // layout.segment_bytes)
        for top in range(0, layout.down, each):
            yield self._unit(top, min(top + each, layout.down))

    def _rows(self, down: int) -> int:
        """Rows of the segments in that row of them; tiles are whole also at the edge."""
        layout = self._layout
        left = layout.height - down * layout.segment_height
        return layout.segment_height if layout.tiled else min(layout.segment_height, left)

    def _unit(self, top: int, bottom: int) -> Pixels:
        """All segments in some rows of them."""
        layout = self._layout
        indices = range(self._first + top * layout.across, self._first + bottom * layout.across)
        rows = [self._rows(i) for i in range(top, bottom) for _ in range(layout.across)]
        pixels = self._unpacked(indices, rows)
        if layout.tiled:
            tiles = pixels.reshape(layout.across, layout.segment_height, layout.segment_width, -1)
            pixels = tiles.transpose(1, 0, 2, 3).reshape(layout.segment_height, -1, tiles.shape[-1])
        return pixels[: layout.height - top * layout.segment_height, : layout.width]

    def _unpacked(self, indices: Sequence[int], rows: Sequence[int]) -> Pixels:
        """Segments below each other, (rows, width, samples); those without place and bytes, as sparse files have."""
        layout = self._layout
        there = [layout.offsets[i] != 0 or layout.counts[i] != 0 for i in indices]
        if all(there):
            return self._decoded(indices, rows)
        given = [(i, n) for i, n, is_there in zip(indices, rows, there, strict=True) if is_there]
        shape = (sum(rows), layout.segment_width, layout.segment_samples)
        pixels = np.full(shape, layout.absent, layout.stored_dtype)
        if given:
            pixels[np.repeat(there, rows)] = self._decoded(*zip(*given, strict=True))
        return pixels

    def _decoded(self, indices: Sequence[int], rows: Sequence[int]) -> Pixels:
        layout = self._layout
        if layout.by_pillow:
            return self._pixels_by_pillow(indices, rows)
        if layout.compression in BYTES_BY_PILLOW:
            data: bytes | Pixels = self._bytes_by_pillow(indices, rows)
        else:
            sizes = zip(indices, map(layout.bytes_of, rows), strict=True)
            # one byte more is asked for, for the checksum behind the last one
            data = b"".join([_whole(self._stream(i)(size + 1), size) for i, size in sizes])
        return samples_of(data, sum(rows), layout)

    def _streamed(self, down: int) -> Iterator[Pixels]:
        """One strip too large to be held, by rows."""
        layout, take = self._layout, self._stream(self._first + down)
        each = max(1, self._most // layout.line_bytes) * layout.line_rows
        for top in range(0, self._rows(down), each):
            rows = min(each, self._rows(down) - top)
            size = layout.bytes_of(rows)
            yield samples_of(_whole(take(size), size), rows, layout)[:, : layout.width]

    def _stream(self, index: int) -> Callable[[int], bytes]:
        """Gives the next bytes of a segment that is plain or deflated, fewer where it ends."""
        size = self._layout.segment_bytes
        if self._layout.compression == PLAIN:  # some writers' counts are wrong there
            return self._stored(index, size)
        return Inflating(self._stored(index, min(self._layout.counts[index], _SWELLING * size + _HEADS))).read

    def _stored(self, index: int, count: int) -> Callable[[int], bytes]:
        """Gives the next of so many bytes of a segment as they are in the file, their bits in order."""
        place = self._layout.offsets[index]
        # as libtiff has it: the bits of a JPEG are in order, whatever the tag says
        reverse = self._layout.fill_order == 2 and self._layout.compression != JPEG

        def read(size: int) -> bytes:
            nonlocal place, count
            data = self._source(place, min(size, count))
            place, count = place + len(data), count - len(data)
            return data.translate(_REVERSED) if reverse else data

        return read

    def _packed(self, index: int, most: int) -> bytes:
        """The bytes of a compressed segment, no more than `most` and a little."""
        count = min(self._layout.counts[index], most + _HEADS)
        if count == 0:
            raise ImageError("damaged: it is truncated")
        return _whole(self._stored(index, count)(count), count)

    def _bytes_by_pillow(self, indices: Sequence[int], rows: Sequence[int]) -> Pixels:
        """Strips of bytes, unpacked as a grey picture of so many bytes a line."""
        layout = self._layout
        lines = [layout.bytes_of(n) // layout.line_bytes for n in rows]
        strips = [self._packed(i, _SWELLING * n * layout.line_bytes) for i, n in zip(indices, lines, strict=True)]
        return self._by_pillow(layout.line_bytes, lines, strips, "L", {t.BITS: [8], t.PHOTOMETRIC: [t.BLACK_IS_ZERO]})

    def _pixels_by_pillow(self, indices: Sequence[int], rows: Sequence[int]) -> Pixels:
        layout = self._layout
        is_fax, samples = layout.compression in FAX, layout.segment_samples
        most = _FAX_SWELLING * layout.line_bytes if is_fax else _ANY
        strips = [self._packed(i, most * n) for i, n in zip(indices, rows, strict=True)]
        if layout.compression == JPEG:  # no more scans than an encoder makes
            strips = [containers.jpeg(io.BytesIO(strip)).pixels for strip in strips]
        kept = samples > 2 and layout.photometric in (t.RGB, t.CMYK, t.YCBCR)
        photometric = layout.photometric if kept else t.BLACK_IS_ZERO if samples < 3 else t.RGB
        mode = "1" if is_fax else _MODES.get((samples, photometric))
        if mode is None:
            raise ImageError(f"JPEG of {samples} channels in a TIFF is not read here")
        values: dict[int, Sequence[int]] = {
            t.BITS: [layout.bits] * samples,
            t.PHOTOMETRIC: [photometric],
            t.SAMPLES: [samples],
        }
        values |= {t.SUBSAMPLING: layout.subsampling}
        values |= {t.EXTRA_SAMPLES: [_ALPHA]} if mode in ("LA", "RGBA") else {}
        values |= {tag: [layout.tags.number(tag, 0)] for tag in (t.FAX_3, t.FAX_4)} if is_fax else {}
        found = self._by_pillow(layout.segment_width, rows, strips, mode, values).astype(np.uint8, copy=False)
        return found.reshape(sum(rows), layout.segment_width, samples)

    def _by_pillow(
        self, width: int, rows: Sequence[int], strips: Sequence[bytes], mode: str, values: dict[int, Sequence[int]]
    ) -> Pixels:
        """Strips of so many rows, the last perhaps of fewer, unpacked by Pillow under a directory of these numbers."""
        sizes, height = [len(strip) for strip in strips], sum(rows)
        places = np.cumsum([_HEADER_BYTES, *sizes]).tolist()
        values |= {t.WIDTH: [width], t.HEIGHT: [height], t.STRIP_ROWS: [rows[0]], t.STRIPS: places[:-1]}
        values |= {t.COMPRESSION: [self._layout.compression], t.STRIP_BYTES: sizes}
        tags = {tag: t.numbers("I", *found) for tag, found in values.items()}
        if self._layout.compression == JPEG and (tables := self._layout.tags.tags.get(t.JPEG_TABLES)):
            tags[t.JPEG_TABLES] = tables
        parts = [t.header_of("<", places[-1]), *strips, t.directory_of("<", tags, places[-1])]
        return _opened(io.BytesIO(b"".join(parts)), (width, height), mode)


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise ImageError("damaged: it is truncated")
    return data[:size]


def _opened(file: BinaryIO, size: tuple[int, int], mode: str) -> Pixels:
    # not `Image.open`, whose limit on pixels is for files that nobody has looked at
    image = TiffImagePlugin.TiffImageFile(file)
    if image.size != size or image.mode != mode:
        raise ImageError("damaged: its compressed pixels are not of the kind that its tags name")
    return np.asarray(image)


def _old_jpeg(layout: Layout, source: Source) -> Pixels:
    """The pixels of an old-style JPEG (Sec. 22), whose parts lie anywhere in the file; (H, W, 1 or 3)."""
    data = source(0, _WHOLE)
    tags = {tag: found for tag, found in layout.tags.tags.items() if tag in t.LAYOUT}
    parts = [t.header_of(layout.order, len(data)), data[_HEADER_BYTES:], t.directory_of(layout.order, tags, len(data))]
    mode = "L" if layout.samples == 1 else "RGB"
    found = _opened(io.BytesIO(b"".join(parts)), (layout.width, layout.height), mode)
    return found.reshape(layout.height, layout.width, layout.samples)


def samples_of(data: bytes | Pixels, rows: int, layout: Layout) -> Pixels:
    """Unpacked lines as samples (rows, segment width, samples), differences summed up."""
    if layout.subsampled:
        return _upsampled(data, rows, layout)
    shape = (rows, layout.segment_width, layout.segment_samples)
    if layout.bits % 8 or layout.bits == 24:
        return _few_bits(np.frombuffer(data, np.uint8).reshape(rows, -1), shape, layout)
    if layout.predictor == FLOAT_DIFFERENCES:
        return _float_sums(np.frombuffer(data, np.uint8), shape, layout)
    whole = np.frombuffer(data, f"{layout.order}u{layout.bits // 8}").reshape(shape)
    whole = whole if whole.dtype.isnative else whole.astype(whole.dtype.newbyteorder("="))
    if layout.predictor == DIFFERENCES:
        whole = _sums(whole)
    return whole.view(layout.stored_dtype)


def _sums(differences: Pixels) -> Pixels:
    """Each row's running sums, channel by channel, modulo the range of the type (Sec. 14)."""
    sums = np.empty_like(differences)
    for i in range(differences.shape[-1]):
        np.add.accumulate(differences[..., i], axis=1, dtype=differences.dtype, out=sums[..., i])
    return sums


def _float_sums(data: Pixels, shape: tuple[int, int, int], layout: Layout) -> Pixels:
    """Floats of which all first bytes come first (TIFF Technical Note 3)."""
    rows, width, samples = shape
    size = layout.bits // 8
    summed = _sums(data.reshape(rows, width * size, samples))
    ordered = summed.reshape(rows, size, width * samples).swapaxes(1, 2)
    return np.ascontiguousarray(ordered).view(f">f{size}").astype(layout.stored_dtype).reshape(shape)


def _few_bits(lines: Pixels, shape: tuple[int, int, int], layout: Layout) -> Pixels:
    """Values that share bytes, the highest bits first, each line from a byte on."""
    rows, count, bits = shape[0], shape[1] * shape[2], layout.bits
    if bits == 24 and layout.order == "<":
        lines = lines.reshape(rows, count, 3)[..., ::-1].reshape(rows, -1)
    single = np.unpackbits(lines, axis=1, count=count * bits)
    if bits == 1:
        return single.reshape(shape)
    dtype = layout.stored_dtype
    padded = np.zeros((rows, count, 8 * dtype.itemsize), np.uint8)
    padded[..., -bits:] = single.reshape(rows, count, bits)
    return np.packbits(padded, axis=-1).view(dtype.newbyteorder(">")).astype(dtype).reshape(shape)


def _upsampled(data: bytes | Pixels, rows: int, layout: Layout) -> Pixels:
    """Blocks of luminance with one value each of two colours (Sec. 21), as pixels with the colours of their block."""
    across, down = layout.subsampling
    blocks = np.frombuffer(data, f"{layout.order}u{layout.bits // 8}").astype(layout.stored_dtype, copy=False)
    blocks = blocks.reshape(-1, -(-layout.segment_width // across), across * down + 2)
    inner = blocks[..., :-2].reshape(*blocks.shape[:2], down, across).swapaxes(1, 2)
    light = inner.reshape(blocks.shape[0] * down, -1)
    colours = [np.repeat(np.repeat(blocks[..., i], across, axis=1), down, axis=0) for i in (-2, -1)]
    return np.stack([light, *colours], axis=-1)[:rows, : layout.segment_width]
