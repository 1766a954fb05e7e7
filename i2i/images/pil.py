"""PIL images to pictures and back."""

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from i2i.errors import ImageError, UsageError
from i2i.images import metadata as meta
from i2i.images.decoding import decode, of_image
from i2i.images.formats import NAMES, Format
from i2i.images.picture import DEFAULT_LIMITS, Picture, Pixels, with_depth
from i2i.images.units import ValueRange, in_units


def native(pixels: Pixels) -> Pixels:
    """`pixels` in the byte order of this machine."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


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
    tags = _tags(image)
    try:
        pixels, alpha = of_image(image)
    # a file that was only opened turns out damaged now, or has a text in the place of a number that Pillow expects
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise UsageError(f"a PIL image of mode {image.mode} that cannot be read: {error}") from None
    turn = meta.orientation(tags)
    numbers = np.array(image) if image.mode == "P" else None
    alpha, numbers = (None if part is None else meta.upright(part, turn) for part in (alpha, numbers))
    block = meta.exif_block(tags, meta.DESCRIPTIVE if image.format == "TIFF" else None)
    picture = Picture(meta.upright(pixels, turn), alpha, exif=block, numbers=numbers)
    return replace(picture, format=_format(image), **_described(image))


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


def _format(image: Image.Image) -> Format:
    """The format of the file of an image, PNG for one that was made in memory."""
    kind = "JPEG" if image.format == "MPO" else image.format
    return next((name for name in NAMES if name == kind), "PNG")


def _are_alike(image: Image.Image, data: bytes) -> bool:
    """Whether an image is as one that is opened from these bytes now."""
    fresh = Image.open(io.BytesIO(data), formats=(_format(image),))  # noqa: TID251 (a header that Pillow has read before)
    parts = (fresh.size, fresh.mode, fresh.info, getattr(fresh, "tile", None))
    if parts != (image.size, image.mode, image.info, getattr(image, "tile", None)):
        return False
    return getattr(image, "_exif", None) is None or dict(image.getexif()) == dict(fresh.getexif())


def _tags(image: Image.Image) -> Image.Exif:
    """A copy of its EXIF; none where that is damaged."""
    with contextlib.suppress(Exception):
        return meta.exif_tags(image.getexif().tobytes())
    return Image.Exif()


def _described(image: Image.Image) -> dict[str, Any]:
    """Profile, XMP and resolution of an image as Pillow has them; values of another type are texts of its file."""
    info = image.info
    found: dict[str, Any] = {}
    if isinstance(info.get("icc_profile"), bytes) and image.mode not in ("CMYK", "LAB"):
        found["icc"] = info["icc_profile"]
    if isinstance(info.get("xmp"), bytes):
        found["xmp"] = meta.upright_xmp(info["xmp"])
    dpi = info.get("dpi")
    if isinstance(dpi, tuple) and len(dpi) == 2 and dpi != (1, 1):  # Pillow's for a TIFF without resolution
        across, down = float(dpi[0]), float(dpi[1])
        if meta.is_resolution(across, down):
            found["resolution"] = across, down
    return found


def as_pil(picture: Picture) -> Image.Image:
    """PIL holds 16 bits only in grey without alpha; anything else comes as 8 bits."""
    channels = picture.pixels.shape[2]
    if channels not in (1, 3):
        raise UsageError(f"a PIL image cannot hold the {channels} channels of the result; pass an array or a tensor")
    layers = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    if layers.dtype != np.uint8:
        layers = with_depth(layers, np.uint16 if layers.shape[2] == 1 else np.uint8)
    image = Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    if picture.exif:
        image.info["exif"] = picture.exif
    if picture.xmp:
        image.info["xmp"] = picture.xmp
    if picture.resolution:
        image.info["dpi"] = picture.resolution
    return image
