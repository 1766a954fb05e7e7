"""Which files are the same picture: by their bytes, by their pixels, or nearly."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from i2i.images import Picture, Pixels

K = TypeVar("K")


def groups(keys: Mapping[K, Hashable | None]) -> list[list[K]]:
    """The items that share a key, where there are at least two; None is no key."""
    found: dict[Hashable, list[K]] = defaultdict(list)
    for item, key in keys.items():
        if key is not None:
            found[key].append(item)
    return [items for items in found.values() if len(items) > 1]


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """The files that are equal byte for byte; only files of equal size are read. Files that vanish are left out."""
    by_size = groups({path: _size(path) for path in paths})
    return groups({path: _digest(path) for group in by_size for path in group})


def pixel_hash(picture: Picture) -> str:
    """Equal for pictures of equal size, channels, depth and pixels (alpha included), whatever their files."""
    digest = hashlib.sha256()
    for part in (picture.pixels, picture.extra, picture.alpha):
        if part is not None:
            digest.update(f"{part.shape} {part.dtype}".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()


def difference_hash(picture: Picture) -> int | None:
    """64 bits, equal for most copies of a picture that were scaled or compressed anew.

    The picture is shrunk to 9x8 grey values; each bit says whether one is brighter than its left neighbour. None
    for a picture without detail, whose bits would be those of any other. (Known as dHash; it proves nothing.)
    """
    small = cv2.resize(_grey(picture.pixels), (9, 8), interpolation=cv2.INTER_AREA)
    if np.ptp(small) < 0.02 * _white(picture.pixels):
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _grey(pixels: Pixels) -> Pixels:
    return pixels.mean(axis=2, dtype=np.float32)


def _white(pixels: Pixels) -> float:
    return 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
