"""The pictures of a run: it does not go on with others as if they were the same.

A picture is known by its place in the data set and its size in bytes; of a few of each list also a part of the content
is kept, for pictures without compression all have one size. A state holds 24 bytes a picture.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from i2i.data.datasets import Images, MixedImages
from i2i.data.options import classes, ranges
from i2i.data.pair import Datasets, ImagePairs
from i2i.data.transforms import Sampled
from i2i.errors import ModelError, as_typed
from i2i.training.options import RunOptions
from i2i.urls import real

SAMPLED = 32
"""A part of the content is kept for this number of pictures of each list."""
_ENDS = 1 << 12
_TRAINING, _HELD_OUT, _PAIRS = "training pictures", "held-out pictures", "pairs"

Rows = dict[int, tuple[int, int]]
"""By the hash of a picture's place: its size in bytes, and the hash of a part of its content or 0."""


class DataIdentity:
    """The pictures of the data sets at hand, the classes and ranges of their values, and the files that losses use."""

    def __init__(self, data: Datasets, options: RunOptions) -> None:
        self.options, self.epoch = options, len(data.train)
        root, train = options.data or Path(), data.train
        parts: dict[str, ImagePairs] = {_TRAINING: train}
        if isinstance(train, MixedImages):
            parts = {_PAIRS: train.pairs, _TRAINING: train.others}
        self.lists: dict[str, Tensor] = {}
        self._paths: dict[str, Sequence[Path]] = {}
        for name, part in {**parts, _HELD_OUT: data.validation}.items():
            self._add(name, part, (options.paired_data or root) if name == _PAIRS else root)
        self.classes = [None if palette is None else [list(c) for c in palette.colours] for palette in classes(options)]
        self.ranges = [None if limits is None else list(limits) for limits in ranges(options)]
        # by which rule the labels of each domain in training are read
        self.rules = {
            f"{f'{name}, ' if name == _PAIRS else ''}classes_{side}": palette.held
            for name, part in parts.items()
            for side, palette in zip("ab", part.palettes if isinstance(part, Images) else (None, None), strict=True)
            if palette is not None
        }
        used = others.augmentation if isinstance(others := parts[_TRAINING], Sampled) else None
        self.augmentation = "" if used is None else used.text
        vgg = getattr(options, "vgg", None)
        self.files = {} if vgg is None else {"vgg": f"{vgg.stat().st_size} bytes, {_part(vgg):x}"}

    def _add(self, name: str, images: ImagePairs | None, root: Path) -> None:
        if isinstance(images, Images) and len(images.lists) == 2:
            for domain, paths in zip("AB", images.lists, strict=True):
                self._list(f"{name} of {domain}", cast(Sequence[Path], paths), root)
        elif isinstance(images, Images):
            self._list(name, list(dict.fromkeys(source.path for source in images.sources())), root)

    def _list(self, name: str, paths: Sequence[Path], root: Path) -> None:
        self.lists[name], self._paths[name] = _rows(paths, root), paths

    def state(self) -> dict[str, Any]:
        kept = {"lists": self.lists, "epoch": self.epoch, "classes": self.classes, "files": self.files}
        kept |= {"ranges": self.ranges} if any(self.ranges) else {}
        return kept | {"rules": self.rules, "augmentation": self.augmentation}

    def compare(
        self, state: Mapping[str, Any], images_seen: int, data_before: Path | None, pairs_before: Path | None = None
    ) -> list[str]:
        """The differences from the pictures of `state`, a sentence each; `images_seen` at its step.

        `data_before` is where the data set was, `pairs_before` where the pairs were, if elsewhere. Raises `ModelError`
        if it is another data set, or if labels would change their classes.
        """
        places = {"data": data_before, "paired_data": pairs_before}
        here = {name: real(place) for name in places if (place := getattr(self.options, name)) is not None}
        moved = {name: None if place and real(place) == here.get(name) else place for name, place in places.items()}
        self._check_meaning(state)
        before = state["lists"]
        found = {name: _Comparison(name, before.get(name), now, self._paths[name]) for name, now in self.lists.items()}
        gone = before.keys() - self.lists.keys()
        self._check_data(found, gone, moved)
        notes = [text for comparison in found.values() if (text := comparison.difference())]
        notes += [f"there are no {name} any more" for name in sorted(gone)]
        if self.epoch != (was := state["epoch"]):
            epochs = f"epoch {images_seen // was + 1} becomes {images_seen // self.epoch + 1}"
            notes.append(f"an epoch had {was} pictures, has now {self.epoch}: {epochs}")
        if self.augmentation != state["augmentation"]:
            notes.append(f"augment: training crops go through another pipeline: {self.augmentation or 'none'}")
        files = state["files"]
        for name in files.keys() & self.files.keys():
            if files[name] != self.files[name]:
                notes.append(f"the file of {name} had {files[name]}, has now {self.files[name]}")
        return notes

    def _check_meaning(self, state: Mapping[str, Any]) -> None:
        """Raises `ModelError` if the networks would take labels or values for others than before."""
        classes = zip("ab", state["classes"], self.classes, strict=False)
        changes = [
            f"classes_{side}: {_changed_class(was or [], now or [])}" for side, was, now in classes if was != now
        ]
        for side, was, now in zip("ab", state.get("ranges", [None, None]), self.ranges, strict=False):
            if was != now:
                shown = ["none" if limits is None else f"{limits[0]:g}:{limits[1]:g}" for limits in (was, now)]
                changes.append(f"range_{side} was {shown[0]}, is now {shown[1]}")
        before = state["rules"]
        changes += [
            f"{labels}: pictures of one channel held {before[labels] or 'either'}, now {self.rules[labels] or 'either'}"
            for labels in sorted(before.keys() & self.rules.keys())
            if before[labels] != self.rules[labels]
        ]
        if changes:
            raise ModelError(
                f"{changes[0]}: the networks would take labels or values for others. Give what the run was started "
                f"with, or {_elsewhere()}."
            )

    def _check_data(
        self, found: Mapping[str, "_Comparison"], gone: Collection[str], before: Mapping[str, Path | None]
    ) -> None:
        for kind in (_TRAINING, _PAIRS):
            option = "paired_data" if kind == _PAIRS and (self.options.paired_data or before["paired_data"]) else "data"
            now, was = getattr(self.options, option), before[option]
            of_kind = [comparison for name, comparison in found.items() if name.startswith(kind)]
            lost = [name for name in gone if name.startswith(kind)]
            different = [c.difference() for c in of_kind if c.changed or c.gone or c.new] + [
                f"no {name}" for name in lost
            ]
            if was is not None and different:
                raise ModelError(
                    f"{option} was {was}, is now {now}, and these are other pictures ({different[0]}): its model files "
                    f"would say that they were trained on them. Give --{option.replace('_', '-')} {was}, or "
                    f"{_elsewhere()}."
                )
            if others := [c.name for c in of_kind if not c.same] or lost:
                raise ModelError(
                    f"{option} = {now}: none of the {others[0]} is one that this run was trained on: "
                    f"it would be another data set. Restore them, or {_elsewhere()}."
                )


class _Comparison:
    """One list of pictures, as it was and as it is."""

    def __init__(self, name: str, before: Tensor | None, now: Tensor, paths: Sequence[Path]) -> None:
        self.name, self.before, self.now = name, _by_place(before), _by_place(now)
        self.in_order = before is not None and before.shape == now.shape and bool((before[:, 0] == now[:, 0]).all())
        common = self.before.keys() & self.now.keys()
        pairs = [(*self.before[place], *self.now[place]) for place in common]
        self.changed = sum(size != now or bool(part and other and part != other) for size, part, now, other in pairs)
        self.same = len(common) - self.changed
        self.gone, self.new = len(self.before) - len(common), len(self.now) - len(common)
        self.renamed = bool(self.before) and not common and self._are_the_same(paths)
        if self.renamed:
            self.same, self.gone, self.new = len(self.now), 0, 0

    def _are_the_same(self, paths: Sequence[Path]) -> bool:
        """Whether these are the pictures from before, wherever they lie: by all sizes, and what is kept of contents."""
        if Counter(size for size, _ in self.before.values()) != Counter(size for size, _ in self.now.values()):
            return False
        kept = Counter(row for row in self.before.values() if row[1])
        sizes = {size for size, _ in kept}
        return kept <= Counter((size, _part(path)) for path in paths if (size := _size(path)) in sizes)

    def difference(self) -> str:
        """The differences in numbers; empty if there are none."""
        counts = {"gone": self.gone, "changed": self.changed, "new": self.new}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if self.renamed:
            return f"{self.name}: the same ones in other places"
        if not parts:
            return "" if self.in_order else f"{self.name}: in another order"
        measured = "; the best so far was measured on those before" if self.name.startswith(_HELD_OUT) else ""
        return f"{self.name}: of {len(self.before)} {', '.join(parts)}, now {len(self.now)}{measured}"


def _changed_class(was: Sequence[Sequence[int]], now: Sequence[Sequence[int]]) -> str:
    number = next((i for i, (x, y) in enumerate(zip(was, now, strict=False)) if x != y), None)
    if number is None:
        return f"{len(was)} classes, now {len(now)}"
    return f"class {number} was {tuple(was[number])}, is now {tuple(now[number])}"


def _by_place(rows: Tensor | None) -> Rows:
    return {} if rows is None else {place: (size, part) for place, size, part in rows.tolist()}


def _rows(paths: Sequence[Path], root: Path) -> Tensor:
    """(N, 3): of each picture the hash of its place, its bytes, and the hash of a part of its content or 0."""
    folder = root if root.is_dir() else root.parent
    rows = np.zeros((len(paths), 3), np.int64)
    for row, path in zip(rows, paths, strict=True):
        row[:2] = _hash(os.fsencode(_place(path, folder).as_posix())), _size(path)
    looked_at = np.unique(rows[:, 0])[:SAMPLED]  # the same ones whatever else comes or goes
    for number in np.flatnonzero(np.isin(rows[:, 0], looked_at)).tolist():
        rows[number, 2] = _part(paths[number])
    return torch.from_numpy(rows)


def _place(path: Path, folder: Path) -> Path:
    """Where a picture lies in the data set, however the paths of both are written; as a whole if it lies elsewhere."""
    if path.is_relative_to(folder):
        return path.relative_to(folder)
    whole, above = _real(path.parent) / path.name, _real(folder)
    return whole.relative_to(above) if whole.is_relative_to(above) else whole


_real = lru_cache(1024)(real)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is one of those left out
        return -1


def _part(path: Path) -> int:
    """The hash of how a file begins and ends."""
    try:
        with path.open("rb") as file:
            begin = file.read(_ENDS)
            file.seek(max(0, _size(path) - _ENDS))
            return _hash(begin + file.read(_ENDS))
    except OSError:
        return 0


def _elsewhere() -> str:
    return f"use another {as_typed('run')}; {as_typed('init_from')} takes weights alone"
