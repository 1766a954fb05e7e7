"""Bytes to pictures, without trust.

Pillow reads the header under a list of formats, the limits are checked, and only then are pixels decoded: by
OpenCV where it gives the same pixels faster, else by Pillow, a TIFF of more than four channels by tifffile.
Only the first frame of an animation or a file of several pages is read.
"""

import contextlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from i2i.errors import ImageError
from i2i.images import tiff
from i2i.images.picture import DEFAULT_LIMITS, Format, Limits, Picture, Pixels

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_TIFF_BITS, _TIFF_SAMPLES = 258, 277
# a TIFF's own layout (strips, tiles, compression) must not travel as EXIF into another file
_TIFF_DESCRIPTIVE = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}
_ORIENTATION = int(ExifTags.Base.Orientation)
_MAX_PNG_CHUNKS = 200_000

# a damaged file is reported once, as an ImageError, not also by OpenCV on stderr
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


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
    with _open(path, limits) as file, _reasons():
        try:
            image = _header(file, limits)
        except UnidentifiedImageError:
            file.seek(0)
            return tiff.many_channel_size(file, limits)
        width, height = image.size
        sideways = image.format != "TIFF" and _exif(image, file).get(_ORIENTATION) in (5, 6, 7, 8)
        return (height, width) if sideways else (width, height)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in the bytes of a file. The content decides the format, not a name.

    Raises `ImageError` with a plain reason for anything that is not a whole picture within the limits.
    """
    limits.check_bytes(len(data))
    with _reasons():
        file = io.BytesIO(data)
        try:
            image = _header(file, limits)
        except UnidentifiedImageError:
            return tiff.decode_many_channels(data, limits)
        exif = _exif(image, file)
        pixels, alpha = _decode_pixels(image, data)
        # Pillow turns a TIFF upright by itself, OpenCV does so only where it decodes one: see _decode_opencv
        turn = 1 if image.format == "TIFF" else exif.get(_ORIENTATION, 1)
        return Picture(
            pixels=_upright(pixels, turn),
            alpha=None if alpha is None else _upright(alpha, turn),
            icc=None if image.mode in ("CMYK", "LAB") else image.info.get("icc_profile") or None,
            exif=_exif_bytes(exif, image.format),
            format=cast(Format, "JPEG" if image.format == "MPO" else image.format),
        )


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not a PNG, JPEG, WebP, TIFF or BMP picture") from None
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"too large: {error}") from None
    except Exception as error:
        raise ImageError(f"damaged: {str(error) or type(error).__name__}") from None


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


def _header(file: BinaryIO, limits: Limits) -> Image.Image:
    image = Image.open(file, formats=_FORMATS)  # noqa: TID251 (bounded by `limits` right here)
    limits.check_size(*image.size)
    if image.format == "TIFF" and image.tag_v2.get(_TIFF_SAMPLES, 1) > 4:  # type: ignore[attr-defined]
        # Pillow would silently keep the first three
        raise UnidentifiedImageError
    return image


def _exif(image: Image.Image, file: BinaryIO) -> Image.Exif:
    if image.format == "PNG" and "exif" not in image.info:
        # the chunk may stand behind the pixels; Pillow would decode them to find it
        position = file.tell()
        image.info["exif"] = _late_png_exif(file)
        file.seek(position)
    return Image.Image.getexif(image)


def _late_png_exif(file: BinaryIO) -> bytes:
    file.seek(8)
    for _ in range(_MAX_PNG_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return b"Exif\0\0" + file.read(length)
        if kind == b"IEND":
            break
        file.seek(length + 4, os.SEEK_CUR)
    return b""


def _exif_bytes(exif: Image.Exif, format: str | None) -> bytes | None:
    for tag in list(exif):
        if tag == _ORIENTATION or (format == "TIFF" and tag not in _TIFF_DESCRIPTIVE):
            del exif[tag]
    if getattr(exif, "bigtiff", False):
        # its block has a header of 16 bytes, which no reader of EXIF expects, Pillow's neither
        exif, large = Image.Exif(), exif
        exif.update(large)
    try:
        return exif.tobytes() if len(exif) else None
    except Exception:  # a block with values of the wrong type is not worth losing the picture for
        return None


def _decode_pixels(image: Image.Image, data: bytes) -> tuple[Pixels, Pixels | None]:
    deep = _is_deep(image, data)
    if deep or _opencv_agrees(image):
        pixels = _decode_opencv(image, data)
        if pixels is not None:
            return _split_alpha(pixels, gray=_is_gray(image, data))
        if deep:
            raise ImageError("damaged: the pixels cannot be decoded")
    return _from_pillow(image)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether there are 16 bits per channel and several channels, which Pillow would reduce to 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] != 0
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        return set(tags.get(_TIFF_BITS, ())) == {16} and image.mode in ("RGB", "RGBA", "RGBX")
    return False


def _is_gray(image: Image.Image, data: bytes) -> bool:
    # Pillow gives the mode RGBA for 16-bit grey with alpha
    return image.mode in ("L", "I;16") or (image.format == "PNG" and data[25] == 4)


def _opencv_agrees(image: Image.Image) -> bool:
    # not JPEG: OpenCV fills what a damaged file lacks with grey and says nothing
    if image.format not in ("PNG", "WEBP", "BMP") or image.mode not in ("L", "RGB", "RGBA"):
        return False
    return "transparency" not in image.info and not getattr(image, "is_animated", False)


def _decode_opencv(image: Image.Image, data: bytes) -> Pixels | None:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    if pixels.ndim == 2:
        return pixels[..., None]
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    return tiff.straight_alpha(image, pixels) if image.format == "TIFF" else pixels


def _from_pillow(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, transparent)
    if image.mode in ("I", "F"):
        return tiff.thirty_two_bit(image), None
    gray = image.mode in ("1", "L", "LA", "La")
    if image.mode == "RGBX":  # the fourth channel of a TIFF that does not say what it is
        return _split_alpha(np.array(image), gray)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or transparent is not None:
        image = image.convert("RGBA")
    elif gray:
        image = image.convert("L")
    elif image.mode == "LAB":
        raise ImageError("CIELAB colours are not supported")
    else:
        image = image.convert("RGB")
    pixels = np.array(image)
    return _split_alpha(pixels if pixels.ndim == 3 else pixels[..., None], gray)


def _sixteen_bit(image: Image.Image, transparent: object) -> tuple[Pixels, Pixels | None]:
    pixels = np.asarray(image).astype(np.uint16)[..., None]
    if image.format == "TIFF" and 12 in image.tag_v2.get(_TIFF_BITS, ()):  # type: ignore[attr-defined]
        pixels = (pixels.astype(np.uint32) * 65_535 // 4_095).astype(np.uint16)
    if not isinstance(transparent, int):
        return pixels, None
    return pixels, np.where(pixels[..., 0] == transparent, 0, 65_535).astype(np.uint16)


def _split_alpha(pixels: Pixels, gray: bool) -> tuple[Pixels, Pixels | None]:
    alpha = pixels[..., -1].copy() if pixels.shape[2] in (2, 4) else None
    return np.ascontiguousarray(pixels[..., : 1 if gray else min(3, pixels.shape[2])]), alpha


def _upright(pixels: Pixels, orientation: object) -> Pixels:
    turned = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p[::-1].swapaxes(0, 1),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: p[:, ::-1].swapaxes(0, 1),
    }.get(orientation if isinstance(orientation, int) else 1)
    return pixels if turned is None else np.ascontiguousarray(turned(pixels))
