"""Samples as functions of (seed, t): order, crop, flip and augmentation.

`dataset[t]` exists for every t >= 0: t counts samples from the start of training, through all epochs. Hence
batches do not depend on the number of workers, and training can go on at any t. Each epoch is a permutation
of its own; in unpaired data each domain has its own permutations, of its own length, so that both are covered
evenly however different their sizes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from i2i.config import narrowed
from i2i.data.options import DataOptions, of_one_size
from i2i.data.pair import ImagePair, ImagePairs
from i2i.images import Pixels

if TYPE_CHECKING:
    from i2i.images.palettes import Palette

MakePair = Callable[[Tensor, int], ImagePair]
"""Makes both sides of a sample from one picture, (C, H, W) in [-1, 1], and a seed."""

_ORDER, _CROP, _AUGMENT = (0, 1), (2, 3), (6, 7)
"""The purposes of seeds, for domain A and for B. A pair goes by those of A."""
_SAMPLE, _KIND = 4, 5


class Sampled(ImagePairs):
    """Pictures of domain A (side 0) and B (side 1); order, crops, flips and augmentation follow from (seed, t)."""

    changed_together: tuple[tuple[int, ...], ...] = ((0,), (1,))
    """The domains whose pictures get the same crop, flip and augmentation."""

    def __init__(self, options: DataOptions, train: bool, multiple: int, minimum: int) -> None:
        # imported here, before workers are forked, so that each need not import albumentations again
        from i2i.data.augment import Augmentation
        from i2i.data.transforms import Transform

        self.options, self.train = narrowed(options, DataOptions), train
        self.palettes: tuple[Palette | None, Palette | None] = (None, None)
        name, zoom = options.preprocess, options.random_zoom
        sizes = options.load_size, options.crop_size
        self.transform = Transform(name, *sizes, options.flip, multiple, train, minimum, zoom)
        self.augmentation = Augmentation(options.augment) if train and options.augment else None

    def index(self, t: int, count: int, side: int, offset: int = 0) -> int:
        """The picture of sample t, of `count`, or one `offset` on in the same epoch's order, which is a circle."""
        epoch, place = divmod(t, count)
        place = (place + offset) % count
        return int(_permutation(self.options.seed, _ORDER[side], epoch, count)[place]) if self.train else place

    def crops(self, t: int, pictures: Sequence[Pixels], sides: Sequence[int]) -> list[Pixels]:
        """Resized pictures of these domains, cropped, flipped and augmented alike for sample t."""
        labels = [self.palettes[side] is not None for side in sides]
        crops = self.transform.crop(self._seed(t, _CROP[sides[0]]), *pictures, labels=labels)
        return self.augmentation(self._seed(t, _AUGMENT[sides[0]]), crops, labels) if self.augmentation else crops

    def _seed(self, t: int, purpose: int) -> int:
        return int(np.random.SeedSequence((self.options.seed, purpose, t)).generate_state(1)[0])

    def kind(self, side: int) -> tuple[int, bool]:
        """The channels of a domain's crops, and whether they hold labels."""
        return (self.options.channels_b if side else self.options.channels_a), False

    def check_augmentation(self) -> None:
        """Tries the pipeline of `augment` on crops like those of this set. Raises `UsageError`."""
        if self.augmentation is None:
            return
        whole = not of_one_size(self.options.preprocess)
        height, width = self.transform.target(192, 256) if whole else (self.options.crop_size,) * 2
        for sides in self.changed_together:
            self.augmentation.check(height, width, [self.kind(side) for side in sides])


def is_pair(seed: int, t: int, share: float) -> bool:
    """Whether sample t is one of the `share` of all that are pairs."""
    return bool(np.random.SeedSequence((seed, _KIND, t)).generate_state(1)[0] < share * 2**32)


def sample_seed(seed: int, t: int) -> int:
    """The seed of everything else that is drawn for sample t."""
    return int(np.random.SeedSequence((seed, _SAMPLE, t)).generate_state(1, np.uint64)[0] >> 1)


@lru_cache(maxsize=8)
def _permutation(seed: int, purpose: int, epoch: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, purpose, epoch)))).permutation(count)
