"""What only TIFF has: premultiplied alpha, wide values, white at zero."""

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images.picture import Pixels, white

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 338, 339
_TILE_WIDTH, _TILE_HEIGHT, _DNG_VERSION = 322, 323, 50706
_SIGNED, _FLOAT = 2, 3
_WHITE_IS_ZERO = 0
PREMULTIPLIED, STRAIGHT = 1, 2
_MIN_TILE_PIXELS = 1 << 24


def known_to_pillow(image: Image.Image) -> bool:
    """Whether Pillow reads this TIFF whole. Raises `ImageError` for what nobody here reads rightly."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags:
        raise ImageError("camera raw (DNG) is not read here")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and bits(image) != {16} and bits(image) != {32}:
        raise ImageError("signed values of fewer than 16 bits are not read here")
    check_tile(tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0), image.width * image.height)
    # of more channels Pillow would silently keep the first three
    return bool(tags.get(_SAMPLES, 1) <= 4)


def check_tile(pixels: int, of: int) -> None:
    """Raises `ImageError` for a tile or strip that is far larger than the picture, whose memory it would take."""
    if pixels > max(_MIN_TILE_PIXELS, 4 * of):
        raise ImageError(f"damaged: a tile of {pixels} pixels in a picture of {of}")


def bits(image: Image.Image) -> set[int]:
    """The bits per channel that a TIFF names."""
    return set(image.tag_v2.get(_BITS, (1,)))  # type: ignore[attr-defined]


def straight_alpha(image: Image.Image, pixels: Pixels) -> Pixels:
    """Undo the premultiplied alpha of a TIFF (ExtraSamples 1), which OpenCV hands over as it is."""
    if pixels.shape[2] != 4 or PREMULTIPLIED not in image.tag_v2.get(_EXTRA_SAMPLES, ()):  # type: ignore[attr-defined]
        return pixels
    return np.dstack([divided(pixels[..., :3], pixels[..., 3]), pixels[..., 3]])


def divided(colours: Pixels, alpha: Pixels) -> Pixels:
    """Premultiplied (H, W, C) colours made straight by alpha (H, W)."""
    full = white(colours)
    least = 1 / 65_535 if colours.dtype == np.float32 else 1
    straight = np.minimum(colours * (full / np.maximum(alpha, least).astype(np.float64))[..., None], full)
    return (straight if colours.dtype == np.float32 else np.rint(straight)).astype(colours.dtype)


def sixteen_bit(image: Image.Image, pixels: Pixels) -> Pixels:
    """Grey of 12 or 16 bits as uint16, black at 0."""
    if bits(image) == {12}:
        pixels = (pixels.astype(np.uint32) * 65_535 // 4_095).astype(np.uint16)
    tags = image.tag_v2  # type: ignore[attr-defined]
    return 65_535 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels


def wide(image: Image.Image) -> Pixels:
    """Integers scaled by their full range, 16 signed bits to uint16, 32 to float32; floats must lie in [0, 1]."""
    values = np.asarray(image)[..., None]
    tags = image.tag_v2  # type: ignore[attr-defined]
    if image.mode == "F" and _FLOAT in tags.get(_SAMPLE_FORMAT, (_FLOAT,)):
        return unit_range(values.astype(np.float32))
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, (1,))
    width = max(bits(image))
    whole = values.astype(np.int64) if signed or image.mode == "F" or width < 32 else values.view(np.uint32)
    if whole.min() < 0:
        raise ImageError(f"signed values from {whole.min()} to {whole.max()}; expected none below 0")
    scaled = whole / (2 ** (width - signed) - 1)
    return np.rint(scaled * 65_535).astype(np.uint16) if width == 16 else scaled.astype(np.float32)


def unit_range(values: Pixels) -> Pixels:
    """`values`, floating point. Raises `ImageError` unless all lie in [0, 1]."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"floating-point values from {low:g} to {high:g}; expected 0 to 1")
    return values
