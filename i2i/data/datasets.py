"""Data sets of files: pairs, two domains without pairs, both mixed, and one domain. Every file is found and checked
before anything starts."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from i2i import images
from i2i.data import check, folders
from i2i.data.check import LabelFacts, Look, PictureFacts, decoded, files_of, look_at
from i2i.data.folders import LeftOut, PairRecord, Split
from i2i.data.options import MAX_DAMAGED, TOY, DataOptions
from i2i.data.pair import Datasets, ImagePair, ImagePairs, MakePair, RawPair
from i2i.data.source import Part, Source, load, prepare_cache
from i2i.data.toy import toys
from i2i.data.transforms import Sampled, is_pair, sample_seed
from i2i.data.walking import exists
from i2i.errors import ImageError, InputError, as_typed
from i2i.images import Pixels
from i2i.images.palettes import FAR
from i2i.machine import place

_TOLD = 0.005
_PATIENCE = 5.0  # seconds until it is said that a check takes its time

Record = Path | PairRecord
Lists = Sequence[Sequence[Record]]


class Images(Sampled):
    """A data set of files: pictures are read, cached, and replaced where they are damaged.

    `dataset[t]` is an `ImagePair` of single pictures, (C, H, W) in [-1, 1]. `a` is the input and `b` the target: with
    direction b2a, `a` is the picture of domain B (`channels_b`). Raises `InputError` for a damaged picture, unless
    `on_bad="skip"`.
    """

    lists: Lists

    def __getitem__(self, t: int) -> ImagePair:
        return self.raw(t).tensors()

    def raw(self, t: int) -> RawPair:
        """Sample t as pixels, or as the numbers of what `make_pair` makes of it."""
        samples = [self._sample(t, number) for number in range(len(self.lists))]
        pixels = [one for crops, _ in samples for one in crops]
        skipped = tuple(name for _, names in samples for name in names)
        if self.make_pair:
            made = self.make_pair(images.to_tensor(pixels[0]), sample_seed(self.options.seed, t))
            return RawPair.of(replace(made, skipped=skipped))
        of_a, of_b = (len(palette) if palette else 0 for palette in self.palettes)
        if self.options.direction == "a2b":
            return RawPair(pixels[0], pixels[1], skipped, (of_a, of_b))
        return RawPair(pixels[1], pixels[0], skipped, (of_b, of_a))

    def sources(self, *domains: int) -> list[Source]:
        """Every picture of these domains, by default of both, as a cache knows it."""
        return [
            self._sources(record, kinds)[kinds.index(domain)]
            for domain in domains or (0, 1)
            for records, kinds in zip(self.lists, self.domains, strict=True)
            if domain in kinds
            for record in records
        ]

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

    def _sources(self, record: Record, domains: Sequence[int]) -> list[Source]:
        """The picture of a list, or both of a pair."""
        if isinstance(record, Path):
            return [self._source(record, domains[0])]
        if record.b is None:
            return [self._source(record.a, 0, "left"), self._source(record.a, 1, "right")]
        return [self._source(record.a, 0), self._source(record.b, 1)]

    def _read(self, pictures: Sequence[Source]) -> list[Pixels]:
        """The pictures before crop and flip."""
        found = [load(picture, self.transform, self.options.cache) for picture in pictures]
        for resized in found:
            self.transform.check(*resized.size)
        self.transform.check_pair(found[0].size, found[-1].size)
        return [resized.pixels for resized in found]

    def _sample(self, t: int, number: int) -> tuple[list[Pixels], tuple[str, ...]]:
        """The crops of sample t of a list, or of the next in the order that can be read, and the names of those passed
        over."""
        records, domains, skipped = self.lists[number], self.domains[number], list[str]()
        for offset in range(len(records)):
            record = records[self.index(t, number, offset)]
            try:
                pixels = self._read(self._sources(record, domains))
                break
            except ImageError as error:
                if self.options.on_bad == "error":
                    way = f"use {as_typed('on_bad', 'skip')} to train without such pictures"
                    raise InputError(f"{_name(record)}: {error}; {way}, up to {MAX_DAMAGED:.0%} of all") from None
                skipped.append(_name(record))
            except InputError as error:
                raise InputError(f"{_name(record)}: {error}") from None
        else:
            raise InputError(f"none of {len(records)} pictures can be read, the last one was {skipped[-1]}")
        return self.crops(t, pixels, domains), tuple(skipped)


class MixedImages(ImagePairs):
    """Pairs among pictures that have no partner: `share` of the samples are pairs, `ImagePair.is_pair` says which."""

    def __init__(self, pairs: Images, others: Images, share: float) -> None:
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

    def _set(self, t: int) -> Images:
        return self.pairs if is_pair(self.others.options.seed, t, self.share) else self.others


def _name(record: Record) -> str:
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

    def opened(data: Path, paired: bool) -> list[Images]:
        """Training pictures, and if there are any those of the val split, else of the test split."""
        left_out = LeftOut(data)

        def find(split: Split) -> Lists:
            if make_pair:
                return (folders.single_domain(data, split, left_out),)
            if paired:
                return (folders.paired(data, split, options.pairs, left_out),)
            return folders.unpaired(data, split, left_out)

        train, val = find("train"), find("val")
        held_out = val if all(val) else find("test")
        splits = [(train, True), (held_out, False)] if all(held_out) else [(train, True)]
        found = [Images(lists, options, is_train, multiple, minimum, make_pair) for lists, is_train in splits]
        _say(*left_out.lines)
        _check(options, found)
        return found

    sets = opened(options.data, paired)
    found = Datasets(*sets)
    if options.paired_data:
        pairs = opened(options.paired_data, paired=True)[0]
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
    mode: check.Check = options.check if _is_first() or options.check == "off" else "quick"
    faster = f"{as_typed('check', 'quick')} reads headers alone"
    patience = threading.Timer(_PATIENCE, _say, (f"checking {len(records):,} pictures or pairs; {faster}",))
    patience.start()
    try:
        looks = look_at(records, mode, (picture for one in sets for picture in one.sources()))
    finally:
        patience.cancel()
    if mode != "off":
        lines = check.judge(records, looks, sets[0].transform.complaint, patient=options.on_bad == "skip")
        if options.on_bad == "error":
            hint = f"Use {as_typed('on_bad', 'skip')} to train without them."
            folders.refuse(lines, "picture cannot be read", "pictures cannot be read", hint)
        _say(*(f"left out: {line}" for line in folders.first_lines(lines)))
        if (whole := len(decoded(list(looks), mode))) < len(looks) and mode == "auto":
            _say(f"checked {whole:,} of {len(looks):,} pictures by decoding them, the headers of the others")
    for domain in (0, 1):
        _check_domain(sets, domain, looks, checked=mode != "off")


def _check_domain(sets: Sequence[Images], domain: int, looks: Mapping[Path, Look], checked: bool) -> None:
    sources = [picture for one in sets for picture in one.sources(domain)]
    facts = [looks[picture.path].facts.get(picture) for picture in sources if picture.path in looks]
    labels = [one for one in facts if isinstance(one, LabelFacts)]
    where = f"domain {'AB'[domain]}"
    pictures = [one for one in facts if isinstance(one, PictureFacts)]
    _say(*check.remarks(where, pictures, f"classes_{'ab'[domain]}"))
    if (palette := sets[0].palettes[domain]) is None:
        return
    ruled = check.rule(palette, labels)
    for one in sets:
        one.palettes = (ruled, one.palettes[1]) if domain == 0 else (one.palettes[0], ruled)
    if not checked:
        return
    check.check_labels(ruled, labels)
    if (share := check.unlabelled(ruled, labels)) > _TOLD:
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
