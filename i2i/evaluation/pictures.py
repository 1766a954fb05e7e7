"""Pictures to be measured, read when they are wanted: sequences of tensors (C, H, W) in [-1, 1]."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
from torch import Tensor

from i2i import images
from i2i.data.folders import find_images, listed
from i2i.errors import ImageError, InputError
from i2i.evaluation.resizer import squared
from i2i.images import Picture, Pixels

Half = Literal["left", "right"]
BACKGROUND: Literal["white"] = "white"
"""Over this colour pictures with transparency are measured."""


@dataclass(frozen=True)
class Item:
    """A picture file, or a half of one that shows two pictures side by side."""

    path: Path
    half: Half | None = None


class _Tensors(Sequence[Tensor]):
    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self._at(i) for i in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    @abstractmethod
    def _at(self, index: int) -> Tensor: ...


class PictureFiles(_Tensors):
    """Files as tensors of `channels` channels, brought to `size` by the one resizer unless it is None."""

    def __init__(self, items: Sequence[Item], channels: int = 3, size: int | None = None) -> None:
        self.items, self.channels, self.size = list(items), channels, size

    def __len__(self) -> int:
        return len(self.items)

    def picture(self, index: int) -> Picture:
        """As it is in the file. Raises `InputError` naming it."""
        item = self.items[index]
        try:
            picture = images.read(item.path)
        except ImageError as error:
            raise InputError(f"{item.path}: {error}") from None
        if item.half is None:
            return picture
        half, odd = divmod(picture.pixels.shape[1], 2)
        if odd:
            raise InputError(
                f"{item.path}: odd width {picture.pixels.shape[1]}; A and B side by side have equal widths"
            )
        columns = slice(half) if item.half == "left" else slice(half, None)
        return picture.columns(columns)

    def _at(self, index: int) -> Tensor:
        try:
            picture = images.to_tensor(self._as_seen(self.picture(index)))
        except ImageError as error:
            raise InputError(f"{self.items[index].path}: {error}") from None
        return picture if self.size is None else squared(picture, self.size)

    def _as_seen(self, picture: Picture) -> Pixels:
        if self.channels not in (1, 3):  # a network's that takes alpha, or bands of data
            return picture.channels(self.channels)
        return images.with_channels(picture.over(BACKGROUND).pixels, self.channels)

    def at_size(self, size: int | None) -> "PictureFiles":
        return PictureFiles(self.items, self.channels, size)

    def name(self, index: int) -> str:
        return str(self.items[index].path)


class Made(_Tensors):
    """Pictures in memory, in 8 bits as they would be written; grey ones are shown in three channels."""

    def __init__(self, pixels: Sequence[Pixels], size: int | None = None) -> None:
        self.stored, self.size = list(pixels), size

    def __len__(self) -> int:
        return len(self.stored)

    def _at(self, index: int) -> Tensor:
        pixels = self.stored[index]
        picture = images.to_tensor(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
        return picture if self.size is None else squared(picture, self.size)

    def at_size(self, size: int | None) -> "Made":
        return Made(self.stored, size)


def folder(path: Path, limit: int | None = None) -> list[Item]:
    """The pictures below a folder. Raises `InputError` if there are none."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    found = find_images(path)[:limit]
    if not found:
        raise InputError(f"{path}: no pictures in this folder")
    return [Item(file) for file in found]


def matched(made: Path, expected: Path, limit: int | None = None) -> tuple[list[Item], list[Item]]:
    """The pictures of two folders, pairs by relative path without suffix.

    Raises `InputError` naming those without a partner, and two that have one name.
    """
    left, right = _by_stem(made), _by_stem(expected)
    lonely = [f"{path} has no partner in {expected}" for stem, path in left.items() if stem not in right]
    lonely += [f"{path} has no partner in {made}" for stem, path in right.items() if stem not in left]
    if lonely:
        raise InputError(
            f"{made} has {len(left)} pictures, {expected} has {len(right)}; {len(lonely)} have no partner of their "
            f"name (--unpaired compares sets):",
            *listed(lonely),
        )
    stems = list(left)[:limit]
    return [Item(left[stem]) for stem in stems], [Item(right[stem]) for stem in stems]


def _by_stem(root: Path) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for item in folder(root):
        stem = item.path.relative_to(root).with_suffix("").as_posix()
        if stem in stems:
            raise InputError(f"{stems[stem]} and {item.path} have the same name without suffix; keep one of them")
        stems[stem] = item.path
    return stems


def halves(items: Sequence[Item], half: Half) -> list[Item]:
    """One side of pictures that show two."""
    return [replace(item, half=half) for item in items]
