"""What is to be evaluated: the pictures that a model is given, and those that its outputs are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import own_options
from i2i.config import from_mapping, option_names, real
from i2i.data import folders
from i2i.data.folders import PairRecord, Split
from i2i.errors import InputError, UsageError
from i2i.evaluation.options import EvaluationOptions
from i2i.evaluation.pictures import Item, folder, halves
from i2i.models.info import Direction

_SETS = ("train", "val", "test", "trainA", "trainB", "valA", "valB", "testA", "testB")
MAYBE_TRAINED_ON = "a folder without val/ and test/: if the model was trained on it, these are its training pictures"
Items = Sequence[Item]


@dataclass(frozen=True)
class Task:
    """`inputs`, found at `where`, are translated, and `expected` are their partners, where there are pairs.

    `reference` is the set that outputs should be like; `held_out` are pictures of the same domain that the model
    never saw. `reference_from` and `held_out_from` say where they are. `note` is said beside the numbers.
    """

    where: str
    inputs: Items
    expected: Items | None = None
    reference: Items | None = None
    reference_from: str = ""
    held_out: Items | None = None
    held_out_from: str = ""
    note: str = ""


def opposite(direction: str) -> Direction:
    """The direction that goes back."""
    return "b2a" if direction == "a2b" else "a2b"


def shown_name(path: Path) -> str:
    """The name of a folder, of `.` too."""
    return path.name if path.name not in ("", "..") else real(path).name or str(path)


def task(
    data: Path, direction: str, algorithm: str, options: EvaluationOptions, config: Mapping[str, Any] | None = None
) -> Task:
    """The task for a model of `direction` and `algorithm` ("" is not known) on a data set or a folder of pictures.

    `config` is the configuration of the model's run, where it is known: it may say how many domains the run had.
    Raises `InputError` for data that cannot be used, `UsageError` for a split of a folder that has none.
    """
    if not data.exists():
        raise InputError(f"{data}: no such folder; --data says where the pictures are")
    source = "ab".index(direction[0])
    if algorithm in ALGORITHMS and ALGORITHMS[algorithm].one_domain:
        found = _coloured(data, options)
    elif not _is_data_set(data):
        if options.split is not None:
            raise UsageError(f"split = {options.split!r}: {data} is a folder of pictures, which has no splits")
        found = Task(str(data), folder(data, options.max_pictures))
    elif not _has_sides(data) and _takes_one_domain(algorithm, config or {}):
        found = _one_domain(data, options)
    elif _is_paired(data, algorithm, options.unpaired):
        found = _paired(data, source, options)
    else:
        found = _unpaired(data, source, options)
    if options.reference is None:
        return found
    reference = folder(options.reference, options.max_pictures)
    return replace(found, reference=reference, reference_from=str(options.reference))


def _coloured(data: Path, options: EvaluationOptions) -> Task:
    """Pictures in colour, which are given without and expected with it.

    A folder without splits is taken whole, as by the training. Raises `InputError` for a split that is not there.
    """
    if found := _split_folder(data, options):
        items = folder(found, options.max_pictures)
        return Task(str(found), items, items, items, str(found))
    if options.split in ("val", "test") or (data / "train").is_dir():
        raise no_pictures(data, _splits(options))
    items = [Item(path) for path in folders.one_domain(data, "train")[: options.max_pictures]]
    return Task(str(data), items, items, items, str(data), note=MAYBE_TRAINED_ON)


def _one_domain(data: Path, options: EvaluationOptions) -> Task:
    """Pictures as they are, without partners. Raises `InputError` for a split that is not there."""
    if found := _split_folder(data, options):
        return Task(str(found), folder(found, options.max_pictures))
    raise no_pictures(data, _splits(options))


def _split_folder(data: Path, options: EvaluationOptions) -> Path | None:
    return next((data / split for split in _splits(options) if (data / split).is_dir()), None)


def _takes_one_domain(algorithm: str, config: Mapping[str, Any]) -> bool:
    """Whether a run of `algorithm` took one folder's pictures; where its configuration does not say, as by default."""
    if algorithm not in ALGORITHMS:
        return False
    kind = own_options(ALGORITHMS[algorithm])
    try:
        options = from_mapping(kind, {name: config[name] for name in option_names(kind) if name in config})
    except UsageError:
        options = kind()
    return ALGORITHMS[algorithm].takes_one_domain(options)


def no_pictures(data: Path, splits: Sequence[str]) -> InputError:
    """What is to be raised for a data set that has none of the folders `splits`."""
    return InputError(f"{data}: no pictures in {' or '.join(f'{s}/' for s in splits)}; --split chooses another part")


def _is_data_set(data: Path) -> bool:
    both = (data / "A").is_dir() and (data / "B").is_dir()
    return data.is_file() or both or any((data / name).is_dir() for name in _SETS)


def _is_paired(data: Path, algorithm: str, unpaired: bool) -> bool:
    return not unpaired and (not _unpaired_sides(data) or (algorithm in ALGORITHMS and ALGORITHMS[algorithm].paired))


def _unpaired_sides(data: Path) -> bool:
    return any((data / f"{split}{side}").is_dir() for split in folders.SPLITS for side in "AB")


def _has_sides(data: Path) -> bool:
    """Whether two domains are told apart by a table or by names; without, a picture may hold both side by side."""
    inner = any((data / split / side).is_dir() for split in folders.SPLITS for side in "AB")
    return data.is_file() or all((data / side).is_dir() for side in "AB") or inner or _unpaired_sides(data)


def _splits(options: EvaluationOptions) -> tuple[Split, ...]:
    return (options.split,) if options.split else ("val", "test")


def _paired(data: Path, source: int, options: EvaluationOptions) -> Task:
    for split in _splits(options):
        if records := folders.paired(data, split)[: options.max_pictures]:
            sides = [_side(record, index) for index in (0, 1) for record in records]
            a, b = sides[: len(records)], sides[len(records) :]
            inputs, expected = (a, b) if source == 0 else (b, a)
            return Task(str(data / split), inputs, expected, expected, f"side {'BA'[source]} of {data / split}")
    raise InputError(f"{data}: no pairs in {' or '.join(_splits(options))}; --split chooses another part")


def _side(record: PairRecord, index: int) -> Item:
    if record.b is None:
        return halves([Item(record.a)], "right" if index else "left")[0]
    return Item(record.b if index else record.a)


def _unpaired(data: Path, source: int, options: EvaluationOptions) -> Task:
    for split in _splits(options):
        sides = _sides(data, split, options.max_pictures)
        if inputs := sides[source]:
            train = _sides(data, "train", options.max_pictures)
            held_out = sides[1 - source] if split != "train" else []
            return Task(
                str(data / f"{split}{'AB'[source]}"),
                inputs,
                reference=train[1 - source] or held_out or None,
                reference_from=str(data / f"{'train' if train[1 - source] else split}{'BA'[source]}"),
                held_out=(held_out or None) if train[1 - source] else None,
                held_out_from=str(data / f"{split}{'BA'[source]}"),
            )
    raise no_pictures(data, [f"{split}{'AB'[source]}" for split in _splits(options)])


def _sides(data: Path, split: Split, limit: int | None) -> list[list[Item]]:
    roots = [data / f"{split}{side}" for side in "AB"]
    return [[Item(path) for path in folders.find_images(root)[:limit]] if root.is_dir() else [] for root in roots]
