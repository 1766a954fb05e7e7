"""Pictures to bytes: OpenCV's encoders where they do the job, Pillow's where metadata must be carried.

PNG and TIFF keep 16 bits, alpha, colour profile and EXIF, TIFF also float and any number of channels; PPM keeps
16 bits and nothing else; WebP and AVIF have 8 bits, alpha and metadata, JPEG no alpha, BMP neither. PNG's
metadata are put into OpenCV's file, since Pillow cannot write 16-bit colour; TIFF is laid out here with
Pillow's tag writer, for the same reason.
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
from i2i.errors import OutputError, UsageError
from i2i.images import exif, netpbm, png
from i2i.images.formats import DEEP, NAMES, WITH_ALPHA, WITH_METADATA, WRITTEN, Format, written_format
from i2i.images.picture import Picture, Pixels, with_depth

DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 80}
# one segment, whose length takes two of its 65535 bytes
_JPEG_EXIF_BYTES = 65_533
_TIFF_IFD_OFFSET = 8


def write(path: Path, picture: Picture, quality: int | None = None, mode: int | None = None) -> None:
    """Write a picture whole or not at all, in the format that the suffix names.

    Without a suffix it is the picture's own format (PNG for a GIF). `quality` as in `encode`; `mode` is that of the
    file, by default as the umask has it. Raises `OutputError` for a suffix that is not written, for what the
    format cannot hold, and for what the system refuses.
    """
    format = WRITTEN.get(path.suffix.lower()) if path.suffix else written_format(picture.format)
    if format is None:
        raise OutputError(f"{path}: {path.suffix} is not written here; written are {', '.join(sorted(WRITTEN))}")
    try:
        data = encode(picture, format, quality)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from None
    atomic_write(path, lambda file: file.write(data), mode)


def lost(picture: Picture, suffix: str) -> list[str]:
    """What a file of that suffix does not keep of a picture, in words; often nothing."""
    format = WRITTEN.get(suffix.lower(), written_format(picture.format))
    found = []
    if picture.alpha is not None and format not in WITH_ALPHA:
        found.append(f"transparency dropped: {NAMES[format]} has none")
    if picture.pixels.dtype != np.uint8 and format not in DEEP:
        found.append(f"scaled to 8 bits: {NAMES[format]} has no more")
    elif picture.pixels.dtype == np.float32 and format != "TIFF":
        found.append(f"scaled to 16 bits: {NAMES[format]} has no floating point")
    if picture.exif and (format not in WITH_METADATA or (format == "JPEG" and len(picture.exif) > _JPEG_EXIF_BYTES)):
        found.append(f"EXIF dropped: {NAMES[format]} has no place for it")
    if picture.icc and format not in WITH_METADATA:
        found.append(f"colour profile dropped: {NAMES[format]} has none")
    elif picture.icc and _profile(picture) is None:
        found.append("colour profile dropped: it is for other colours than the result's")
    return found


def encode(picture: Picture, format: Format | None = None, quality: int | None = None) -> bytes:
    """The bytes of a file of `format`, by default the picture's own (PNG for a GIF, which is not written).

    `quality` is that of JPEG, WebP and AVIF, 1 to 100, None for the format's default (`DEFAULT_QUALITY`).
    Depth and alpha are kept where the format can hold them, else scaled to the depth it has and dropped.
    Raises `OutputError` if the format cannot hold the number of channels or the size, `UsageError` for a
    quality out of range.
    """
    format = format or written_format(picture.format)
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality}; expected 1 to 100")
    if format == "TIFF":
        return _encode_tiff(picture)
    if format == "GIF":
        raise OutputError("GIF is not written here")
    if picture.pixels.shape[2] not in (1, 3):
        raise OutputError(f"{format} holds 1 or 3 channels, not {picture.pixels.shape[2]}; use TIFF")
    deep = format in DEEP and picture.pixels.dtype != np.uint8
    pixels = with_depth(picture.pixels, np.uint16 if deep else np.uint8)
    if format == "PPM":
        return netpbm.encode(pixels)
    if picture.alpha is not None and format in WITH_ALPHA:
        pixels = _with_alpha(pixels, picture.alpha, format)
    return _encode(pixels, format, quality or DEFAULT_QUALITY.get(format, 0), picture)


def _with_alpha(pixels: Pixels, alpha: Pixels, format: Format) -> Pixels:
    if pixels.shape[2] == 1 and format != "PNG":
        pixels = np.repeat(pixels, 3, axis=2)
    return np.dstack([pixels, with_depth(alpha, pixels.dtype.type)])


def _encode(pixels: Pixels, format: Format, quality: int, picture: Picture) -> bytes:
    if format == "PNG":
        # OpenCV does not take grey with alpha
        data = png.gray_alpha(pixels) if pixels.shape[2] == 2 else _encode_opencv(pixels, ".png", [])
        return png.with_metadata(data, _profile(picture), picture.exif)
    if format == "BMP":
        return _encode_opencv(pixels, ".bmp", [])
    if format == "AVIF" or picture.icc or picture.exif:
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
        image.save(file, format, quality=quality, icc_profile=_profile(picture), exif=_exif(picture, format))
    except (ValueError, OSError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"{size} pixels cannot be written as {format}: {error}") from None
    return file.getvalue()


def _exif(picture: Picture, format: Format) -> bytes:
    block = picture.exif or b""
    return b"" if format == "JPEG" and len(block) > _JPEG_EXIF_BYTES else block


def _profile(picture: Picture) -> bytes | None:
    """The colour profile if it is one for the picture's colours; a network may have changed them."""
    wanted = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
    return picture.icc if picture.icc and picture.icc[16:20] == wanted else None


def _encode_tiff(picture: Picture) -> bytes:
    """Little-endian, one deflated strip, channels interleaved (TIFF 6.0, Sec. 2, 7 and 18)."""
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = np.dstack([pixels, with_depth(picture.alpha, pixels.dtype.type)])
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
    found = Image.Exif()
    found.load(block)
    for tag, value in found.items():
        if tag in exif.DESCRIPTIVE:
            tags[tag] = found.get_ifd(tag) if tag in (34665, 34853) else value
