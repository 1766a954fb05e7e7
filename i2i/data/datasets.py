"""From options to data sets: every file found and checked before anything starts."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from i2i.data import cache, folders
from i2i.data.check import check, check_labels
from i2i.data.folders import PairRecord
from i2i.data.image_sets import Images, MixedImages, OneDomain, PairedImages, Sample, UnpairedImages
from i2i.data.options import DataOptions as DataOptions
from i2i.data.options import check_sizes as check_sizes
from i2i.data.pair import Datasets as Datasets
from i2i.data.toy import TOY as TOY
from i2i.data.toy_sets import toys
from i2i.errors import InputError, UsageError
from i2i.torchrun import place

if TYPE_CHECKING:
    from i2i.data.transforms import Transform


def open_datasets(
    options: DataOptions, paired: bool, multiple: int = 1, minimum: int = 1, sample: Sample | None = None
) -> Datasets:
    """The data sets that the options name, every file found and checked.

    `multiple` and `minimum` are the network's: a side is a multiple of the one and at least the other, also
    where pictures are not cropped. With `sample`, pictures of one domain, and what it makes of them. With
    `on_bad="skip"` damaged pictures are named on stderr. Raises `UsageError` if `data` is missing, `InputError` for a
    layout, names or pictures that cannot be used.
    """
    if options.data is None:
        raise UsageError("data: missing; give a folder, a CSV file of pairs, or `toy`")
    if options.data == TOY and not TOY.exists():
        return toys(options, paired, multiple, minimum, sample)
    if sample:
        found = _one_domain(options, options.data, sample, multiple, minimum)
    else:
        found = (_paired if paired else _unpaired)(options, options.data, multiple, minimum)
    if options.paired_data:
        found = _mixed(options, options.paired_data, found, multiple, minimum)
    sets = _image_sets(found)
    check_labels([source for one in sets for source in one.sources()], options.check)
    if options.cache is not None:
        _say(cache.prepare([(source, one.transform) for one in sets for source in one.sources()], options.cache))
    return found


def _image_sets(found: Datasets) -> list[Images]:
    train = [found.train.pairs, found.train.others] if isinstance(found.train, MixedImages) else [found.train]
    return [one for one in (*train, found.validation) if isinstance(one, Images)]


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


def _mixed(options: DataOptions, data: Path, found: Datasets, multiple: int, minimum: int) -> Datasets:
    """Pairs among the pictures without partners, in training; what is held out stays as it is."""
    pairs = _paired(options, data, multiple, minimum).train
    assert isinstance(pairs, PairedImages) and isinstance(found.train, UnpairedImages)
    return Datasets(MixedImages(pairs, found.train, options.paired_share), found.validation)


def _one_domain(options: DataOptions, data: Path, sample: Sample, multiple: int, minimum: int) -> Datasets:
    train, held_out = folders.one_domain(data, "train"), folders.one_domain(data, "val")
    held_out = held_out or folders.one_domain(data, "test")
    one = OneDomain(train, sample, options, True, multiple, minimum)
    other = OneDomain(held_out, sample, options, False, multiple, minimum)
    _check(options, [*train, *held_out], one.transform)
    return Datasets(one, other if held_out else None)


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


def _say(*lines: str) -> None:
    from i2i.cli import printable

    if place().rank:  # of several processes under torchrun the first one speaks
        return
    for line in lines:
        print(f"i2i: {printable(line)}", file=sys.stderr, flush=True)
