"""From a file to the pixels that are kept of it: channels or classes, one half or all, resized, and cached on disk.

`Source` says which picture is meant and how a network takes it; `load` reads it, or takes it from the cache, which any
number of workers and processes share. A cache entry is named by a hash of everything that it follows from: the
picture's path, size and time of change, its channels, which part of it is meant, how it is resized, and the libraries
that do it. So whatever changes gets an entry of its own, and samples are the same with and without a cache.

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
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL

from i2i import images
from i2i.errors import ImageError, InputError, OutputError, as_typed
from i2i.files import atomic_write, remove_strays
from i2i.images import Pixels
from i2i.images.palettes import Palette, boundaries, labels_of
from i2i.images.units import ValueRange

if TYPE_CHECKING:
    from i2i.data.transforms import Transform

Part = Literal["whole", "left", "right"]
Status = tuple[int, int]
"""Size and time of change of a file."""

_HEADER_BYTES = 136
_STRAY_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Source:
    """A picture, or its left or right half, as a network with `channels` input channels takes it.

    With a palette the picture holds labels: its class indices are kept, in one channel. With `edges`, a second channel
    is 1 where two instances meet. With `values` it holds values in units of that range.
    """

    path: Path
    channels: int
    part: Part = "whole"
    palette: Palette | None = None
    edges: bool = False
    values: ValueRange | None = None

    @property
    def plane_count(self) -> int:
        """The number of channels that are kept."""
        return 1 + self.edges if self.palette else self.channels

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of this part of a picture of that (width, height)."""
        return size[1], size[0] if self.part == "whole" else size[0] // 2


@dataclass(frozen=True)
class Resized:
    """`pixels` (H, W, C) uint8 or uint16 of a picture that was `size` (height, width) before it was resized."""

    pixels: Pixels
    size: tuple[int, int]


def status_of(path: Path) -> Status:
    """Raises `ImageError` for a file that cannot be opened."""
    try:
        status = os.stat(path)  # noqa: PTH116 - every sample comes here, and Path takes its time
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot be opened: {getattr(error, 'strerror', error)}") from None
    return status.st_size, status.st_mtime_ns


def read(source: Source, transform: "Transform") -> Resized:
    """Decodes and resizes a picture.

    Raises `ImageError` for a picture that cannot be read or has no rule to the channels, `InputError` for halves of an
    odd width and for a size that `transform` refuses.
    """
    whole = source.part == "whole"
    if whole:
        picture = images.read(source.path, values=source.values)
    else:
        picture = _read_once(source.path, status_of(source.path), source.values)
    picture = picture_part(picture, source.part)
    if source.palette is not None:
        return _labels(source, picture, source.palette, transform)
    pixels = picture.channels(source.channels)
    size = pixels.shape[0], pixels.shape[1]
    if picture.alpha is None or not picture.takes_alpha(source.channels):
        return Resized(transform.resize(pixels), size)
    seen = images.scaled_as_seen(images.with_depth(pixels, np.float32), transform.resize)
    return Resized(images.with_depth(seen, pixels.dtype.type), size)


def _labels(source: Source, picture: images.Picture, palette: Palette, transform: "Transform") -> Resized:
    size = picture.pixels.shape[0], picture.pixels.shape[1]
    classes = transform.resize(labels_of(picture, palette)[..., None], labels=True)
    if not source.edges:
        return Resized(classes, size)
    instances = None if picture.alpha is None else transform.resize(picture.alpha[..., None], labels=True)[..., 0]
    return Resized(np.dstack([classes, boundaries(classes[..., 0], instances)]), size)


@lru_cache(maxsize=1)
def _read_once(path: Path, status: Status, values: ValueRange | None) -> images.Picture:
    """The last picture of two halves: one sample wants both."""
    return images.read(path, values=values)


def picture_part(picture: images.Picture, part: Part) -> images.Picture:
    """The half of a picture that is meant, or all, of integers. Raises `InputError` for halves of an odd width."""
    try:
        picture = picture if part == "whole" else picture.half(part)
    except ImageError as error:
        raise InputError(str(error)) from None
    if picture.pixels.dtype != np.float32:
        return picture
    picture = replace(picture, missing=None)
    return replace(picture, **picture.mapped(lambda plane: images.with_depth(plane, np.uint16)))


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
    return folder / f"{name}.npy"


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
            f"{data.getbuffer().nbytes:,} bytes are needed. Free some space, or leave out {as_typed('cache')}."
        ) from None


def prepare_cache(sources: Sequence[tuple[Source, "Transform"]], folder: Path) -> str:
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
            f"Free some space, give another {as_typed('cache')}, or leave it out."
        )
    coming = f", {missing:,} to come ({_shown(needed)})" if missing else ""
    return f"cache {folder}: {there:,} pictures are there{coming}"


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
