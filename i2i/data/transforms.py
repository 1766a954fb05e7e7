"""Resize, crop and flip; the only file that imports albumentations.

A pair goes through one call, so that crop and flip agree. Each call is seeded by its sample: albumentations'
own seeding depends on the number of workers. The names are those of the reference implementation, plus
`scale_shortside`.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from i2i.errors import InputError
from i2i.images import Pixels

# without it the import asks the network for a newer version
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import cv2

Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "none"]

_Size = tuple[int, int]


@dataclass(frozen=True)
class Transform:
    """From a picture (or a pair of one size) as decoded to what a network is trained or evaluated on.

    `resize_and_crop` stretches to `load_size` x `load_size`, `scale_width` gives that width and
    `scale_shortside` that shorter side; all but `scale_width` and `none` then crop `crop_size` x `crop_size`
    at random. What is not cropped is resized to the nearest multiple of `multiple`, at least one, and may not
    be smaller than `minimum`. With `train=False` nothing is random: what would be cropped is scaled to
    `crop_size` at once and cropped in the middle, without a flip.
    """

    preprocess: Preprocess = "resize_and_crop"
    load_size: int = 286
    crop_size: int = 256
    flip: bool = True
    multiple: int = 1
    train: bool = True
    minimum: int = 1

    def __call__(self, seed: int, a: Pixels, b: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
        """(H, W, C) uint8 or uint16, any channels. The same `seed` gives the same crop and flip.

        Raises `InputError` if the two sizes differ, or with the `complaint` about a picture that is too small.
        """
        size = a.shape[0], a.shape[1]
        if b is not None and b.shape[:2] != size:
            raise InputError(f"sizes differ: {size[1]}x{size[0]} and {b.shape[1]}x{b.shape[0]}")
        if complaint := self.complaint(*size):
            raise InputError(complaint)
        target = self._resized(*size)
        compose = _compose(size, target, self.crop_size if self._crops else 0, self.flip, self.train)
        compose.set_random_seed(seed)
        done = compose(image=a) if b is None else compose(image=a, b=b)
        return done["image"], done.get("b")

    def complaint(self, height: int, width: int) -> str:
        """What is wrong with a picture of that size; empty if nothing is."""
        target = self._resized(height, width)
        if min(target) >= (self.crop_size if self._crops else self.minimum):
            return ""
        scaled = "" if target == (height, width) else f", scaled to {target[1]}x{target[0]}"
        limit = f"the crop of {self.crop_size}" if self._crops else f"the {self.minimum} that the network takes"
        return f"{width}x{height} pixels{scaled}: too small, a side is below {limit}"

    @property
    def _crops(self) -> bool:
        return self.preprocess not in ("scale_width", "none")

    def _resized(self, height: int, width: int) -> _Size:
        """(height, width) after resizing, before cropping."""
        load = self.load_size if self.train or not self._crops else self.crop_size
        if self.preprocess == "resize_and_crop":
            return load, load
        if self.preprocess == "scale_shortside":
            scale = load / min(height, width)
            return max(load, round(height * scale)), max(load, round(width * scale))
        if self.preprocess == "scale_width_and_crop":
            # as in the reference: a flat picture is stretched until the crop fits
            return max(self.crop_size, round(load * height / width)), load
        if self.preprocess == "scale_width":
            return self._rounded(load * height / width), self._rounded(load)
        return (height, width) if self._crops else (self._rounded(height), self._rounded(width))

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


@lru_cache(maxsize=256)
def _compose(size: _Size, target: _Size, crop: int, flip: bool, train: bool) -> Any:
    steps: list[Any] = []
    # one axis may shrink while the other grows: shrink by area, which does not alias, then enlarge
    smaller = min(size[0], target[0]), min(size[1], target[1])
    if smaller != size:
        steps.append(A.Resize(*smaller, interpolation=cv2.INTER_AREA))
    if target != smaller:
        steps.append(A.Resize(*target, interpolation=cv2.INTER_CUBIC))
    if crop and target != (crop, crop):
        steps.append(A.RandomCrop(crop, crop) if train else A.CenterCrop(crop, crop))
    if flip and train:
        steps.append(A.HorizontalFlip(p=0.5))
    return A.Compose(steps, additional_targets={"b": "image"})
