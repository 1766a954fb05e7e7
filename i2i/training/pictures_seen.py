"""Which pictures a run is trained and measured on, so that it does not go on with others as if they were the same.

A picture is known by its place in the data set and its size in bytes; of a few of each list also a part of the content
is kept, for pictures without compression all have one size. A state holds 24 bytes a picture.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.config import real
from i2i.data.image_sets import Images, MixedImages, UnpairedImages
from i2i.data.options import classes
from i2i.data.pair import Datasets
from i2i.errors import ModelError
from i2i.training.options import RunOptions

SAMPLED = 32
"""Of so many pictures of each list a part of the content is kept."""
_ENDS = 1 << 12
_TRAINING, _HELD_OUT, _PAIRS = "training pictures", "held-out pictures", "pairs"
_ELSEWHERE = "use another --run; --init-from takes weights alone"

Rows = dict[int, tuple[int, int]]
"""Hash of a picture's place → its bytes, and the hash of a part of its content or 0."""


class PicturesSeen:
    """Those of the data sets at hand, the classes of their labels, and the files that losses are computed with."""

    def __init__(self, data: Datasets, options: RunOptions) -> None:
        self.options, self.epoch = options, len(data.train)
        root = options.data or Path()
        self.lists: dict[str, Tensor] = {}
        if isinstance(data.train, MixedImages):
            self._add(_PAIRS, data.train.pairs, options.paired_data or root)
            self._add(_TRAINING, data.train.others, root)
        else:
            self._add(_TRAINING, data.train, root)
        self._add(_HELD_OUT, data.validation, root)
        self.classes = [None if palette is None else [list(c) for c in palette.colours] for palette in classes(options)]
        self.rules = _rules(data)
        vgg = getattr(options, "vgg", None)
        self.files = {} if vgg is None else {"vgg": f"{vgg.stat().st_size} bytes, {_part(vgg):x}"}

    def _add(self, name: str, images: Any, root: Path) -> None:
        if isinstance(images, UnpairedImages):
            self.lists[f"{name} of A"] = _rows(images.paths_a, root)
            self.lists[f"{name} of B"] = _rows(images.paths_b, root)
        elif isinstance(images, Images):
            self.lists[name] = _rows(list(dict.fromkeys(source.path for source in images.sources())), root)

    def state(self) -> dict[str, Any]:
        kept = {"lists": self.lists, "epoch": self.epoch, "classes": self.classes, "files": self.files}
        return kept | {"rules": self.rules}

    def compare(self, state: Mapping[str, Any] | None, images_seen: int, data_before: Path | None) -> list[str]:
        """What is different from the pictures of `state`, which has seen so many images, a sentence each.

        `data_before` is where the data set was, if it was elsewhere. Raises `ModelError` if it is another data set, or
        if labels would change their classes.
        """
        moved = data_before is not None and not _same_place(data_before, self.options.data)
        if state is None:  # from before this was kept
            if moved:
                raise ModelError(
                    f"data was {data_before}, is now {self.options.data}: this run is too old to tell whether these "
                    f"are the same pictures. Give --data {data_before}, or {_ELSEWHERE}."
                )
            return []
        self._check_classes(state["classes"])
        self._check_rules(state.get("rules", {}))
        found = {name: _Comparison(name, state["lists"].get(name), now) for name, now in self.lists.items()}
        gone = state["lists"].keys() - self.lists.keys()
        self._check_data(found, gone, data_before if moved else None)
        told = [text for comparison in found.values() if (text := comparison.told())]
        told += [f"there are no {name} any more" for name in sorted(gone)]
        if self.epoch != (before := state["epoch"]):
            epochs = f"epoch {images_seen // before} becomes {images_seen // self.epoch}"
            told.append(f"an epoch had {before} pictures, has now {self.epoch}: {epochs}")
        return told + self._other_files(state["files"])

    def _check_classes(self, before: Sequence[Any]) -> None:
        for domain, was, now in zip("ab", before, self.classes, strict=False):
            if was == now:
                continue
            number = next((i for i, (x, y) in enumerate(zip(was or [], now or [], strict=False)) if x != y), None)
            what = f"{len(was or [])} classes, now {len(now or [])}"
            if number is not None:
                what = f"class {number} was {tuple((was or [])[number])}, is now {tuple((now or [])[number])}"
            raise ModelError(
                f"classes_{domain}: {what}: the networks would take labels for others. Give the classes that the run "
                f"was started with, or {_ELSEWHERE}."
            )

    def _check_rules(self, before: Mapping[str, str]) -> None:
        for labels in sorted(before.keys() & self.rules.keys()):
            if before[labels] != (now := self.rules[labels]):
                raise ModelError(
                    f"{labels}: pictures of one channel held {before[labels] or 'either'}, now {now or 'either'}: the "
                    "networks would take labels for others. Some pictures of labels came, went or changed their kind; "
                    f"restore them, or {_ELSEWHERE}."
                )

    def _check_data(self, found: Mapping[str, "_Comparison"], gone: set[str], moved_from: Path | None) -> None:
        trained = {name: comparison for name, comparison in found.items() if name.startswith(_TRAINING)}
        lost = [name for name in gone if name.startswith(_TRAINING)]
        different = [c.told() for c in trained.values() if not c.same_set] + [f"no {name}" for name in lost]
        if moved_from is not None and different:
            raise ModelError(
                f"data was {moved_from}, is now {self.options.data}, and these are other pictures ({different[0]}): "
                f"its model files would say that they were trained on them. Give --data {moved_from}, or {_ELSEWHERE}."
            )
        others = [name for name, comparison in trained.items() if not comparison.same]
        if others or lost:
            raise ModelError(
                f"data = {self.options.data}: none of the {(others or lost)[0]} is one that this run was trained on: "
                f"it would be another data set. Restore them, or {_ELSEWHERE}."
            )

    def _other_files(self, before: Mapping[str, str]) -> list[str]:
        return [
            f"the file of {name} had {before[name]}, has now {self.files[name]}"
            for name in before.keys() & self.files.keys()
            if before[name] != self.files[name]
        ]


class _Comparison:
    """One list of pictures, as it was and as it is."""

    def __init__(self, name: str, before: Tensor | None, now: Tensor) -> None:
        self.name, self.before, self.now = name, _by_place(before), _by_place(now)
        self.in_order = before is not None and before.shape == now.shape and bool((before[:, 0] == now[:, 0]).all())
        common = self.before.keys() & self.now.keys()
        self.changed = sum(not _same_picture(self.before[place], self.now[place]) for place in common)
        self.same = len(common) - self.changed
        self.gone, self.new = len(self.before) - len(common), len(self.now) - len(common)

    @property
    def same_set(self) -> bool:
        return not (self.changed or self.gone or self.new)

    def told(self) -> str:
        """What is different, in numbers; empty if nothing is."""
        counts = {"gone": self.gone, "changed": self.changed, "new": self.new}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if not parts:
            return "" if self.in_order else f"{self.name}: in another order"
        measured = "; the best so far was measured on those before" if self.name.startswith(_HELD_OUT) else ""
        return f"{self.name}: of {len(self.before)} {', '.join(parts)}, now {len(self.now)}{measured}"


def _rules(data: Datasets) -> dict[str, str]:
    """By which rule the labels of each domain in training are read."""
    train = data.train
    sets = {"": train.others, _PAIRS + ", ": train.pairs} if isinstance(train, MixedImages) else {"": train}
    palettes = {name: one.palettes for name, one in sets.items() if isinstance(one, Images)}
    sides = [
        (f"{name}classes_{side}", p) for name, both in palettes.items() for side, p in zip("ab", both, strict=True)
    ]
    return {name: palette.held for name, palette in sides if palette is not None}


def _same_picture(one: tuple[int, int], other: tuple[int, int]) -> bool:
    parts_known = one[1] and other[1]
    return one[0] == other[0] and (one[1] == other[1] or not parts_known)


def _same_place(one: Path, other: Path | None) -> bool:
    return other is not None and real(one) == real(other)


def _by_place(rows: Tensor | None) -> Rows:
    return {} if rows is None else {place: (size, part) for place, size, part in rows.tolist()}


def _rows(paths: Sequence[Path], root: Path) -> Tensor:
    """(N, 3): of each picture the hash of its place, its bytes, and the hash of a part of its content or 0."""
    folder = root if root.is_dir() else root.parent
    places = [_hash(os.fsencode(p.relative_to(folder) if p.is_relative_to(folder) else p)) for p in paths]
    looked_at = set(sorted(places)[:SAMPLED])  # the same ones whatever else comes or goes
    parts = [_part(path) if place in looked_at else 0 for place, path in zip(places, paths, strict=True)]
    rows = list(zip(places, map(_size, paths), parts, strict=True))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


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
