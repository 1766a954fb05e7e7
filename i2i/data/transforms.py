"""Samples of files: order, resize, crop and flip as functions of (seed, t).

Each epoch is a permutation of its own; in unpaired data each domain has its own permutations, of its own length, so
that both are covered evenly however different their sizes.

The resize follows from the picture's own size alone, so a cache can hold the result. Crop and flip are drawn from the
sample's seed, the same for both pictures of a pair. The names are those of the reference, plus `scale_shortside`.
"""

import random
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from i2i.config import narrowed
from i2i.data.options import DataOptions, classes, of_one_size, ranges
from i2i.data.pair import ImagePairs, MakePair
from i2i.errors import InputError
from i2i.images import Pixels

_ORDER, _CROP, _AUGMENT = (0, 1), (2, 3), (6, 7)
"""The purposes of seeds, for domain A and for B. A pair goes by those of A."""
_SAMPLE, _KIND = 4, 5
_Size = tuple[int, int]


@dataclass(frozen=True)
class Transform:
    """Turns a decoded picture, or a pair of one size, into the input of a network.

    `resize_and_crop` stretches to `load_size` x `load_size`, `scale_width` scales to that width and
    `scale_shortside` to that shorter side. All but `scale_width` and `none` then crop `crop_size` x `crop_size`
    at random. A picture that is not cropped is resized to the nearest multiple of `multiple`, and is at least
    `minimum` large. With a `zoom` below 1 the picture has a random scale before the crop, uniform from `zoom` to 1, as
    long as the crop fits. With `train=False` nothing is random: the picture is scaled to `crop_size` and cropped in the
    middle, without a flip.
    """

    preprocess: str = "resize_and_crop"
    load_size: int = 286
    crop_size: int = 256
    flip: bool = True
    multiple: int = 1
    train: bool = True
    minimum: int = 1
    zoom: float = 1.0

    def resize(self, pixels: Pixels, labels: bool = False) -> Pixels:
        """The picture (H, W, C) uint8 or uint16 before crop and flip. Each pixel of `labels` takes its nearest.

        Raises `InputError` with the `complaint` about its size.
        """
        size = pixels.shape[0], pixels.shape[1]
        self.check(*size)
        return _resizer(size, self.target(*size), labels)(pixels)

    def crop(self, seed: int, *pictures: Pixels, labels: Sequence[bool] = ()) -> list[Pixels]:
        """Resized pictures of one size, zoomed, cropped and flipped alike. Results may share their memory.

        `labels` says which of them hold labels, by default none. Place, flip and scale follow from a random number
        each.
        """
        top, left, *size, flip = self._crop_window(seed, pictures[0].shape[0], pictures[0].shape[1])
        crops = [picture[top : top + size[0], left : left + size[1]] for picture in pictures]
        if self._crops and size[0] != self.crop_size:
            kinds = [*labels, *[False] * (len(crops) - len(labels))]
            sizes = (size[0], size[1]), (self.crop_size,) * 2
            crops = [_resizer(*sizes, kind)(crop) for crop, kind in zip(crops, kinds, strict=True)]
        return [_flipped(crop) for crop in crops] if flip else crops

    def _crop_window(self, seed: int, height: int, width: int) -> tuple[int, int, int, int, bool]:
        """Top, left, height and width of the crop, and whether to flip."""
        crop = (self.crop_size,) * 2 if self._crops else (height, width)
        if not self.train:
            return (height - crop[0]) // 2, (width - crop[1]) // 2, *crop, False
        generator = random.Random(seed)
        down, right, mirror, scale = (generator.random() for _ in range(4))
        if self._crops:
            crop = (min(round(self.crop_size / (self.zoom + (1 - self.zoom) * scale)), height, width),) * 2
        top, left = int((height - crop[0] + 1) * down), int((width - crop[1] + 1) * right)
        return top, left, *crop, self.flip and mirror < 0.5

    def check(self, height: int, width: int) -> None:
        """Raises `InputError` with the `complaint` about a picture of that size."""
        if complaint := self.complaint(height, width):
            raise InputError(complaint)

    @staticmethod
    def check_pair(a: tuple[int, ...], b: tuple[int, ...]) -> None:
        """Raises `InputError` if the sizes (height, width, …) of a pair's pictures differ."""
        if a[:2] != b[:2]:
            raise InputError(f"sizes differ: {a[1]}x{a[0]} and {b[1]}x{b[0]}")

    def complaint(self, height: int, width: int) -> str:
        """The reason why a picture of that size is too small; empty if it is not."""
        target = self.target(height, width)
        if min(target) >= (self.crop_size if self._crops else self.minimum):
            return ""
        scaled = "" if target == (height, width) else f", scaled to {target[1]}x{target[0]}"
        limit = f"the crop of {self.crop_size}" if self._crops else f"the {self.minimum} that the network takes"
        return f"{width}x{height} pixels{scaled}: too small, a side is below {limit}"

    @property
    def resizing(self) -> str:
        """The resize as text: transforms with equal texts resize every picture alike."""
        name, load = self.preprocess, self._load
        sizes = {
            "resize_and_crop": f"{load}",
            "scale_shortside": f"{load}",
            "scale_width_and_crop": f"{load} {self.crop_size}",
            "scale_width": f"{load} {self.multiple}",
            "none": f"{self.multiple}",
            "crop": "",
        }
        return f"{name} {sizes[name]} cv2 {cv2.__version__}"

    def target(self, height: int, width: int) -> _Size:
        """(height, width) after resizing, before cropping."""
        load = self._load
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

    @property
    def _crops(self) -> bool:
        return of_one_size(self.preprocess)

    @property
    def _load(self) -> int:
        return self.load_size if self.train or not self._crops else self.crop_size

    def _rounded(self, side: float) -> int:
        return max(1, round(side / self.multiple)) * self.multiple


@lru_cache(maxsize=1024)
def _resizer(size: _Size, target: _Size, labels: bool) -> Callable[[Pixels], Pixels]:
    import albumentations as A  # here: it takes seconds, and toys need none

    # one axis may shrink while the other grows: shrink by area, which does not alias, then enlarge
    smaller = min(size[0], target[0]), min(size[1], target[1])
    by_size = [(smaller, cv2.INTER_AREA), (target, cv2.INTER_CUBIC)]
    steps: list[Any] = []
    for wanted, interpolation in [(target, cv2.INTER_NEAREST_EXACT)] if labels else by_size:
        if wanted != size:
            steps.append(A.Resize(*wanted, interpolation=interpolation))
        size = wanted
    compose = A.Compose(steps)
    return lambda pixels: compose(image=pixels)["image"] if steps else pixels


def _flipped(pixels: Pixels) -> Pixels:
    """Mirrored left to right, plane by plane, as a network wants them: numpy's negative strides are slow to read."""
    planes = pixels.transpose(2, 0, 1)
    if planes.strides[2] != pixels.itemsize:
        planes = np.ascontiguousarray(planes)
    mirrored = np.empty(planes.shape, pixels.dtype)
    for plane, target in zip(planes, mirrored, strict=True):
        cv2.flip(plane, 1, dst=target)
    return mirrored.transpose(1, 2, 0)


class Sampled(ImagePairs):
    """Lists of pictures, or of pairs; order, crops, flips and augmentation of a sample follow from (seed, t).

    One list holds pairs, whose two get the same crop, flip and augmentation, or with `make_pair` pictures of domain B
    alone. Two lists hold the pictures of A and of B, each in an order of its own.

    An epoch is as long as the longest list; a shorter one starts over meanwhile. With `train=False` nothing is random,
    and the orders are those of the lists. Domain A has the number 0, B has 1; `domains` has those of each list.
    """

    def __init__(
        self,
        lists: Sequence[Sized],
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
        make_pair: MakePair | None = None,
    ) -> None:
        import albumentations  # noqa: F401  (before workers are forked, so that each need not import it again)

        self.lists, self.options, self.train, self.make_pair = lists, narrowed(options, DataOptions), train, make_pair
        self.palettes, self.ranges = classes(options), ranges(options)
        self.domains: tuple[tuple[int, ...], ...] = ((0,), (1,))
        if len(lists) == 1:
            self.domains = ((1,),) if make_pair else ((0, 1),)
        name, zoom = options.preprocess, options.random_zoom
        sizes = options.load_size, options.crop_size
        self.transform = Transform(name, *sizes, options.flip, multiple, train, minimum, zoom)
        self.augmentation = None
        if train and options.augment:
            from i2i.data.augment import Augmentation

            self.augmentation = Augmentation(options.augment)

    def __len__(self) -> int:
        return max(map(len, self.lists))

    def index(self, t: int, number: int = 0, offset: int = 0) -> int:
        """The place in a list of sample t, or one `offset` on in the same epoch's order, which is a circle."""
        count = len(self.lists[number])
        epoch, place = divmod(t, count)
        place = (place + offset) % count
        if not self.train:
            return place
        return int(_permutation(self.options.seed, _ORDER[self.domains[number][0]], epoch, count)[place])

    def crops(self, t: int, pictures: Sequence[Pixels], domains: Sequence[int]) -> list[Pixels]:
        """Resized pictures of these domains, cropped, flipped and augmented alike for sample t."""
        labels = [self.palettes[domain] is not None for domain in domains]
        crops = self.transform.crop(self._seed(t, _CROP[domains[0]]), *pictures, labels=labels)
        return self.augmentation(self._seed(t, _AUGMENT[domains[0]]), crops, labels) if self.augmentation else crops

    def _seed(self, t: int, purpose: int) -> int:
        return int(np.random.SeedSequence((self.options.seed, purpose, t)).generate_state(1)[0])

    def kind(self, domain: int) -> tuple[int, bool]:
        """The channels of a domain's crops, and whether they hold labels."""
        return (self.options.channels_b if domain else self.options.channels_a), False

    def check_augmentation(self) -> None:
        """Tries the pipeline of `augment` on crops like those of this set. Raises `UsageError`."""
        if self.augmentation is None:
            return
        whole = not of_one_size(self.options.preprocess)
        height, width = self.transform.target(192, 256) if whole else (self.options.crop_size,) * 2
        for domains in self.domains:
            self.augmentation.check(height, width, [self.kind(domain) for domain in domains])


def is_pair(seed: int, t: int, share: float) -> bool:
    """Whether sample t is one of the `share` of all that are pairs."""
    return bool(np.random.SeedSequence((seed, _KIND, t)).generate_state(1)[0] < share * 2**32)


def sample_seed(seed: int, t: int) -> int:
    """The seed of everything else that is drawn for sample t."""
    return int(np.random.SeedSequence((seed, _SAMPLE, t)).generate_state(1, np.uint64)[0] >> 1)


@lru_cache(maxsize=8)
def _permutation(seed: int, purpose: int, epoch: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, purpose, epoch)))).permutation(count)
