"""What only TIFF has: premultiplied alpha, 32-bit values, more than four channels."""

import io
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from i2i.errors import ImageError
from i2i.images.picture import Limits, Picture, Pixels, white

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 338, 339
_SIGNED, _FLOAT = 2, 3
_STRAIGHT_ALPHA = 2
_MAX_CHANNELS = 64


def straight_alpha(image: Image.Image, pixels: Pixels) -> Pixels:
    """Undo the premultiplied alpha of a TIFF (ExtraSamples 1), which OpenCV hands over as it is."""
    if pixels.shape[2] != 4 or 1 not in image.tag_v2.get(_EXTRA_SAMPLES, ()):  # type: ignore[attr-defined]
        return pixels
    full, alpha = white(pixels), np.maximum(pixels[..., 3:], 1).astype(np.float64)
    colours = np.minimum(np.rint(pixels[..., :3] * (full / alpha)), full).astype(pixels.dtype)
    return np.concatenate([colours, pixels[..., 3:]], axis=2)


def thirty_two_bit(image: Image.Image) -> Pixels:
    """Integers scaled by their full range to [0, 1]; floats must lie there already."""
    values = np.asarray(image)[..., None]
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" and _FLOAT in tags.get(_SAMPLE_FORMAT, (_FLOAT,)):
        return _unit_range(values.astype(np.float32))
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, (1,))
    full = 2 ** (tags.get(_BITS, (32,))[0] - signed) - 1
    whole = values.astype(np.int64) if signed or image.mode == "F" else values.view(np.uint32)
    return np.clip(whole / full, 0, 1).astype(np.float32)


def _unit_range(values: Pixels) -> Pixels:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"floating-point values from {low:g} to {high:g}; expected 0 to 1")
    return values


def _tiff_page(file: BinaryIO) -> Any:
    if file.read(4) not in _MAGIC:
        raise UnidentifiedImageError
    try:
        import tifffile
    except ImportError:
        raise ImageError("a TIFF of this kind needs tifffile: pip install 'i2i[large]'") from None
    file.seek(0)
    return tifffile.TiffFile(file).pages[0]


def many_channel_size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """(width, height) of a TIFF that Pillow does not know, checked against the limits."""
    page = _tiff_page(file)
    channels = page.samplesperpixel
    if not 1 <= channels <= _MAX_CHANNELS or page.imagedepth != 1:
        raise ImageError(f"{channels} channels, depth {page.imagedepth}: at most {_MAX_CHANNELS} channels are accepted")
    limits.check_size(page.imagewidth, page.imagelength, channels)
    if page.dtype not in (np.uint8, np.uint16, np.float32):
        raise ImageError(f"values of type {page.dtype}; expected 8 or 16 bit or 32-bit float")
    return page.imagewidth, page.imagelength


def decode_many_channels(data: bytes, limits: Limits) -> Picture:
    """A TIFF that Pillow does not know, by tifffile: any number of channels up to 64, all of them colour."""
    width, height = many_channel_size(io.BytesIO(data), limits)
    page = _tiff_page(io.BytesIO(data))
    try:
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise ImageError("its compression needs imagecodecs: pip install imagecodecs") from None
        raise
    if page.planarconfig == 2 and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    pixels = np.ascontiguousarray(pixels.reshape(height, width, -1), pixels.dtype.newbyteorder("="))
    if pixels.dtype == np.float32:
        pixels = _unit_range(pixels)
    if len(page.extrasamples) and page.extrasamples[-1] == _STRAIGHT_ALPHA:
        return Picture(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy(), format="TIFF")
    return Picture(pixels, format="TIFF")
