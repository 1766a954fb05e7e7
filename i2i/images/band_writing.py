"""Pictures larger than the limits, written by bands of rows: PNG and TIFF laid out here, JPEG and WebP by libvips."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from i2i.errors import OutputError
from i2i.files import atomic_write
from i2i.images import png_writing, tiff_writing
from i2i.images.bands import LARGE_LIMITS, Canvas
from i2i.images.encoding import DEFAULT_QUALITY, exif_of, profile
from i2i.images.exif_writing import into_jpeg, into_webp, jpeg_segment
from i2i.images.formats import NAMES, WITH_ALPHA, Format
from i2i.images.libvips import plain, vips
from i2i.images.picture import Picture, Pixels, with_depth

_FORMATS: tuple[Format, ...] = ("PNG", "JPEG", "TIFF", "WEBP")
# as libvips and libjpeg have it; what is read by bands has no longer sides than TIFF and PNG can hold
_SIDES: dict[Format, int] = {"JPEG": 65_500, "WEBP": 16_383}
_BAND_BYTES = 1 << 25
_XMP_AND_ICC = 2 | 8  # what libvips is to keep: of EXIF it would make up what there is not
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"  # ITU-T T.871: a density that is not known


def refusal(format: Format, width: int, height: int, like: Picture) -> str | None:
    """Why `write_large` cannot write a picture with the channels of `like`, if so; ask before hours are spent on it."""
    if format not in _FORMATS:
        return f"{NAMES[format]} is not written by bands; use TIFF or PNG"
    if max(width, height) > (side := _SIDES.get(format, LARGE_LIMITS.side)):
        return f"{width}x{height} pixels: {NAMES[format]} holds at most {side} a side; use TIFF or PNG"
    if like.holds_data and format != "TIFF":
        return f"{NAMES[format]} holds 1 or 3 channels, not {like.band_count}; use TIFF"
    return None


def write_large(
    path: Path,
    canvas: Canvas,
    like: Picture,
    format: Format,
    *,
    quality: int | None = None,
    mode: int | None = None,
    replace: bool = True,
) -> None:
    """Write the pixels of `canvas` whole or not at all: the channels of `like`, with all that is said of that picture.

    It is carried as a picture's that is written whole; `mode` and `replace` as in `images.write`. TIFF is tiled, and of
    64-bit addresses where it has to be. Raises `OutputError` for a format that is not written by bands, for what it
    cannot hold, and for what the system refuses.
    """
    if reason := refusal(format, canvas.width, canvas.height, like):
        raise OutputError(f"{path}: {reason}")
    icc, exif = profile(like), exif_of(like, format)
    shape = canvas.height, canvas.width, canvas.channels

    def save(file: BinaryIO) -> None:
        if format == "TIFF":
            tiff_writing.write_tiled(file, shape, canvas.rows, dataclasses.replace(like, exif=exif), icc)
        elif format == "PNG":
            file.writelines(png_writing.parts(*shape[:2], _bands(canvas), icc, exif, png_writing.chunks(like)))
        else:
            image = _image(canvas, like.alpha is not None and format not in WITH_ALPHA, icc)
            _save_by_libvips(path, image, file, format, quality, dataclasses.replace(like, exif=exif))

    atomic_write(path, save, mode, replace=replace)


def _bands(canvas: Canvas) -> Iterator[Pixels]:
    """All rows, as PNG holds them."""
    deep = np.uint8 if canvas.dtype == np.uint8 else np.uint16
    count = max(1, _BAND_BYTES // (canvas.width * canvas.channels * canvas.dtype.itemsize))
    for top in range(0, canvas.height, count):
        yield with_depth(canvas.rows(top, min(top + count, canvas.height)), deep)


def _image(canvas: Canvas, without_last: bool, icc: bytes | None) -> Any:
    """What libvips is to write, in 8 bits; `without_last`: all channels but the last."""
    pyvips = vips()
    source = f"/proc/self/fd/{canvas.spool.descriptor}"
    kind = {1: "uchar", 2: "ushort", 4: "float"}[canvas.dtype.itemsize]
    image = pyvips.Image.rawload(source, canvas.width, canvas.height, canvas.channels * canvas.dtype.itemsize)
    image = image.copy(bands=canvas.channels, format=kind)
    if without_last:
        image = image.extract_band(0, n=image.bands - 1)
    if kind != "uchar":
        image = (image * (255 / (1 if kind == "float" else 65535))).rint().cast("uchar")
    image = image.copy(interpretation="b-w" if image.bands < 3 else "srgb")
    if icc:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image


def _save_by_libvips(
    path: Path, image: Any, file: BinaryIO, format: Format, quality: int | None, like: Picture
) -> None:
    try:
        _save(image, file, format, {"Q": quality or DEFAULT_QUALITY[format], "keep": _XMP_AND_ICC}, like)
    except vips().Error as error:
        raise OutputError(f"{path}: cannot be written: {plain(error)}") from error


def _save(image: Any, file: BinaryIO, format: Format, options: dict[str, Any], like: Picture) -> None:
    if format == "JPEG":
        _Jpeg(file, like).save(image, options)
        return
    if like.xmp:
        image.set_type(vips().GValue.blob_type, "xmp-data", like.xmp)
    data = image.webpsave_buffer(**options)  # its encoder has all of it in memory in any case
    file.write(into_webp(data, like.exif, image.width, image.height) if like.exif else data)


class _Jpeg:
    """A JPEG on its way from libvips to a file, with all that is said of a picture put in."""

    def __init__(self, file: BinaryIO, like: Picture) -> None:
        self._file, self._like = file, like
        self._begun = False
        self._refused: OSError | None = None

    def save(self, image: Any, options: dict[str, Any]) -> None:
        target = vips().TargetCustom()
        target.on_write(self._write)
        try:
            # colours subsampled as in the pictures that are written whole
            image.jpegsave_target(target, subsample_mode="on", **options)
        except Exception:
            if self._refused is not None:
                raise self._refused from None
            raise

    def _write(self, data: Any) -> int:
        try:
            self._file.write(self._with_head(bytes(data)))
        except OSError as error:  # which must not cross libvips
            self._refused = self._refused or error
            return -1
        return len(data)

    def _with_head(self, part: bytes) -> bytes:
        """The next part of the file; the first begins with what libvips leaves out."""
        if self._begun:
            return part
        self._begun = True
        exif = jpeg_segment(self._like.exif) if self._like.exif else b""
        return into_jpeg(part[:2] + _JFIF + exif + part[2:], self._like)
