"""A picture file taken apart: what its pixels need, and what else it says, each part within its bound.

Decoders are given the first alone, laid out here. So no text of a file can pass for something else, no block that is
damaged costs the picture, and no claim of a chunk is believed before the bytes are there.
"""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from i2i.images.picture import ColourDescription

EXIF_BYTES = XMP_BYTES = 1 << 22
ICC_BYTES = 1 << 24
TEXT_BYTES, _TEXTS_BYTES, _TEXTS = 1 << 16, 1 << 20, 256
_UNPACKED_BYTES = 1 << 25  # of one file
_SWELLING = 1032  # times, at most, of what is deflated
INCH = 0.0254
"""Metres."""
_MOST_RESOLUTION = 1e6
_STEP = 1e-5  # of chromaticities in PNG

XMP_IN_JPEG, XMP_IN_PNG = b"http://ns.adobe.com/xap/1.0/\0", b"XML:com.adobe.xmp"
EXIF_PREFIX = b"Exif\0\0"
_ICC_LEAST = 128
# what a terminal or another program would take for a command
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")


@dataclass
class Apart:
    """`pixels` is a whole file of what the pixels need and nothing else; the rest is as in `Picture`.

    If not `whole`, only what turns the picture is asked for.
    """

    pixels: bytes = b""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    colour: ColourDescription | None = None
    resolution: tuple[float, float] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    more: bool = False
    unread: list[str] = field(default_factory=list)
    whole: bool = True
    _room: int = _UNPACKED_BYTES
    _text_bytes: int = 0

    def add_exif(self, block: bytes | None) -> None:
        """The first of several; one that is too long is named as unread, as with each that follows here."""
        if block and self.exif is None and self._fits("EXIF", block, EXIF_BYTES):
            self.exif = EXIF_PREFIX + block.removeprefix(EXIF_PREFIX)

    def add_xmp(self, packet: bytes | None) -> None:
        if packet and self.xmp is None and self._fits("XMP", packet, XMP_BYTES):
            self.xmp = packet

    def add_icc(self, profile: bytes | None) -> None:
        if profile and self.icc is None and self._fits("colour profile", profile, ICC_BYTES):
            # of what is no profile nobody can make use
            self.icc = profile if len(profile) >= _ICC_LEAST and profile[36:40] == b"acsp" else None

    def add_text(self, keyword: str, text: bytes | str | None) -> None:
        """A text, without control characters; of two with one keyword the first."""
        keyword = _CONTROL.sub("", keyword)
        if not text or not keyword or not self.wants_text(keyword):
            return
        self._text_bytes += len(text)
        if len(self.texts) >= _TEXTS or len(keyword) > 79 or len(text) > TEXT_BYTES or self._text_bytes > _TEXTS_BYTES:
            self.add_unread("long texts")
            return
        if found := _CONTROL.sub("", text if isinstance(text, str) else _decoded(text)):
            self.texts[keyword] = found

    def wants_text(self, keyword: str) -> bool:
        """Whether a text of that name would be added; a second one is named as unread."""
        if keyword in self.texts:
            self.add_unread("a second text of the same name")
        return self.whole and keyword not in self.texts

    def inflated(self, data: bytes, limit: int) -> bytes | None:
        """The bytes that were deflated, at most one more than the limit.

        None if they are damaged, and if all that was asked of one file comes to more than 32 MiB, which is named.
        """
        if self._room <= 0:
            return None
        most = min(limit, self._room)
        try:
            found = zlib.decompressobj().decompress(data, most + 1)
        except zlib.error:
            # as much as that can have been unpacked before
            self._room -= min(most, _SWELLING * len(data))
            return None
        if len(found) > self._room:
            self._room = 0
            self.add_unread("packed texts of more than 32 MiB")
            return None
        self._room -= len(found)
        return found

    def add_colour(self, **parts: Any) -> None:
        """Parts of a description; one that no file could hold is named as unread, as with each that follows here."""
        sound = {name: value for name, value in parts.items() if name not in _SOUND or _SOUND[name](value)}
        if sound:
            self.colour = replace(self.colour or ColourDescription(), **sound)
        if len(sound) < len(parts):
            self.add_unread("an odd description of its colours")

    def add_resolution(self, across: float, down: float) -> None:
        """Pixels an inch; 0 and 0 is what files say that know of none."""
        if self.resolution is None and is_resolution(across, down):
            self.resolution = across, down
        elif self.resolution is None and (across, down) != (0, 0):
            self.add_unread("an odd resolution")

    def add_unread(self, name: str) -> None:
        if name not in self.unread:
            self.unread.append(name)

    def _fits(self, name: str, data: bytes, limit: int) -> bool:
        if len(data) > limit:
            self.add_unread(f"{name} of more than {limit >> 20} MiB")
        return len(data) <= limit


def is_resolution(across: float, down: float) -> bool:
    """Whether both are pixels an inch that files can hold: at least one pixel a metre, which is what they count by."""
    return all(INCH <= value < _MOST_RESOLUTION for value in (across, down))


def whole_numbers(values: Sequence[float]) -> tuple[int, ...] | None:
    """The values as integers; None if one of them is not one of 16 bits."""
    if not all(0 <= value < 1 << 16 and value == int(value) for value in values):
        return None
    return tuple(map(int, values))


def _is_gamma(value: float) -> bool:
    return 1e-4 < value < 1e4


def _are_chromaticities(values: Sequence[float]) -> bool:
    """Whether they are x and y of white and of three primaries that span colours, as far as PNG's steps show that."""
    if len(values) != 8 or not all(0 <= x < 10 for x in values[::2]) or not all(_STEP <= y < 10 for y in values[1::2]):
        return False
    _, _, red, red_y, green, green_y, blue, blue_y = values
    return abs((green - red) * (blue_y - red_y) - (blue - red) * (green_y - red_y)) > 10 * _STEP


_SOUND: dict[str, Callable[[Any], bool]] = {"gamma": _is_gamma, "chromaticities": _are_chromaticities, "transfer": bool}


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
