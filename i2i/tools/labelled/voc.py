"""Pascal VOC: an `.xml` for each picture, in `Annotations/` where the picture is in `JPEGImages/`, or beside it.

In the label of a copy, the last part of `filename` and `path` is the copy's name; every other byte is the
original's. Masks of the same stem in `SegmentationClass/` and `SegmentationObject/` come along, and the lists
in `ImageSets/` name the copies after their originals.

The XML is read without trust: no document type, no entities, bounded size and depth. Elements keep their place in the
bytes, so that a name can be changed and the rest stays as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

from i2i.errors import InputError
from i2i.tools.labelled.layout import (
    Copies,
    Item,
    Layout,
    by_stem,
    exchanged,
    is_picture,
    outside,
    read_bytes,
    read_text,
    renamed,
    stem,
    wrong_mask,
)

_MAX_DEPTH = 32
_MAX_ELEMENTS = 250_000
_MAX_NAME = 256
"""Each element has the path to it, so long names would add up."""
_TAG = re.compile(rb"""<[^\s>/]+(?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*(/?)>""")
PICTURES = ("jpegimages", "images")
_SEGMENTATIONS = ("SegmentationClass", "SegmentationObject")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


class Voc(Layout):
    name = "voc"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder)
        labels = {stem(path): path for path in files if path.suffix.lower() == ".xml"}
        if not labels:
            return
        segmented = {stem(path): path for path in files if set(path.parts) & set(_SEGMENTATIONS) and is_picture(path)}
        pictures = [path for path in files if is_picture(path) and stem(path) not in segmented]
        pairs = {picture: label for picture in pictures if (label := _label_of(stem(picture), labels))}
        folders = {picture.parent for picture in pairs}
        for picture in pictures:
            if picture.parent not in folders:
                continue
            masks = [exchanged(stem(picture), PICTURES, name) for name in _SEGMENTATIONS]
            own = [segmented[mask] for mask in masks if mask in segmented]
            self.items.append(Item(picture, (pairs[picture], *own) if picture in pairs else ()))
            if picture not in pairs:
                self.problems[picture] = "no .xml has its name"
        by_stem([item.picture for item in self.items], self.problems)
        for label in sorted(set(labels.values()) - set(pairs.values())):
            self.problems[label] = "a label file without a picture"
        self.lists = [path for path in files if "ImageSets" in path.parts[:-1] and path.suffix == ".txt"]
        self._names = _names([item.picture for item in self.items], {_root(path) for path in self.lists})
        self._listed = {path: self._pictures_of(path) for path in self.lists}

    def _lines(self, path: Path) -> list[str]:
        return read_text(self.folder / path).splitlines()

    def _pictures_of(self, path: Path) -> set[Path]:
        return {picture for line in self._lines(path) for picture in self._named(path, (line.split() or [""])[0])}

    def _named(self, path: Path, word: str) -> list[Path]:
        """The pictures that a word of the list `path` names, which may have folders, a suffix, and backslashes."""
        names = self._names.get(_root(path)) or self._names[Path()]
        parts = _without_suffix(word.replace("\\", "/")).split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((names[tail] for tail in tails if tail in names), [])

    def splits(self, item: Item) -> set[str]:
        listed = {path.stem for path, pictures in self._listed.items() if item.picture in pictures}
        return super().splits(item) | listed

    def complaint(self, item: Item, width: int, height: int) -> str:
        if not can_hold(item.picture):
            return "its name cannot stand in XML; rename it"
        label, *masks = item.labels
        document = parse(read_bytes(self.folder / label))
        reason = _wrong(document, item.picture, width, height)
        if reason:
            return f"{label}: {reason}"
        return next(filter(None, (wrong_mask(self.folder, mask, width, height) for mask in masks)), "")

    def label(self, source: Path, picture: Path) -> bytes:
        data = super().label(source, picture)
        if source.suffix.lower() != ".xml":
            return data
        document = parse(data)
        texts = {"annotation/filename": renamed(_first(document, "filename"), picture.name)}
        if path := _first(document, "path"):
            texts["annotation/path"] = renamed(path, picture.name)
        return document.replaced(texts)

    def listing(self, source: Path, kept: set[Path], copies: Copies, out: Path) -> bytes:
        lines = []
        for line in self._lines(source):
            first = (line.split() or [""])[0]
            pictures = self._named(source, first)
            if not pictures or not kept.isdisjoint(pictures):
                lines.append(line)
            suffix = first.removeprefix(_without_suffix(first))
            made = dict.fromkeys(copy.name if suffix else copy.stem for p in pictures for copy in copies.get(p, ()))
            lines += [line.replace(first, renamed(first, name), 1) for name in made]
        return "".join(f"{line}\n" for line in lines).encode()


def _root(path: Path) -> Path:
    """The folder of a list's `ImageSets`: its pictures are those beside that one."""
    return Path(*path.parts[: path.parts.index("ImageSets")])


def _names(pictures: Sequence[Path], roots: set[Path]) -> dict[Path, dict[str, list[Path]]]:
    """What the pictures of each root are called, with all or some of their folders; of all roots at `Path()`, if it has
    none of its own."""
    found: dict[Path, dict[str, list[Path]]] = {Path(): {}}
    everywhere = not any(_nearest(picture, roots) == Path() for picture in pictures)
    for picture in pictures:
        nearest = _nearest(picture, roots)
        for root in {nearest, Path()} if everywhere else {nearest}:
            parts = stem(picture).relative_to(root).parts
            for start in range(len(parts)):
                found.setdefault(root, {}).setdefault("/".join(parts[start:]), []).append(picture)
    return found


def _nearest(picture: Path, roots: set[Path]) -> Path:
    return max(
        (root for root in roots if picture.is_relative_to(root)), key=lambda root: len(root.parts), default=Path()
    )


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] if is_picture(Path(name)) else name


def _label_of(picture: Path, labels: dict[Path, Path]) -> Path | None:
    """The label of a picture, both without suffix: in `Annotations/`, else beside it."""
    for name in ("Annotations", "annotations"):
        place = exchanged(picture, PICTURES, name)
        if place in labels:
            return labels[place]
    return labels.get(picture)


@dataclass
class Element:
    """An element at `path` (`annotation/filename`): its text, and where its inside lies in the bytes.

    `start` is -1 for `<name/>`, which has no inside.
    """

    path: str
    start: int
    text: str = ""
    end: int = 0


@dataclass
class Document:
    data: bytes
    encoding: str = "utf-8"
    elements: list[Element] = field(default_factory=list)

    def texts(self, path: str) -> list[str]:
        return [element.text.strip() for element in self.elements if element.path == path]

    def replaced(self, texts: dict[str, str]) -> bytes:
        """The bytes with other texts in the elements at these paths."""
        inside = {path: escape(text).encode(self.encoding, "xmlcharrefreplace") for path, text in texts.items()}
        pieces, position = [], 0
        for element in sorted(self.elements, key=lambda found: found.start):
            if element.path in inside and element.start >= position:
                pieces += [self.data[position : element.start], inside[element.path]]
                position = element.end
        return b"".join((*pieces, self.data[position:]))


def parse(data: bytes) -> Document:
    """Raises `InputError`, without a name, for anything but plain XML in UTF-8 or an 8-bit encoding."""
    if b"\0" in data[:4]:
        raise InputError("expected XML in UTF-8")
    reader = _Reader(data)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise InputError(f"not valid XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or of several bytes (GBK)
        raise InputError(f"not valid XML: {error}") from None
    return reader.document


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.document = Document(data)
        self._open: list[tuple[Element, list[str]]] = []
        """Texts in pieces: one for each element between them, which a sum would copy each time."""
        self._count = 0
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = _refuse  # before an entity could be declared
        parser.EntityDeclHandler = _refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.document.encoding = encoding or "utf-8"

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise InputError(f"deeper than {_MAX_DEPTH} levels")
        self._count += 1
        if self._count > _MAX_ELEMENTS or len(name) > _MAX_NAME:
            raise InputError(f"more than {_MAX_ELEMENTS:,} elements, or a name of more than {_MAX_NAME} characters")
        path = f"{self._open[-1][0].path}/{name}" if self._open else name
        place = self.parser.CurrentByteIndex
        tag = _TAG.match(self.document.data, place)
        inside = -1 if tag is None or tag[1] else tag.end()
        self._open.append((Element(path, inside), []))

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1][1].append(text)

    def _end(self, name: str) -> None:
        element, texts = self._open.pop()
        element.text = "".join(texts)
        element.end = self.parser.CurrentByteIndex
        self.document.elements.append(element)


def _refuse(*_: object) -> None:
    raise InputError("a document type (<!DOCTYPE>, <!ENTITY>) is not accepted; remove it")


def can_hold(path: Path) -> bool:
    """Whether a name can stand in XML: valid Unicode without control characters."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return path.name.isprintable()


def _first(document: Document, name: str) -> str:
    return next(iter(document.texts(f"annotation/{name}")), "")


def _wrong(document: Document, picture: Path, width: int, height: int) -> str:
    if not any(element.path == "annotation" for element in document.elements):
        return "expected <annotation>"
    named = _first(document, "filename").replace("\\", "/").rpartition("/")[2]
    if Path(named).stem != picture.stem and named != picture.stem:
        return f"is for {named[:100]!r}, not for {picture.name}" if named else "has no <filename>"
    try:
        stated = [int(float(_first(document, f"size/{side}") or 0)) for side in ("width", "height")]
        edges = [[float(text) for text in document.texts(f"annotation/object/bndbox/{edge}")] for edge in _EDGES]
        boxes = list(zip(*edges, strict=True))
    except (ValueError, OverflowError) as error:
        return f"sizes and boxes must be numbers, four for each box: {error}"
    if any(stated) and stated != [width, height]:
        return f"says {stated[0]}x{stated[1]} pixels; the picture has {width}x{height}"
    for box in boxes:
        if outside(box, width, height):
            return f"the box {' '.join(f'{edge:g}' for edge in box)} is not within {width}x{height} pixels"
    return ""
