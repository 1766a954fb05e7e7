"""What a JPEG's segments say before it is decoded (ITU-T T.81, Annex B)."""

from typing import BinaryIO

_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENTS = 10_000


def is_lossless(file: BinaryIO) -> bool:
    """Whether its frame is of a lossless process, which Pillow's decoder lacks; False where there is no frame."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] in _FRAMES:
            return head[1] in _LOSSLESS
        file.seek(max(0, int.from_bytes(head[2:], "big") - 2), 1)
    return False
