"""Data sets from Python: any `torch.utils.data.Dataset` of yours, or a list, in place of files.

Sample t of a training follows from (seed, t), as it does with files: the item, its crop and flip, and whatever your
data set draws from the generators of torch, NumPy and Python. So a training resumes exactly, whatever the workers do.

A picture is a uint8 or uint16 array (H, W) or (H, W, C), a uint8 tensor (C, H, W) or a PIL image. The options resize,
crop, flip and augment it. A float tensor (C, H, W) in [-1, 1] is taken as it is.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2i import images
from i2i.data.options import DataOptions
from i2i.data.pair import Datasets, ImagePair, ImagePairs, MakePair
from i2i.data.transforms import Sampled, sample_seed
from i2i.errors import I2IError, InputError, UsageError
from i2i.images import Pixels
from i2i.images.decoding import from_pil
from i2i.images.picture import Picture, split_alpha

_ROUNDING = 1e-3


class Items(Protocol):
    """A data set with items by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


OwnData = Items | tuple[Items, Items]
"""Pairs (input, target), or for unpaired algorithms the pictures of A and those of B, or the pictures of one domain."""


@dataclass(frozen=True)
class OwnDatasets:
    """The data sets from Python that take the place of files, for training and for validation."""

    train: OwnData
    validation: OwnData | None = None


def open_own(
    own: OwnDatasets,
    options: DataOptions,
    paired: bool,
    multiple: int = 1,
    minimum: int = 1,
    make_pair: MakePair | None = None,
) -> Datasets:
    """As `open_datasets`. Raises `UsageError` for what is no data set, and for a first item that is no sample."""
    for name in ("data", "paired_data", "classes_a", "classes_b", "range_a", "range_b", "instance_edges", "cache"):
        if value := getattr(options, name):
            raise UsageError(f"{name} = {value!r}: is for files, and data are a data set from Python; leave it out")

    def opened(data: OwnData, name: str, train: bool) -> ImagePairs:
        sets = (_items(data, name),) if paired or make_pair else _two(data, name)
        made = OwnImages(sets, options, train, multiple, minimum, make_pair)
        made.check_augmentation()
        made[0]  # mistakes are said before a run folder exists
        return made

    validation = None if own.validation is None else opened(own.validation, "validation", False)
    return Datasets(opened(own.train, "data", True), validation)


def first_picture(own: OwnDatasets, paired: bool, single_domain: bool) -> Any:
    """The input of the first sample, as the data set gives it."""
    first = own.train if paired or single_domain else _two(own.train, "data")[0]
    with seeded(0):
        item = _items(first, "data")[0]
    return _pair(item, 0)[0] if paired and not single_domain else item


def _items(data: object, name: str) -> Items:
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, str | dict):
        raise UsageError(
            f"{name}: of type {type(data).__name__}; expected a data set or a list, whose items have numbers"
        )
    if len(data) == 0:
        raise InputError(f"{name}: the data set is empty")
    items: Items = data
    return items


def _two(data: object, name: str) -> tuple[Items, Items]:
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError(
            f"{name}: this algorithm learns from two domains without pairs; expected two data sets, "
            f"{name}=(pictures_of_A, pictures_of_B)"
        )
    return _items(data[0], f"{name}[0]"), _items(data[1], f"{name}[1]")


class OwnImages(Sampled):
    """Samples from data sets of the user's; a pair is (input of domain A, target of domain B)."""

    lists: Sequence[Items]

    def __getitem__(self, t: int) -> ImagePair:
        seed = sample_seed(self.options.seed, t)
        with seeded(seed):
            found = [picture for number in range(len(self.lists)) for picture in self._pictures(t, number)]
            if self.make_pair:
                return self.make_pair(found[0], seed)
        a, b = found if self.options.direction == "a2b" else reversed(found)
        return ImagePair(a, b)

    def names(self, t: int) -> str:
        """The numbers of the items of sample t."""
        return ", ".join(f"item {self.index(t, number)}" for number in range(len(self.lists)))

    def _pictures(self, t: int, number: int) -> list[Tensor]:
        """The picture of sample t of a list, or both of a pair. Raises `UsageError`, and `InputError` for a size."""
        place, domains = self.index(t, number), self.domains[number]
        item = self.lists[number][place]
        given = _pair(item, place) if len(domains) == 2 else (item,)
        found = [self._prepared(one, place, domain) for one, domain in zip(given, domains, strict=True)]
        tensors = [one for one in found if isinstance(one, Tensor)]
        pixels = [one for one in found if not isinstance(one, Tensor)]
        if tensors and pixels:
            raise UsageError(f"item {place}: one is a float tensor and the other is not; give two of a kind")
        if len({one.shape[-2:] for one in tensors}) > 1:
            raise UsageError(f"item {place}: sizes differ: {' and '.join(str(tuple(one.shape)) for one in tensors)}")
        if tensors:
            return tensors
        try:
            self.transform.check_pair(pixels[0].shape, pixels[-1].shape)
            crops = self.crops(t, [self.transform.resize(one) for one in pixels], domains)
        except InputError as error:
            raise InputError(f"item {place}: {error}") from None
        return [images.to_tensor(crop) for crop in crops]

    def _prepared(self, picture: object, number: int, domain: int) -> Tensor | Pixels:
        """A tensor (C, H, W) that is a sample already, or pixels (H, W, C). Raises `UsageError`."""
        channels, _ = self.kind(domain)
        try:
            found = _tensor(picture) if isinstance(picture, Tensor) else _pixels(picture)
            if isinstance(found, Picture):
                return found.channels(channels)
            if len(found) != channels:
                raise UsageError(
                    f"has {len(found)} channels, expected {channels}: give channels_{'ab'[domain]}={len(found)}"
                )
            if self.augmentation is not None:
                raise UsageError("a float tensor is taken as it is, without augment; give uint8, or augment it before")
            height, width = found.shape[-2:]
            multiple, minimum = self.transform.multiple, self.transform.minimum
            if height % multiple or width % multiple or min(height, width) < minimum:
                raise UsageError(
                    f"{width}x{height} pixels; this network takes multiples of {multiple}, at least {minimum}"
                )
            return found
        except I2IError as error:
            raise UsageError(f"item {number} of domain {'AB'[domain]}: {error}") from None


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch on the CPU, NumPy and Python draw from `seed`. Afterwards they go on as before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _pair(item: object, number: int) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UsageError(f"item {number}: of type {type(item).__name__}; expected a pair (input, target)")
    return item[0], item[1]


def _tensor(tensor: Tensor) -> Tensor | Picture:
    if tensor.dim() != 3 or 0 in tensor.shape:
        raise UsageError(f"a tensor {tuple(tensor.shape)}; expected (C, H, W)")
    if tensor.dtype == torch.uint8:
        return split_alpha(tensor.permute(1, 2, 0).contiguous().numpy())
    if not tensor.is_floating_point():
        raise UsageError(f"a tensor of {tensor.dtype}; expected floats in [-1, 1], or uint8")
    low, high = (float(value) for value in tensor.aminmax())
    if not max(-low, high) <= 1 + _ROUNDING:  # so that NaN is refused
        raise UsageError(f"values from {low:.4g} to {high:.4g}; expected a picture in [-1, 1], or uint8")
    return tensor.detach().to(torch.float32)


def _pixels(picture: object) -> Picture:
    if isinstance(picture, Image.Image):
        return from_pil(picture)
    if not isinstance(picture, np.ndarray):
        raise UsageError(f"of type {type(picture).__name__}; expected a tensor, an array or a PIL image")
    if picture.dtype not in (np.uint8, np.uint16) or picture.ndim not in (2, 3) or picture.size == 0:
        raise UsageError(f"an array {picture.shape} of {picture.dtype}; expected (H, W) or (H, W, C), uint8 or uint16")
    return split_alpha(np.ascontiguousarray(picture if picture.ndim == 3 else picture[..., None]))
