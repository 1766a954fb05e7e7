"""Pictures decoded and resized, on disk, shared by any number of workers and processes.

An entry is named by a hash of everything that it follows from: the picture's path, size and time of change, its
channels, which part of it is meant, how it is resized, and the libraries that do it. So whatever changes gets an
entry of its own, and samples are the same with and without a cache.

An entry is a `.npy` file that appears whole or not at all: the planes (C, H, W) and the size before the resize. It is
mapped, so a crop reads its own part. An entry that cannot be read is made again.
"""

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL

from i2i import images
from i2i.data.source import Resized, Source, Status, read, status_of
from i2i.errors import ImageError, OutputError
from i2i.files import atomic_write, remove_strays

if TYPE_CHECKING:
    from i2i.data.transforms import Transform

SUFFIX = ".npy"
_HEADER_BYTES = 136
_STRAY_SECONDS = 3600


def load(source: Source, transform: "Transform", folder: Path | None = None) -> Resized:
    """The picture as `transform` resizes it, from the cache folder if it is there, else into it.

    Raises as `read` does, and `OutputError` if the cache cannot be written.
    """
    if folder is None:
        return read(source, transform)
    status = status_of(source.path)
    entry = _entry(source, transform, status, folder)
    if (stored := _stored(entry, source.plane_count)) is not None:
        return stored
    resized = read(source, transform)
    if status_of(source.path) == status:  # else the name would be that of other contents
        _write(entry, resized)
    return resized


@lru_cache(maxsize=1 << 16)
def _absolute(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _entry(source: Source, transform: "Transform", status: Status, folder: Path) -> Path:
    kept = f"{source.palette} {source.edges}" if source.palette else source.channels
    kept = kept if source.values is None else f"{kept} of {source.values}"
    what = f"{kept} {source.part} {transform.resizing} pillow {PIL.__version__} {status[0]} {status[1]} "
    name = hashlib.sha1(what.encode() + _absolute(source.path), usedforsecurity=False).hexdigest()
    return folder / f"{name}{SUFFIX}"


def _stored(entry: Path, channels: int) -> Resized | None:
    """The picture of an entry; None if there is none or it is damaged."""
    try:
        held = np.load(entry, mmap_mode="c")  # torch warns of memory that is read-only
        planes, (height, width) = held["planes"], held["size"].tolist()
    except (OSError, ValueError, LookupError, EOFError, TypeError):
        return None
    if planes.ndim != 3 or planes.shape[0] != channels or planes.dtype not in (np.uint8, np.uint16):
        return None
    return Resized(np.asarray(planes).transpose(1, 2, 0), (height, width))


def _write(entry: Path, resized: Resized) -> None:
    planes = resized.pixels.transpose(2, 0, 1)
    held: Any = np.empty((), [("size", np.uint32, (2,)), ("planes", planes.dtype, planes.shape)])
    held["size"], held["planes"] = resized.size, planes
    data = io.BytesIO()
    np.save(data, held)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(entry, lambda file: file.write(data.getbuffer()))
    except (OSError, OutputError) as error:
        if _stored(entry, len(planes)) is not None:  # another worker's; Windows replaces no mapped file
            return
        reason = getattr(error if isinstance(error, OSError) else error.__cause__, "strerror", None) or error
        raise OutputError(
            f"{entry.parent}: this picture cannot be added to the cache: {reason}; "
            f"{data.getbuffer().nbytes:,} bytes are needed. Free some space, or leave out --cache."
        ) from None


def prepare(sources: Sequence[tuple[Source, "Transform"]], folder: Path) -> str:
    """Make the folder, see that what is missing will fit, and say what it holds of these pictures.

    Raises `OutputError` if the folder cannot be made, or if it lacks pictures and cannot be written or its disk has too
    little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_strays(folder, time.time() - _STRAY_SECONDS)
        present = set(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise OutputError(f"{folder}: no folder for the cache: {error.strerror}") from None
    there = missing = needed = 0
    for source, transform in dict.fromkeys(sources):
        with contextlib.suppress(ImageError):  # the check of the pictures reports it
            if _entry(source, transform, status_of(source.path), folder).name in present:
                there += 1
            else:
                height, width = transform.target(*source.shape(images.probe(source.path)))
                needed += _HEADER_BYTES + height * width * source.plane_count  # twice that if it has 16 bits
                missing += 1
    if missing and not os.access(folder, os.W_OK | os.X_OK):  # a complete one may be read-only
        raise OutputError(f"{folder}: the cache cannot be written: no permission")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: the cache needs {_shown(needed)} for {missing:,} pictures, {_shown(free)} are free. "
            "Free some space, give another --cache, or leave it out."
        )
    coming = f", {missing:,} to come ({_shown(needed)})" if missing else ""
    return f"cache {folder}: {there:,} pictures are there{coming}"


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
