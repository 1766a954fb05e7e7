"""Data sets of files: pairs, two domains without pairs, both mixed, and one domain. Every file is found and checked
before anything starts."""

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from i2i import images
from i2i.data import folders
from i2i.data.check import (
    Check,
    LabelFacts,
    Look,
    PictureFacts,
    check_labels,
    decoded,
    files_of,
    judge,
    look_at,
    remarks,
    rule,
    unlabelled,
)
from i2i.data.folders import LeftOut, PairRecord, Split
from i2i.data.options import MAX_DAMAGED, TOY, DataOptions
from i2i.data.pair import Datasets, ImagePair, ImagePairs, MakePair, RawPair, Sampled, is_pair, sample_seed
from i2i.data.source import Part, Resized, Source, load, prepare_cache
from i2i.data.toy import toys
from i2i.data.walking import exists
from i2i.errors import ImageError, InputError
from i2i.images import Pixels
from i2i.images.palettes import FAR
from i2i.machine import place

_TOLD = 0.005
_PATIENCE = 5.0  # seconds until it is said that a check takes its time

R = TypeVar("R", bound=Path | PairRecord)
S = TypeVar("S")
I = TypeVar("I", bound="Images")  # noqa: E741
Lists = Sequence[Sequence[Path | PairRecord]]
Names = tuple[str, ...]


class Images(Sampled):
    """A data set of files: pictures are read, cached, and replaced where they are damaged.

    `lists` has the pairs, or the pictures of domain A and those of B, or those of B alone. `dataset[t]` is an
    `ImagePair` of single pictures, (C, H, W) in [-1, 1]. `a` is the input and `b` the target: with direction b2a, `a`
    is the picture of domain B (`channels_b`). Raises `InputError` for a damaged picture, unless `on_bad="skip"`.
    """

    lists: Lists

    @staticmethod
    @abstractmethod
    def find(data: Path, split: Split, options: DataOptions, left_out: LeftOut) -> Lists:
        """The lists of a split; an empty one where there is nothing to validate on."""

    @abstractmethod
    def sides(self) -> tuple[list[Source], list[Source]]:
        """Every picture of domain A and of domain B, as a cache knows it."""

    def sources(self) -> list[Source]:
        """Every picture of the set, as a cache knows it."""
        a, b = self.sides()
        return [*a, *b]

    @property
    def count(self) -> int:
        """How many pictures there are, or pairs of them, that may be damaged and replaced by another."""
        return sum(map(len, self.lists))

    def names(self, t: int) -> str:
        """The file or files of sample t."""
        return ", ".join(_name(records[self.index(t, number)]) for number, records in enumerate(self.lists))

    def kind(self, domain: int) -> tuple[int, bool]:
        return self._source(Path(), domain).plane_count, self.palettes[domain] is not None

    def _source(self, path: Path, domain: int, part: Part = "whole") -> Source:
        """The picture as one of that domain."""
        channels = self.options.channels_b if domain else self.options.channels_a
        edges = self.options.instance_edges and "ab"[domain] == self.options.direction[0]
        return Source(path, channels, part, self.palettes[domain], edges, self.ranges[domain])

    def _resized(self, picture: Source) -> Resized:
        """The picture before crop and flip."""
        resized = load(picture, self.transform, self.options.cache)
        self.transform.check(*resized.size)
        return resized

    def _first_readable(self, t: int, number: int, records: Sequence[R], read: Callable[[R], S]) -> tuple[S, Names]:
        """Sample t of a list, or the next in the order that can be read, and the names of those passed over."""
        skipped: list[str] = []
        for offset in range(len(records)):
            record = records[self.index(t, number, offset)]
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

    def _single(self, t: int, number: int, paths: Sequence[Path]) -> tuple[Pixels, Names]:
        """The picture of sample t of a list, with a crop and flip of its own."""
        domain = self.domains[number]

        def read(path: Path) -> Pixels:
            return self._resized(self._source(path, domain)).pixels

        pixels, skipped = self._first_readable(t, number, paths, read)
        return self.crops(t, [pixels], [domain])[0], skipped

    def _directed(self, a: Pixels, b: Pixels, skipped: Names) -> RawPair:
        kinds = [len(palette) if palette else 0 for palette in self.palettes]
        if self.options.direction == "a2b":
            return RawPair(a, b, skipped, (kinds[0], kinds[1]))
        return RawPair(b, a, skipped, (kinds[1], kinds[0]))


class PairedImages(Images):
    """Pairs of pictures of one thing; crop and flip agree."""

    lists: Sequence[Sequence[PairRecord]]
    changed_together = ((0, 1),)

    @staticmethod
    def find(data: Path, split: Split, options: DataOptions, left_out: LeftOut) -> Lists:
        return (folders.paired(data, split, options.pairs, left_out),)

    def sides(self) -> tuple[list[Source], list[Source]]:
        both = [self._sources(record) for record in self.lists[0]]
        return [a for a, _ in both], [b for _, b in both]

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    def raw(self, t: int) -> RawPair:
        """Sample t as pixels."""
        (a, b), skipped = self._first_readable(t, 0, self.lists[0], self._load)
        a, b = self.crops(t, [a, b], [0, 1])
        return self._directed(a, b, skipped)

    def _sources(self, record: PairRecord) -> tuple[Source, Source]:
        if record.b is None:
            return self._source(record.a, 0, "left"), self._source(record.a, 1, "right")
        return self._source(record.a, 0), self._source(record.b, 1)

    def _load(self, record: PairRecord) -> tuple[Pixels, Pixels]:
        a, b = (self._resized(picture) for picture in self._sources(record))
        self.transform.check_pair(a.size, b.size)
        return a.pixels, b.pixels


class UnpairedImages(Images):
    """Pictures of two domains, drawn independently, each with its own order, crops and flips."""

    lists: Sequence[Sequence[Path]]

    @staticmethod
    def find(data: Path, split: Split, options: DataOptions, left_out: LeftOut) -> Lists:
        return folders.unpaired(data, split, left_out)

    def sides(self) -> tuple[list[Source], list[Source]]:
        a, b = ([self._source(path, domain) for path in paths] for domain, paths in enumerate(self.lists))
        return a, b

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    def raw(self, t: int) -> RawPair:
        """Sample t as pixels."""
        (a, skipped_a), (b, skipped_b) = (self._single(t, number, paths) for number, paths in enumerate(self.lists))
        return self._directed(a, b, skipped_a + skipped_b)


class MixedImages(ImagePairs):
    """Pairs among pictures that have no partner: `share` of the samples are pairs, `ImagePair.is_pair` says which."""

    def __init__(self, pairs: PairedImages, others: UnpairedImages, share: float) -> None:
        self.pairs, self.others, self.share = pairs, others, share
        self.count = pairs.count + others.count

    def __len__(self) -> int:
        return len(self.others)

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    def raw(self, t: int) -> RawPair:
        """Sample t as pixels."""
        chosen = self._set(t)
        return chosen.raw(t)._replace(is_pair=chosen is self.pairs)

    def names(self, t: int) -> str:
        """The file or files of sample t."""
        return self._set(t).names(t)

    def _set(self, t: int) -> PairedImages | UnpairedImages:
        return self.pairs if is_pair(self.others.options.seed, t, self.share) else self.others


class OneDomain(Images):
    """Pictures of domain B alone, and the pair that `make_pair` makes of each."""

    lists: Sequence[Sequence[Path]]
    domains = (1,)
    changed_together = ((1,),)

    @staticmethod
    def find(data: Path, split: Split, options: DataOptions, left_out: LeftOut) -> Lists:
        return (folders.single_domain(data, split, left_out),)

    def sides(self) -> tuple[list[Source], list[Source]]:
        return [], [self._source(path, 1) for path in self.lists[0]]

    def __getitem__(self, t: int) -> ImagePair:
        assert self.make_pair
        pixels, skipped = self._single(t, 0, self.lists[0])
        return replace(self.make_pair(images.to_tensor(pixels), sample_seed(self.options.seed, t)), skipped=skipped)


def _name(record: Path | PairRecord) -> str:
    return ", ".join(map(str, files_of(record)))


def open_datasets(
    options: DataOptions, paired: bool, multiple: int = 1, minimum: int = 1, make_pair: MakePair | None = None
) -> Datasets:
    """The data sets that the options name, every file found and checked.

    The network takes sides that are multiples of `multiple` and at least `minimum`, also where pictures are not
    cropped. With `make_pair` the pictures are of one domain, and it makes both sides of them. Files that are left out
    are named on stderr, as are pictures that look like something else. Raises `UsageError` if the augmentation is
    wrong, `InputError` for a layout, names or pictures that cannot be used.
    """
    assert options.data is not None
    if options.data == TOY and not exists(TOY):
        return toys(options, paired, multiple, minimum, make_pair)

    def opened(kind: type[I], data: Path) -> list[I]:
        """Training pictures, and if there are any those of the val split, else of the test split."""
        left_out = LeftOut(data)
        train, val = (kind.find(data, split, options, left_out) for split in ("train", "val"))
        held_out = val if all(val) else kind.find(data, "test", options, left_out)
        splits = [(train, True), (held_out, False)] if all(held_out) else [(train, True)]
        found = [kind(lists, options, is_train, multiple, minimum, make_pair) for lists, is_train in splits]
        _say(*left_out.lines)
        return found

    kind = OneDomain if make_pair else PairedImages if paired else UnpairedImages
    sets: list[Images] = opened(kind, options.data)
    _check(options, sets)
    found = Datasets(*sets)
    if options.paired_data:
        pairs = opened(PairedImages, options.paired_data)[0]
        _check(options, [pairs])
        assert isinstance(sets[0], UnpairedImages)
        found = replace(found, train=MixedImages(pairs, sets[0], options.paired_share))
        sets.insert(0, pairs)
    if options.cache is not None:
        wanted = [(picture, one.transform) for one in sets for picture in one.sources()]
        _say(prepare_cache(wanted, options.cache))
    return found


def _check(options: DataOptions, sets: Sequence[Images]) -> None:
    """Checks all pictures, says what is odd, and gives labels the rule of their set.

    The first process decodes the pictures. Every process looks at labels, also with `off`: all need the rule.
    """
    for one in sets:
        one.check_augmentation()
    if options.check == "off" and not any(palette for one in sets for palette in one.palettes):
        return  # there may be a million pictures, and nothing to know of them
    records = [record for one in sets for records in one.lists for record in records]
    mode: Check = options.check if _is_first() or options.check == "off" else "quick"
    patience = threading.Timer(
        _PATIENCE, _say, (f"checking {len(records):,} pictures or pairs; --check quick reads headers alone",)
    )
    patience.start()
    try:
        looks = look_at(records, mode, (picture for one in sets for picture in one.sources()))
    finally:
        patience.cancel()
    if mode != "off":
        lines = judge(records, looks, sets[0].transform.complaint, patient=options.on_bad == "skip")
        if options.on_bad == "error":
            folders.refuse(lines, "pictures cannot be read", "Use --on-bad skip to train without them.")
        _say(*(f"left out: {line}" for line in folders.first_lines(lines)))
        if (whole := len(decoded(list(looks), mode))) < len(looks) and mode == "auto":
            _say(f"checked {whole:,} of {len(looks):,} pictures by decoding them, the headers of the others")
    for domain in (0, 1):
        _check_domain(sets, domain, looks, checked=mode != "off")


def _check_domain(sets: Sequence[Images], domain: int, looks: Mapping[Path, Look], checked: bool) -> None:
    pictures: list[PictureFacts] = []
    labels: list[LabelFacts] = []
    for picture in (picture for one in sets for picture in one.sides()[domain]):
        found = looks[picture.path].facts.get(picture) if picture.path in looks else None
        if isinstance(found, PictureFacts):
            pictures.append(found)
        elif found:
            labels.append(found)
    where = f"domain {'AB'[domain]}"
    _say(*remarks(where, pictures, f"--classes-{'ab'[domain]}"))
    if (palette := sets[0].palettes[domain]) is None:
        return
    ruled = rule(palette, labels)
    for one in sets:
        one.palettes = (ruled, one.palettes[1]) if domain == 0 else (one.palettes[0], ruled)
    if not checked:
        return
    check_labels(ruled, labels)
    if (share := unlabelled(ruled, labels)) > _TOLD:
        _say(
            f"{where}: {share:.1%} of the pixels are more than {FAR} levels from every colour of {palette.name!r}: "
            "they are no label"
        )


def _say(*lines: str) -> None:
    from i2i.terminal import say

    for line in lines if _is_first() else ():
        say(line)


def _is_first() -> bool:
    """Whether this process speaks and decodes, of several under torchrun."""
    return place().rank == 0
