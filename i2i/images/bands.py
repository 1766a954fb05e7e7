"""Pictures larger than the limits, read and written by bands of rows with libvips; on a disk in between.

What is there of a picture is a file of its plain pixels, upright, without a name (`FileSpool`): any rows of it can
be had, any number of times, and the process holds none of them. libvips is optional: `pip install 'i2i[large]'`.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image

from i2i.atomic import atomic_write
from i2i.errors import ImageError, OutputError
from i2i.images import exif
from i2i.images.encoding import DEFAULT_QUALITY
from i2i.images.formats import NAMES, WITH_ALPHA, WITH_METADATA, Format
from i2i.images.picture import Limits, Picture, Pixels
from i2i.spool import FileSpool, spool_folder

LARGE_LIMITS = Limits(pixels=1 << 34, side=1 << 20, file_bytes=1 << 40)
"""What a picture may be that is read by bands."""

_BAND_BYTES = 1 << 25
_LOADERS: dict[str, Format] = {"pngload": "PNG", "jpegload": "JPEG", "tiffload": "TIFF", "webpload": "WEBP"}
_TYPES: dict[str, Any] = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_FORMATS = {np.dtype(kind): name for name, kind in _TYPES.items()}
_PLAIN = ("b-w", "srgb", "rgb", "scrgb", "rgb16", "grey16", "multiband")
_TILE = 256
_EXIF, _ICC = 1, 8  # what libvips is to keep
# as libvips and libjpeg have it; what is read by bands has no longer sides than TIFF and PNG can hold
_SIDES: dict[Format, int] = {"JPEG": 65_500, "WEBP": 16_383}
# a TIFF of more bytes needs addresses of 64 bits
_CLASSIC_TIFF_BYTES = 1 << 31


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
        with _reasons():
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
        region = _vips().Region.new(image)
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
    with _reasons():
        image = _opened(path, limits)
        sideways = exif.is_sideways(_number(image, "orientation", 1))
        return (image.height, image.width) if sideways else (image.width, image.height)


def refusal(format: Format, width: int, height: int, colours: int) -> str | None:
    """Why `write_large` cannot write such a picture, if so; to be asked before hours are spent on it."""
    if format not in _LOADERS.values():
        return f"{NAMES[format]} is not written by bands; use TIFF or PNG"
    if max(width, height) > (side := _SIDES.get(format, LARGE_LIMITS.side)):
        return f"{width}x{height} pixels: {NAMES[format]} holds at most {side} a side; use TIFF or PNG"
    if colours not in (1, 3) and format != "TIFF":
        return f"{NAMES[format]} holds 1 or 3 channels, not {colours}; use TIFF"
    return None


def write_large(
    path: Path,
    canvas: Canvas,
    info: Picture,
    format: Format,
    *,
    alpha: bool,
    quality: int | None = None,
    mode: int | None = None,
) -> None:
    """Write the pixels of `canvas` whole or not at all; `alpha` says whether their last channel is that.

    TIFF is tiled, and of 64-bit addresses where it has to be. Raises `OutputError` for a format that is not
    written by bands, for what it cannot hold, and for what the system refuses.
    """
    pyvips = _vips()
    if reason := refusal(format, canvas.width, canvas.height, canvas.channels - alpha):
        raise OutputError(f"{path}: {reason}")
    source = f"/proc/self/fd/{canvas.spool.descriptor}"
    name = _FORMATS[canvas.dtype]
    image = pyvips.Image.rawload(source, canvas.width, canvas.height, canvas.channels * canvas.dtype.itemsize)
    image = image.copy(bands=canvas.channels, format=name, interpretation=_interpretation(canvas, alpha))
    image = _metadata(_fitting(image, format, alpha), info, format)
    try:
        atomic_write(path, lambda file: _save(image, f"/proc/self/fd/{file.fileno()}", format, quality), mode)
    except pyvips.Error as error:
        reason = _plain(error)
        if re.search("(?i)no space", reason):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            reason += f"; {shutil.disk_usage(path.parent).free:,} bytes are free"
        raise OutputError(f"{path}: cannot be written: {reason}") from error


def _save(image: Any, name: str, format: Format, quality: int | None) -> None:
    # libvips would make up an EXIF block where there is none
    keep = _ICC | (_EXIF if "exif-data" in image.get_fields() else 0)
    if format == "TIFF":
        many = image.width * image.height * image.bands * 4 > _CLASSIC_TIFF_BYTES
        image.tiffsave(
            name,
            tile=True,
            tile_width=_TILE,
            tile_height=_TILE,
            compression="deflate",
            predictor="horizontal",
            bigtiff=many,
            keep=keep,
        )
    elif format == "PNG":
        image.pngsave(name, compression=3, filter="up", keep=keep)
    elif format == "JPEG":
        # as the pictures that are written whole
        image.jpegsave(name, Q=quality or DEFAULT_QUALITY[format], subsample_mode="on", keep=keep)
    else:
        image.webpsave(name, Q=quality or DEFAULT_QUALITY[format], keep=keep)


def _fitting(image: Any, format: Format, alpha: bool) -> Any:
    """With what the format can hold of alpha and depth."""
    if alpha and format not in WITH_ALPHA:
        image = image.extract_band(0, n=image.bands - 1)
    deep = {"TIFF": ("uchar", "ushort", "float"), "PNG": ("uchar", "ushort")}.get(format, ("uchar",))
    if image.format in deep:
        return image
    colours = image.bands - (alpha and format in WITH_ALPHA)
    to, full = ("ushort", 65535) if "ushort" in deep else ("uchar", 255)
    scale = full / (1 if image.format == "float" else 65535)
    kind = {1: "grey16" if to == "ushort" else "b-w"}.get(colours, "rgb16" if to == "ushort" else "srgb")
    return (image * scale).rint().cast(to).copy(interpretation=kind)


def _interpretation(canvas: Canvas, alpha: bool) -> str:
    colours = canvas.channels - alpha
    if colours not in (1, 3):
        return "multiband"
    deep = canvas.dtype == np.uint16
    if colours == 1:
        return "grey16" if deep else "b-w"
    return "rgb16" if deep else "srgb"


def _metadata(image: Any, info: Picture, format: Format) -> Any:
    blob = _vips().GValue.blob_type
    image = image.copy()
    if info.icc and format in WITH_METADATA:
        image.set_type(blob, "icc-profile-data", info.icc)
    if info.exif and format in WITH_METADATA:
        image.set_type(blob, "exif-data", info.exif)
    return image


def _vips() -> Any:
    """pyvips, which reads only with what libvips holds to be safe with untrusted files."""
    try:
        import pyvips
    except (ImportError, OSError):
        raise ImageError("a picture of this size needs pyvips: pip install 'i2i[large]'") from None
    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)  # which would give what a file held before, or another file of that descriptor
    pyvips.operation_block_set("VipsForeignLoadRaw", False)  # our own pixels, when they are written
    return pyvips


def _opened(path: Path, limits: Limits) -> Any:
    limits.check_bytes(path.stat().st_size)
    image = _vips().Image.new_from_file(str(path), access="sequential", fail_on="error")
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
    tags = Image.Exif()
    if format == "TIFF":
        with path.open("rb") as file:
            tags.load_from_fp(file)
    elif "exif-data" in fields:
        tags.load(image.get("exif-data"))
    return Picture(
        np.empty((0, 0, 0), _TYPES[image.format]),
        icc=image.get("icc-profile-data") if "icc-profile-data" in fields else None,
        exif=exif.block(tags, format),
        format=format,
        more=_number(image, "n-pages", 1) > 1,
    )


def _number(image: Any, name: str, default: int) -> int:
    return int(image.get(name)) if name in image.get_fields() else default


@contextmanager
def _reasons() -> Iterator[None]:
    """Turns what libvips raises into an `ImageError`."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "pyvips":
            raise
        raise ImageError(f"damaged: {_plain(error)}") from None


def _plain(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[-1].strip() if text else type(error).__name__
