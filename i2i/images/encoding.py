"""Pictures to bytes: OpenCV's encoders where they do the job, Pillow's where metadata must be carried.

PNG and TIFF keep 16 bits, alpha, and what is known of a picture, TIFF also float and any number of channels; PPM
keeps 16 bits and nothing else; WebP and AVIF have 8 bits, alpha and metadata, JPEG no alpha, BMP neither. PNG is laid
out here where isal is installed to deflate it (`pip install 'i2i[fast]'`), TIFF always.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from i2i.errors import OutputError, UsageError
from i2i.files import atomic_write
from i2i.images import deflate, exif_writing, netpbm, png_writing, tiff_writing
from i2i.images.apart import XMP_IN_JPEG
from i2i.images.formats import (
    DEEP,
    NAMES,
    TEXTS_IN_EXIF,
    WITH_ALPHA,
    WITH_METADATA,
    WITH_PROFILE,
    WRITTEN,
    Format,
    written_format,
)
from i2i.images.picture import Picture, Pixels, with_depth

_IN_EXIF = frozenset(TEXTS_IN_EXIF)
# which texts each format holds; PNG all of them
_TEXTS: dict[Format, frozenset[str]] = {
    "JPEG": _IN_EXIF | {"Comment"},
    "WEBP": _IN_EXIF,
    "AVIF": _IN_EXIF,
    "TIFF": _IN_EXIF,
    "BMP": frozenset(),
    "PPM": frozenset(),
}
_KNOWN_TEXTS = (*_IN_EXIF, "Comment", "Title", "Disclaimer", "Warning", "Source", "Creation Time")
DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 80}


def write(
    path: Path, picture: Picture, quality: int | None = None, mode: int | None = None, replace: bool = True
) -> None:
    """Write a picture whole or not at all, in the format that the suffix names.

    Without a suffix it is the picture's own format (PNG for a GIF). `quality` as in `encode`; `mode` is that of the
    file, by default as the umask has it; `replace` as in `atomic_write`. Raises `OutputError` for a suffix that is
    not written, for what the format cannot hold, and for what the system refuses.
    """
    format = WRITTEN.get(path.suffix.lower()) if path.suffix else written_format(picture.format)
    if format is None:
        raise OutputError(f"{path}: {path.suffix} is not written here; written are {', '.join(sorted(WRITTEN))}")
    try:
        data = encode(picture, format, quality)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from None
    atomic_write(path, lambda file: file.write(data), mode, replace=replace)


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
    if picture.exif and (format not in WITH_METADATA or exif_for(picture.exif, format) is None):
        found.append(f"EXIF dropped: {NAMES[format]} has no place for it")
    if picture.icc and format not in WITH_PROFILE:
        found.append(f"colour profile dropped: {NAMES[format]} has none")
    elif picture.icc and profile(picture) is None:
        found.append("colour profile dropped: it is for other colours than the result's")
    found += [f"{name} dropped: {NAMES[format]} has no place for it" for name in _unkept(picture, format)]
    return found + [f"not kept: {name}" for name in picture.unread]


def _unkept(picture: Picture, format: Format) -> list[str]:
    """What is known of a picture, beside EXIF and profile, that a file of the format does not hold."""
    held = _TEXTS.get(format)
    texts = [name for name in picture.texts if held is not None and name not in held]
    if format == "JPEG":
        texts += _exif_and_rest(picture, format)[1]
        texts += ["Comment"] if picture.texts.get("Comment") and not exif_writing.comment(picture) else []
    unkept = {
        "description of its colours": not _keeps_colours(picture, format),
        "resolution": picture.resolution and not _keeps_resolution(picture.resolution, format),
        "XMP": picture.xmp and not _keeps_xmp(picture.xmp, format),
        _named(texts): texts,
        "place on Earth (GeoTIFF)": picture.geo and format != "TIFF",
    }
    return [name for name, is_so in unkept.items() if is_so]


def _named(texts: list[str]) -> str:
    """Texts by those of their keywords that everybody knows; the others are a file's own words."""
    known = [name for name in texts if name in _KNOWN_TEXTS]
    others = len(texts) - len(known)
    return ", ".join(["text " + " and ".join(known)] * bool(known) + [f"{others} texts"] * bool(others))


def _keeps_colours(picture: Picture, format: Format) -> bool:
    colour = picture.colour
    if colour is None or colour.is_usual or (profile(picture) and format in WITH_PROFILE and not colour.cicp):
        return True
    if format == "PNG":
        return colour.transfer is None
    if format == "TIFF":
        kept = colour.transfer is None or tiff_writing.kept_transfer(picture)
        return bool(kept) and colour.cicp is None and colour.gamma is None
    if format == "AVIF":
        return colour.cicp is not None
    return format == "BMP" and colour.cicp is None and bool(exif_writing.bmp_ends(colour))


def _keeps_resolution(resolution: tuple[float, float], format: Format) -> bool:
    return format in WITH_PROFILE and (format != "JPEG" or max(resolution) < 65_535.5)


def _keeps_xmp(xmp: bytes, format: Format) -> bool:
    return format in WITH_METADATA and (format != "JPEG" or len(xmp) + len(XMP_IN_JPEG) <= exif_writing.SEGMENT_BYTES)


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
        return tiff_writing.encode(replace(picture, exif=exif_of(picture, format)), profile(picture))
    if format == "GIF":
        raise OutputError("GIF is not written here")
    if picture.holds_data:
        raise OutputError(f"{format} holds 1 or 3 channels, not {picture.band_count}; use TIFF")
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
    icc = profile(picture)
    if format == "PNG":
        said = png_writing.chunks(picture)
        if deflate.FAST or pixels.shape[2] == 2:  # OpenCV does not take grey with alpha
            return png_writing.encode(pixels, icc, picture.exif, said)
        return png_writing.with_metadata(_encode_opencv(pixels, ".png", []), icc, picture.exif, said)
    if format == "BMP":
        return exif_writing.into_bmp(_encode_opencv(pixels, ".bmp", []), picture, icc)
    exif = exif_of(picture, format)
    if format == "AVIF":
        return exif_writing.nclx(_encode_pillow(pixels, format, quality, icc, exif, picture.xmp), picture)
    if format == "WEBP":
        if icc or exif or picture.xmp:
            return _encode_pillow(pixels, format, quality, icc, exif, picture.xmp)
        return _encode_opencv(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])
    if icc or exif:
        data = _encode_pillow(pixels, format, quality, icc, exif, None)
    else:
        data = _encode_opencv(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    return exif_writing.into_jpeg(data, picture)


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


def _encode_pillow(
    pixels: Pixels, format: Format, quality: int, icc: bytes | None, exif: bytes | None, xmp: bytes | None
) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    try:
        image.save(file, format, quality=quality, icc_profile=icc, exif=exif or b"", **({"xmp": xmp} if xmp else {}))
    except (ValueError, OSError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"{size} pixels cannot be written as {format}: {error}") from None
    return file.getvalue()


def exif_of(picture: Picture, format: Format) -> bytes | None:
    """The EXIF block that a file of the format gets: with what it has no other place for, as far as there is room."""
    return _exif_and_rest(picture, format)[0]


def _exif_and_rest(picture: Picture, format: Format) -> tuple[bytes | None, list[str]]:
    """That block, and the texts for which there is no room in it."""
    if format == "PNG" or (format == "JPEG" and not _IN_EXIF & {*picture.texts}):
        return exif_for(picture.exif, format), []
    return exif_writing.with_texts(picture, exif_writing.SEGMENT_BYTES if format == "JPEG" else None)


def exif_for(block: bytes | None, format: Format) -> bytes | None:
    """An EXIF block if the format has room for it."""
    return None if format == "JPEG" and block and len(block) > exif_writing.SEGMENT_BYTES else block


def profile(picture: Picture) -> bytes | None:
    """The colour profile if it is one for the picture's colours; a network may have changed them."""
    wanted = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
    return picture.icc if picture.icc and picture.icc[16:20] == wanted else None
