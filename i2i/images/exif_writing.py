"""What is known of a picture put into the files of encoders that know nothing of it, or make up more."""

import struct
from functools import partial

import numpy as np

from i2i.images import exif
from i2i.images.apart import EXIF_PREFIX, INCH, XMP_IN_JPEG, is_resolution
from i2i.images.formats import TEXTS_IN_EXIF
from i2i.images.picture import ColourDescription, Picture

_EXTENDED = struct.Struct("<4sIB3x3s3s")
_HAS_EXIF = 0x08
# one segment, whose length takes two of its 65535 bytes
SEGMENT_BYTES = 65_533
_DENSITY, _BEHIND_JFIF = 13, 20
_DPI = 1
_BMP_HEADER, _BMP_V3, _BMP_V5 = 14, 40, 124


def with_texts(picture: Picture, room: int | None = None) -> tuple[bytes | None, list[str]]:
    """The EXIF block of a picture, with those of its texts and its resolution that have a tag there and are missing.

    With it the texts for which there is no `room` of so many bytes; where there is none for what the block has already,
    it is made anew of the texts.
    """
    fits = partial(_fits, room)
    tags = exif.parsed(picture.exif if fits(picture.exif) else None)
    wanted = {n: t for n, t in TEXTS_IN_EXIF.items() if n in picture.texts and t not in tags}
    said, changed, left_out = exif.resolution(tags), bool(wanted), list[str]()
    if picture.resolution and not (said and is_resolution(*said)):
        changed = True
        for tag, value in zip(exif.RESOLUTION, (*picture.resolution, 2), strict=True):
            tags[tag] = value
    for name, tag in wanted.items():
        tags[tag] = picture.texts[name].encode("utf-8", "replace")
        if not fits(exif.block(tags, None)):
            del tags[tag]
            left_out.append(name)
    return (exif.block(tags, None) if changed or not fits(picture.exif) else picture.exif), left_out


def _fits(room: int | None, block: bytes | None) -> bool:
    return room is None or len(block or b"") <= room


def comment(picture: Picture) -> bytes:
    """The comment of a picture as a JPEG holds it, in one segment; nothing where it is longer."""
    text = picture.texts.get("Comment", "").encode("utf-8", "replace")
    return text if len(text) <= SEGMENT_BYTES else b""


def into_jpeg(data: bytes, picture: Picture) -> bytes:
    """A JPEG file that begins with a JFIF segment, with resolution, XMP and comment of a picture."""
    if data[6:11] != b"JFIF\0":
        return data
    head, said = bytearray(data[:_BEHIND_JFIF]), b""
    if picture.resolution and max(picture.resolution) < 65_535.5:
        across, down = (max(1, round(value)) for value in picture.resolution)
        struct.pack_into(">BHH", head, _DENSITY, _DPI, across, down)
    if picture.xmp and len(picture.xmp) <= SEGMENT_BYTES - len(XMP_IN_JPEG):
        said += _segment(0xE1, XMP_IN_JPEG + picture.xmp)
    if text := comment(picture):
        said += _segment(0xFE, text)
    return bytes(head) + said + data[_BEHIND_JFIF:]


def into_bmp(data: bytes, picture: Picture, icc: bytes | None) -> bytes:
    """A BMP file of version 3 with the resolution of a picture, and in version 5 with its colours if they are known."""
    head, rest = bytearray(data[: _BMP_HEADER + _BMP_V3]), data[_BMP_HEADER + _BMP_V3 :]
    if picture.resolution:
        across, down = (round(value / INCH) for value in picture.resolution)
        struct.pack_into("<II", head, 38, across, down)
    colours = _bmp_colours(picture, icc, _BMP_V5 + len(rest))
    if not colours:
        return bytes(head) + rest
    longer = _BMP_V5 - _BMP_V3
    (start,) = struct.unpack_from("<I", head, 10)
    struct.pack_into("<I", head, 2, len(data) + longer + len(icc or b""))
    struct.pack_into("<II", head, 10, start + longer, _BMP_V5)
    return bytes(head) + bytes(16) + colours + rest + (icc or b"")


def _bmp_colours(picture: Picture, icc: bytes | None, place: int) -> bytes:
    """What version 5 of the header says of colours behind its masks; the profile is at `place` of the header."""
    colour = picture.colour
    if icc:
        kind, ends = b"DEBM", bytes(48)
    elif colour and colour.srgb is not None:
        kind, ends = b"BGRs", bytes(48)
    else:
        kind, ends = bytes(4), bmp_ends(colour)
    return kind + ends + struct.pack("<4I", 4, *((place, len(icc)) if icc else (0, 0)), 0) if ends else b""


def bmp_ends(colour: ColourDescription | None) -> bytes:
    """Primaries and exponent as a BMP has them; nothing where they are not known, or not within its range of ±2."""
    if colour is None or not colour.gamma or not colour.chromaticities:
        return b""
    ends = [round(value * (1 << 30)) for value in _xyz(colour.chromaticities)]
    if not all(-1 << 31 <= value < 1 << 31 for value in ends):
        return b""
    return struct.pack("<9i3I", *ends, *[round(65_536 / colour.gamma)] * 3)


def _xyz(chromaticities: tuple[float, ...]) -> list[float]:
    """CIE XYZ of red, green and blue, which add up to a white of luminance 1."""
    points = [(chromaticities[i], chromaticities[i + 1]) for i in range(0, 8, 2)]
    (white, *ends) = [np.array([x / y, 1, (1 - x - y) / y]) for x, y in points]
    amounts = np.linalg.solve(np.stack(ends, axis=1), white)
    return [float(value) for end, amount in zip(ends, amounts, strict=True) for value in end * amount]


def nclx(data: bytes, picture: Picture) -> bytes:
    """An AVIF file whose container names the primaries and the transfer of a picture; the matrix is the encoder's."""
    place = data.find(b"colrnclx", 0, 4096)
    if place < 0 or picture.colour is None or picture.colour.cicp is None:
        return data
    return data[: place + 8] + struct.pack(">HH", *picture.colour.cicp[:2]) + data[place + 12 :]


def jpeg_segment(block: bytes) -> bytes:
    """What stands directly behind a JPEG's first two bytes (Exif 2.32, Sec. 4.5.4); at most 65,533 bytes are held."""
    return _segment(0xE1, _plain(block, EXIF_PREFIX))


def into_webp(data: bytes, block: bytes, width: int, height: int) -> bytes:
    """A WebP file with an EXIF block (RFC 9649, Sec. 2.7), for which it has to be in the extended format."""
    rest = bytearray(data[12:])
    if rest[:4] != b"VP8X":
        sides = ((side - 1).to_bytes(3, "little") for side in (width, height))
        rest[:0] = _EXTENDED.pack(b"VP8X", 10, 0, *sides)
    rest[8] |= _HAS_EXIF
    content = _plain(block)
    rest += b"EXIF" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(rest), b"WEBP") + bytes(rest)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _plain(block: bytes, prefix: bytes = b"") -> bytes:
    return prefix + block.removeprefix(EXIF_PREFIX)
