"""An EXIF block put into a file, for encoders that put more into it than there was, or none."""

import struct

_EXTENDED = struct.Struct("<4sIB3x3s3s")
_HAS_EXIF = 0x08


def jpeg_segment(block: bytes) -> bytes:
    """What stands directly behind a JPEG's first two bytes (Exif 2.32, Sec. 4.5.4); at most 65,533 bytes are held."""
    content = _plain(block, b"Exif\0\0")
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


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


def _plain(block: bytes, prefix: bytes = b"") -> bytes:
    return prefix + block.removeprefix(b"Exif\0\0")
