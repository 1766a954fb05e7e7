"""Batches from worker to parent through shared memory that is made once: as integers, and turned to tensors there.

A tensor that a worker sends needs shared memory, a file descriptor and a connection of its own each time. Of two
pictures of 256 px a batch that took 1,280 microseconds a picture, both processes together; this takes 92.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from i2i import images
from i2i.data.pair import ImagePair
from i2i.errors import I2IError, ResourceError
from i2i.images import Pixels

SHARED = Path("/dev/shm")  # where Linux keeps shared memory; absent elsewhere


class PixelPair(NamedTuple):
    """A sample as pixels: `a` and `b` (H, W, C), uint8 or uint16, and the damaged pictures passed over.

    `classes` says of how many classes a side holds the indices, (H, W, 1) uint8, perhaps with a further channel that
    is 0 or 1; 0 is a picture. `matched` says whether the two sides show one thing, where some do.
    """

    a: Pixels
    b: Pixels
    skipped: tuple[str, ...] = ()
    classes: tuple[int, int] = (0, 0)
    matched: bool | None = None

    def tensors(self) -> ImagePair:
        """The same as (C, H, W) float32 in [-1, 1]."""
        a, b = (_tensor(x, count) for x, count in zip((self.a, self.b), self.classes, strict=True))
        return ImagePair(a, b, self.skipped, None if self.matched is None else torch.tensor(self.matched))


class Slot(NamedTuple):
    """Where a batch lies, and the damaged pictures passed over for it."""

    number: int
    skipped: tuple[str, ...]
    matched: tuple[bool, ...] | None = None


@dataclass
class Slots:
    """`count` places for a batch of such pictures, made before the workers start, which inherit them.

    A batch stays whole until the one `count` after it is asked for.
    """

    a: torch.Tensor
    b: torch.Tensor
    dtype: np.dtype[Any]
    classes: tuple[int, int]

    @classmethod
    def of(cls, dataset: Any, firsts: range, batch_size: int, count: int) -> "Slots | None":
        """Slots for what the first sample looks like; None for a data set without `pixels`, or if that fails.

        Raises `ResourceError` if the memory cannot be had: what torch would share without slots is four times as much.
        """
        if not hasattr(dataset, "pixels") or not firsts:
            return None
        try:
            pair = dataset.pixels(firsts[0])
        except I2IError:  # a worker will meet it again, and tell
            return None
        if pair.a.dtype != pair.b.dtype:
            return None
        kind = torch.uint8 if pair.a.dtype == np.uint8 else torch.uint16
        shapes = [(count, batch_size, x.shape[2], *x.shape[:2]) for x in (pair.a, pair.b)]
        needed = sum(map(math.prod, shapes)) * kind.itemsize
        _check_room(needed)
        try:
            a, b = (torch.zeros(shape, dtype=kind).share_memory_() for shape in shapes)
        except RuntimeError as error:
            raise _no_memory(needed, str(error).splitlines()[0]) from None
        return cls(a, b, pair.a.dtype, pair.classes)

    def fill(self, batch: int, pairs: Sequence[PixelPair]) -> Slot | None:
        """Lay these samples down as batch number so-and-so; None if they are of other sizes or another depth."""
        number = batch % len(self.a)
        places = self.a[number].numpy(), self.b[number].numpy()
        for i, pair in enumerate(pairs):
            for place, pixels in zip(places, (pair.a, pair.b), strict=True):
                planes = pixels.transpose(2, 0, 1)
                if planes.shape != place.shape[1:] or planes.dtype != self.dtype:
                    return None
                place[i] = planes
        matched = tuple(pair.matched for pair in pairs if pair.matched is not None)
        return Slot(number, tuple(name for pair in pairs for name in pair.skipped), matched or None)

    def batch(self, slot: Slot) -> ImagePair:
        """The batch in a slot, as tensors of its own."""
        sides = zip((self.a, self.b), self.classes, strict=True)
        a, b = (_tensors(places[slot.number].numpy(), count) for places, count in sides)
        return ImagePair(a, b, slot.skipped, None if slot.matched is None else torch.tensor(slot.matched))


def _check_room(needed: int) -> None:
    """Beforehand, for what does not fit there may kill the process that writes it."""
    if not SHARED.is_dir():
        return
    room = shutil.disk_usage(SHARED)
    if room.total and needed > room.free:  # without a limit it says 0 in all
        raise _no_memory(needed, f"{room.free / 1e6:,.1f} MB are free in {SHARED}")


def _no_memory(needed: int, reason: str) -> ResourceError:
    return ResourceError(
        f"data workers need {needed / 1e6:,.1f} MB of shared memory, which cannot be had: {reason}. Give fewer "
        "--workers, or --workers 0, which needs none (in Docker: more by --shm-size)"
    )


def _tensors(planes: Pixels, classes: int) -> torch.Tensor:
    """(N, C, H, W) integers as float32 in [-1, 1]."""
    if classes:
        return labels(torch.from_numpy(planes), classes)
    one = planes.reshape(-1, *planes.shape[2:]).transpose(1, 2, 0)
    return images.to_tensor(one).view(planes.shape)


def _tensor(pixels: Pixels, classes: int) -> torch.Tensor:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return labels(torch.from_numpy(planes), classes) if classes else images.to_tensor(pixels)


def labels(planes: torch.Tensor, classes: int) -> torch.Tensor:
    """(…, 1 + M, H, W) class indices, and planes of 0 and 1 → (…, classes + M, H, W) of -1 and 1."""
    indices, further = planes.split([1, planes.shape[-3] - 1], dim=-3)
    return torch.cat([one_hot(indices, classes), further.to(torch.float32) * 2 - 1], dim=-3)


def one_hot(indices: torch.Tensor, classes: int) -> torch.Tensor:
    """(…, 1, H, W) class indices as (…, classes, H, W) float32: 1 for the class of a pixel, else -1."""
    each = torch.arange(classes, dtype=torch.uint8)[:, None, None]
    return (indices == each).to(torch.float32) * 2 - 1
