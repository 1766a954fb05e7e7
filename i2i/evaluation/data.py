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
from i2i.algorithms.algorithm import own_options
from i2i.config import from_mapping, option_names
from i2i.data import folders
from i2i.data.folders import PairRecord, Split, by_stem, find_images, listed, without_partner
from i2i.errors import ImageError, InputError, UsageError
from i2i.evaluation.metrics import squared
from i2i.evaluation.options import EvaluationOptions
from i2i.images import Picture, Pixels
from i2i.urls import real

BACKGROUND: Literal["white"] = "white"
"""The colour that pictures with transparency are composited on."""
NO_SPLITS = "a folder without val/ and test/: if the model was trained on it, these are its training pictures"
_SETS = ("train", "val", "test", "trainA", "trainB", "valA", "valB", "testA", "testB")


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

    def picture(self, index: int) -> Picture:
        """As it is in the file. Raises `InputError` naming it."""
        item = self.items[index]
        try:
            picture = images.read(item.path)
            return picture if item.half is None else picture.half(item.half)
        except ImageError as error:
            raise InputError(f"{item.path}: {error}") from None

    def __getitem__(self, index: int) -> Tensor:
        try:
            picture = images.to_tensor(self._pixels(self.picture(index)))
        except ImageError as error:
            raise InputError(f"{self.items[index].path}: {error}") from None
        return picture if self.size is None else squared(picture, self.size)

    def _pixels(self, picture: Picture) -> Pixels:
        if self.channels not in (1, 3):  # for a network that takes alpha, or bands of data
            return picture.channels(self.channels)
        return images.with_channels(picture.composited_on(BACKGROUND).pixels, self.channels)

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
        picture = images.to_tensor(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
        return picture if self.size is None else squared(picture, self.size)

    def at_size(self, size: int | None) -> "GeneratedImages":
        return GeneratedImages(self.pixels, size)

    def name(self, index: int) -> str:
        return f"picture {index + 1}"


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


def display_name(path: Path) -> str:
    """The name of a folder, of `.` too."""
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
    source = "ab".index(direction[0])
    if algorithm in ALGORITHMS and ALGORITHMS[algorithm].single_domain:
        found = _coloured(data, options)
    elif not _is_data_set(data):
        if options.split is not None:
            raise UsageError(f"split = {options.split!r}: {data} is a folder of pictures, which has no splits")
        found = EvaluationData(str(data), pictures_in(data, options.max_pictures))
    elif not _has_sides(data) and _takes_one_domain(algorithm, config or {}):
        if (folder := _split_folder(data, options)) is None:
            raise no_pictures(data, _splits(options))
        found = EvaluationData(str(folder), pictures_in(folder, options.max_pictures))
    elif _is_paired(data, algorithm, options.unpaired):
        found = _paired(data, source, options)
    else:
        found = _unpaired(data, source, options)
    if options.reference is None:
        return found
    reference = pictures_in(options.reference, options.max_pictures)
    return replace(found, reference=reference, reference_from=str(options.reference))


def _coloured(data: Path, options: EvaluationOptions) -> EvaluationData:
    """Pictures in colour, which are both the inputs (their lightness) and the targets.

    A folder without splits is taken whole, as by the training. Raises `InputError` for a split that is not there.
    """
    if found := _split_folder(data, options):
        items = pictures_in(found, options.max_pictures)
        return EvaluationData(str(found), items, items, items, str(found))
    if options.split in ("val", "test") or (data / "train").is_dir():
        raise no_pictures(data, _splits(options))
    items = split_of_one_domain(data, "train", options.max_pictures)
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
    limit = options.max_pictures
    inputs_side, outputs_side = "AB"[source], "BA"[source]
    for split in _splits(options):
        if inputs := _domain(data / f"{split}{inputs_side}", limit):
            train = _domain(data / f"train{outputs_side}", limit)
            held_out = _domain(data / f"{split}{outputs_side}", limit) if split != "train" else []
            return EvaluationData(
                str(data / f"{split}{inputs_side}"),
                inputs,
                reference=train or held_out or None,
                reference_from=str(data / f"{'train' if train else split}{outputs_side}"),
                held_out=(held_out or None) if train else None,
                held_out_from=str(data / f"{split}{outputs_side}"),
            )
    raise no_pictures(data, [f"{split}{inputs_side}" for split in _splits(options)])


def _domain(folder: Path, limit: int | None) -> list[Item]:
    return [Item(path) for path in find_images(folder)[:limit]] if folder.is_dir() else []


def split_of_one_domain(data: Path, split: Split, limit: int | None) -> list[Item]:
    """The pictures of a split of a folder with one domain, whose train split may be the folder itself."""
    return [Item(path) for path in folders.single_domain(data, split)[:limit]]


def no_pictures(data: Path, splits: Sequence[str]) -> InputError:
    """The error for a data set without any of the folders `splits`."""
    return InputError(f"{data}: no pictures in {' or '.join(f'{s}/' for s in splits)}; --split chooses another part")


def _splits(options: EvaluationOptions) -> tuple[Split, ...]:
    return (options.split,) if options.split else ("val", "test")


def _split_folder(data: Path, options: EvaluationOptions) -> Path | None:
    return next((data / split for split in _splits(options) if (data / split).is_dir()), None)


def _takes_one_domain(algorithm: str, config: Mapping[str, Any]) -> bool:
    """Whether a run of `algorithm` took one folder's pictures; where its options do not say, as by default."""
    if algorithm not in ALGORITHMS:
        return False
    kind = own_options(ALGORITHMS[algorithm])
    try:
        options = from_mapping(kind, {name: config[name] for name in option_names(kind) if name in config})
    except UsageError:
        options = kind()
    return ALGORITHMS[algorithm].uses_single_domain(options)


def _is_data_set(data: Path) -> bool:
    both = (data / "A").is_dir() and (data / "B").is_dir()
    return data.is_file() or both or any((data / name).is_dir() for name in _SETS)


def _is_paired(data: Path, algorithm: str, unpaired: bool) -> bool:
    return not unpaired and (not _unpaired_sides(data) or (algorithm in ALGORITHMS and ALGORITHMS[algorithm].paired))


def _unpaired_sides(data: Path) -> bool:
    return any((data / f"{split}{side}").is_dir() for split in folders.SPLITS for side in "AB")


def _has_sides(data: Path) -> bool:
    """Whether a table or names separate two domains; without, a picture may hold both side by side."""
    inner = any((data / split / side).is_dir() for split in folders.SPLITS for side in "AB")
    return data.is_file() or all((data / side).is_dir() for side in "AB") or inner or _unpaired_sides(data)
