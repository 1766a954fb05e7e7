"""PIL images to pictures and back."""

import contextlib
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from i2i.errors import UsageError
from i2i.images import Picture, Pixels, with_depth
from i2i.images.picture import split_alpha

_PLAIN_MODES = {"L", "LA", "RGB", "RGBA"}
_PLAINER = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}


def native(pixels: Pixels) -> Pixels:
    """`pixels` in the byte order of this machine."""
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def from_pil(image: Image.Image) -> Picture:
    """Upright, as its EXIF says. Raises `UsageError` for a mode without a defined range and for a damaged file."""
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing of the orientation
        image = ImageOps.exif_transpose(image)
    icc = image.info.get("icc_profile")
    if image.mode in ("I", "F"):
        raise UsageError(f"a PIL image of mode {image.mode}, whose range is not defined; expected L, RGB, I;16 …")
    try:
        if image.mode not in _PLAIN_MODES and not image.mode.startswith("I;16"):
            icc = None if image.mode == "CMYK" else icc
            image = image.convert(_PLAINER.get(image.mode) or ("RGBA" if "transparency" in image.info else "RGB"))
        pixels = native(np.asarray(image))
    except (OSError, ValueError, SyntaxError) as error:  # a file that was opened only now turns out damaged
        raise UsageError(f"a PIL image of mode {image.mode} that cannot be read: {error}") from None
    picture = split_alpha(pixels if pixels.ndim == 3 else pixels[..., None])
    return replace(picture, icc=icc, exif=image.info.get("exif"))


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
    return image
