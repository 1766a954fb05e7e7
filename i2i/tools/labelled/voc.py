"""Pascal VOC: an `.xml` for each picture, in `Annotations/` where the picture is in `JPEGImages/`, or beside it.

In the label of a copy, the last part of `filename` and `path` is the copy's name; every other byte is the original's.
Masks of the same stem in `SegmentationClass/` and `SegmentationObject/` come along, and the lists in `ImageSets/` name
the copies after their originals. A document type is refused, before it could declare an entity.
"""

import re
from collections.abc import Sequence, Set
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from i2i.errors import InputError
from i2i.tools.labelled.layout import Copies, Item, Layout, exchanged, is_picture, outside, renamed, stem

_MAX_TAGS = 500_000
_DOCUMENT_TYPE = re.compile(rb"<!(DOCTYPE|ENTITY)")
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)""")
_NAMES = re.compile(rb"(<(filename|path)\s*>)([^<]*)(</\2\s*>)")
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
        self.by_stem([item.picture for item in self.items])
        for label in sorted(set(labels.values()) - set(pairs.values())):
            self.problems[label] = "a label file without a picture"
        self.lists = [path for path in files if "ImageSets" in path.parts[:-1] and path.suffix == ".txt"]
        self._names = _names([item.picture for item in self.items], {_root(path) for path in self.lists})
        self._listed = {path: self._pictures_of(path) for path in self.lists}

    def _pictures_of(self, path: Path) -> set[Path]:
        return {picture for line in self.lines(path) for picture in self._named(path, (line.split() or [""])[0])}

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
        if reason := _wrong(self.read(label), item.picture, width, height):
            return f"{label}: {reason}"
        return self.wrong_masks(masks, width, height)

    def label(self, source: Path, picture: Path) -> bytes:
        data = super().label(source, picture)
        return named(data, picture.name) if source.suffix.lower() == ".xml" else data

    def listing(self, source: Path, kept: Set[Path], copies: Copies, out: Path) -> bytes:
        lines = []
        for line in self.lines(source):
            first = (line.split() or [""])[0]
            pictures = self._named(source, first)
            if not pictures or not kept.isdisjoint(pictures):
                lines.append(line)
            suffix = first.removeprefix(_without_suffix(first))
            made = dict.fromkeys(copy.name if suffix else copy.stem for p in pictures for copy in copies.get(p, ()))
            lines += [line.replace(first, renamed(first, name), 1) for name in made]
        return "".join(f"{line}\n" for line in lines).encode()


def _root(path: Path) -> Path:
    """The folder that holds the `ImageSets` of a list, and the pictures that the list names."""
    return Path(*path.parts[: path.parts.index("ImageSets")])


def _names(pictures: Sequence[Path], roots: set[Path]) -> dict[Path, dict[str, list[Path]]]:
    """Root → name, with all or some of its folders → pictures. `Path()` has the names of all roots, unless it has
    pictures of its own."""
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
    """The label of a picture, both without suffix: in `Annotations/`, else next to the picture."""
    for name in ("Annotations", "annotations"):
        place = exchanged(picture, PICTURES, name)
        if place in labels:
            return labels[place]
    return labels.get(picture)


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


def can_hold(path: Path) -> bool:
    """Whether a name can stand in XML: valid Unicode without control characters."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return False
    return path.name.isprintable()


def _wrong(data: bytes, picture: Path, width: int, height: int) -> str:
    root = parse(data)
    if root.tag != "annotation":
        return "expected <annotation>"
    places = [match[2] for match in _NAMES.finditer(data)]
    if b"filename" not in places:
        return "has no <filename>"
    if len(places) != len(set(places)):
        return "has <filename> or <path> twice; one of each is expected"
    name = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    if Path(name).stem != picture.stem and name != picture.stem:
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
