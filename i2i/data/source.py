"""From a file to the pixels that are kept of it: channels or classes, one half or all, resized.

`Source` says which picture is meant and how a network takes it; `read` decodes it. A cache keeps the results.
"""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from i2i import images
from i2i.errors import ImageError, InputError
from i2i.images import Pixels
from i2i.images.palettes import Palette, boundaries, labels_of
from i2i.images.units import ValueRange

if TYPE_CHECKING:
    from i2i.data.transforms import Transform

Part = Literal["whole", "left", "right"]
Status = tuple[int, int]
"""Size and time of change of a file."""


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
