"""Pictures to bytes and to PIL images.

PNG and TIFF keep 16 bits, alpha and metadata, TIFF also float and any number of channels; PPM keeps 16 bits and nothing
else; WebP and AVIF have 8 bits, alpha and metadata, JPEG no alpha, BMP neither. PNG and TIFF are laid out here: isal
deflates them where it is installed (`pip install 'i2i[fast]'`), and zlib is as fast as OpenCV, in smaller files.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2i.errors import OutputError, UsageError, check_word
from i2i.files import atomic_write
from i2i.images import arrays, containers, png, tiff
from i2i.images.formats import DEEP, NAMES, WITH_ALPHA, WITH_METADATA, WRITTEN, Format, written_format
from i2i.images.metadata import exif_with_texts
from i2i.images.picture import Picture, Pixels, with_channels, with_depth
from i2i.images.tiff_directory import TEXTS
from i2i.images.units import as_stored

_KNOWN_TEXTS = (*TEXTS, "Comment", "Title", "Disclaimer", "Warning", "Source", "Creation Time")
DEFAULT_QUALITY = {"JPEG": 95, "WEBP": 90, "AVIF": 80}


def write(
    path: Path, picture: Picture, quality: int | None = None, mode: int | None = None, replace: bool = True
) -> None:
    """Write a picture whole or not at all, in the format that the suffix names.

    Without a suffix it is the picture's own format (PNG for a GIF). `quality` as in `encode`; `mode` is that of the
    file, by default as the umask has it; `replace` as in `atomic_write`. Raises `OutputError` for a suffix that is
    not written, for a picture that the format cannot hold, and where the system refuses.
    """
    format = WRITTEN.get(path.suffix.lower()) if path.suffix else written_format(picture.format)
    if format is None:
        raise OutputError(f"{path}: {path.suffix} is not written here; written are {', '.join(sorted(WRITTEN))}")
    try:
        data = encode(picture, format, quality)
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from None
    atomic_write(path, lambda file: file.write(data), mode, replace=replace)


def encode(picture: Picture, format: Format | None = None, quality: int | None = None) -> bytes:
    """The bytes of a file of `format`, by default the picture's own (PNG for a GIF, which is not written).

    `quality` is that of JPEG, WebP and AVIF, 1 to 100, None for the format's default (`DEFAULT_QUALITY`).
    Depth and alpha are kept where the format can hold them, else scaled to the depth it has and dropped.
    Raises `OutputError` if the format cannot hold the number of channels or the size, `UsageError` for a
    quality out of range.
    """
    format = format or written_format(picture.format)
    check_word("format", format, Format)
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality {quality}; expected 1 to 100")
    if picture.units is not None and (reason := refusal_of_units(format, picture.units.dtype)):
        raise OutputError(reason)
    picture = as_stored(picture)
    if format == "TIFF":
        return tiff.encode(picture, profile(picture))
    if format == "NPY":
        return arrays.as_npy(picture.stacked())
    if format == "GIF":
        raise OutputError("GIF is not written here")
    if picture.holds_data:
        raise OutputError(f"{format} holds 1 or 3 channels, not {picture.band_count}; use TIFF")
    deep = format in DEEP and picture.pixels.dtype != np.uint8
    pixels = with_depth(picture.pixels, np.uint16 if deep else np.uint8)
    if format == "PPM":
        return arrays.as_netpbm(pixels)
    if picture.alpha is not None and format in WITH_ALPHA:
        pixels = Picture(pixels if format == "PNG" else with_channels(pixels, 3), picture.alpha).stacked()
    return _encode(pixels, format, quality or DEFAULT_QUALITY.get(format, 0), picture)


def refusal_of_units(format: Format, dtype: "np.dtype[Any]") -> str:
    """Why values of that type cannot be written in a format; empty if they can."""
    held = {"TIFF": "uif", "NPY": "uif", "PNG": "u", "PPM": "u"}.get(format, "")
    if dtype.kind in held:
        return ""
    if held:
        return f"{NAMES[format]} holds whole numbers from 0 to 65535, and no values of {dtype.name}; use TIFF or NPY"
    return f"{NAMES[format]} holds colours, and no values in units; use TIFF or NPY"


def _encode(pixels: Pixels, format: Format, quality: int, picture: Picture) -> bytes:
    icc = profile(picture)
    if format == "PNG":
        return png.encode(pixels, picture, icc)
    exif, is_jpeg = exif_for(picture, format)[0] or b"", format == "JPEG"
    options: dict[str, Any] = {"quality": quality, "icc_profile": icc} if format in WITH_METADATA else {}
    if options and not is_jpeg:
        options |= {"exif": exif, **({"xmp": picture.xmp} if picture.xmp else {})}
    file, image = io.BytesIO(), Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    try:
        image.save(file, format, **options)
    except (ValueError, OSError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"{size} pixels cannot be written as {format}: {error}") from None
    data = file.getvalue()
    return containers.jpeg_head(picture, exif)[0] + data[containers.BEHIND_JFIF :] if is_jpeg else data


def as_pil(picture: Picture) -> Image.Image:
    """PIL holds 16 bits only in grey without alpha; anything else comes as 8 bits."""
    channels = picture.pixels.shape[2]
    if channels not in (1, 3):
        raise UsageError(f"a PIL image cannot hold the {channels} channels of the result; pass an array or a tensor")
    layers = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    if layers.dtype != np.uint8:
        layers = with_depth(layers, np.uint16 if layers.shape[2] == 1 else np.uint8)
    image = Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)
    info = {"icc_profile": picture.icc, "exif": picture.exif, "xmp": picture.xmp, "dpi": picture.resolution}
    image.info |= {name: value for name, value in info.items() if value}
    return image


def exif_for(picture: Picture, format: Format) -> tuple[bytes | None, list[str]]:
    """The EXIF block that a file of the format gets, and the texts for which there is no room in it.

    It has all for which the format has no other place.
    """
    is_jpeg = format == "JPEG"
    if format == "PNG" or (is_jpeg and not TEXTS.keys() & picture.texts):
        return picture.exif, []
    return exif_with_texts(picture, containers.SEGMENT_BYTES if is_jpeg else None)


def profile(picture: Picture) -> bytes | None:
    """The colour profile if it is one for the picture's colours; a network may have changed them."""
    wanted = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
    return picture.icc if picture.icc and picture.icc[16:20] == wanted else None


def not_kept_by(suffix: str, picture: Picture) -> list[str]:
    """The parts of a picture that a file of that suffix does not keep, in words; often none."""
    format = WRITTEN.get(suffix.lower(), written_format(picture.format))
    name, plain = NAMES[format], format not in WITH_METADATA
    # values in units are written as they are, or not at all
    depth = 8 if picture.units is not None else picture.pixels.dtype.itemsize * 8
    held = 32 if format in ("TIFF", "NPY") else 16 if format in DEEP else 8
    lost = ["EXIF", "resolution", "XMP"] if plain else []
    if format == "JPEG":
        lost = containers.jpeg_head(picture, picture.exif)[1]
    texts = _homeless_texts(picture, format, "Comment" in lost)
    homeless = {
        "EXIF": picture.exif and "EXIF" in lost,
        "colour profile": picture.icc and plain,
        "description of its colours": png.has_unusual_colours(picture) and format != "PNG",
        "resolution": picture.resolution and "resolution" in lost,
        "XMP": picture.xmp and "XMP" in lost,
        _named(texts): texts,
        "place on Earth (GeoTIFF)": picture.geo and format != "TIFF",
    }
    found = {
        f"transparency dropped: {name} has none": picture.alpha is not None and format not in WITH_ALPHA,
        f"scaled to 8 bits: {name} has no more": held == 8 < depth,
        f"scaled to 16 bits: {name} has no floating point": held == 16 < depth,
        "colour profile dropped: it is for other colours than the result's": picture.icc
        and not plain
        and profile(picture) is None,
        **{f"{part} dropped: {name} has no place for it": is_so for part, is_so in homeless.items()},
    }
    return [text for text, is_so in found.items() if is_so] + [f"not kept: {part}" for part in picture.unread]


def _homeless_texts(picture: Picture, format: Format, comment_is_lost: bool) -> list[str]:
    if format == "PNG":
        return []
    if format not in WITH_METADATA:
        return list(picture.texts)
    kept = {*TEXTS, *(["Comment"] if format == "JPEG" and not comment_is_lost else [])}
    return [name for name in picture.texts if name not in kept] + exif_for(picture, format)[1]


def _named(texts: list[str]) -> str:
    """Texts by their keywords where everybody knows those; the others are a file's own words."""
    known = [name for name in texts if name in _KNOWN_TEXTS]
    others = len(texts) - len(known)
    return ", ".join(["text " + " and ".join(known)] * bool(known) + [f"{others} texts"] * bool(others))
