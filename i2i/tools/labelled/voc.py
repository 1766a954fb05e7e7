"""Pascal VOC: an `.xml` for each picture, in `Annotations/` where the picture is in `JPEGImages/`, or beside it.

In the label of a copy, the last part of `filename` and `path` is the copy's name; every other byte is the original's.
Masks of the same stem in `SegmentationClass/` and `SegmentationObject/` come along, and the lists in `ImageSets/` name
the copies after their originals. A document type is refused, before it could declare an entity.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from i2i.errors import InputError
from i2i.tools.labelled.layout import Layout, exchanged, is_picture, outside, renamed, stem, tails

_MAX_TAGS = 500_000
_DOCUMENT_TYPE = re.compile(rb"<!(DOCTYPE|ENTITY)")
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)""")
_NAMES = re.compile(rb"(<(filename|path)\s*>)([^<]*)(</\2\s*>)")
PICTURES = ("jpegimages", "images")
_SEGMENTATIONS = ("SegmentationClass", "SegmentationObject")
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_TOP = Path()


class Voc(Layout):
    name = "voc"
    takes_masks = True  # its segmentations

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        labels = {stem(path): path for path in files if path.suffix.lower() == ".xml"}
        if not labels:
            return
        segmented = {stem(path): path for path in files if set(path.parts) & set(_SEGMENTATIONS) and is_picture(path)}
        pictures = [path for path in files if is_picture(path) and stem(path) not in segmented]
        pairs = {picture: label for picture in pictures if (label := _label_of(stem(picture), labels))}
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
        self._names = self._pictures_by_name()
        self._listed = {
            path: {p for line in self.lines(path) for p in self.named(path, line)[1]} for path in self.lists
        }

    def _pictures_by_name(self) -> dict[Path, dict[str, list[Path]]]:
        """Root → name, with all or some of its folders → pictures.

        A list names the pictures below its own root, that holds its `ImageSets`, and not those below a deeper one;
        where there are none, those of the top, or all.
        """
        roots = {_root(path) for path in self.lists}
        own: defaultdict[Path, list[Path]] = defaultdict(list)
        for picture in self.items:
            above = [root for root in roots if picture.is_relative_to(root)]
            own[max(above, key=lambda root: len(root.parts), default=_TOP)].append(picture)
        found: dict[Path, dict[str, list[Path]]] = {}
        for root in roots:
            names = found[root] = defaultdict(list)
            for picture in own.get(root) or own.get(_TOP) or self.items:
                for name in tails(stem(picture).as_posix()):
                    names[name].append(picture)
        return found

    def named(self, source: Path, line: str) -> tuple[str, Sequence[Path]]:
        """The first word, which may have folders, a suffix, and backslashes."""
        word, names = (line.split() or [""])[0], self._names[_root(source)]
        name = word.rpartition(".")[0] if is_picture(Path(word)) else word
        return word, next((names[tail] for tail in tails(name) if tail in names), ())

    def splits(self, picture: Path) -> set[str]:
        return super().splits(picture) | {path.stem for path, named in self._listed.items() if picture in named}

    def complaint(self, picture: Path, width: int, height: int) -> str:
        if not picture.name.isprintable():  # control characters, and bytes that are no Unicode
            return "its name cannot stand in XML; rename it"
        label, *masks = self.items[picture]
        if reason := _wrong(self.read(label), picture, width, height):
            return f"{label}: {reason}"
        return self.wrong_masks(masks, width, height)

    def label(self, source: Path, picture: Path) -> bytes:
        data = super().label(source, picture)
        return named(data, picture.name) if source.suffix.lower() == ".xml" else data


def _root(path: Path) -> Path:
    """The folder that holds the `ImageSets` of a list, and the pictures that the list names."""
    return Path(*path.parts[: path.parts.index("ImageSets")])


def _label_of(picture: Path, labels: dict[Path, Path]) -> Path | None:
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
