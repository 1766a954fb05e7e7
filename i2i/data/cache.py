"""Decoded pictures on disk, shared by any number of workers and processes.

A picture's entry is named by a hash of its path, size, time of change and channels, so a changed file gets a
new entry. Entries are written whole or not at all, and read through memory maps.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from i2i import images
from i2i.errors import ImageError, OutputError
from i2i.images import Pixels


def load(path: Path, channels: int, cache: Path | None = None) -> Pixels:
    """The picture as (H, W, channels) uint8 or uint16, from the cache folder if it is there, else into it.

    Raises `ImageError` for a picture that cannot be read or has no rule to `channels`, `OutputError` if the
    cache cannot be written.
    """
    if cache is None:
        return _decoded(path, channels)
    entry = _entry(path, channels, cache)
    stored = _stored(entry, channels)
    if stored is None:
        stored = _decoded(path, channels)
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{cache}: cannot be made: {error.strerror}") from None
        images.atomic_write(entry, lambda file: np.save(file, stored, allow_pickle=False))
    return stored


def _decoded(path: Path, channels: int) -> Pixels:
    pixels = images.read(path).channels(channels)
    # augmentation is done on integers
    return images.with_depth(pixels, np.uint16) if pixels.dtype == np.float32 else pixels


def _entry(path: Path, channels: int, cache: Path) -> Path:
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror}") from None
    # the format of the entries takes part, for the day it changes
    key = f"1 {channels} {status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(path.absolute())
    return cache / f"{hashlib.sha1(key, usedforsecurity=False).hexdigest()}.npy"


def _stored(entry: Path, channels: int) -> Pixels | None:
    """What the entry holds, or None if there is none or it is damaged."""
    try:
        pixels = np.load(entry, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError):
        return None
    whole = pixels.dtype in (np.uint8, np.uint16) and pixels.ndim == 3 and pixels.shape[2] == channels
    return pixels if whole else None
