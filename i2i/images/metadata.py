"""A picture file taken apart: the part that a decoder needs, and EXIF, XMP, profile, texts and resolution.

Decoders are given only a file that is laid out anew from what the pixels need. So no text of a file can pass for
something else, no damaged block costs the picture, and no claim of a chunk is believed before its bytes are there.
"""

import contextlib
import re
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np

from i2i.errors import ImageError
from i2i.images import tiff_directory as t
from i2i.images.picture import Picture, Pixels

EXIF_BYTES = XMP_BYTES = 1 << 22
ICC_BYTES = 1 << 24
TEXT_BYTES, _TEXTS_BYTES, _TEXTS = 1 << 16, 1 << 20, 256
_UNPACKED_BYTES = 1 << 25  # for one file
_SWELLING = 1032  # times, at most, that deflated data grows
INCH = 0.0254
"""Metres."""
_MOST_RESOLUTION = 1e6

XMP_IN_JPEG, XMP_IN_PNG = b"http://ns.adobe.com/xap/1.0/\0", b"XML:com.adobe.xmp"
EXIF_PREFIX = b"Exif\0\0"
UNREAD_COLOURS = "description of its colours"
"""Colours that a file describes beside a profile, and that are not read."""
_LEAST_ICC_BYTES = 128
# a terminal or another program would take these for a command
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")

_SIDEWAYS = (5, 6, 7, 8)
DESCRIPTIVE = {271, 272, 306, *t.RESOLUTION, *t.TEXTS.values()}
"""The tags that describe a picture: the layout of a TIFF must not travel as EXIF into another file, nor into a TIFF."""
_SIGNATURES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")  # the last two are wrong, but cameras write them
_PREFIXES = re.compile(rb"\A(?:Exif\0\0)+")  # some write it twice
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
        elif found := _CONTROL.sub("", text if isinstance(text, str) else t.decoded_text(text)):
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
        return _orientation(exif_tags(self.exif), self.xmp)

    def described(
        self,
        stored: Picture,
        turn: int | None = None,
        exif: t.Directory | None = None,
        only: Container[int] | None = None,
    ) -> Picture:
        """Adds the metadata to a picture as stored, and turns it upright: by `turn`, else by its EXIF orientation.

        `exif` replaces the EXIF of the file. `only` lists the tags to keep; None keeps all.
        """
        exif = exif or exif_tags(self.exif)
        orientation = _orientation(exif, self.xmp) if turn is None else turn
        self.add_resolution(*(_exif_resolution(exif) or (0.0, 0.0)))
        block = exif_block(exif_kept(exif, only), exif)
        across, down = self.resolution or (0.0, 0.0)
        if is_sideways(orientation):
            across, down = down, across
        return Picture(
            **stored.mapped(lambda plane: upright(plane, orientation)),
            icc=self.icc,
            exif=block if block and self._fits("EXIF", block, EXIF_BYTES) else None,
            format=stored.format,
            has_more_frames=self.has_more_frames,
            colour=self.colour,
            resolution=(across, down) if self.resolution else None,
            xmp=upright_xmp(self.xmp),
            texts=self.texts,
            unread=tuple(self.unread),
        )

    def inflated(self, data: bytes, limit: int) -> bytes | None:
        """Unpacks deflated bytes, at most one more than the limit.

        Returns None for damaged bytes. Returns None too, and notes it, once a file has unpacked to more than 32 MiB.
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


def is_resolution(across: float, down: float) -> bool:
    """Whether files can hold both as pixels an inch: at least one pixel a metre, the unit of some."""
    return all(INCH <= value < _MOST_RESOLUTION for value in (across, down))


def exif_tags(block: bytes | None) -> t.Directory:
    """The tags of a block; none where it is damaged."""
    block = _PREFIXES.sub(b"", block or b"")
    if block.startswith(_SIGNATURES):
        with contextlib.suppress(ImageError):
            return t.read(BytesIO(block), every=True)
    return t.Directory()


def _orientation(exif: t.Directory, xmp: bytes | None) -> int:
    """1 to 8; 1 (upright) where there is no valid one. That of XMP counts where the block has none."""
    value = exif.number(t.ORIENTATION, 1)
    if t.ORIENTATION not in exif.tags and xmp and (found := _IN_XMP.search(xmp)):
        value = int(found[2])
    return value if 1 <= value <= 8 else 1


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


def _exif_resolution(exif: t.Directory) -> tuple[float, float] | None:
    """Across and down, in pixels an inch, where the tags have both and a unit; they may be no numbers (0/0 is NaN)."""
    scale = {2: 1.0, 3: 2.54}.get(exif.number(t.RESOLUTION_UNIT, 2))
    across, down = exif.values(t.ACROSS), exif.values(t.DOWN)
    return (across[0] * scale, down[0] * scale) if scale and across and down else None


def exif_kept(exif: t.Directory, only: Container[int] | None = None) -> dict[int, t.Tag]:
    """All tags, or `only` some, but the orientation and an odd resolution."""
    found = _exif_resolution(exif)
    dropped = (t.ORIENTATION, *(t.RESOLUTION if found and not is_resolution(*found) else ()))
    return {tag: value for tag, value in exif.tags.items() if tag not in dropped and (only is None or tag in only)}


def exif_block(tags: t.Tags, exif: t.Directory) -> bytes | None:
    """A block of these tags, with the inner directories of `exif`; None if there is nothing in it."""
    if not tags and not exif.inner:
        return None
    return EXIF_PREFIX + t.header_of(exif.order, 8) + t.directory_of(exif.order, tags, 8, exif.inner)


def exif_with_texts(picture: Picture, room: int | None = None) -> tuple[bytes | None, list[str]]:
    """The EXIF block of a picture, with its resolution and those of its texts that have a tag and are not in it yet.

    With it the texts for which there is no `room` of so many bytes. A block that is longer already is made anew of
    the texts.
    """

    def fits(block: bytes | None) -> bool:
        return room is None or len(block or b"") <= room

    exif = exif_tags(picture.exif if fits(picture.exif) else None)
    tags, found, left_out = exif_kept(exif), _exif_resolution(exif), list[str]()
    wanted = {name: tag for name, tag in t.TEXTS.items() if name in picture.texts and tag not in tags}
    adds_resolution = picture.resolution is not None and not (found and is_resolution(*found))
    if picture.resolution and adds_resolution:
        tags |= t.resolution(*picture.resolution, order=exif.order)
    for name, tag in wanted.items():
        tags[tag] = t.text(picture.texts[name].encode("utf-8", "replace") + b"\0")
        if not fits(exif_block(tags, exif)):
            del tags[tag]
            left_out.append(name)
    is_changed = wanted or adds_resolution or not fits(picture.exif)
    return (exif_block(tags, exif) if is_changed else picture.exif), left_out
