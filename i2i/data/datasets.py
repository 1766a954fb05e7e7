"""From options to data sets: every file found and checked before anything starts."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from i2i.data import cache, folders
from i2i.data.check import check_labels, judge, remarks, rule, unlabelled
from i2i.data.folders import LeftOut, PairRecord
from i2i.data.image_sets import Images, MixedImages, OneDomain, PairedImages, UnpairedImages
from i2i.data.look import Check, Look, decoded, look_at
from i2i.data.options import TOY, DataOptions
from i2i.data.pair import Datasets
from i2i.data.sampling import MakePair
from i2i.data.toy import toys
from i2i.data.walking import exists
from i2i.errors import InputError
from i2i.images.palettes import FAR
from i2i.machine import place

_TOLD = 0.005
_PATIENCE = 5.0  # seconds until it is said that a check takes its time


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
    left_out = LeftOut(options.data)
    if make_pair:
        found = _one_domain(options, make_pair, left_out, multiple, minimum)
    else:
        found = (_paired if paired else _unpaired)(options, options.data, left_out, multiple, minimum)
    _say(*left_out.lines)
    _check(options, _image_sets(found))
    if options.paired_data:
        found = _mixed(options, options.paired_data, found, multiple, minimum)
    if options.cache is not None:
        sets = _image_sets(found)
        _say(cache.prepare([(source, one.transform) for one in sets for source in one.sources()], options.cache))
    return found


def _image_sets(found: Datasets) -> list[Images]:
    train = [found.train.pairs, found.train.others] if isinstance(found.train, MixedImages) else [found.train]
    return [one for one in (*train, found.validation) if isinstance(one, Images)]


def _paired(options: DataOptions, data: Path, left_out: LeftOut, multiple: int, minimum: int) -> Datasets:
    records, val = (folders.paired(data, split, options.pairs, left_out) for split in ("train", "val"))
    held_out = val or folders.paired(data, "test", options.pairs, left_out)
    train = PairedImages(records, options, True, multiple, minimum)
    validation = PairedImages(held_out, options, False, multiple, minimum)
    return Datasets(train, validation if held_out else None)


def _unpaired(options: DataOptions, data: Path, left_out: LeftOut, multiple: int, minimum: int) -> Datasets:
    sides, val = (folders.unpaired(data, split, left_out) for split in ("train", "val"))
    held_out = val if all(val) else folders.unpaired(data, "test", left_out)
    train = UnpairedImages(*sides, options, True, multiple, minimum)
    validation = UnpairedImages(*held_out, options, False, multiple, minimum) if all(held_out) else None
    return Datasets(train, validation)


def _mixed(options: DataOptions, data: Path, found: Datasets, multiple: int, minimum: int) -> Datasets:
    """Pairs among the pictures without partners, in training alone."""
    left_out = LeftOut(data)
    pairs = _paired(options, data, left_out, multiple, minimum).train
    _say(*left_out.lines)
    assert isinstance(pairs, PairedImages) and isinstance(found.train, UnpairedImages)
    _check(options, [pairs])
    return Datasets(MixedImages(pairs, found.train, options.paired_share), found.validation)


def _one_domain(options: DataOptions, make_pair: MakePair, left_out: LeftOut, multiple: int, minimum: int) -> Datasets:
    assert options.data is not None
    train, val = (folders.single_domain(options.data, split, left_out) for split in ("train", "val"))
    held_out = val or folders.single_domain(options.data, "test", left_out)
    one = OneDomain(train, make_pair, options, True, multiple, minimum)
    other = OneDomain(held_out, make_pair, options, False, multiple, minimum)
    return Datasets(one, other if held_out else None)


def _check(options: DataOptions, sets: Sequence[Images]) -> None:
    """Checks all pictures, says what is odd, and gives labels the rule of their set.

    The first process decodes the pictures. Every process looks at labels, also with `off`: all need the rule.
    """
    for one in sets:
        one.check_augmentation()
    if options.check == "off" and not any(palette for one in sets for palette in one.palettes):
        return  # there may be a million pictures, and nothing to know of them
    records = [record for one in sets for record in one.records]
    mode: Check = options.check if _is_first() or options.check == "off" else "quick"
    patience = threading.Timer(
        _PATIENCE, _say, (f"checking {len(records):,} pictures or pairs; --check quick reads headers alone",)
    )
    patience.start()
    try:
        looks = look_at(records, mode, (source for one in sets for source in one.sources()))
    finally:
        patience.cancel()
    if mode != "off":
        _judge(options, records, looks, sets[0], mode)
    for side, name in enumerate("ab"):
        _check_side(sets, side, name, looks, checked=mode != "off")


def _judge(
    options: DataOptions, records: Sequence[Path | PairRecord], looks: Mapping[Path, Look], first: Images, mode: Check
) -> None:
    damaged = judge(records, looks, first.transform.complaint, patient=options.on_bad == "skip")
    lines = [f"{path}: {reason}" for path, reason in damaged]
    if lines and options.on_bad == "error":
        hint = "Use --on-bad skip to train without them."
        raise InputError(f"{len(lines)} pictures cannot be read:", *folders.listed(lines), hint)
    _say(*(f"left out: {line}" for line in folders.first_lines(lines)))
    if (whole := len(decoded(list(looks), mode))) < len(looks) and mode == "auto":
        _say(f"checked {whole:,} of {len(looks):,} pictures by decoding them, the headers of the others")


def _check_side(sets: Sequence[Images], side: int, name: str, looks: Mapping[Path, Look], checked: bool) -> None:
    sources = [source for one in sets for source in one.sides()[side] if source.path in looks]
    found = [looks[source.path] for source in sources]
    where = f"domain {name.upper()}"
    pictures = [look.pictures[source] for look, source in zip(found, sources, strict=True) if source in look.pictures]
    _say(*remarks(where, pictures, f"--classes-{name}"))
    if (palette := sets[0].palettes[side]) is None:
        return
    labels = [look.labels[source] for look, source in zip(found, sources, strict=True) if source in look.labels]
    ruled = rule(palette, labels)
    for one in sets:
        one.palettes = (ruled, one.palettes[1]) if side == 0 else (one.palettes[0], ruled)
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

    if not _is_first():
        return
    for line in lines:
        say(line)


def _is_first() -> bool:
    """Whether this process speaks and decodes, of several under torchrun."""
    return place().rank == 0
