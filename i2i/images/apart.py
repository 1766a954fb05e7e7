"""A picture file taken apart: what its pixels need, and what else it says, each part within its bound.

Decoders are given the first alone, laid out here. So no text of a file can pass for something else, no block that is
damaged costs the picture, and no claim of a chunk is believed before the bytes are there.
"""

import re
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from i2i.images.picture import ColourDescription

EXIF_BYTES = XMP_BYTES = 1 << 22
ICC_BYTES = 1 << 24
TEXT_BYTES, _TEXTS_BYTES, _TEXTS = 1 << 16, 1 << 20, 256
INCH = 0.0254
"""Metres."""

XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
EXIF_PREFIX = b"Exif\0\0"
_ICC_LEAST = 128
# what a terminal or another program would take for a command
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass
class Apart:
    """`pixels` is a whole file of what the pixels need and nothing else; the rest is as in `Picture`."""

    pixels: bytes = b""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    colour: ColourDescription | None = None
    resolution: tuple[float, float] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    more: bool = False
    unread: list[str] = field(default_factory=list)

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
        if not text or not keyword or keyword in self.texts:
            return
        room = _TEXTS_BYTES - sum(map(len, self.texts.values()))
        if len(self.texts) >= _TEXTS or len(keyword) > 79 or len(text) > min(room, TEXT_BYTES):
            self.add_unread("long texts")
            return
        if found := _CONTROL.sub("", text if isinstance(text, str) else _decoded(text)):
            self.texts[_CONTROL.sub("", keyword)] = found

    def add_colour(self, **parts: Any) -> None:
        self.colour = replace(self.colour or ColourDescription(), **parts)

    def add_resolution(self, across: float, down: float) -> None:
        if across > 0 and down > 0 and self.resolution is None:
            self.resolution = across, down

    def add_unread(self, name: str) -> None:
        if name not in self.unread:
            self.unread.append(name)

    def _fits(self, name: str, data: bytes, limit: int) -> bool:
        if len(data) > limit:
            self.add_unread(f"{name} of more than {limit >> 20} MiB")
        return len(data) <= limit


def inflated(data: bytes, limit: int) -> bytes | None:
    """The bytes that were deflated, at most one more than the limit; None if they are damaged."""
    try:
        return zlib.decompressobj().decompress(data, limit + 1)
    except zlib.error:
        return None


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
