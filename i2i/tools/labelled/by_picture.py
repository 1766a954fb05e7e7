"""Labels with a file for each picture: Pascal VOC and YOLO."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import yaml

from i2i.errors import InputError, UsageError
from i2i.plain_yaml import read_yaml
from i2i.tools.labelled.layout import Layout, exchanged, is_picture, outside, renamed, stem, tails, within

_MAX_TAGS = 500_000
_DOCUMENT_TYPE = re.compile(rb"<!(DOCTYPE|ENTITY)")
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)""")
_NAMES = re.compile(rb"(<(filename|path)\s*>)([^<]*)(</\2\s*>)")
PICTURES = ("jpegimages", "images")
_SEGMENTATIONS = ("SegmentationClass", "SegmentationObject")
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_PLACES = ("path", "train", "val", "test", "minival")
_MAX_CLASSES = 1 << 31
CLASSES, DATA = "classes.txt", ("data.yaml", "dataset.yaml", "data.yml")
_SLACK = 1e-3
"""Six digits are usual; a box at the edge may round out of the picture."""


class Voc(Layout):
    """Pascal VOC: an `.xml` for each picture, in `Annotations/` where the picture is in `JPEGImages/`, or beside it.

    In the label of a copy, the last part of `filename` and `path` is the copy's name; every other byte is the
    original's. Masks of the same stem in `SegmentationClass/` and `SegmentationObject/` come along, and the lists in
    `ImageSets/` name the copies after their originals. A document type is refused, before it could declare an entity.
    """

    name = "voc"
    takes_masks = True  # its segmentations

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        labels = {stem(path): path for path in files if path.suffix.lower() == ".xml"}
        if not labels:
            return
        segmented = {stem(path): path for path in files if set(path.parts) & set(_SEGMENTATIONS) and is_picture(path)}
        pictures = [path for path in files if is_picture(path) and stem(path) not in segmented]
        pairs = {picture: label for picture in pictures if (label := _annotation_of(stem(picture), labels))}
        folders = {picture.parent for picture in pairs}
        for picture in (picture for picture in pictures if picture.parent in folders):
            masks = [exchanged(stem(picture), PICTURES, name) for name in _SEGMENTATIONS]
            own = [segmented[mask] for mask in masks if mask in segmented]
            self.items[picture] = (pairs[picture], *own) if picture in pairs else ()
            if picture not in pairs:
                self.problems[picture] = "no .xml has its name"
        self.by_stem(self.items)
        for label in sorted(set(labels.values()) - set(pairs.values())):
            self.problems[label] = "a label file without a picture"
        self.lists = [path for path in files if "ImageSets" in path.parts[:-1] and path.suffix == ".txt"]
        roots = sorted({_root(path) for path in self.lists}, key=lambda root: len(root.parts))
        self._roots: dict[Path, Path | None] = dict.fromkeys(self.items)
        self._roots |= {picture: root for root in roots for picture in self.items if picture.is_relative_to(root)}
        self._used = {*self._roots.values()}
        self._names: defaultdict[str, list[Path]] = defaultdict(list)
        for picture in self.items:
            for name in tails(stem(picture).as_posix()):
                self._names[name].append(picture)
        self._listed: dict[Path, set[Path]] = {}
        for path in self.lists:
            self._listed[path] = set().union(*(self.named(path, line)[1] for line in self.lines(path)))

    def named(self, source: Path, line: str) -> tuple[str, Sequence[Path]]:
        """The first word, which may have folders, a suffix, and backslashes.

        A list names the pictures below its own root, that holds its `ImageSets`, and not those below a deeper one;
        where there are none, those below no root, or all.
        """
        word = (line.split() or [""])[0]
        name = word.rpartition(".")[0] if is_picture(Path(word)) else word
        own = next(({root} for root in (_root(source), None) if root in self._used), self._used)
        found = ([p for p in self._names.get(tail, ()) if self._roots[p] in own] for tail in tails(name))
        return word, next(filter(None, found), [])

    def splits(self, picture: Path) -> set[str]:
        return super().splits(picture) | {path.stem for path, named in self._listed.items() if picture in named}

    def complaint(self, picture: Path, width: int, height: int) -> str:
        if not picture.name.isprintable():  # control characters, and bytes that are no Unicode
            return "its name cannot stand in XML; rename it"
        label, *masks = self.items[picture]
        if reason := _wrong_xml(self.read(label), picture, width, height):
            return f"{label}: {reason}"
        return self.wrong_masks(masks, width, height)

    def label(self, source: Path, picture: Path) -> bytes:
        data = super().label(source, picture)
        return named(data, picture.name) if source.suffix.lower() == ".xml" else data


def _root(path: Path) -> Path:
    """The folder that holds the `ImageSets` of a list, and the pictures that the list names."""
    return Path(*path.parts[: path.parts.index("ImageSets")])


def _annotation_of(picture: Path, labels: dict[Path, Path]) -> Path | None:
    """The label of a picture, both without suffix: in `Annotations/`, else next to the picture."""
    places = [exchanged(picture, PICTURES, name) for name in ("Annotations", "annotations")]
    return next((labels[place] for place in (*places, picture) if place in labels), None)


def parse(data: bytes) -> ElementTree.Element:
    """The root element. Raises `InputError`, without a file name, for anything but plain XML in UTF-8 or 8 bits."""
    if b"\0" in data[:4]:
        raise InputError("expected XML in UTF-8")
    if _DOCUMENT_TYPE.search(data):
        raise InputError("a document type (<!DOCTYPE>, <!ENTITY>) is not accepted; remove it")
    if data.count(b"<") > _MAX_TAGS:
        raise InputError(f"more than {_MAX_TAGS:,} tags")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # unknown encodings, and those of several bytes
        raise InputError(f"not valid XML: {error}") from None


def named(data: bytes, name: str) -> bytes:
    """The label with `name` as the last part of `filename` and `path`."""
    declared = _ENCODING.match(data.removeprefix(b"\xef\xbb\xbf"))
    encoding = declared[1].decode() if declared else "utf-8"

    def exchange(match: re.Match[bytes]) -> bytes:
        text = renamed(match[3].decode(encoding).strip(), escape(name))
        return match[1] + text.encode(encoding, "xmlcharrefreplace") + match[4]

    return _NAMES.sub(exchange, data)


def _wrong_xml(data: bytes, picture: Path, width: int, height: int) -> str:
    root = parse(data)
    if root.tag != "annotation":
        return "expected <annotation>"
    places = [match[2] for match in _NAMES.finditer(data)]
    if b"filename" not in places:
        return "has no <filename>"
    if len(places) != len(set(places)):
        return "has <filename> or <path> twice; one of each is expected"
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    if picture.stem not in (Path(name).stem, name):
        return f"is for {name[:100]!r}, not for {picture.name}"
    try:
        stated = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height")]
        edges = [[float(edge.text or "") for edge in root.iterfind(f"object/bndbox/{name}")] for name in _EDGES]
        boxes = list(zip(*edges, strict=True))
    except (ValueError, OverflowError) as error:
        return f"sizes and boxes must be numbers, four for each box: {error}"
    if any(stated) and stated != [width, height]:
        return f"says {stated[0]}x{stated[1]} pixels; the picture has {width}x{height}"
    for box in boxes:
        if outside(box, width, height):
            return f"the box {' '.join(f'{edge:g}' for edge in box)} is not within {width}x{height} pixels"
    return ""


class Yolo(Layout):
    """YOLO: a `.txt` for each picture, beside it or in `labels/` where the picture is in `images/`.

    Each row is a class index and numbers between 0 and 1: a box (centre, width, height), a polygon, or a box with
    keypoints. A picture without a file is background. The labels of a copy are those of its original, byte for byte.
    The `data.yaml` of Ultralytics says how many classes there are, and where the pictures lie.
    """

    name = "yolo"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        texts = {path for path in files if path.suffix.lower() == ".txt" and path.name != CLASSES}
        pictures = [path for path in files if is_picture(path)]
        parallel = {path: place for path in pictures if (place := exchanged(path, ("images",), "labels"))}
        labels = {text for text in texts if "labels" in text.parts[:-1]} if parallel else set()
        own: dict[Path, tuple[Path, ...]] = {}
        for picture in pictures:  # in labels/, else next to the picture
            places = (place.with_suffix(".txt") for place in (parallel.get(picture, picture), picture))
            own[picture] = next(((place,) for place in places if place in texts), ())
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
            return bool(rows) and not any(_wrong_row(words, math.inf) for _, words in rows)
        return False

    def complaint(self, picture: Path, width: int, height: int) -> str:
        for label in self.items[picture]:
            for number, words in self._rows(label):
                if reason := _wrong_row(words, self._classes):
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


def _wrong_row(words: Sequence[str], classes: float) -> str:
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
    if isinstance(names, dict) and {*map(type, names)} == {int}:
        count = 1 + max(names)
    elif names and isinstance(names, list | dict):  # `{person: 0, car: 1}` is the wrong way round
        count = len(names)
    return count if type(count) is int and 0 < count < _MAX_CLASSES else None  # `nc: true` is no number


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
