"""Pictures to bytes: OpenCV's encoders where they do the job, Pillow's where metadata must be carried.

PNG and TIFF keep 16 bits, alpha, colour profile and EXIF; JPEG and BMP have no alpha, BMP no metadata. PNG's
metadata are put into OpenCV's file, since Pillow cannot write 16-bit colour; TIFF is laid out here with
Pillow's tag writer, for the same reason and for any number of channels.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from i2i.atomic import atomic_write
from i2i.errors import OutputError
from i2i.images.picture import Format, Picture, Pixels, with_depth

_BY_SUFFIX: dict[str, Format] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_PNG_HEADER_BYTES = 8 + 25
_TIFF_IFD_OFFSET = 8


def write(path: Path, picture: Picture, quality: int = 95) -> None:
    """Write a picture whole or not at all, in the format that the suffix names.

    `quality` is that of JPEG and WebP, 1 to 100. Raises `OutputError` for an unknown suffix, for what the
    format cannot hold, and for what the system refuses.
    """
    format = _BY_SUFFIX.get(path.suffix.lower())
    if format is None:
        raise OutputError(f"{path}: unknown suffix {path.suffix!r}; known: {', '.join(_BY_SUFFIX)}")
    try:
        data = encode(picture, format, quality)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from None
    atomic_write(path, lambda file: file.write(data))


def encode(picture: Picture, format: Format | None = None, quality: int = 95) -> bytes:
    """The bytes of a file of `format`, by default the picture's own.

    Depth and alpha are kept where the format can hold them, else scaled to 8 bits and dropped. Raises
    `OutputError` if the format cannot hold the number of channels or the size.
    """
    format = format or picture.format
    if format == "TIFF":
        return _encode_tiff(picture)
    if picture.pixels.shape[2] not in (1, 3):
        raise OutputError(f"{format} holds 1 or 3 channels, not {picture.pixels.shape[2]}; use TIFF")
    depth = np.uint16 if format == "PNG" and picture.pixels.dtype != np.uint8 else np.uint8
    pixels = with_depth(picture.pixels, depth)
    if picture.alpha is not None and format in ("PNG", "WEBP"):
        # neither encoder takes grey with alpha, except Pillow's for 8-bit PNG
        colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        if format == "PNG" and depth == np.uint8:
            colours = pixels
        pixels = np.dstack([colours, with_depth(picture.alpha, depth)])
    if pixels.shape[2] == 2:
        return _encode_pillow(pixels, format, quality, picture)
    if format == "PNG":
        return _with_png_metadata(_encode_opencv(pixels, ".png", []), picture)
    if format == "BMP":
        return _encode_opencv(pixels, ".bmp", [])
    if picture.icc or picture.exif:
        return _encode_pillow(pixels, format, quality, picture)
    if format == "JPEG":
        return _encode_opencv(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _encode_opencv(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])


def _encode_opencv(pixels: Pixels, suffix: str, parameters: Sequence[int]) -> bytes:
    if pixels.shape[2] >= 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    try:
        done, data = cv2.imencode(suffix, pixels, parameters)
    except cv2.error as error:
        done, reason = False, error.err
    else:
        reason = "the encoder refused"
    if not done:
        height, width = pixels.shape[:2]
        raise OutputError(f"{width}x{height} pixels cannot be written as {suffix}: {reason}")
    return data.tobytes()


def _encode_pillow(pixels: Pixels, format: Format, quality: int, picture: Picture) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    try:
        image.save(file, format, quality=quality, icc_profile=_profile(picture), exif=picture.exif or b"")
    except (ValueError, OSError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"{size} pixels cannot be written as {format}: {error}") from None
    return file.getvalue()


def _profile(picture: Picture) -> bytes | None:
    """The colour profile if it is one for the picture's colours; a network may have changed them."""
    wanted = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
    return picture.icc if picture.icc and picture.icc[16:20] == wanted else None


def _with_png_metadata(data: bytes, picture: Picture) -> bytes:
    chunks = b""
    if icc := _profile(picture):
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if picture.exif:
        chunks += _png_chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0"))
    return data[:_PNG_HEADER_BYTES] + chunks + data[_PNG_HEADER_BYTES:]


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _encode_tiff(picture: Picture) -> bytes:
    """Little-endian, one deflated strip, channels interleaved (TIFF 6.0, Sec. 2, 7 and 18)."""
    pixels = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    height, width, channels = pixels.shape
    strip = zlib.compress(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes(), 6)
    tags = ImageFileDirectory_v2(prefix=b"II")
    _copy_exif(picture.exif, tags)
    colours = 3 if picture.pixels.shape[2] >= 3 else 1
    tags[256], tags[257], tags[277] = width, height, channels
    tags[258] = (pixels.dtype.itemsize * 8,) * channels
    tags[339] = (3 if pixels.dtype == np.float32 else 1,) * channels
    tags[259], tags[262], tags[284] = 8, 2 if colours == 3 else 1, 1
    if channels > colours:
        last = 2 if picture.alpha is not None else 0
        tags[338] = (0,) * (channels - colours - 1) + (last,)
    if icc := _profile(picture):
        tags[34675] = icc
    # Pillow counts strip offsets from the end of the directory
    tags[273], tags[278], tags[279] = 0, height, len(strip)
    return struct.pack("<2sHI", b"II", 42, _TIFF_IFD_OFFSET) + tags.tobytes(_TIFF_IFD_OFFSET) + strip


def _copy_exif(block: bytes | None, tags: ImageFileDirectory_v2) -> None:
    if not block:
        return
    exif = Image.Exif()
    exif.load(block)
    for tag, value in exif.items():
        tags[tag] = exif.get_ifd(tag) if tag in (34665, 34853) else value
