"""Data sets of files: pairs, two domains without pairs, both mixed, and one domain."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from i2i import images
from i2i.data import cache
from i2i.data.folders import PairRecord
from i2i.data.options import MAX_DAMAGED, DataOptions, classes, ranges
from i2i.data.pair import ImagePair, ImagePairs, RawPair
from i2i.data.sampling import MakePair, Sampled, is_pair, sample_seed
from i2i.data.source import Part, Resized, Source
from i2i.data.walking import Paths
from i2i.errors import ImageError, InputError
from i2i.images import Pixels

R = TypeVar("R")
S = TypeVar("S")
Names = tuple[str, ...]


class Images(Sampled):
    """Data sets of files: pictures are read, cached, and replaced where they are damaged."""

    def __init__(self, options: DataOptions, train: bool, multiple: int, minimum: int) -> None:
        super().__init__(options, train, multiple, minimum)
        self.palettes, self.ranges = classes(options), ranges(options)

    @abstractmethod
    def sides(self) -> tuple[list[Source], list[Source]]:
        """Every picture of domain A and of domain B, as a cache knows it."""

    def sources(self) -> list[Source]:
        """Every picture of the set, as a cache knows it."""
        a, b = self.sides()
        return [*a, *b]

    @property
    @abstractmethod
    def records(self) -> Sequence[Path | PairRecord]:
        """The pictures, or pairs of them, that may be damaged and replaced by another."""

    def _resized(self, source: Source) -> Resized:
        """The picture before crop and flip."""
        resized = cache.load(source, self.transform, self.options.cache)
        self.transform.check(*resized.size)
        return resized

    def _first_readable(self, t: int, records: Sequence[R], side: int, read: Callable[[R], S]) -> tuple[S, Names]:
        """Sample t, or the next in the order that can be read, and the names of those passed over."""
        skipped: list[str] = []
        for offset in range(len(records)):
            record = records[self.index(t, len(records), side, offset)]
            try:
                return read(record), tuple(skipped)
            except ImageError as error:
                if self.options.on_bad == "error":
                    hint = f"use --on-bad skip to train without such pictures, up to {MAX_DAMAGED:.0%} of all"
                    raise InputError(f"{_name(record)}: {error}; {hint}") from None
                skipped.append(_name(record))
            except InputError as error:
                raise InputError(f"{_name(record)}: {error}") from None
        raise InputError(f"none of {len(records)} pictures can be read, the last one was {skipped[-1]}")

    def kind(self, side: int) -> tuple[int, bool]:
        return self._source(Path(), side).plane_count, self.palettes[side] is not None

    def _source(self, path: Path, side: int, part: Part = "whole") -> Source:
        """The picture as one of domain A (side 0) or B."""
        channels = self.options.channels_b if side else self.options.channels_a
        edges = self.options.instance_edges and "ab"[side] == self.options.direction[0]
        return Source(path, channels, part, self.palettes[side], edges, self.ranges[side])

    def _single(self, t: int, paths: Sequence[Path], side: int) -> tuple[Pixels, Names]:
        """The picture of sample t of one domain, which has its own order, crops and flips."""

        def load(path: Path) -> Pixels:
            return self._resized(self._source(path, side)).pixels

        pixels, skipped = self._first_readable(t, paths, side, load)
        return self.crops(t, [pixels], [side])[0], skipped


class RawImages(Images):
    """A data set whose samples are pixels of two sides."""

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    @abstractmethod
    def raw(self, t: int) -> RawPair:
        """Sample t as pixels."""

    def _directed(self, a: Pixels, b: Pixels, skipped: Names) -> RawPair:
        kinds = [len(palette) if palette else 0 for palette in self.palettes]
        if self.options.direction == "a2b":
            return RawPair(a, b, skipped, (kinds[0], kinds[1]))
        return RawPair(b, a, skipped, (kinds[1], kinds[0]))


class PairedImages(RawImages):
    """Pairs of pictures of one thing; crop and flip agree.

    `dataset[t]` is an `ImagePair` of single pictures, (C, H, W) in [-1, 1]. `a` is the input and `b` the
    target: with direction b2a, `a` is the picture of domain B (`channels_b`). One epoch has `len(dataset)`
    samples. With `train=False` the order is that of `records` and nothing is random. Raises `InputError` for
    a damaged picture, unless `on_bad="skip"`.
    """

    changed_together = ((0, 1),)

    def __init__(
        self,
        records: Sequence[PairRecord],
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__(options, train, multiple, minimum)
        self.pairs = list(records)

    def __len__(self) -> int:
        return len(self.pairs)

    def raw(self, t: int) -> RawPair:
        (a, b), skipped = self._first_readable(t, self.pairs, 0, self._load)
        a, b = self.crops(t, [a, b], [0, 1])
        return self._directed(a, b, skipped)

    @property
    def records(self) -> Sequence[PairRecord]:
        return self.pairs

    def sides(self) -> tuple[list[Source], list[Source]]:
        both = [self._sources(record) for record in self.pairs]
        return [a for a, _ in both], [b for _, b in both]

    def _sources(self, record: PairRecord) -> tuple[Source, Source]:
        if record.b is None:
            return self._source(record.a, 0, "left"), self._source(record.a, 1, "right")
        return self._source(record.a, 0), self._source(record.b, 1)

    def _load(self, record: PairRecord) -> tuple[Pixels, Pixels]:
        a, b = (self._resized(source) for source in self._sources(record))
        self.transform.check_pair(a.size, b.size)
        return a.pixels, b.pixels

    def names(self, t: int) -> str:
        """The file or files of sample t."""
        return _name(self.pairs[self.index(t, len(self.pairs), 0)])


class UnpairedImages(RawImages):
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
        self.paths_a, self.paths_b = Paths.of(paths_a), Paths.of(paths_b)

    def __len__(self) -> int:
        return max(len(self.paths_a), len(self.paths_b))

    def raw(self, t: int) -> RawPair:
        a, skipped_a = self._single(t, self.paths_a, 0)
        b, skipped_b = self._single(t, self.paths_b, 1)
        return self._directed(a, b, skipped_a + skipped_b)

    @property
    def records(self) -> Sequence[Path]:
        return self.paths_a + self.paths_b

    def sides(self) -> tuple[list[Source], list[Source]]:
        return [self._source(path, 0) for path in self.paths_a], [self._source(path, 1) for path in self.paths_b]

    def names(self, t: int) -> str:
        """The files of sample t."""
        a = self.paths_a[self.index(t, len(self.paths_a), 0)]
        return f"{a}, {self.paths_b[self.index(t, len(self.paths_b), 1)]}"


class MixedImages(ImagePairs):
    """Pairs among pictures that have no partner: `share` of the samples are pairs, `ImagePair.is_pair` says which."""

    def __init__(self, pairs: PairedImages, others: UnpairedImages, share: float) -> None:
        self.pairs, self.others, self.share = pairs, others, share

    def __len__(self) -> int:
        return len(self.others)

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    def raw(self, t: int) -> RawPair:
        """As `RawImages.raw`."""
        is_pair = self._is_pair(t)
        return self._set(is_pair).raw(t)._replace(is_pair=is_pair)

    def names(self, t: int) -> str:
        """The file or files of sample t."""
        return self._set(self._is_pair(t)).names(t)

    @property
    def records(self) -> Sequence[Path | PairRecord]:
        """As `Images.records`."""
        return [*self.pairs.records, *self.others.records]

    def _set(self, is_pair: bool) -> PairedImages | UnpairedImages:
        return self.pairs if is_pair else self.others

    def _is_pair(self, t: int) -> bool:
        return is_pair(self.others.options.seed, t, self.share)


class OneDomain(Images):
    """Pictures of domain B alone, and the pair that `make_pair` makes of each: `dataset[t]` is an `ImagePair`.

    An epoch is every picture once. Otherwise as `UnpairedImages`.
    """

    changed_together = ((1,),)

    def __init__(
        self,
        paths: Sequence[Path],
        make_pair: MakePair,
        options: DataOptions,
        train: bool = True,
        multiple: int = 1,
        minimum: int = 1,
    ) -> None:
        super().__init__(options, train, multiple, minimum)
        self.paths, self.make_pair = Paths.of(paths), make_pair

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, t: int) -> ImagePair:
        pixels, skipped = self._single(t, self.paths, 1)
        return replace(self.make_pair(images.to_tensor(pixels), sample_seed(self.options.seed, t)), skipped=skipped)

    @property
    def records(self) -> Sequence[Path]:
        return self.paths

    def sides(self) -> tuple[list[Source], list[Source]]:
        return [], [self._source(path, 1) for path in self.paths]

    def names(self, t: int) -> str:
        """The file of sample t."""
        return str(self.paths[self.index(t, len(self.paths), 1)])


def _name(record: object) -> str:
    if isinstance(record, PairRecord):
        return str(record.a) if record.b is None else f"{record.a}, {record.b}"
    return str(record)
