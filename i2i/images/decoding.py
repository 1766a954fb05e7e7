"""Bytes to pictures, without trust.

The first bytes say which format it is. Its header is read, the limits are checked, and only then are pixels
decoded: by OpenCV where it gives the same pixels faster, else by Pillow, TIFF by `tiff`, Netpbm's formats here.
Only the first frame of an animation or a file of several pages is looked at.
"""

import contextlib
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError, features

from i2i.errors import I2IError, ImageError
from i2i.images import containers, exif, jpeg, magic, netpbm, png, tiff
from i2i.images.apart import Apart
from i2i.images.formats import NAMES, Format
from i2i.images.modes import pixels_of
from i2i.images.picture import DEFAULT_LIMITS, Limits, Picture, Pixels

# a damaged file is reported once, as an ImageError, not also by the libraries on stderr
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
for name in ("PIL", "tifffile"):
    logging.getLogger(name).addHandler(logging.NullHandler())

_AVIF_HEADER_BYTES = 1 << 16
_AVIF_SIZE = rb"ispe\0\0\0\0(.{4})(.{4})"
# what Pillow says, where that is for its developers
_PLAINER = (
    (r"not identified by this driver", "its header names no size or an unknown kind of pixels"),
    (r"decoder error -?\d+", "its compressed pixels cannot be unpacked"),
    (r"not a (PNG|JPEG) file", "its signature is broken"),
    (r"cannot load this image", "there are no pixels in it"),
    (r"unpack_from requires .*|index \d+ out of range.*", "its header is cut short"),
    (r"Decompressed data too large .*", "a text in it unpacks to too many bytes"),
    (r"image file is truncated.*", "it is truncated"),
    (r"Truncated File Read", "it is truncated"),
    (r"broken data stream when reading image file", "its compressed pixels are broken"),
    (r".*BMFF parsing failed", "its header cannot be read"),
)


def read(path: Path, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in a file. Raises `ImageError` with the reason, whatever the file is."""
    with _open(path, limits) as file:
        try:
            data = file.read(limits.file_bytes + 1)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode(data, limits)


def probe(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(width, height) of a picture file, upright, from its header. Raises `ImageError` as `read` would."""
    with _open(path, limits) as file, reasons():
        head, format = _recognised(file)
        if format == "PPM":
            return netpbm.size(head, limits)
        found = Apart() if format == "TIFF" else _apart(file, format, limits, pixels=False, whole=False)
        try:
            with reasons():
                return tiff.size(file, limits) if format == "TIFF" else _upright_size(found, format, limits)
        except ImageError:  # the pixels have the last word, also on what is wrong
            height, width = read(path, limits).pixels.shape[:2]
            return width, height


def _upright_size(found: Apart, format: Format, limits: Limits) -> tuple[int, int]:
    width, height = _header(io.BytesIO(found.pixels), format, limits).size
    sideways = exif.is_sideways(exif.orientation(exif.parsed(found.exif, found.xmp)))
    return (height, width) if sideways else (width, height)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in the bytes of a file. The content decides the format, not a name.

    Raises `ImageError` with a plain reason for anything that is not a whole picture within the limits.
    """
    limits.check_bytes(len(data))
    with reasons():
        source = io.BytesIO(data)
        _, format = _recognised(source)
        if format == "PPM":
            return Picture(netpbm.decode(data, limits), format="PPM")
        if format == "TIFF":
            return tiff.decode(data, limits)
        found = _apart(source, format, limits)
        image = _header(io.BytesIO(found.pixels), format, limits)
        pixels, alpha = pixels_of(image, found.pixels)
        if image.mode == "CMYK":
            found.icc = None
        return _described(pixels, alpha, _numbers(image), found, format)


def said(file: BinaryIO, format: Format, limits: Limits) -> tuple[Picture, int]:
    """What the file of a picture says beside its pixels, as a picture without them, and how those are to be turned.

    Not for TIFF and Netpbm's formats. Raises `ImageError` as `decode`.
    """
    with reasons():
        file.seek(0)
        found = _apart(file, format, limits, pixels=False)
        turn = exif.orientation(exif.parsed(found.exif, found.xmp))
        return _described(np.empty((0, 0, 0), np.uint8), None, None, found, format), turn


def _apart(file: BinaryIO, format: Format, limits: Limits, pixels: bool = True, whole: bool = True) -> Apart:
    """A file taken apart, with what its pixels need; without `pixels` with what its size needs at least.

    If not `whole`, what does not turn the picture may be left out.
    """
    if format == "PNG":
        return png.apart(file, limits, pixels, whole)
    if format == "JPEG":
        return jpeg.apart(file, pixels)
    if format == "GIF":
        return containers.gif(file, pixels)
    if format == "BMP":
        return containers.bmp(file, pixels)
    return containers.webp(file) if format == "WEBP" else containers.avif(file)


def _numbers(image: Image.Image) -> Pixels | None:
    return np.array(image) if image.mode == "P" else None


def _described(pixels: Pixels, alpha: Pixels | None, numbers: Pixels | None, found: Apart, format: Format) -> Picture:
    """The picture upright, with what its file says of it."""
    tags = exif.parsed(found.exif, found.xmp)
    turn = exif.orientation(tags)
    found.add_resolution(*(exif.resolution(tags) or (0.0, 0.0)))
    across, down = found.resolution or (0.0, 0.0)
    if exif.is_sideways(turn):
        across, down = down, across
    return Picture(
        pixels=exif.upright(pixels, turn),
        alpha=None if alpha is None else exif.upright(alpha, turn),
        icc=found.icc,
        exif=exif.block(tags, format),
        format=format,
        more=found.more,
        colour=found.colour,
        resolution=(across, down) if across and down else None,
        xmp=exif.upright_xmp(found.xmp),
        texts=found.texts,
        unread=tuple(found.unread),
        numbers=None if numbers is None else exif.upright(numbers, turn),
    )


@contextlib.contextmanager
def reasons() -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError`."""
    try:
        yield
    except I2IError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Image.DecompressionBombError as error:
        raise ImageError(_too_many(str(error))) from None
    except Exception as error:
        raise ImageError(f"damaged: {_plain(error)}") from None


def _plain(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return next((plain for pattern, plain in _PLAINER if re.fullmatch(pattern, text)), text)


def _too_many(text: str) -> str:
    return re.sub(r".*?(\d+) pixels\) exceeds limit of (\d+).*", r"\1 pixels: at most \2 are accepted", text)


def _open(path: Path, limits: Limits) -> BinaryIO:
    try:
        # without O_NONBLOCK the opening of a FIFO waits for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        special = isinstance(error, OSError) and path.exists() and not path.is_file()
        reason = "not a regular file" if special else f"cannot be opened: {getattr(error, 'strerror', error)}"
        raise ImageError(reason) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ImageError("not a regular file")
    file = os.fdopen(descriptor, "rb")
    try:
        limits.check_bytes(status.st_size)
    except ImageError:
        file.close()
        raise
    return file


def _recognised(file: BinaryIO) -> tuple[bytes, Format]:
    """The first bytes, and which format they begin. Raises `ImageError` that names what is not read."""
    head = file.read(magic.HEAD_BYTES)
    format = magic.format_of(head)
    if format is None or (format == "AVIF" and not features.check("avif")):
        raise ImageError(magic.refusal(head))
    file.seek(0)
    return head, format


def _header(file: BinaryIO, format: Format, limits: Limits) -> Image.Image:
    """The header by Pillow, checked against the limits."""
    try:
        image = Image.open(file, formats=(format,))  # noqa: TID251 (bounded by `limits` right here)
    except UnidentifiedImageError:
        file.seek(0)
        raise ImageError(_fault(file, format, limits)) from None
    limits.check_size(*image.size)
    return image


def _fault(file: BinaryIO, format: Format, limits: Limits) -> str:
    """Why Pillow does not take the header, which `Image.open` does not say."""
    if format == "AVIF":
        # a picture that the decoder refuses for its size is not damaged
        for width, height in re.findall(_AVIF_SIZE, file.read(_AVIF_HEADER_BYTES), re.DOTALL):
            limits.check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"))
    file.seek(0)
    try:
        Image.OPEN[format][0](file, "")
    except Exception as error:
        return f"damaged {NAMES[format]}: {_plain(error)}"
    return f"damaged {NAMES[format]}"
