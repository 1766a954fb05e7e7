"""Bytes and PIL images to pictures, without trust.

The first bytes say which format it is. The header is read, the limits are checked, and only then are pixels decoded: by
OpenCV where it gives the same pixels faster, else by Pillow; TIFF by `tiff`, HEIC by `heif`, Netpbm's formats and .npy
by `arrays`. Nothing is clipped and no depth is lost. Only the first frame of an animation or of a file of several is
read.
"""

import contextlib
import io
import logging
import re
import stat
import warnings
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from i2i.errors import ImageError, UsageError, as_typed
from i2i.images import arrays, containers, heif, png, tiff
from i2i.images import metadata as meta
from i2i.images.formats import HEAD_BYTES, NAMES, Format, lacking, plain, reasons, refusal, sniff
from i2i.images.metadata import ParsedFile
from i2i.images.picture import DEFAULT_LIMITS, Limits, Picture, Pixels, row_blocks, split_alpha, white
from i2i.images.units import ValueRange, in_units

# a damaged file is reported once, as an ImageError, not also by the libraries on stderr
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_AVIF_HEADER_BYTES = 1 << 16
_GREY_WITH_ALPHA = 4  # PNG's number for these pixels
_AVIF_SIZE = rb"ispe\0\0\0\0(.{4})(.{4})"


def read(path: Path, limits: Limits = DEFAULT_LIMITS, values: ValueRange | None = None) -> Picture:
    """The picture in a file, with `values` in units. Raises `ImageError` with the reason, whatever the file is."""
    with open_regular(path, limits) as file:
        try:
            data = file.read(limits.file_bytes + 1)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode(data, limits, values)


def probe(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(width, height) of a picture file, upright, from its header. Raises `ImageError` as `read` would."""
    with open_regular(path, limits) as file, reasons():
        format = _recognised(file)
        if format == "PPM":
            return arrays.netpbm_header(file.read(HEAD_BYTES), limits)[:2]
        if format == "HEIF":
            width, height = heif.opened(file.read(limits.file_bytes), limits)[0].size
            return width, height
        if format == "NPY":
            height, width, *_ = arrays.npy_header(file, limits)[0]
            return width, height
        found = ParsedFile() if format == "TIFF" else _parse(file, format, limits, pixels=False)
        try:
            if format == "TIFF":
                rows = tiff.Rows(file, limits)
                return meta.upright_size(rows.width, rows.height, rows.turn)
            return meta.upright_size(*_header(io.BytesIO(found.pixels), format, limits).size, found.turn)
        except Exception:  # perhaps the pixels can be read all the same, and else their reason counts
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
        format = _recognised(source)
        if format == "NPY":
            array = arrays.npy(data, limits)
            picture = replace(split_alpha(_as_pixels(array)) if values is None else Picture(array), format="NPY")
        elif format == "TIFF":
            rows = tiff.Rows(source, limits)
            picture = rows.picture() if values is None else rows.numbers()
        elif format == "PPM":
            picture = Picture(arrays.netpbm(data, limits), format="PPM")
        elif format == "HEIF":
            stored, found = heif.decode(data, limits)
            picture = found.described(stored, turn=1)  # whatever its metadata say
        else:
            picture = _by_libraries(source, format, limits)
        return picture if values is None else in_units(picture, values)


def _by_libraries(file: BinaryIO, format: Format, limits: Limits) -> Picture:
    """A picture whose pixels Pillow or OpenCV decodes, from the part of its file that they need."""
    found = _parse(file, format, limits)
    image = _header(io.BytesIO(found.pixels), format, limits)
    stored = _pixels_of(image, found.pixels)
    if found.transparent is not None:
        stored.alpha = _opaque_but(stored.pixels, found.transparent)
    if image.mode == "CMYK":
        found.icc = None
    return found.described(replace(stored, format=format))


def _as_pixels(array: Pixels) -> Pixels:
    """An array without a range: integers of 8 or 16 bits, or floating point in [0, 1] as float32."""
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # so that NaN is refused
        return array.astype(np.float32)
    raise ImageError(
        f"an array of {array.dtype.name} from {array.min():g} to {array.max():g}; expected uint8, uint16, or floating "
        "point in 0 to 1; only a model that knows the range of its values takes others (training with "
        f"{as_typed('range_a')})"
    )


def from_pil(image: Image.Image, values: ValueRange | None = None) -> Picture:
    """Upright, as its EXIF has it; an image whose file was only opened is read as that file is. With `values` in units.

    Raises `UsageError` for a mode without a defined range and for a damaged file.
    """
    if (data := _untouched(image)) is not None:
        try:
            return decode(data, values=values)
        except ImageError as error:
            raise UsageError(f"a PIL image of mode {image.mode} that cannot be read: {error}") from None
    if values is not None:
        wide = image.mode in ("I", "F")
        return in_units(Picture(np.array(image)[..., None]) if wide else from_pil(image), values)
    if image.mode in ("I", "F"):
        raise UsageError(f"a PIL image of mode {image.mode}, whose range is not defined; expected L, RGB, I;16 …")
    try:
        stored = _of_image(image)
    # a file that was only opened turns out damaged now, or has a text in the place of a number that Pillow expects
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise UsageError(f"a PIL image of mode {image.mode} that cannot be read: {error}") from None
    only = meta.DESCRIPTIVE if image.format == "TIFF" else None
    return _beside(image).described(replace(stored, format=_format_of(image)), only=only)


def _untouched(image: Image.Image) -> bytes | None:
    """The bytes of the file behind an image, if its format is read here and the image is as it was when opened."""
    file = getattr(image, "fp", None)
    known = image.format in (*NAMES, "MPO") and image.format != "PPM"
    if not known or file is None or getattr(image, "_im", file) is not None or image.tell():
        return None
    if image.width * image.height > DEFAULT_LIMITS.pixels:  # somebody has allowed Pillow that
        return None
    with contextlib.suppress(Exception):
        place = file.tell()
        file.seek(0)
        data: bytes = file.read(DEFAULT_LIMITS.file_bytes + 1)
        file.seek(place)
        if len(data) <= DEFAULT_LIMITS.file_bytes and _are_alike(image, data):
            return data
    return None


def _format_of(image: Image.Image) -> Format:
    """The format of the file of an image, PNG for one that was made in memory."""
    kind = "JPEG" if image.format == "MPO" else image.format
    return next((name for name in NAMES if name == kind), "PNG")


def _are_alike(image: Image.Image, data: bytes) -> bool:
    """Whether an image is as one that is opened from these bytes now."""
    fresh = Image.open(io.BytesIO(data), formats=(_format_of(image),))  # noqa: TID251 (a header that Pillow has read before)
    parts = (fresh.size, fresh.mode, fresh.info, getattr(fresh, "tile", None))
    if parts != (image.size, image.mode, image.info, getattr(image, "tile", None)):
        return False
    return getattr(image, "_exif", None) is None or dict(image.getexif()) == dict(fresh.getexif())


def _beside(image: Image.Image) -> ParsedFile:
    """All of an image but its pixels, as Pillow has it; values of another type are texts of its file."""
    found, info = ParsedFile(), image.info
    with contextlib.suppress(Exception):  # damaged EXIF is as good as none
        found.add_exif(image.getexif().tobytes())
    if isinstance(info.get("icc_profile"), bytes) and image.mode not in ("CMYK", "LAB"):
        found.add_icc(info["icc_profile"])
    if isinstance(info.get("xmp"), bytes):
        found.add_xmp(meta.upright_xmp(info["xmp"]))  # `getexif` has its orientation, unless somebody removed that
    dpi = info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2 and dpi != (1, 1):  # Pillow's for a TIFF without resolution
        found.add_resolution(float(dpi[0]), float(dpi[1]))
    return found


def describe(file: BinaryIO, format: Format, limits: Limits) -> tuple[Picture, int]:
    """All of a file but its pixels, as a picture without them, and the orientation in which those are stored.

    Not for TIFF and Netpbm's formats. Raises `ImageError` as `decode`.
    """
    with reasons():
        file.seek(0)
        found = _parse(file, format, limits, pixels=False)
        return found.described(Picture(np.empty((0, 0, 0), np.uint8), format=format)), found.turn


def _parse(file: BinaryIO, format: Format, limits: Limits, pixels: bool = True) -> ParsedFile:
    """A file taken apart; without `pixels` the file for a decoder has at least its header."""
    if format == "PNG":
        return png.parse(file, limits, pixels)
    if format == "WEBP":
        return containers.webp(file)
    if format == "AVIF":
        return containers.avif(file)
    return {"JPEG": containers.jpeg, "GIF": containers.gif, "BMP": containers.bmp}[format](file, pixels)


def _pixels_of(image: Image.Image, data: bytes) -> Picture:
    """The pixels of an image that was opened from `data`."""
    depth, kind = (data[24], data[25]) if image.format == "PNG" else (8, 0)
    # 16 bits per channel and several channels, which Pillow would reduce to 8
    deep = depth == 16 and kind != 0
    # not JPEG: some versions of OpenCV fill the lacking part of a damaged file with grey, silently
    if deep or (image.format in ("PNG", "WEBP", "BMP") and image.mode in ("L", "RGB", "RGBA")):
        pixels = _by_opencv(image, data)
        if pixels is not None:
            # Pillow gives the mode RGBA for 16-bit grey with alpha
            return _split(pixels, gray=image.mode == "L" or kind == _GREY_WITH_ALPHA)
        if deep:
            raise ImageError("damaged: the pixels cannot be decoded")
    return _of_image(image)


def _by_opencv(image: Image.Image, data: bytes) -> Pixels | None:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        return None
    return pixels if pixels.ndim == 2 else _in_rgb(pixels)


def _in_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3 or 4) in OpenCV's order of colours, exchanged in place, by rows: no second picture is made."""
    order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    for rows in row_blocks(pixels):
        pixels[rows] = cv2.cvtColor(pixels[rows], order)
    return pixels


def _of_image(image: Image.Image) -> Picture:
    """The pixels of any image of Pillow's whose mode has a range; a transparent colour becomes alpha."""
    numbers = np.array(image) if image.mode == "P" else None
    image, transparent = _believed(image)
    gray = image.mode in ("1", "L", "LA", "La")
    # Pillow's own conversion of a transparent grey depends on its version
    if image.mode.startswith("I;16") or (gray and isinstance(transparent, int)):
        pixels = (np.array(image.convert("L")) if gray else np.asarray(image).astype(np.uint16))[..., None]
        return Picture(pixels, _opaque_but(pixels, transparent) if isinstance(transparent, int) else None)
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or transparent is not None:
        image = image.convert("RGBA")
    elif image.mode != (mode := "L" if gray else "RGB"):  # Pillow would copy it all the same
        image = image.convert(mode)
    return replace(_split(np.array(image), gray), numbers=numbers)


def _believed(image: Image.Image) -> tuple[Image.Image, object]:
    """The image, and its transparent colour if that is one of its mode; a text of that name is left out."""
    value = image.info.get("transparency")
    kinds = {"P": (int, bytes), "PA": (int, bytes), "RGB": (tuple,)}
    if value is None or isinstance(value, kinds.get(image.mode, (int,))):
        return image, value
    image = image.copy()
    del image.info["transparency"]
    return image, None


def _opaque_but(pixels: Pixels, colour: object) -> Pixels:
    """The alpha (H, W) of (H, W, C) of which one colour is transparent."""
    return np.where((pixels == colour).all(axis=2), 0, white(pixels)).astype(pixels.dtype)


def _split(pixels: Pixels, gray: bool) -> Picture:
    """(H, W) or (H, W, C), whose colours are equal if it is `gray`, as colours and alpha."""
    if pixels.ndim == 2:
        return Picture(pixels[..., None])
    return split_alpha(pixels[..., [0, -1][: pixels.shape[2] - 2]] if gray else pixels)


def open_regular(path: Path, limits: Limits) -> BinaryIO:
    """A file of bytes within the limits. Raises `ImageError` for any other, without waiting for a pipe."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        limits.check_bytes(status.st_size)
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be opened: {getattr(error, 'strerror', error)}") from None


def _recognised(file: BinaryIO) -> Format:
    """The format of the file. Raises `ImageError` that names one that is not read."""
    head = file.read(HEAD_BYTES)
    format = sniff(head)
    if format is None or lacking(format):
        raise ImageError(refusal(head))
    file.seek(0)
    return format


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
        return f"damaged {NAMES[format]}: {plain(error)}"
    return f"damaged {NAMES[format]}"
