"""Bytes to pictures, without trust.

The first bytes say which format it is. The header is read, the limits are checked, and only then are pixels decoded: by
OpenCV where it gives the same pixels faster, else by Pillow; TIFF by `tiff`, HEIC by `heif`, Netpbm's formats and
arrays by `plain`. Nothing is clipped and no depth is lost. Only the first frame of an animation or of a file of several
is read.
"""

import contextlib
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from i2i.errors import I2IError, ImageError
from i2i.files import BINARY
from i2i.images import containers, heif, plain, png, tiff
from i2i.images import metadata as meta
from i2i.images.formats import HEAD_BYTES, NAMES, Format, lacking, refusal, sniff
from i2i.images.metadata import ParsedFile
from i2i.images.picture import DEFAULT_LIMITS, Limits, Picture, Pixels, split_alpha, white
from i2i.images.units import ValueRange, in_units

# a damaged file is reported once, as an ImageError, not also by the libraries on stderr
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_AVIF_HEADER_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_GREY_WITH_ALPHA = 4  # of the kinds of pixels in a PNG
_AVIF_SIZE = rb"ispe\0\0\0\0(.{4})(.{4})"
# messages of Pillow that are for its developers
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
    (r"not enough image data", "it is truncated"),
    (r"(?:b['\"])?(Invalid token|Token too long|Channel value) .*", "a value that is no number of its range"),
)


def read(path: Path, limits: Limits = DEFAULT_LIMITS, values: ValueRange | None = None) -> Picture:
    """The picture in a file, with `values` in units. Raises `ImageError` with the reason, whatever the file is."""
    with _open(path, limits) as file:
        try:
            data = file.read(limits.file_bytes + 1)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode(data, limits, values)


def probe(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(width, height) of a picture file, upright, from its header. Raises `ImageError` as `read` would."""
    with _open(path, limits) as file, reasons():
        head, format = _recognised(file)
        if format == "PPM":
            return plain.netpbm_size(head, limits)
        if format == "HEIF":
            return heif.size(file.read(limits.file_bytes), limits)
        if format == "NPY":
            return plain.npy_size(file, limits)
        found = ParsedFile() if format == "TIFF" else _parse(file, format, limits, pixels=False)
        try:
            with reasons():
                if format == "TIFF":
                    rows = tiff.Rows(file, limits, segments=False)
                    return meta.upright_size(rows.width, rows.height, rows.turn)
                size = _header(io.BytesIO(found.pixels), format, limits).size
                return meta.upright_size(*size, meta.orientation(meta.exif_tags(found.exif, found.xmp)))
        except ImageError:  # perhaps the pixels can be read all the same, and else their reason counts
            height, width = read(path, limits).pixels.shape[:2]
            return width, height


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS, values: ValueRange | None = None) -> Picture:
    """The picture in the bytes of a file. The content decides the format, not a name.

    With `values` the numbers of the file are taken as they are, and the picture is in units of that range. Raises
    `ImageError` with a plain reason for anything that is not a whole picture within the limits.
    """
    limits.check_bytes(len(data))
    with reasons():
        source = io.BytesIO(data)
        _, format = _recognised(source)
        if format == "NPY":
            array = plain.npy(data, limits)
            picture = replace(split_alpha(_as_pixels(array)) if values is None else Picture(array), format="NPY")
        elif format == "TIFF":
            rows = tiff.Rows(source, limits)
            picture = rows.picture() if values is None else rows.numbers()
        elif format == "PPM":
            picture = Picture(plain.netpbm(data, limits), format="PPM")
        elif format == "HEIF":
            picture, _ = _described(*heif.decode(data, limits), is_upright=True)
        else:
            picture = _by_libraries(source, format, limits)
        return picture if values is None else in_units(picture, values)


def _by_libraries(file: BinaryIO, format: Format, limits: Limits) -> Picture:
    """A picture whose pixels Pillow or OpenCV decodes, from the part of its file that they need."""
    found = _parse(file, format, limits)
    image = _header(io.BytesIO(found.pixels), format, limits)
    pixels, alpha = _pixels_of(image, found.pixels)
    if found.transparent is not None:
        alpha = np.where((pixels == found.transparent).all(axis=2), 0, white(pixels)).astype(pixels.dtype)
    if image.mode == "CMYK":
        found.icc = None
    numbers = np.array(image) if image.mode == "P" else None
    return _described(Picture(pixels, alpha, numbers=numbers, format=format), found)[0]


def _as_pixels(array: Pixels) -> Pixels:
    """An array without a range: integers of 8 or 16 bits, or floating point in [0, 1] as float32."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # so that NaN is refused
        return array.astype(np.float32)
    raise ImageError(
        f"an array of {array.dtype.name} from {array.min():g} to {array.max():g}; expected uint8, uint16, or floating "
        "point in 0 to 1; only a model that knows the range of its values takes others (training with --range-a)"
    )


def describe(file: BinaryIO, format: Format, limits: Limits) -> tuple[Picture, int]:
    """All of a file but its pixels, as a picture without them, and the orientation in which those are stored.

    Not for TIFF and Netpbm's formats. Raises `ImageError` as `decode`.
    """
    with reasons():
        file.seek(0)
        found = _parse(file, format, limits, pixels=False)
        return _described(Picture(np.empty((0, 0, 0), np.uint8), format=format), found)


def _parse(file: BinaryIO, format: Format, limits: Limits, pixels: bool = True) -> ParsedFile:
    """A file taken apart; without `pixels` the file for a decoder has at least its header."""
    if format == "PNG":
        return png.parse(file, limits, pixels)
    if format == "WEBP":
        return containers.webp(file)
    if format == "AVIF":
        return containers.avif(file)
    return {"JPEG": containers.jpeg, "GIF": containers.gif, "BMP": containers.bmp}[format](file, pixels)


def _described(stored: Picture, found: ParsedFile, is_upright: bool = False) -> tuple[Picture, int]:
    """The picture upright, with the metadata of its file, and the orientation in which it is stored.

    One that is upright already stays as it is, whatever its metadata say.
    """
    tags = meta.exif_tags(found.exif, found.xmp)
    turn = 1 if is_upright else meta.orientation(tags)
    found.add_resolution(*(meta.exif_resolution(tags) or (0.0, 0.0)))
    found.exif = meta.exif_block(tags)
    return found.described(stored, turn), turn


def _pixels_of(image: Image.Image, data: bytes) -> tuple[Pixels, Pixels | None]:
    """Colours (H, W, 1 or 3) and alpha (H, W) or None, both of uint8, uint16 or float32."""
    depth, kind = (data[24], data[25]) if image.format == "PNG" else (8, 0)
    # 16 bits per channel and several channels, which Pillow would reduce to 8
    deep = depth == 16 and kind != 0
    # not JPEG: some versions of OpenCV fill the lacking part of a damaged file with grey, silently
    if deep or (image.format in ("PNG", "WEBP", "BMP") and image.mode in ("L", "RGB", "RGBA")):
        pixels = _by_opencv(image, data)
        if pixels is not None:
            # Pillow gives the mode RGBA for 16-bit grey with alpha
            return _split_alpha(pixels, gray=image.mode == "L" or kind == _GREY_WITH_ALPHA)
        if deep:
            raise ImageError("damaged: the pixels cannot be decoded")
    return of_image(image)


def _by_opencv(image: Image.Image, data: bytes) -> Pixels | None:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        return None
    return pixels[..., None] if pixels.ndim == 2 else _in_rgb(pixels)


def _in_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3 or 4) in OpenCV's order of colours, exchanged in place, by rows: no second picture is made."""
    order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    each = max(1, _BLOCK_BYTES // pixels[0].nbytes)
    for top in range(0, len(pixels), each):
        pixels[top : top + each] = cv2.cvtColor(pixels[top : top + each], order)
    return pixels


def of_image(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Colours and alpha of any image of Pillow's whose mode has a range; a transparent colour becomes alpha."""
    image, transparent = _believed(image)
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, transparent)
    gray = image.mode in ("1", "L", "LA", "La")
    if gray and isinstance(transparent, int):  # Pillow's own conversion of these depends on its version
        pixels = np.array(image.convert("L"))[..., None]
        return pixels, np.where(pixels[..., 0] == transparent, 0, 255).astype(np.uint8)
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or transparent is not None:
        image = image.convert("RGBA")
    elif image.mode != (mode := "L" if gray else "RGB"):  # Pillow would copy it all the same
        image = image.convert(mode)
    pixels = np.array(image)
    return _split_alpha(pixels if pixels.ndim == 3 else pixels[..., None], gray)


def _believed(image: Image.Image) -> tuple[Image.Image, object]:
    """The image, and its transparent colour if that is one of its mode; a text of that name is left out."""
    value = image.info.get("transparency")
    kinds = {"P": (int, bytes), "PA": (int, bytes), "RGB": (tuple,)}
    if value is None or isinstance(value, kinds.get(image.mode, (int,))):
        return image, value
    image = image.copy()
    del image.info["transparency"]
    return image, None


def _sixteen_bit(image: Image.Image, transparent: object) -> tuple[Pixels, Pixels | None]:
    pixels = np.asarray(image).astype(np.uint16)[..., None]
    if not isinstance(transparent, int):
        return pixels, None
    return pixels, np.where(pixels[..., 0] == transparent, 0, 65_535).astype(np.uint16)


def _split_alpha(pixels: Pixels, gray: bool) -> tuple[Pixels, Pixels | None]:
    alpha = pixels[..., -1].copy() if pixels.shape[2] in (2, 4) else None
    return np.ascontiguousarray(pixels[..., : 1 if gray else min(3, pixels.shape[2])]), alpha


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
        # without O_NONBLOCK, which Windows lacks, the opening of a FIFO waits for a writer
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | BINARY)
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
    """The first bytes, and the format of the file. Raises `ImageError` that names one that is not read."""
    head = file.read(HEAD_BYTES)
    format = sniff(head)
    if format is None or lacking(format):
        raise ImageError(refusal(head))
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
    """Why Pillow does not take the header: `Image.open` keeps the reason to itself."""
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
