"""HEIF with HEVC inside (HEIC), the pictures of phones; their pixels by pi-heif: `pip install 'i2i[heic]'`.

libheif turns a picture upright by the file's own rotation and mirror, which alone count (ISO 23008-12): an orientation
in EXIF repeats them. 10 and 12 bits come in as 16. PQ and HLG are not turned into sRGB; that is named as unread.

pi-heif ends the process at the name of an item that is no UTF-8. It gets a file with such a name without EXIF and XMP,
and one in which it cannot read them.
"""

import re
import struct
from dataclasses import replace
from typing import Any

import numpy as np

from i2i.errors import ImageError
from i2i.images.metadata import UNREAD_COLOURS, ParsedFile
from i2i.images.picture import Limits, Picture, split_alpha, white
from i2i.machine import threads

_META_BYTES = 1 << 22
_MOST_BOXES = 4096
# sRGB, BT.709, and codes for "unspecified" (ITU-T H.273)
_USUAL = ((1, 13), (1, 1), (2, 2))
_DESCRIBES, _HIDDEN = b"cdsc", b"skip"
_SIZE = re.compile(rb"(?=ispe.{4}(.{8}))", re.DOTALL)
# kind, name, type and packing of an item (ISO 14496-12, Sec. 8.11.6)
_ITEM = re.compile(rb"(?=infe(?:[\0-\x02].{7}|[^\0-\x02].{9})(.{4}[^\0]*(?:\0[^\0]*){0,2}))", re.DOTALL)


def decode(data: bytes, limits: Limits) -> tuple[Picture, ParsedFile]:
    """The pixels upright, and the rest of the file. Raises as `opened`, also where pixels are damaged or cut short."""
    image, found = opened(data, limits)
    (width, height), (mode, _, deep) = image.size, image.mode.partition(";")
    rows = np.frombuffer(image.data, np.uint16 if deep else np.uint8).reshape(height, -1)
    pixels = rows[:, : width * len(mode)].reshape(height, width, len(mode))
    if deep:
        most = (1 << image.info["bit_depth"]) - 1
        pixels = np.rint(np.arange(most + 1) * (65_535 / most)).astype(np.uint16)[np.minimum(pixels, most)]
    picture = replace(split_alpha(np.array(pixels)), format="HEIF")
    if mode.endswith("a") and picture.alpha is not None:  # premultiplied
        full = white(pixels)
        straight = picture.pixels * (full / np.maximum(picture.alpha, 1))[..., None]
        picture.pixels = np.rint(np.minimum(straight, full)).astype(pixels.dtype)
    return picture, found


def opened(data: bytes, limits: Limits) -> tuple[Any, ParsedFile]:
    """The primary picture, upright, whose pixels are not decoded yet, and all else of the file.

    All sizes that the header names are within the limits. Raises `ImageError`, and what libheif raises for a damaged
    header.
    """
    import pi_heif

    settings = pi_heif.options
    settings.THUMBNAILS = settings.DEPTH_IMAGES = settings.AUX_IMAGES = False
    settings.DECODE_THREADS = threads()
    start, end = _header(data)
    for found in _SIZE.finditer(data, start, end):  # of the picture, of its tiles and thumbnails
        limits.check_size(*struct.unpack(">II", found[1]))
    hidden = b"".join((data[:start], data[start:end].replace(_DESCRIBES, _HIDDEN), data[end:]))
    options = {"convert_hdr_to_8bit": False, "hdr_to_16bit": False}
    try:
        for item in _ITEM.finditer(data, start, end):
            item[1].decode()
        file = pi_heif.open_heif(data, **options)
    except Exception:  # perhaps its pixels can be read all the same
        file = pi_heif.open_heif(hidden, **options)
    image = file[file.primary_index]
    limits.check_size(*image.size)
    return image, _described(image.info, len(file) > 1)


def _described(info: dict[str, Any], has_more_frames: bool) -> ParsedFile:
    found = ParsedFile(has_more_frames=has_more_frames)
    found.add_exif(info.get("exif"))
    if b"rdf" in (xmp := info.get("xmp") or b""):  # and no text of another kind
        found.add_xmp(xmp)
    found.add_icc(info.get("icc_profile"))
    codes = info.get("nclx_profile")
    if codes and found.icc is None:
        named = codes.get("color_primaries", 2), codes.get("transfer_characteristics", 2)
        if named not in _USUAL:
            found.add_unread(UNREAD_COLOURS)
    return found


def _header(data: bytes) -> tuple[int, int]:
    """The content of the box `meta` (ISO 14496-12, Sec. 4.2). Raises `ImageError` if there is none within bounds."""
    start, end = 0, len(data)
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            break
        length, kind, head = *struct.unpack_from(">I4s", data, start), 8
        if length == 1 and start + 16 <= end:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        length = end - start if length == 0 else length
        if not head <= length <= end - start:
            break
        if kind == b"meta" and length - head <= _META_BYTES:
            return start + head + 4, start + length
        start += length
    raise ImageError("damaged HEIC: it has no header")
