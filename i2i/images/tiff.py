"""What only TIFF has: premultiplied alpha, wide values, more than four channels."""

import io
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images import exif
from i2i.images.picture import Limits, Picture, Pixels, white

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 338, 339
_ORIENTATION, _ICC, _DNG_VERSION = 274, 34675, 50706
_SIGNED, _FLOAT = 2, 3
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_PREMULTIPLIED, _STRAIGHT = 1, 2
_MAX_CHANNELS = 64
_WIDE = {"float16": np.float32, "float64": np.float32, "bool": np.uint8}


def known_to_pillow(image: Image.Image) -> bool:
    """Whether Pillow reads this TIFF whole. Raises `ImageError` for what nobody here reads rightly."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags:
        raise ImageError("camera raw (DNG) is not read here")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()) and bits(image) != {16} and bits(image) != {32}:
        raise ImageError("signed values of fewer than 16 bits are not read here")
    # of more channels Pillow would silently keep the first three
    return bool(tags.get(_SAMPLES, 1) <= 4)


def bits(image: Image.Image) -> set[int]:
    """The bits per channel that a TIFF names."""
    return set(image.tag_v2.get(_BITS, (1,)))  # type: ignore[attr-defined]


def straight_alpha(image: Image.Image, pixels: Pixels) -> Pixels:
    """Undo the premultiplied alpha of a TIFF (ExtraSamples 1), which OpenCV hands over as it is."""
    if pixels.shape[2] != 4 or _PREMULTIPLIED not in image.tag_v2.get(_EXTRA_SAMPLES, ()):  # type: ignore[attr-defined]
        return pixels
    return np.dstack([_divided(pixels[..., :3], pixels[..., 3]), pixels[..., 3]])


def _divided(colours: Pixels, alpha: Pixels) -> Pixels:
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
        return _unit_range(values.astype(np.float32))
    signed = _SIGNED in tags.get(_SAMPLE_FORMAT, (1,))
    width = max(bits(image))
    whole = values.astype(np.int64) if signed or image.mode == "F" or width < 32 else values.view(np.uint32)
    if whole.min() < 0:
        raise ImageError(f"signed values from {whole.min()} to {whole.max()}; expected none below 0")
    scaled = whole / (2 ** (width - signed) - 1)
    return np.rint(scaled * 65_535).astype(np.uint16) if width == 16 else scaled.astype(np.float32)


def _unit_range(values: Pixels) -> Pixels:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise ImageError(f"floating-point values from {low:g} to {high:g}; expected 0 to 1")
    return values


def _page(file: BinaryIO) -> Any:
    try:
        import tifffile
    except ImportError:
        raise ImageError("a TIFF of this kind needs tifffile: pip install 'i2i[large]'") from None
    # a name of its own, for that of an opened descriptor is a number
    return tifffile.TiffFile(file, name="picture").pages[0]


def unknown_size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """(width, height), upright, of a TIFF that Pillow does not know, checked against the limits."""
    page = _page(file)
    _check(page, limits)
    sideways = exif.is_sideways(_tag(page, _ORIENTATION) or 1)
    return (page.imagelength, page.imagewidth) if sideways else (page.imagewidth, page.imagelength)


def decode_unknown(data: bytes, limits: Limits) -> Picture:
    """A TIFF that Pillow does not know, by tifffile: any number of channels up to 64, all of them colour."""
    page = _page(io.BytesIO(data))
    _check(page, limits)
    turn = _tag(page, _ORIENTATION) or 1
    pixels = exif.upright(_values(page), turn)
    picture = Picture(pixels, icc=_tag(page, _ICC), exif=_exif(data), format="TIFF")
    last = page.extrasamples[-1] if len(page.extrasamples) else None
    if last in (_PREMULTIPLIED, _STRAIGHT):
        picture.pixels, picture.alpha = np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy()
    if last == _PREMULTIPLIED and picture.alpha is not None:
        picture.pixels = _divided(picture.pixels, picture.alpha)
    return picture


def _check(page: Any, limits: Limits) -> None:
    channels = page.samplesperpixel
    if not 1 <= channels <= _MAX_CHANNELS or page.imagedepth != 1:
        raise ImageError(f"{channels} channels, depth {page.imagedepth}: at most {_MAX_CHANNELS} channels are accepted")
    limits.check_size(page.imagewidth, page.imagelength, channels)
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED):
        name = getattr(page.photometric, "name", page.photometric)
        raise ImageError(f"TIFF of the kind {name} with {page.bitspersample} bits a channel is not read here")
    if str(page.dtype) not in ("uint8", "uint16", "float32", *_WIDE):
        raise ImageError(f"values of type {page.dtype}; expected 8 or 16 bit or floating point")


def _values(page: Any) -> Pixels:
    try:
        pixels = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise ImageError("packed in a way that needs imagecodecs: pip install imagecodecs") from None
        raise
    if page.planarconfig == 2 and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    kind = _WIDE.get(str(pixels.dtype), pixels.dtype.newbyteorder("="))
    pixels = np.ascontiguousarray(pixels.reshape(page.imagelength, page.imagewidth, -1), kind)
    if pixels.dtype == np.float32:
        pixels = _unit_range(pixels)
    if page.dtype == bool:
        pixels *= 255
    return pixels.dtype.type(white(pixels)) - pixels if page.photometric == _WHITE_IS_ZERO else pixels


def _tag(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _exif(data: bytes) -> bytes | None:
    tags = Image.Exif()
    tags.load(data)
    return exif.block(tags, "TIFF")
