"""TIFF that Pillow does not know, by tifffile: more than four channels, float colours."""

import io
import math
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images import exif, tiff
from i2i.images.picture import Limits, Picture, Pixels, white

_ORIENTATION, _ICC = 274, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_PLAIN, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_MAX_CHANNELS = 64
_WIDE = {"float16": np.float32, "float64": np.float32, "bool": np.uint8}


def _page(file: BinaryIO) -> Any:
    try:
        import tifffile
    except ImportError:
        raise ImageError("a TIFF of this kind needs tifffile: pip install 'i2i[large]'") from None
    # a name of its own, for that of an opened descriptor is a number
    return tifffile.TiffFile(file, name="picture").pages[0]


def size(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """(width, height), upright, of a TIFF that Pillow does not know, checked against the limits."""
    page = _page(file)
    _check(page, limits)
    sideways = exif.is_sideways(_tag(page, _ORIENTATION) or 1)
    return (page.imagelength, page.imagewidth) if sideways else (page.imagewidth, page.imagelength)


def decode(data: bytes, limits: Limits) -> Picture:
    """A TIFF that Pillow does not know, by tifffile: any number of channels up to 64, all of them colour."""
    page = _page(io.BytesIO(data))
    _check(page, limits)
    if page.compression in _DEFLATE:
        _check_unpacked(page, data)
    turn = _tag(page, _ORIENTATION) or 1
    pixels = exif.upright(_values(page), turn)
    picture = Picture(pixels, icc=_tag(page, _ICC), exif=_exif(data), format="TIFF", more=page.parent.is_multipage)
    last = page.extrasamples[-1] if len(page.extrasamples) else None
    if last in (tiff.PREMULTIPLIED, tiff.STRAIGHT):
        picture.pixels, picture.alpha = np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy()
    if last == tiff.PREMULTIPLIED and picture.alpha is not None:
        picture.pixels = tiff.divided(picture.pixels, picture.alpha)
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
    _check_packing(page)


def _check_packing(page: Any) -> None:
    if page.compression not in (_PLAIN, _LZW, *_DEFLATE, _PACKBITS):
        raise ImageError(f"a TIFF of this kind packed with {getattr(page.compression, 'name', '?')} is not read here")
    tiff.check_tile(math.prod(page.chunks), page.imagewidth * page.imagelength * page.samplesperpixel)
    if len(page.dataoffsets) > math.prod(page.chunked):
        raise ImageError(f"damaged: {len(page.dataoffsets)} strips where {math.prod(page.chunked)} are expected")


def _check_unpacked(page: Any, data: bytes) -> None:
    """tifffile unpacks a strip whole, however much larger than the picture it turns out to be."""
    full = math.prod(page.chunks) * page.dtype.itemsize
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        if len(zlib.decompressobj().decompress(data[start : start + length], full + 1)) > full:
            raise ImageError(f"damaged: a strip that unpacks to more than its {full} bytes")


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
        pixels = tiff.unit_range(pixels)
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
