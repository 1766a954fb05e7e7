"""Pictures larger than the limits, read by bands of rows, and on a disk from then on.

What is there of a picture is a file of its plain pixels, upright, without a name (`FileSpool`): any rows of it can
be had, any number of times, and the process holds none of them. TIFF is read by `tiff`, as smaller ones are, the others
by libvips, which is optional: `pip install 'i2i[large]'`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np

from i2i.errors import ImageError
from i2i.images import decoding, exif, magic, tiff
from i2i.images.formats import NAMES, Format
from i2i.images.libvips import reasons, vips
from i2i.images.picture import Limits, Picture, Pixels, split_alpha
from i2i.images.spool import FileSpool, spool_folder

LARGE_LIMITS = Limits(pixels=1 << 34, side=1 << 20, file_bytes=1 << 40)
"""What a picture may be that is read by bands."""

_BAND_BYTES = 1 << 25
_LOADERS: dict[str, Format] = {"pngload": "PNG", "jpegload": "JPEG", "webpload": "WEBP"}
_TYPES: dict[str, Any] = {"uchar": np.uint8, "ushort": np.uint16}
_PLAIN = ("b-w", "srgb", "rgb", "rgb16", "grey16")


class Bands(Protocol):
    """A picture of which any rows can be had."""

    height: int
    width: int

    def read(self, top: int, bottom: int) -> Picture:
        """These rows of it."""


@dataclass
class InMemory:
    """The rows of a picture that is in memory."""

    picture: Picture
    height: int = field(init=False)
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.height, self.width = self.picture.pixels.shape[:2]

    def read(self, top: int, bottom: int) -> Picture:
        return self.picture.rows(slice(top, bottom))


class Canvas:
    """Plain pixels (height, width, channels) in a spool, to be filled and read by rows; a context manager."""

    def __init__(self, height: int, width: int, channels: int, dtype: Any, folder: Path | None = None) -> None:
        self.height, self.width, self.channels, self.dtype = height, width, channels, np.dtype(dtype)
        self._row = width * channels * self.dtype.itemsize
        self.spool = FileSpool(height * self._row, folder or spool_folder())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.spool.close()

    def rows(self, top: int, bottom: int) -> Pixels:
        pixels = np.empty((bottom - top, self.width, self.channels), self.dtype)
        self.spool.read(top * self._row, pixels.reshape(-1).view(np.uint8).data)
        return pixels

    def fill(self, top: int, pixels: Pixels, left: int = 0) -> None:
        """Put (h, w, channels) there; rows that are not whole one by one."""
        parts = [pixels] if pixels.shape[1] == self.width else list(pixels[:, None])
        for i, part in enumerate(parts):
            start = (top + i) * self._row + left * self.channels * self.dtype.itemsize
            self.spool.write(start, np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


class Stored(Protocol):
    """A picture in a file, by blocks of rows (h, `width`, `channels`) as they are stored, to be turned by `turn`."""

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    turn: int

    @property
    def info(self) -> Picture:
        """The picture without pixels."""

    def __iter__(self) -> Iterator[Pixels]: ...

    def split(self, pixels: Pixels) -> Picture:
        """Rows of `channels` as a picture."""


class Large:
    """A picture file read once from its top to its bottom; a context manager, for its pixels are on a disk.

    `info` is the picture without pixels. Raises `ImageError` for what is not a whole picture within the limits, and for
    what is not read by bands; `OutputError` if there is no room for its pixels.
    """

    def __init__(self, path: Path, limits: Limits = LARGE_LIMITS, folder: Path | None = None) -> None:
        with _opened(path, limits) as stored:
            sideways = exif.is_sideways(stored.turn)
            self.height, self.width = (stored.width, stored.height) if sideways else (stored.height, stored.width)
            self.info, self._split = stored.info, stored.split
            self._canvas = Canvas(self.height, self.width, stored.channels, stored.dtype, folder)
            try:
                self._fill(stored)
            except BaseException:
                self._canvas.spool.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._canvas.spool.close()

    def read(self, top: int, bottom: int) -> Picture:
        return self._split(self._canvas.rows(top, bottom))

    def _fill(self, stored: Stored) -> None:
        top = 0
        for band in stored:
            self._place(exif.upright(band, stored.turn), top, stored.height - top - len(band), stored.turn)
            top += len(band)

    def _place(self, band: Pixels, before: int, after: int, turn: int) -> None:
        """A band turned upright, where it belongs: as many rows were before it in the file, and come after it."""
        if exif.is_sideways(turn):
            self._canvas.fill(0, band, left=before if turn in (5, 8) else after)
        else:
            self._canvas.fill(after if turn in (3, 4) else before, band)


def large_size(path: Path, limits: Limits = LARGE_LIMITS) -> tuple[int, int]:
    """(width, height), upright, of a picture that `Large` would read. Raises `ImageError`."""
    with _opened(path, limits) as stored:
        sideways = exif.is_sideways(stored.turn)
        return (stored.height, stored.width) if sideways else (stored.width, stored.height)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[Stored]:
    """The picture of a file; whatever is raised while it is read is an `ImageError` with the reason."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    with file:
        limits.check_bytes(path.stat().st_size)
        if magic.format_of(file.read(magic.HEAD_BYTES)) == "TIFF":
            with decoding.reasons():
                rows = tiff.Rows(file, limits)
                rows.check_bands()
                yield rows
        else:
            with reasons():
                yield _ByLibvips(file, limits)


class _ByLibvips:
    """PNG, JPEG and WebP: their pixels by libvips, and what they say beside those as with smaller ones."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._image = image = vips().Image.new_from_file(file.name, access="sequential", fail_on="error")
        kind = str(image.get("vips-loader"))
        if kind not in _LOADERS:
            names = [NAMES[format] for format in (*_LOADERS.values(), "TIFF")]
            raise ImageError(f"of this size, only {', '.join(names)} are read")
        self.width, self.height, self.channels = image.width, image.height, image.bands
        limits.check_size(image.width, image.height, image.bands)
        if image.interpretation not in _PLAIN or image.bands > 4 or image.format not in _TYPES:
            kind = f"{image.bands} channels of {image.format}, {image.interpretation}"
            raise ImageError(f"{kind}: of this size, only grey and RGB of 8 or 16 bits are read")
        self.dtype = np.dtype(_TYPES[image.format])
        self._said, self.turn = decoding.said(file, _LOADERS[kind], limits)

    def __iter__(self) -> Iterator[Pixels]:
        region = vips().Region.new(self._image)
        rows = max(1, _BAND_BYTES // (self.width * self.channels * self.dtype.itemsize))
        for top in range(0, self.height, rows):
            count = min(rows, self.height - top)
            data = region.fetch(0, top, self.width, count)
            yield np.frombuffer(data, self.dtype).reshape(count, self.width, self.channels)

    def split(self, pixels: Pixels) -> Picture:
        return split_alpha(pixels)

    @property
    def info(self) -> Picture:
        return replace(self._said, pixels=np.empty((0, 0, 0), self.dtype))
