"""YOLO: a `.txt` for each picture, beside it or in `labels/` where the picture is in `images/`.

Each row is a class index and numbers between 0 and 1: a box (centre, width, height), a polygon, or a box with
keypoints. A picture without a file is background. The labels of a copy are those of its original, byte for byte. The
`data.yaml` of Ultralytics says how many classes there are, and where the pictures lie.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from i2i.errors import InputError, UsageError
from i2i.plain_yaml import read_yaml
from i2i.tools.labelled.layout import Layout, exchanged, is_picture, stem, tails, within

_PLACES = ("path", "train", "val", "test", "minival")
_MAX_CLASSES = 1 << 31
CLASSES, DATA = "classes.txt", ("data.yaml", "dataset.yaml", "data.yml")
_SLACK = 1e-3
"""Six digits are usual; a box at the edge may round out of the picture."""


class Yolo(Layout):
    name = "yolo"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        texts = {path for path in files if path.suffix.lower() == ".txt" and path.name != CLASSES}
        pictures = [path for path in files if is_picture(path)]
        parallel = {path: place for path in pictures if (place := exchanged(path, ("images",), "labels"))}
        labels = {text for text in texts if "labels" in text.parts[:-1]} if parallel else set()
        own = {path: self._label_of(path, parallel.get(path, path), texts) for path in pictures}
        folders = {path.parent for path, found in own.items() for label in found if label.parent == path.parent}
        # a picture without a label is background where others have one in the same way
        backgrounds = {path for path in pictures if path.parent in folders or (labels and path in parallel)}
        self.items = {path: found for path, found in own.items() if found or path in backgrounds}
        self._find_lonely(texts, labels)
        self.by_stem(self.items)
        self._pictures = {picture.as_posix(): picture for picture in self.items}
        used = {label for own in self.items.values() for label in own} | set(self.problems)
        self.lists = [path for path in sorted(texts - used) if self.items and self._is_list(path)]
        self._classes = self._count_classes(files)

    @staticmethod
    def _label_of(picture: Path, place: Path, texts: set[Path]) -> tuple[Path, ...]:
        """The label file of a picture: at that place, else next to the picture."""
        places = (place.with_suffix(".txt"), picture.with_suffix(".txt"))
        return next(((path,) for path in places if path in texts), ())

    def _find_lonely(self, texts: set[Path], labels: set[Path]) -> None:
        own = {stem(picture): labels for picture, labels in self.items.items()}
        folders = {picture.parent for picture in own}
        for path in sorted(texts.difference(*own.values())):
            if path in labels or (path.parent in folders and self._has_rows(path)):
                other = own.get(stem(path))
                self.problems[path] = f"its picture has {other[0]}" if other else "a label file without a picture"

    def _rows(self, path: Path) -> list[tuple[int, list[str]]]:
        """The words of each line that has some, with the number of the line."""
        return [(number, words) for number, line in enumerate(self.lines(path), 1) if (words := line.split())]

    def _has_rows(self, path: Path) -> bool:
        with suppress(InputError):
            rows = self._rows(path)
            return bool(rows) and not any(_wrong(words, math.inf) for _, words in rows)
        return False

    def complaint(self, picture: Path, width: int, height: int) -> str:
        for label in self.items[picture]:
            for number, words in self._rows(label):
                if reason := _wrong(words, self._classes):
                    return f"{label}, line {number}: {reason}"
        return ""

    def _count_classes(self, files: Sequence[Path]) -> float:
        """How many classes there are, by `data.yaml` or `classes.txt`; without one, any number."""
        by_yaml = (count_classes(self.folder / path) for path in files if path.name in DATA)
        by_text = (len(self._rows(path)) for path in files if path.name == CLASSES)
        return next(filter(None, by_yaml), None) or next(by_text, 0) or math.inf

    def original(self, source: Path, out: Path) -> bytes | None:
        return moved(self.folder / source, self.folder, out) if source.suffix in (".yaml", ".yml") else None

    def _is_list(self, path: Path) -> bool:
        """Whether it lists pictures, one in each line."""
        with suppress(InputError):
            lines = [line for line in self.lines(path) if line.strip()]
            return bool(lines) and all(self.named(path, line)[1] for line in lines)
        return False

    def named(self, source: Path, line: str) -> tuple[str, Sequence[Path]]:
        """The whole line is a path, whatever folder it begins at."""
        found = next((self._pictures[tail] for tail in tails(line.strip()) if tail in self._pictures), None)
        return line.strip(), (found,) if found else ()

    @property
    def summary(self) -> str:
        return super().summary + ("" if self._classes == math.inf else f", {self._classes:.0f} classes")


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


def count_classes(path: Path) -> int | None:
    """How many classes the file speaks of; None if it cannot be read or does not say so in a usual way."""
    try:
        values = read_yaml(path)
    except UsageError:
        return None
    names, count = values.get("names"), values.get("nc")
    if names and isinstance(names, list | dict):
        count = len(names) if isinstance(names, list) else 1 + _last(names)
    return count if type(count) is int and 0 < count < _MAX_CLASSES else None  # `nc: true` is no number


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
    found = [(node, place) for node in _places(root) if (place := within(node.value, folder))]
    for node, place in reversed(found):
        exchanged = json.dumps(str(out.absolute() / place), ensure_ascii=False)
        text = text[: node.start_mark.index] + exchanged + text[node.end_mark.index :]
    # a byte that is no UTF-8 becomes \udcff, which YAML reads as Python does
    return text.encode(errors="backslashreplace") if found else None


def _places(root: yaml.Node | None) -> list[yaml.ScalarNode]:
    """The values of `path` and of the splits, which may be lists; in the order of the text."""
    if not isinstance(root, yaml.MappingNode):
        return []
    values = [value for key, value in root.value if key.value in _PLACES]
    nodes = [node for value in values for node in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [node for node in nodes if isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">")]
