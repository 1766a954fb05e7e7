"""YOLO: a `.txt` for each picture, beside it or in `labels/` where the picture is in `images/`.

Each row is a class index and numbers between 0 and 1: a box (centre, width, height), a polygon, or a box with
keypoints. A picture without a file is background. The labels of a copy are those of its original, byte for byte. The
`data.yaml` of Ultralytics says how many classes there are, and where the pictures lie.
"""

import json
import math
import os
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from i2i.errors import InputError, UsageError
from i2i.plain_yaml import read_yaml
from i2i.tools.labelled.layout import Copies, Item, Layout, exchanged, is_picture, place_of, stem, within

_PLACES = ("path", "train", "val", "test", "minival")
_MAX_CLASSES = 1 << 31
CLASSES = "classes.txt"
_SLACK = 1e-3
"""Six digits are usual; a box at the edge may round out of the picture."""


class Yolo(Layout):
    name = "yolo"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder)
        texts = {path for path in files if path.suffix.lower() == ".txt" and path.name != CLASSES}
        pictures = [path for path in files if is_picture(path)]
        parallel = {
            path: place.with_suffix(".txt") for path in pictures if (place := exchanged(path, ("images",), "labels"))
        }
        labels = {text for text in texts if "labels" in text.parts[:-1]} if parallel else set()
        own = {picture: _label_of(picture, parallel.get(picture), texts) for picture in pictures}
        folders = {picture.parent for picture, label in own.items() if label and label.parent == picture.parent}
        # a picture without a label is background where others have one in the same way
        backgrounds = {picture for picture in pictures if picture.parent in folders or (labels and picture in parallel)}
        self.items = [
            Item(picture, (label,) if label else ())
            for picture, label in own.items()
            if label or picture in backgrounds
        ]
        self._find_lonely(texts, labels)
        self.by_stem([item.picture for item in self.items])
        self._pictures = {item.picture for item in self.items}
        used = {label for item in self.items for label in item.labels} | set(self.problems)
        self.lists = [path for path in sorted(texts - used) if self.items and self._is_list(path)]
        self._classes = self._count_classes(files)

    def _find_lonely(self, texts: set[Path], labels: set[Path]) -> None:
        unused = texts - {label for item in self.items for label in item.labels}
        pictures = {stem(item.picture): item.labels for item in self.items}
        folders = {picture.parent for picture in pictures}
        for path in sorted(unused):
            if path in labels or (path.parent in folders and self._has_rows(path)):
                other = pictures.get(stem(path))
                self.problems[path] = f"its picture has {other[0]}" if other else "a label file without a picture"

    def _rows(self, path: Path) -> list[tuple[int, list[str]]]:
        """The words of each line that has some, with the number of the line."""
        return [(number, words) for number, line in enumerate(self.lines(path), 1) if (words := line.split())]

    def _has_rows(self, path: Path) -> bool:
        with suppress(InputError):
            rows = self._rows(path)
            return bool(rows) and not any(_wrong(words, math.inf) for _, words in rows)
        return False

    def complaint(self, item: Item, width: int, height: int) -> str:
        for label in item.labels:
            for number, words in self._rows(label):
                if reason := _wrong(words, self._classes):
                    return f"{label}, line {number}: {reason}"
        return ""

    def _count_classes(self, files: Sequence[Path]) -> float:
        """How many classes there are, by `data.yaml` or `classes.txt`; without one, any number."""
        for path in files:
            known = path.name in ("data.yaml", "dataset.yaml", "data.yml")
            if known and (count := count_classes(self.folder / path)):
                return count
        for path in files:
            if path.name == CLASSES:
                return len(self._rows(path)) or math.inf
        return math.inf

    def original(self, source: Path, out: Path) -> bytes | None:
        return moved(self.folder / source, self.folder, out) if source.suffix in (".yaml", ".yml") else None

    def _is_list(self, path: Path) -> bool:
        """Whether it lists pictures, one in each line."""
        with suppress(InputError):
            lines = self.lines(path)
            return any(lines) and all(self._listed(line) for line in lines if line.strip())
        return False

    def _listed(self, line: str) -> Path | None:
        """The picture that a line of a list names, whatever folder its path begins at."""
        for path in (line.strip(), line.strip().replace("\\", "/")):
            parts = PurePosixPath(os.path.normpath(path)).parts
            tails = (Path(*parts[start:]) for start in range(len(parts)))
            if picture := next((tail for tail in tails if tail in self._pictures), None):
                return picture
        return None

    def listing(self, source: Path, kept: Set[Path], copies: Copies, out: Path) -> bytes:
        lines = []
        for line in self.lines(source):
            picture = self._listed(line)
            if picture in kept:
                lines.append(line)
            lines += [place_of(copy, line.strip(), out) for copy in copies.get(picture, ())] if picture else []
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def summary(self) -> str:
        classes = "" if self._classes == math.inf else f", {self._classes:.0f} classes"
        return super().summary + classes


def _label_of(picture: Path, place: Path | None, texts: set[Path]) -> Path | None:
    """The label file of a picture: in `labels/`, else next to the picture."""
    return next((path for path in (place, picture.with_suffix(".txt")) if path in texts), None)


def _wrong(words: Sequence[str], classes: float) -> str:
    """The fault of a row; empty if there is none."""
    try:
        index, numbers = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return f"{' '.join(words)[:60]!r}: expected a class index and numbers"
    if not 0 <= index < classes:
        return f"class {index}: expected 0 to {classes - 1:.0f}" if classes < math.inf else f"class {index}: below 0"
    if len(numbers) < 4:
        return f"{len(numbers)} numbers after the class: expected at least 4"
    if not all(map(math.isfinite, numbers)):
        return "a number that is not finite"
    if len(numbers) in (4, 5):
        x, y, width, height = numbers[:4]
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        if width <= 0 or height <= 0 or not all(-_SLACK <= edge <= 1 + _SLACK for edge in edges):
            return f"the box {x:g} {y:g} {width:g} {height:g} is not within the picture"
    return ""


def count_classes(path: Path) -> float | None:
    """How many classes the file speaks of; None if it cannot be read or does not say so in a usual way."""
    try:
        values = read_yaml(path)
    except UsageError:
        return None
    names, count = values.get("names"), values.get("nc")
    if names and isinstance(names, list | dict):
        count = len(names) if isinstance(names, list) else 1 + _last(names)
    return float(count) if type(count) is int and 0 < count < _MAX_CLASSES else None  # `nc: true` is no number


def _last(names: dict[Any, Any]) -> int:
    """The highest index. `{person: 0, car: 1}` is the wrong way round, and has as many classes as keys."""
    with suppress(ValueError, TypeError, OverflowError):
        return max(map(int, names))
    return len(names) - 1


def moved(path: Path, folder: Path, out: Path) -> bytes | None:
    """The file with the absolute places within `folder` exchanged for those in `out`, None if there are none.

    A training that reads the file in the output would otherwise read the input. All other bytes stay.
    """
    try:
        read_yaml(path)  # its limits hold for what follows
        text = path.read_bytes().decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (UsageError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    pieces, position = [], 0
    for node in _places(root):
        if place := within(node.value, folder):
            pieces += [
                text[position : node.start_mark.index],
                json.dumps(str(out.absolute() / place), ensure_ascii=False),
            ]
            position = node.end_mark.index
    pieces.append(text[position:])
    # a byte that is no UTF-8 becomes \udcff, which YAML reads as Python does
    return "".join(pieces).encode(errors="backslashreplace") if position else None


def _places(root: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The values of `path` and of the splits, which may be lists; in the order of the text."""
    if not isinstance(root, yaml.MappingNode):
        return []
    values = [value for key, value in root.value if key.value in _PLACES]
    nodes = [node for value in values for node in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [node for node in nodes if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")]
