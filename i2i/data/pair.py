"""Samples and batches: pixels as they are read (`RawPair`), tensors as a training step takes them (`ImagePair`), and
samples as functions of (seed, t).

`dataset[t]` exists for every t >= 0: t counts samples from the start of training, through all epochs. Hence
batches do not depend on the number of workers, and training can go on at any t. Each epoch is a permutation
of its own; in unpaired data each domain has its own permutations, of its own length, so that both are covered
evenly however different their sizes.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from i2i import images
from i2i.config import narrowed
from i2i.data.options import DataOptions, classes, of_one_size, ranges
from i2i.errors import UsageError
from i2i.images import Pixels


@dataclass(frozen=True)
class ImagePair:
    """A batch of both domains: `a` (N, C_a, H, W) and `b` (N, C_b, H, W), values in [-1, 1].

    In paired data row i of `a` and row i of `b` show the same thing; in unpaired data they are independent; where
    there are both, `is_pair` (N,) says which rows are pairs. A domain of labels has a channel for each class, 1
    where a pixel is of it, else -1. `skipped` names the damaged pictures that were replaced in this batch.
    """

    a: Tensor
    b: Tensor
    skipped: tuple[str, ...] = ()
    is_pair: Tensor | None = None

    def __len__(self) -> int:
        return len(self.a)

    def to(
        self, device: torch.device | str, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> "ImagePair":
        """The same batch on `device`, converted to `dtype` if one is given."""
        a, b = (x.to(device=device, dtype=dtype, non_blocking=non_blocking) for x in (self.a, self.b))
        is_pair = None if self.is_pair is None else self.is_pair.to(device=device, non_blocking=non_blocking)
        return dataclasses.replace(self, a=a, b=b, is_pair=is_pair)

    def contiguous(self, memory_format: torch.memory_format) -> "ImagePair":
        """The same batch in that memory format."""
        a, b = (x.contiguous(memory_format=memory_format) for x in (self.a, self.b))
        return dataclasses.replace(self, a=a, b=b)

    def pin_memory(self) -> "ImagePair":
        """The same batch in page-locked memory."""
        is_pair = None if self.is_pair is None else self.is_pair.pin_memory()
        return dataclasses.replace(self, a=self.a.pin_memory(), b=self.b.pin_memory(), is_pair=is_pair)

    def parts(self, count: int) -> list["ImagePair"]:
        """`count` micro-batches of equal size, in order; the first carries `skipped`.

        Raises `UsageError` if the batch cannot be divided equally.
        """
        if count < 1 or len(self) % count:
            raise UsageError(f"a batch of {len(self)} cannot be split into {count} equal micro-batches")
        is_pair = [None] * count if self.is_pair is None else self.is_pair.chunk(count)
        pieces = zip(self.a.chunk(count), self.b.chunk(count), is_pair, strict=True)
        return [ImagePair(a, b, self.skipped if i == 0 else (), pair) for i, (a, b, pair) in enumerate(pieces)]


class RawPair(NamedTuple):
    """A sample as pixels, `a` and `b` (H, W, C) uint8 or uint16, or a batch of them, (N, H, W, C).

    `classes` has the number of classes of each side, 0 for pictures. A side with classes holds their indices in its
    first channel, and 0 or 1 in any other. `skipped` and `is_pair` are those of `ImagePair`. Workers send it, as it has
    a quarter of the bytes. Arrays of floats are tensors already (`of`).
    """

    a: Pixels | Tensor
    b: Pixels | Tensor
    skipped: tuple[str, ...] = ()
    classes: tuple[int, int] = (0, 0)
    is_pair: bool | tuple[bool, ...] | None = None

    def tensors(self) -> ImagePair:
        """The same as (..., C, H, W) float32 in [-1, 1]."""
        sides = (np.asarray(side) for side in (self.a, self.b))
        a, b = (_tensor(x, count) for x, count in zip(sides, self.classes, strict=True))
        return ImagePair(a, b, self.skipped, None if self.is_pair is None else torch.tensor(self.is_pair))

    @classmethod
    def of(cls, batch: ImagePair) -> "RawPair":
        """A batch as arrays of its numbers."""
        is_pair = None if batch.is_pair is None else tuple(batch.is_pair.tolist())
        return cls(batch.a.numpy(), batch.b.numpy(), batch.skipped, is_pair=is_pair)

    def shared(self) -> "RawPair":
        """The same in shared memory, or as it is where there is no room for it.

        So the message of a worker is short. A worker that is killed while it sends a long one leaves a part of it in
        the pipe, and the receiver would wait for the rest without end. An array that torch moves to shared memory
        while it sends it would be lost without a word where there is no room.
        """
        try:
            return self._replace(**{side: torch.as_tensor(getattr(self, side)).share_memory_() for side in "ab"})
        except RuntimeError:
            return self

    @classmethod
    def stack(cls, pairs: Sequence["RawPair"]) -> "RawPair | None":
        """The batch of these samples; None if they differ in size or depth."""
        if len({(pair.a.shape, pair.a.dtype, pair.b.shape, pair.b.dtype) for pair in pairs}) > 1:
            return None
        a, b = np.stack([pair.a for pair in pairs]), np.stack([pair.b for pair in pairs])
        is_pair = tuple(pair.is_pair is True for pair in pairs) if pairs[0].is_pair is not None else None
        return cls(a, b, tuple(name for pair in pairs for name in pair.skipped), pairs[0].classes, is_pair)


def _tensor(pixels: Pixels, classes: int) -> Tensor:
    if pixels.dtype.kind == "f":
        return torch.from_numpy(pixels)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    if classes:
        return label_planes(torch.from_numpy(planes), classes)
    together = planes.reshape(-1, *planes.shape[-2:]).transpose(1, 2, 0)
    return images.to_tensor(together).view(planes.shape)


def label_planes(planes: Tensor, classes: int) -> Tensor:
    """(…, 1 + M, H, W) class indices, and planes of 0 and 1 → (…, classes + M, H, W) of -1 and 1."""
    indices, binary = planes.split([1, planes.shape[-3] - 1], dim=-3)
    return torch.cat([one_hot(indices, classes), binary.to(torch.float32) * 2 - 1], dim=-3)


def one_hot(indices: Tensor, classes: int) -> Tensor:
    """(…, 1, H, W) class indices as (…, classes, H, W) float32: 1 for the class of a pixel, else -1."""
    each = torch.arange(classes, dtype=torch.uint8)[:, None, None]
    return (indices == each).to(torch.float32) * 2 - 1


class ImagePairs(Dataset[ImagePair]):
    """A data set of single pairs, (C, H, W) each: `pairs[t]` for every t >= 0, an epoch is `len(pairs)` of them."""

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Datasets:
    """The data sets of a training; `validation` is the val split, else the test split, else None."""

    train: ImagePairs
    validation: ImagePairs | None = None

    @property
    def count(self) -> int:
        """How many pictures there are, or pairs of them, that may be damaged."""
        return sum(getattr(one, "count", 0) for one in (self.train, self.validation))


MakePair = Callable[[Tensor, int], ImagePair]
"""Makes both sides of a sample from one picture, (C, H, W) in [-1, 1], and a seed."""

_ORDER, _CROP, _AUGMENT = (0, 1), (2, 3), (6, 7)
"""The purposes of seeds, for domain A and for B. A pair goes by those of A."""
_SAMPLE, _KIND = 4, 5


class Sampled(ImagePairs):
    """Lists of pictures, or of pairs; order, crops, flips and augmentation of a sample follow from (seed, t).

    An epoch is as long as the longest list; a shorter one starts over meanwhile. With `train=False` nothing is random,
    and the orders are those of the lists. Domain A has the number 0, B has 1.
    """

    domains: tuple[tuple[int, ...], ...] = ((0,), (1,))
    """The domain of each list, which has its own order, or both of pairs, which get the same crop, flip and
    augmentation."""

    def __init__(
        self,
        lists: Sequence[Sized],
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
        make_pair: MakePair | None = None,
    ) -> None:
        # imported here, before workers are forked, so that each need not import albumentations again
        from i2i.data.augment import Augmentation
        from i2i.data.transforms import Transform

        self.lists, self.options, self.train, self.make_pair = lists, narrowed(options, DataOptions), train, make_pair
        self.palettes, self.ranges = classes(options), ranges(options)
        name, zoom = options.preprocess, options.random_zoom
        sizes = options.load_size, options.crop_size
        self.transform = Transform(name, *sizes, options.flip, multiple, train, minimum, zoom)
        self.augmentation = Augmentation(options.augment) if train and options.augment else None

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
