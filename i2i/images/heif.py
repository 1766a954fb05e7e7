"""HEIF with HEVC inside (HEIC), the pictures of phones; their pixels by pi-heif: `pip install 'i2i[heic]'`.

libheif turns a picture upright by the file's own rotation and mirror, which alone count (ISO 23008-12): an orientation
in EXIF repeats them. 10 and 12 bits come in as 16. PQ and HLG are not turned into sRGB; that is named as unread.

EXIF and XMP are read here, from the boxes of ISO 14496-12, and hidden from pi-heif, which ends the process at a name of
their kind that is no UTF-8.
"""

import contextlib
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from i2i.errors import ImageError
from i2i.images.metadata import EXIF_BYTES, UNREAD_COLOURS, XMP_BYTES, ParsedFile
from i2i.images.picture import Limits, Picture, split_alpha, white
from i2i.machine import threads

if TYPE_CHECKING:
    from pi_heif import HeifImage

_META_BYTES = 1 << 22
_MOST_BOXES = 4096
# sRGB, BT.709, and codes for "unspecified" (ITU-T H.273)
_USUAL = ((1, 13), (1, 1), (2, 2))
_XMP = b"application/rdf+xml\0"
_DESCRIBES, _HIDDEN = b"cdsc", b"skip"
_SIZE = re.compile(rb"(?=ispe.{4}(.{8}))", re.DOTALL)

Box = tuple[bytes, int, int]
"""Its kind, and where its content begins and ends."""


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
    _describe(data, image, found)
    return picture, found


def opened(data: bytes, limits: Limits) -> tuple[Any, ParsedFile]:
    """The primary picture, upright, whose pixels are not decoded yet, and whether there are more.

    All sizes that the header names are within the limits. Raises `ImageError`, and what libheif raises for a damaged
    header.
    """
    import pi_heif

    options = pi_heif.options
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    options.DECODE_THREADS = threads()
    start, end = _header(data)
    for found in _SIZE.finditer(data, start, end):  # of the picture, of its tiles and thumbnails
        limits.check_size(*struct.unpack(">II", found[1]))
    visible = b"".join((data[:start], data[start:end].replace(_DESCRIBES, _HIDDEN), data[end:]))
    file = pi_heif.open_heif(visible, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    limits.check_size(*image.size)
    return image, ParsedFile(has_more_frames=len(file) > 1)


def _header(data: bytes) -> tuple[int, int]:
    """The content of the box `meta`. Raises `ImageError` if there is none within bounds."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta" and end - start <= _META_BYTES:
            return start + 4, end
    raise ImageError("damaged HEIC: it has no header")


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes of a part of the file (ISO 14496-12, Sec. 4.2), a bounded number."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, kind, head = *struct.unpack_from(">I4s", data, start), 8
        if length == 1 and start + 16 <= end:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        length = end - start if length == 0 else length
        if not head <= length <= end - start:
            return
        yield kind, start + head, start + length
        start += length


def _describe(data: bytes, image: "HeifImage", found: ParsedFile) -> None:
    """Adds EXIF, XMP and the profile."""
    with contextlib.suppress(Exception):  # a damaged block is as good as none
        start, end = _header(data)
        inner = {kind: (first, behind) for kind, first, behind in _boxes(data, start, end)}
        others = _of_others(data, inner)
        for number, kind, name in _items(data, *inner[b"iinf"]):
            if number in others:
                continue
            if kind == b"Exif" and (block := _content(data, inner, number, EXIF_BYTES)):
                found.add_exif(block[4 + int.from_bytes(block[:4], "big") :])
            elif kind == b"mime" and _XMP in name:
                found.add_xmp(_content(data, inner, number, XMP_BYTES))
    found.add_icc(image.info.get("icc_profile"))
    codes = image.info.get("nclx_profile")
    if codes and found.icc is None:
        named = codes.get("color_primaries", 2), codes.get("transfer_characteristics", 2)
        if named not in _USUAL:
            found.add_unread(UNREAD_COLOURS)


def _of_others(data: bytes, inner: dict[bytes, tuple[int, int]]) -> set[int]:
    """The numbers of items that only describe other pictures of the file, such as a map of depth."""
    primary, (start, end) = inner[b"pitm"][0], inner.get(b"iref", (0, 0))
    number = data[primary + 4 : primary + (8 if data[primary] else 6)]
    wide, found = 4 if data[start] else 2, {True: set[int](), False: set[int]()}
    for kind, first, behind in _boxes(data, start + 4, end):
        if kind == _DESCRIBES:
            described = [data[place : place + wide] for place in range(first + wide + 2, behind, wide)]
            found[number.rjust(wide, b"\0") in described].add(int.from_bytes(data[first : first + wide], "big"))
    return found[False] - found[True]


def _items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, kind, and names of the items that `iinf` lists."""
    start += 6 if data[start] == 0 else 8
    for kind, first, behind in _boxes(data, start, end):
        if kind == b"infe" and data[first] in (2, 3):
            wide = 2 if data[first] == 2 else 4
            place = first + 4 + wide + 2
            yield int.from_bytes(data[first + 4 : first + 4 + wide], "big"), data[place : place + 4], data[place:behind]


def _content(data: bytes, inner: dict[bytes, tuple[int, int]], number: int, limit: int) -> bytes | None:
    """The bytes of an item, by `iloc` (ISO 14496-12, Sec. 8.11.3); None where they are not all there, or too many."""
    place, end = inner[b"iloc"]
    version, sizes = data[place], struct.unpack_from(">H", data, place + 4)[0]
    offset, length, base = (sizes >> shift & 15 for shift in (12, 8, 4))
    index = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    place += 6

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int.from_bytes(data[place - count : min(place, end)], "big")

    for _ in range(min(take(wide), _MOST_BOXES)):
        item, method = take(wide), take(2) & 15 if version else 0
        start = take(2) * 0 + take(base)  # the first number is that of another file
        if method == 1:
            start += inner[b"idat"][0]
        parts = []
        for _ in range(min(take(2), _MOST_BOXES)):
            take(index)
            first = start + take(offset)
            parts.append((first, first + take(length)))
        if item == number:
            count = sum(behind - first for first, behind in parts)
            whole = method in (0, 1) and count <= limit and all(behind <= len(data) for _, behind in parts)
            return b"".join(data[first:behind] for first, behind in parts) if whole else None
    return None
