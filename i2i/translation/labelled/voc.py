"""Pascal VOC: an `.xml` for each picture, in `Annotations/` where the picture is in `JPEGImages/`, or beside it.

In the label of a copy, the last part of `filename` and `path` is the copy's name; every other byte is the
original's. Masks of the same stem in `SegmentationClass/` and `SegmentationObject/` come along, and the lists
in `ImageSets/` name the copies after their originals.
"""

from collections.abc import Sequence
from pathlib import Path

from i2i.translation.labelled import safe_xml
from i2i.translation.labelled.layout import (
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
)
from i2i.translation.labelled.masks import wrong_mask

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
        if not safe_xml.can_hold(item.picture):
            return "its name cannot stand in XML; rename it"
        label, *masks = item.labels
        document = safe_xml.parse(read_bytes(self.folder / label))
        reason = _wrong(document, item.picture, width, height)
        if reason:
            return f"{label}: {reason}"
        return next(filter(None, (wrong_mask(self.folder, mask, width, height) for mask in masks)), "")

    def label(self, source: Path, picture: Path) -> bytes:
        data = super().label(source, picture)
        if source.suffix.lower() != ".xml":
            return data
        document = safe_xml.parse(data)
        texts = {"annotation/filename": safe_xml.with_name(_first(document, "filename"), picture.name)}
        if path := _first(document, "path"):
            texts["annotation/path"] = safe_xml.with_name(path, picture.name)
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


def _first(document: safe_xml.Document, name: str) -> str:
    return next(iter(document.texts(f"annotation/{name}")), "")


def _wrong(document: safe_xml.Document, picture: Path, width: int, height: int) -> str:
    if not any(element.path == "annotation" for element in document.elements):
        return "expected <annotation>"
    named = safe_xml.file_name(_first(document, "filename"))
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
