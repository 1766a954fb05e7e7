"""The pictures of an evaluation, read when they are needed: sequences of tensors (C, H, W) in [-1, 1].

`open_data` finds them: the inputs of a model, their targets, and the sets that its outputs are compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from i2i import images
from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import AnyAlgorithm, own_options
from i2i.config import from_mapping, option_names
from i2i.data import folders
from i2i.data.folders import SPLITS, PairRecord, Split, by_stem, find_images, listed, without_partner
from i2i.errors import ImageError, InputError, UsageError
from i2i.evaluation.metrics import squared
from i2i.evaluation.options import EvaluationOptions
from i2i.images import Picture, Pixels
from i2i.urls import real

BACKGROUND: Literal["white"] = "white"
"""The colour that pictures with transparency are composited on."""
NO_SPLITS = "a folder without val/ and test/: if the model was trained on it, these are its training pictures"


@dataclass(frozen=True)
class Item:
    """A picture file, or a half of one that shows two pictures side by side."""

    path: Path
    half: Literal["left", "right"] | None = None


Items = Sequence[Item]


class PictureFiles:
    """Files as tensors of `channels` channels, brought to `size` by the one resizer unless it is None."""

    def __init__(self, items: Items, channels: int = 3, size: int | None = None) -> None:
        self.items, self.channels, self.size = list(items), channels, size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        try:
            picture, channels = self.picture(index), self.channels
            if channels in (1, 3):
                pixels = images.with_channels(picture.composited_on(BACKGROUND).pixels, channels)
            else:  # for a network that takes alpha, or bands of data
                pixels = picture.channels(channels)
        except ImageError as error:
            raise InputError(f"{self.name(index)}: {error}") from None
        return _tensor(pixels, self.size)

    def picture(self, index: int) -> Picture:
        """As it is in the file. Raises `InputError` naming it."""
        item = self.items[index]
        try:
            picture = images.read(item.path)
            return picture if item.half is None else picture.half(item.half)
        except ImageError as error:
            raise InputError(f"{item.path}: {error}") from None

    def at_size(self, size: int | None) -> "PictureFiles":
        return PictureFiles(self.items, self.channels, size)

    def name(self, index: int) -> str:
        return str(self.items[index].path)


class GeneratedImages:
    """Pictures in memory, in 8 bits as they would be written; grey ones are shown in three channels."""

    def __init__(self, pixels: Sequence[Pixels], size: int | None = None) -> None:
        self.pixels, self.size = list(pixels), size

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.pixels[index]
        return _tensor(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, self.size)

    def at_size(self, size: int | None) -> "GeneratedImages":
        return GeneratedImages(self.pixels, size)

    def name(self, index: int) -> str:
        return f"picture {index + 1}"


def _tensor(pixels: Pixels, size: int | None) -> Tensor:
    picture = images.to_tensor(pixels)
    return picture if size is None else squared(picture, size)


Pictures = PictureFiles | GeneratedImages


def pictures_in(path: Path, limit: int | None = None) -> list[Item]:
    """The pictures below a folder. Raises `InputError` if there are none."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    found = find_images(path)[:limit]
    if not found:
        raise InputError(f"{path}: no pictures in this folder")
    return [Item(file) for file in found]


def matching_pairs(outputs: Path, targets: Path, limit: int | None = None) -> tuple[list[Item], list[Item]]:
    """The pictures of two folders, pairs by relative path without suffix.

    Raises `InputError` naming those without a partner, and two that have one name.
    """
    left, right = (by_stem(folder, [item.path for item in pictures_in(folder)]) for folder in (outputs, targets))
    if lonely := [f"{path} {reason}" for path, reason in without_partner(outputs, left, targets, right)]:
        raise InputError(
            f"{outputs} has {len(left)} pictures, {targets} has {len(right)}; {len(lonely)} have no partner of their "
            f"name (--unpaired compares sets):",
            *listed(lonely),
        )
    stems = list(left)[:limit]
    return [Item(left[stem]) for stem in stems], [Item(right[stem]) for stem in stems]


def display_name(place: Path | str) -> str:
    """The name of a folder, of `.` too."""
    path = Path(place)
    return path.name if path.name not in ("", "..") else real(path).name or str(path)


@dataclass(frozen=True)
class EvaluationData:
    """The pictures that a model is measured on.

    The model translates `inputs`, found at `where`; `targets` are their partners, where there are pairs. `reference`
    is the set that outputs should resemble; `held_out` are pictures of the same domain that the model never saw.
    `note` stands beside the numbers.
    """

    where: str
    inputs: Items
    targets: Items | None = None
    reference: Items | None = None
    reference_from: str = ""
    held_out: Items | None = None
    held_out_from: str = ""
    note: str = ""


def open_data(
    data: Path, direction: str, algorithm: str, options: EvaluationOptions, config: Mapping[str, Any] | None = None
) -> EvaluationData:
    """The pictures for a model of `direction` and `algorithm` ("" if unknown) in a data set or a folder of pictures.

    `config` has the options of the model's run, where they are known: they may say how many domains the run had.
    Raises `InputError` for data that cannot be used, `UsageError` for a split of a folder that has none.
    """
    if not data.exists():
        raise InputError(f"{data}: no such folder; --data says where the pictures are")
    source, kind = "ab".index(direction[0]), ALGORITHMS.get(algorithm)
    sides = any((data / f"{split}{side}").is_dir() for split in SPLITS for side in "AB")
    separate = data.is_file() or sides or all((data / side).is_dir() for side in "AB")
    if kind and kind.single_domain:
        found = _coloured(data, options)
    elif not separate and not any((data / split).is_dir() for split in SPLITS):
        if options.split is not None:
            raise UsageError(f"split = {options.split!r}: {data} is a folder of pictures, which has no splits")
        found = EvaluationData(str(data), pictures_in(data, options.max_pictures))
    elif not separate and not _inner_sides(data) and kind and _takes_one_domain(kind, config or {}):
        if (folder := _split_folder(data, options)) is None:
            raise _no_pictures(data, _splits(options))
        found = EvaluationData(str(folder), pictures_in(folder, options.max_pictures))
    elif not options.unpaired and (not sides or (kind and kind.paired)):
        found = _paired(data, source, options)
    else:
        found = _unpaired(data, source, options)
    if options.reference is None:
        return found
    reference = pictures_in(options.reference, options.max_pictures)
    return replace(found, reference=reference, reference_from=str(options.reference))


def open_data_of_gan(data: Path, options: EvaluationOptions) -> EvaluationData:
    """The reference set of a GAN, and held-out pictures, if there are any. Raises `InputError` without a split that was
    asked for."""
    limit = options.max_pictures
    where = options.reference or (data / "train" if (data / "train").is_dir() else data)
    reference = pictures_in(where, limit) if options.reference else _split_of_one_domain(data, "train", limit)
    splits: tuple[Split, ...] = (options.split,) if options.split in ("val", "test") else ("val", "test")
    for split in splits:
        if held_out := _split_of_one_domain(data, split, limit):
            return EvaluationData("", [], None, reference, str(where), held_out, str(data / split))
    if options.split in splits:
        raise _no_pictures(data, splits)
    return EvaluationData("", [], reference=reference, reference_from=str(where))


def _coloured(data: Path, options: EvaluationOptions) -> EvaluationData:
    """Pictures in colour, which are both the inputs (their lightness) and the targets.

    A folder without splits is taken whole, as by the training. Raises `InputError` for a split that is not there.
    """
    if found := _split_folder(data, options):
        items = pictures_in(found, options.max_pictures)
        return EvaluationData(str(found), items, items, items, str(found))
    if options.split in ("val", "test") or (data / "train").is_dir():
        raise _no_pictures(data, _splits(options))
    items = _split_of_one_domain(data, "train", options.max_pictures)
    return EvaluationData(str(data), items, items, items, str(data), note=NO_SPLITS)


def _paired(data: Path, source: int, options: EvaluationOptions) -> EvaluationData:
    for split in _splits(options):
        if records := folders.paired(data, split)[: options.max_pictures]:
            inputs, targets = ([_side(record, side) for record in records] for side in (source, 1 - source))
            where = str(data / split)
            return EvaluationData(where, inputs, targets, targets, f"side {'BA'[source]} of {where}")
    raise InputError(f"{data}: no pairs in {' or '.join(_splits(options))}; --split chooses another part")


def _side(record: PairRecord, side: int) -> Item:
    if record.b is None:
        return Item(record.a, "right" if side else "left")
    return Item(record.b if side else record.a)


def _unpaired(data: Path, source: int, options: EvaluationOptions) -> EvaluationData:
    """Inputs of one domain; outputs should resemble the training pictures of the other."""
    given, wanted = "AB"[source], "BA"[source]

    def domain(name: str) -> Items:
        there = (data / name).is_dir()
        return [Item(path) for path in find_images(data / name)[: options.max_pictures]] if there else []

    for split in _splits(options):
        if inputs := domain(f"{split}{given}"):
            train, others = f"train{wanted}", f"{split}{wanted}"
            held_out = domain(others) if split != "train" else []
            found = EvaluationData(str(data / f"{split}{given}"), inputs, held_out_from=str(data / others))
            if reference := domain(train):
                found = replace(found, held_out=held_out or None)
            reference_from = str(data / (train if reference else others))
            return replace(found, reference=reference or held_out or None, reference_from=reference_from)
    raise _no_pictures(data, [f"{split}{given}" for split in _splits(options)])


def _split_of_one_domain(data: Path, split: Split, limit: int | None) -> list[Item]:
    """The pictures of a split of a folder with one domain, whose train split may be the folder itself."""
    return [Item(path) for path in folders.single_domain(data, split)[:limit]]


def _no_pictures(data: Path, splits: Sequence[str]) -> InputError:
    """The error for a data set without any of the folders `splits`."""
    return InputError(f"{data}: no pictures in {' or '.join(f'{s}/' for s in splits)}; --split chooses another part")


def _splits(options: EvaluationOptions) -> tuple[Split, ...]:
    return (options.split,) if options.split else ("val", "test")


def _split_folder(data: Path, options: EvaluationOptions) -> Path | None:
    return next((data / split for split in _splits(options) if (data / split).is_dir()), None)


def _inner_sides(data: Path) -> bool:
    """Whether folders in a split separate two domains; without, a picture may hold both side by side."""
    return any((data / split / side).is_dir() for split in SPLITS for side in "AB")


def _takes_one_domain(kind: type[AnyAlgorithm], config: Mapping[str, Any]) -> bool:
    """Whether a run of an algorithm took one folder's pictures; where its options do not say, as by default."""
    own = own_options(kind)
    try:
        options = from_mapping(own, {name: config[name] for name in option_names(own) if name in config})
    except UsageError:
        options = own()
    return kind.uses_single_domain(options)
