"""A picture file taken apart: the part that a decoder needs, and EXIF, XMP, profile, texts and resolution.

Decoders are given only a file that is laid out anew from what the pixels need. So no text of a file can pass for
something else, no damaged block costs the picture, and no claim of a chunk is believed before its bytes are there.
"""

import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from i2i.images.picture import Picture, Pixels

EXIF_BYTES = XMP_BYTES = 1 << 22
ICC_BYTES = 1 << 24
TEXT_BYTES, _TEXTS_BYTES, _TEXTS = 1 << 16, 1 << 20, 256
_UNPACKED_BYTES = 1 << 25  # of one file
_SWELLING = 1032  # times, at most, that deflated data grows
INCH = 0.0254
"""Metres."""
_MOST_RESOLUTION = 1e6

XMP_IN_JPEG, XMP_IN_PNG = b"http://ns.adobe.com/xap/1.0/\0", b"XML:com.adobe.xmp"
EXIF_PREFIX = b"Exif\0\0"
TEXTS_IN_EXIF = {"Description": 270, "Software": 305, "Author": 315, "Copyright": 33432}
"""The texts that EXIF and TIFF have a tag for."""
UNREAD_COLOURS = "description of its colours"
"""Colours that a file describes beside a profile, and that are not read."""
_LEAST_ICC_BYTES = 128
# a terminal or another program would take these for a command
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")

_ORIENTATION = int(ExifTags.Base.Orientation)
_SIDEWAYS = (5, 6, 7, 8)
# a TIFF's own layout (strips, tiles, compression) must not travel as EXIF into another file, nor into a TIFF
DESCRIPTIVE = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853}
_DIRECTORIES = (34665, 34853)  # tags that point to an inner directory: Exif and GPS
_RESOLUTION = _ACROSS, _DOWN, _UNIT = 282, 283, 296
_IN_XMP = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))([0-9])")


@dataclass
class ParsedFile:
    """`pixels` is a whole file of what a decoder needs and nothing else; the rest is as in `Picture`.

    `transparent` is the colour without alpha, as decoded pixels have it.
    """

    pixels: bytes = b""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    colour: bytes | None = None
    resolution: tuple[float, float] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    has_more_frames: bool = False
    transparent: tuple[int, ...] | None = None
    unread: list[str] = field(default_factory=list)
    _room: int = _UNPACKED_BYTES
    _text_bytes: int = 0

    def add_exif(self, block: bytes | None) -> None:
        """Keeps the first of several; one that is too long is named as unread, as in all methods here."""
        if block and self.exif is None and self._fits("EXIF", block, EXIF_BYTES):
            self.exif = EXIF_PREFIX + block.removeprefix(EXIF_PREFIX)

    def add_xmp(self, packet: bytes | None) -> None:
        """Keeps the first of several."""
        if packet and self.xmp is None and self._fits("XMP", packet, XMP_BYTES):
            self.xmp = packet

    def add_icc(self, profile: bytes | None) -> None:
        """Keeps the first of several that is a profile."""
        if profile and self.icc is None and self._fits("colour profile", profile, ICC_BYTES):
            self.icc = profile if len(profile) >= _LEAST_ICC_BYTES and profile[36:40] == b"acsp" else None

    def add_text(self, keyword: str, text: bytes | str | None) -> None:
        """Keeps a text without control characters; of two with one keyword the first."""
        keyword = _CONTROL.sub("", keyword)
        if not text or not keyword or not self.wants_text(keyword):
            return
        self._text_bytes += len(text)
        if len(self.texts) >= _TEXTS or len(keyword) > 79 or len(text) > TEXT_BYTES or self._text_bytes > _TEXTS_BYTES:
            self.add_unread("long texts")
        elif found := _CONTROL.sub("", text if isinstance(text, str) else decoded_text(text)):
            self.texts[keyword] = found

    def wants_text(self, keyword: str) -> bool:
        """Whether there is no text of that name yet; a second one is named as unread."""
        if keyword in self.texts:
            self.add_unread("a second text of the same name")
        return keyword not in self.texts

    def add_resolution(self, across: float, down: float) -> None:
        """Keeps pixels an inch; files that do not know their resolution have 0 and 0."""
        if self.resolution is None and is_resolution(across, down):
            self.resolution = across, down
        elif self.resolution is None and (across, down) != (0, 0):
            self.add_unread("an odd resolution")

    def add_unread(self, name: str) -> None:
        """Names a part of the file that is left out, once."""
        if name not in self.unread:
            self.unread.append(name)

    @property
    def turn(self) -> int:
        """The orientation in which the picture is stored."""
        return orientation(exif_tags(self.exif, self.xmp))

    def described(self, stored: Picture, turn: int | None = None, only: set[int] | None = None) -> Picture:
        """A picture as it is stored, with all that is known of it, turned upright by `turn`, else by its metadata.

        Of the tags of EXIF `only` some are kept.
        """
        tags = exif_tags(self.exif, self.xmp)
        turn = orientation(tags) if turn is None else turn
        self.add_resolution(*(exif_resolution(tags) or (0.0, 0.0)))
        across, down = self.resolution or (0.0, 0.0)
        if is_sideways(turn):
            across, down = down, across
        return Picture(
            **stored.mapped(lambda plane: upright(plane, turn)),
            icc=self.icc,
            exif=exif_block(tags, only),
            format=stored.format,
            has_more_frames=self.has_more_frames,
            colour=self.colour,
            resolution=(across, down) if self.resolution else None,
            xmp=upright_xmp(self.xmp),
            texts=self.texts,
            unread=tuple(self.unread),
        )

    def inflated(self, data: bytes, limit: int) -> bytes | None:
        """Deflated bytes unpacked, at most one more than the limit.

        None if they are damaged, and if all that was asked of one file comes to more than 32 MiB, which is named.
        """
        if self._room <= 0:
            return None
        most = min(limit, self._room)
        try:
            found = zlib.decompressobj().decompress(data, most + 1)
        except zlib.error:
            # so much can have been unpacked before the damage
            self._room -= min(most, _SWELLING * len(data))
            return None
        self._room -= len(found)
        if self._room < 0:
            self.add_unread("packed texts of more than 32 MiB")
            return None
        return found

    def _fits(self, name: str, data: bytes, limit: int) -> bool:
        if len(data) > limit:
            self.add_unread(f"{name} of more than {limit >> 20} MiB")
        return len(data) <= limit


def decoded_text(text: bytes) -> str:
    """A text in UTF-8, else in Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def is_resolution(across: float, down: float) -> bool:
    """Whether files can hold both as pixels an inch: at least one pixel a metre, the unit of some."""
    return all(INCH <= value < _MOST_RESOLUTION for value in (across, down))


def exif_tags(block: bytes | None, xmp: bytes | None = None) -> Image.Exif:
    """The tags of a block, none where it is damaged; the orientation by XMP where the block has none."""
    tags = Image.Exif()
    try:
        tags.load(block or b"")
        turn = tags.get(_ORIENTATION)
    except Exception:  # a damaged block is as good as none
        tags, turn = Image.Exif(), None
    if turn is None and xmp and (found := _IN_XMP.search(xmp)):
        tags[_ORIENTATION] = int(found[2])
    return tags


def orientation(tags: Image.Exif) -> int:
    """1 to 8; 1 (upright) where there is no valid one."""
    value = tags.get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """A packet whose orientation, if it has one, is upright."""
    return xmp and _IN_XMP.sub(rb"\g<1>1", xmp)


def is_sideways(orientation: int) -> bool:
    """Whether width and height change places when the picture is turned upright."""
    return orientation in _SIDEWAYS


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) as the picture is to be seen."""
    return (height, width) if is_sideways(orientation) else (width, height)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, …) as it is to be seen (TIFF 6.0, tag Orientation)."""
    if orientation == 1:
        return pixels
    down, across = (-1 if orientation in flipped else 1 for flipped in ((3, 4, 6, 7), (2, 3, 7, 8)))
    turned = pixels[::down, ::across]
    return np.ascontiguousarray(turned.swapaxes(0, 1) if is_sideways(orientation) else turned)


def exif_resolution(tags: Image.Exif) -> tuple[float, float] | None:
    """Across and down, in pixels an inch, where the tags have both and a unit; they may be no numbers (0/0 is NaN)."""
    scale = {2: 1.0, 3: 2.54}.get(tags.get(_UNIT, 2))
    try:
        across, down = float(tags[_ACROSS]), float(tags[_DOWN])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across * scale, down * scale) if scale else None


def exif_block(tags: Image.Exif, only: set[int] | None = None) -> bytes | None:
    """The block that is kept: all tags (of a TIFF `only` some) but the orientation and an odd resolution.

    None if there are no others.
    """
    found = exif_resolution(tags)
    dropped = (_ORIENTATION, *(_RESOLUTION if found and not is_resolution(*found) else ()))
    for tag in list(tags):
        if tag in dropped or (only is not None and tag not in only):
            del tags[tag]
    try:
        for tag, value in list(tags.items()):
            tags[tag] = _as_read(value)
        for tag in _DIRECTORIES:
            if tag in tags:
                inner = tags.get_ifd(tag)
                inner |= {key: _as_read(value) for key, value in inner.items()}
        return tags.tobytes() if len(tags) else None
    except Exception:  # a block with values of the wrong type is not worth losing the picture for
        return None


def _as_read(value: object) -> Any:
    """A text that is not ASCII as the bytes that Pillow decoded as Latin-1 but does not encode; others as they are."""
    return value.encode("latin-1", "replace") if isinstance(value, str) and not value.isascii() else value


def exif_with_texts(picture: Picture, room: int | None = None) -> tuple[bytes | None, list[str]]:
    """The EXIF block of a picture, with its resolution and those of its texts that have a tag and are not in it yet.

    With it the texts for which there is no `room` of so many bytes. A block that is longer already is made anew of
    the texts.
    """

    def fits(block: bytes | None) -> bool:
        return room is None or len(block or b"") <= room

    tags = exif_tags(picture.exif if fits(picture.exif) else None)
    wanted = {n: t for n, t in TEXTS_IN_EXIF.items() if n in picture.texts and t not in tags}
    found, changed, left_out = exif_resolution(tags), bool(wanted), list[str]()
    if picture.resolution and not (found and is_resolution(*found)):
        changed = True
        for tag, value in zip(_RESOLUTION, (*picture.resolution, 2), strict=True):
            tags[tag] = value
    for name, tag in wanted.items():
        tags[tag] = picture.texts[name].encode("utf-8", "replace")
        if not fits(exif_block(tags)):
            del tags[tag]
            left_out.append(name)
    return (exif_block(tags) if changed or not fits(picture.exif) else picture.exif), left_out
