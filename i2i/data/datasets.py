"""Data sets whose sample t is a function of (seed, t) alone.

`dataset[t]` exists for every t >= 0: t counts samples from the start of training, through all epochs. Hence
batches do not depend on the number of workers, and training can go on at any t. Each epoch is a permutation
of its own; in unpaired data each domain has its own permutations, of its own length, so that both are covered
evenly however different their sizes.
"""

import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from i2i.data import cache, folders
from i2i.data.cache import Part, Source
from i2i.data.check import check
from i2i.data.folders import PairRecord
from i2i.data.options import DataOptions as DataOptions
from i2i.data.options import check_sizes as check_sizes
from i2i.data.pair import ImagePair, ImagePairs
from i2i.data.slots import PixelPair
from i2i.errors import ImageError, InputError, UsageError
from i2i.images import Pixels

if TYPE_CHECKING:
    from i2i.data.transforms import Transform

R = TypeVar("R")
S = TypeVar("S")
Names = tuple[str, ...]

TOY = Path("toy")
_TAG_ORDER_A, _TAG_ORDER_B, _TAG_LOOK_A, _TAG_LOOK_B = range(4)


@dataclass(frozen=True)
class Datasets:
    """What `open_datasets` found: `validation` is the val split, else the test split, else None."""

    train: ImagePairs
    validation: ImagePairs | None = None


class _Images(ImagePairs):
    """What paired and unpaired data share: transform, seeds, replacement of damaged pictures."""

    def __init__(self, options: DataOptions, train: bool, multiple: int, minimum: int) -> None:
        # imported here, before workers are forked, so that each need not import albumentations again
        from i2i.data.transforms import Transform

        self.options, self.train = options, train
        self.transform = Transform(
            options.preprocess, options.load_size, options.crop_size, options.flip, multiple, train, minimum
        )

    def _index(self, t: int, count: int, tag: int, further: int = 0) -> int:
        """The record of sample t, or one `further` on in the same epoch's order, which is a circle."""
        epoch, place = divmod(t, count)
        place = (place + further) % count
        return int(_permutation(self.options.seed, tag, epoch, count)[place]) if self.train else place

    def __getitem__(self, t: int) -> ImagePair:
        return self.pixels(t).tensors()

    @abstractmethod
    def pixels(self, t: int) -> PixelPair:
        """Sample t before it becomes tensors, which is a quarter of the bytes to send from process to process."""

    @abstractmethod
    def sources(self) -> list[Source]:
        """Every picture of the set, as a cache knows it."""

    def _resized(self, source: Source) -> cache.Resized:
        """The picture before crop and flip."""
        resized = cache.load(source, self.transform, self.options.cache)
        self.transform.check(*resized.size)
        return resized

    def _look(self, t: int, tag: int) -> int:
        """The seed of crop and flip of sample t."""
        return int(np.random.SeedSequence((self.options.seed, tag, t)).generate_state(1)[0])

    def _first_whole(self, t: int, records: Sequence[R], tag: int, sample: Callable[[R], S]) -> tuple[S, Names]:
        """Sample t, or the next in the order that can be read, and the names of those passed over."""
        skipped: list[str] = []
        for further in range(len(records)):
            record = records[self._index(t, len(records), tag, further)]
            try:
                return sample(record), tuple(skipped)
            except ImageError as error:
                if self.options.on_bad == "error":
                    raise InputError(f"{_name(record)}: {error}") from None
                skipped.append(_name(record))
            except InputError as error:
                raise InputError(f"{_name(record)}: {error}") from None
        raise InputError(f"none of {len(records)} pictures can be read, the last one was {skipped[-1]}")

    def _directed(self, a: Pixels, b: Pixels, skipped: Names) -> PixelPair:
        return PixelPair(a, b, skipped) if self.options.direction == "a2b" else PixelPair(b, a, skipped)


class PairedImages(_Images):
    """Pairs of pictures of one thing; crop and flip agree.

    `dataset[t]` is an `ImagePair` of single pictures, (C, H, W) in [-1, 1]. `a` is the input and `b` the
    target: with direction b2a, `a` is the picture of domain B (`channels_b`). One epoch has `len(dataset)`
    samples. With `train=False` the order is that of `records` and nothing is random. Raises `InputError` for
    a damaged picture, unless `on_bad="skip"`.
    """

    def __init__(
        self,
        records: Sequence[PairRecord],
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__(options, train, multiple, minimum)
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def pixels(self, t: int) -> PixelPair:
        (a, b), skipped = self._first_whole(t, self.records, _TAG_ORDER_A, self._load)
        a, b = self.transform.augment(self._look(t, _TAG_LOOK_A), a, b)
        return self._directed(a, b, skipped)

    def sources(self) -> list[Source]:
        return [source for record in self.records for source in self._sources(record)]

    def _sources(self, record: PairRecord) -> tuple[Source, Source]:
        parts: tuple[Part, Part] = ("left", "right") if record.b is None else ("whole", "whole")
        return (
            Source(record.a, self.options.channels_a, parts[0]),
            Source(record.b or record.a, self.options.channels_b, parts[1]),
        )

    def _load(self, record: PairRecord) -> tuple[Pixels, Pixels]:
        a, b = (self._resized(source) for source in self._sources(record))
        self.transform.check_pair(a.size, b.size)
        return a.pixels, b.pixels

    def names(self, t: int) -> str:
        """The file or files of sample t."""
        return _name(self.records[self._index(t, len(self.records), _TAG_ORDER_A)])


class UnpairedImages(_Images):
    """Pictures of two domains, drawn independently, each with its own order, crops and flips.

    `dataset[t]` is an `ImagePair` of single pictures, (C, H, W) in [-1, 1]; with direction b2a, `a` is the
    picture of domain B. One epoch, `len(dataset)`, is as long as the larger domain; the smaller one starts
    over meanwhile. With `train=False` the orders are those of the lists and nothing is random. Raises
    `InputError` for a damaged picture, unless `on_bad="skip"`.
    """

    def __init__(
        self,
        paths_a: Sequence[Path],
        paths_b: Sequence[Path],
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__(options, train, multiple, minimum)
        self.paths_a, self.paths_b = list(paths_a), list(paths_b)

    def __len__(self) -> int:
        return max(len(self.paths_a), len(self.paths_b))

    def pixels(self, t: int) -> PixelPair:
        a, skipped_a = self._single(t, self.paths_a, self.options.channels_a, _TAG_ORDER_A, _TAG_LOOK_A)
        b, skipped_b = self._single(t, self.paths_b, self.options.channels_b, _TAG_ORDER_B, _TAG_LOOK_B)
        return self._directed(a, b, skipped_a + skipped_b)

    def _single(self, t: int, paths: list[Path], channels: int, order: int, look: int) -> tuple[Pixels, Names]:
        def load(path: Path) -> Pixels:
            return self._resized(Source(path, channels)).pixels

        pixels, skipped = self._first_whole(t, paths, order, load)
        return self.transform.augment(self._look(t, look), pixels)[0], skipped

    def sources(self) -> list[Source]:
        sides = (self.paths_a, self.options.channels_a), (self.paths_b, self.options.channels_b)
        return [Source(path, channels) for paths, channels in sides for path in paths]

    def names(self, t: int) -> str:
        """The files of sample t."""
        a = self.paths_a[self._index(t, len(self.paths_a), _TAG_ORDER_A)]
        return f"{a}, {self.paths_b[self._index(t, len(self.paths_b), _TAG_ORDER_B)]}"


def open_datasets(options: DataOptions, paired: bool, multiple: int = 1, minimum: int = 1) -> Datasets:
    """The data sets that the options name, every file found and checked.

    `multiple` and `minimum` are the network's: a side is a multiple of the one and at least the other, also
    where pictures are not cropped. With `on_bad="skip"` damaged pictures are named on stderr. Raises
    `UsageError` if `data` is missing, `InputError` for a layout, names or pictures that cannot be used.
    """
    if options.data is None:
        raise UsageError("data: missing; give a folder, a CSV file of pairs, or `toy`")
    if options.data == TOY and not TOY.exists():
        return _toys(options, paired, multiple, minimum)
    found = (_paired if paired else _unpaired)(options, options.data, multiple, minimum)
    if options.cache is not None:
        _prepare_cache(options.cache, [found.train, found.validation])
    return found


def _paired(options: DataOptions, data: Path, multiple: int, minimum: int) -> Datasets:
    records = folders.paired(data, "train", options.pairs)
    held_out = folders.paired(data, "val", options.pairs) or folders.paired(data, "test", options.pairs)
    train = PairedImages(records, options, True, multiple, minimum)
    validation = PairedImages(held_out, options, False, multiple, minimum)
    _check(options, [*records, *held_out], train.transform)
    return Datasets(train, validation if held_out else None)


def _unpaired(options: DataOptions, data: Path, multiple: int, minimum: int) -> Datasets:
    sides = folders.unpaired(data, "train")
    splits = [folders.unpaired(data, "val"), folders.unpaired(data, "test")]
    held_out = next((split for split in splits if all(split)), ([], []))
    train = UnpairedImages(*sides, options, True, multiple, minimum)
    validation = UnpairedImages(*held_out, options, False, multiple, minimum)
    _check(options, [path for side in (*sides, *held_out) for path in side], train.transform)
    return Datasets(train, validation if len(validation) else None)


def _check(options: DataOptions, records: Sequence[Path | PairRecord], transform: "Transform") -> None:
    damaged = check(records, options.check, transform.complaint)
    if not damaged:
        return
    lines = [f"{path}: {reason}" for path, reason in damaged]
    if options.on_bad == "error":
        raise InputError(
            f"{len(damaged)} pictures cannot be read:{folders.listed(lines)}\nUse --on-bad skip to train without them."
        )
    _announce(lines)


def _announce(left_out: list[str]) -> None:
    _say(*(f"left out: {line}" for line in folders.first_lines(left_out)))


def _prepare_cache(folder: Path, datasets: Sequence[ImagePairs | None]) -> None:
    wanted = [(source, d.transform) for d in datasets if isinstance(d, _Images) for source in d.sources()]
    _say(cache.prepare(wanted, folder))


def _say(*lines: str) -> None:
    from i2i.cli import printable

    if os.environ.get("RANK", "0") != "0":  # of several processes under torchrun the first one speaks
        return
    for line in lines:
        print(f"i2i: {printable(line)}", file=sys.stderr, flush=True)


def _toys(options: DataOptions, paired: bool, multiple: int, minimum: int) -> Datasets:
    from i2i.data.toy import MIN_SIZE, ToyPairs, ToyUnpaired

    if (options.channels_a, options.channels_b) != (3, 3):
        raise UsageError("data = toy: its pictures have 3 channels; leave channels_a and channels_b at 3")
    size, least = options.crop_size, max(MIN_SIZE, minimum)
    if size < least:
        raise UsageError(f"crop_size = {size}: toy pictures for this network have at least {least}")
    if size % multiple:
        raise UsageError(f"crop_size = {size}: this network takes toy pictures of multiples of {multiple}")
    kind = ToyPairs if paired else ToyUnpaired
    toys = partial(kind, size=size, seed=options.seed, direction=options.direction)
    return Datasets(toys(), toys(train=False))


@lru_cache(maxsize=8)
def _permutation(seed: int, tag: int, epoch: int, count: int) -> Pixels:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, tag, epoch)))).permutation(count)


def _name(record: object) -> str:
    if isinstance(record, PairRecord):
        return str(record.a) if record.b is None else f"{record.a}, {record.b}"
    return str(record)
