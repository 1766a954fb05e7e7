"""Pictures larger than the limits, read by bands of rows with libvips, and on a disk from then on.

What is there of a picture is a file of its plain pixels, upright, without a name (`FileSpool`): any rows of it can
be had, any number of times, and the process holds none of them. libvips is optional: `pip install 'i2i[large]'`.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images import exif
from i2i.images.formats import NAMES, Format
from i2i.images.libvips import reasons, vips
from i2i.images.picture import Limits, Picture, Pixels
from i2i.spool import FileSpool, spool_folder

LARGE_LIMITS = Limits(pixels=1 << 34, side=1 << 20, file_bytes=1 << 40)
"""What a picture may be that is read by bands."""

_BAND_BYTES = 1 << 25
_LOADERS: dict[str, Format] = {"pngload": "PNG", "jpegload": "JPEG", "tiffload": "TIFF", "webpload": "WEBP"}
_TYPES: dict[str, Any] = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_BIG_TIFF = 43
_PLAIN = ("b-w", "srgb", "rgb", "scrgb", "rgb16", "grey16", "multiband")


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
        alpha = self.picture.alpha
        return Picture(self.picture.pixels[top:bottom], None if alpha is None else alpha[top:bottom])


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


class Large:
    """A picture file read once from its top to its bottom; a context manager, for its pixels are on a disk.

    `info` is the picture without pixels. Raises `ImageError` for what is not a whole picture within the limits,
    of grey or RGB with or without alpha; `OutputError` if there is no room for its pixels.
    """

    def __init__(self, path: Path, limits: Limits = LARGE_LIMITS, folder: Path | None = None) -> None:
        with reasons():
            image = _opened(path, limits)
            self._alpha = image.bands in (2, 4)
            turn = _number(image, "orientation", 1)
            sideways = exif.is_sideways(turn)
            self.height, self.width = (image.width, image.height) if sideways else (image.height, image.width)
            self.info = _described(path, image)
            self._canvas = Canvas(self.height, self.width, image.bands, _TYPES[image.format], folder)
            try:
                self._fill(image, turn)
            except BaseException:
                self._canvas.spool.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._canvas.spool.close()

    def read(self, top: int, bottom: int) -> Picture:
        pixels = self._canvas.rows(top, bottom)
        if not self._alpha:
            return Picture(pixels)
        return Picture(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy())

    def _fill(self, image: Any, turn: int) -> None:
        region = vips().Region.new(image)
        rows = max(1, _BAND_BYTES // (image.width * image.bands * self._canvas.dtype.itemsize))
        for top in range(0, image.height, rows):
            count = min(rows, image.height - top)
            data = region.fetch(0, top, image.width, count)
            band = np.frombuffer(data, self._canvas.dtype).reshape(count, image.width, image.bands)
            if band.dtype == np.float32 and not (band.min() >= 0 and band.max() <= 1):
                raise ImageError("floating-point values outside of 0 to 1")
            self._place(exif.upright(band, turn), top, image.height - top - count, turn)

    def _place(self, band: Pixels, before: int, after: int, turn: int) -> None:
        """A band turned upright, where it belongs: as many rows were before it in the file, and come after it."""
        if exif.is_sideways(turn):
            self._canvas.fill(0, band, left=before if turn in (5, 8) else after)
        else:
            self._canvas.fill(after if turn in (3, 4) else before, band)


def large_size(path: Path, limits: Limits = LARGE_LIMITS) -> tuple[int, int]:
    """(width, height), upright, of a picture that `Large` would read. Raises `ImageError`."""
    with reasons():
        image = _opened(path, limits)
        sideways = exif.is_sideways(_number(image, "orientation", 1))
        return (image.height, image.width) if sideways else (image.width, image.height)


def _opened(path: Path, limits: Limits) -> Any:
    limits.check_bytes(path.stat().st_size)
    image = vips().Image.new_from_file(str(path), access="sequential", fail_on="error")
    kind = str(image.get("vips-loader"))
    if kind not in _LOADERS:
        raise ImageError(f"of this size, only {', '.join(NAMES[f] for f in _LOADERS.values())} are read")
    limits.check_size(image.width, image.height, image.bands)
    if image.interpretation not in _PLAIN or image.bands > 4 or image.format not in _TYPES:
        kind = f"{image.bands} channels of {image.format}, {image.interpretation}"
        raise ImageError(f"{kind}: of this size, only grey and RGB of 8 or 16 bits or floating point are read")
    return image


def _described(path: Path, image: Any) -> Picture:
    fields = image.get_fields()
    format = _LOADERS[str(image.get("vips-loader"))]
    found = _tags_of_tiff(path) if format == "TIFF" else _tags_in(image) if "exif-data" in fields else None
    return Picture(
        np.empty((0, 0, 0), _TYPES[image.format]),
        icc=image.get("icc-profile-data") if "icc-profile-data" in fields else None,
        exif=found,
        format=format,
        more=_number(image, "n-pages", 1) > 1,
    )


def _tags_in(image: Any) -> bytes | None:
    tags = Image.Exif()
    try:
        tags.load(image.get("exif-data"))
    except Exception:  # a damaged block says nothing
        return None
    return exif.block(tags, None)


def _tags_of_tiff(path: Path) -> bytes | None:
    tags = Image.Exif()
    with path.open("rb") as file:  # until the directories within are read
        head = file.read(16)
        tags.endian = "<" if head[:2] == b"II" else ">"
        magic, offset = struct.unpack_from(tags.endian + "HL", head, 2)
        tags.bigtiff = magic == _BIG_TIFF
        if tags.bigtiff:
            (offset,) = struct.unpack_from(tags.endian + "Q", head, 8)
        tags.load_from_fp(file, offset)
        return exif.block(tags, "TIFF")


def _number(image: Any, name: str, default: int) -> int:
    return int(image.get(name)) if name in image.get_fields() else default
