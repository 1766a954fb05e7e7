"""COCO: one `.json` for many pictures, in `annotations/`, in the folder itself, or beside the pictures.

A copy is an entry of `images` like its original's with an id and `file_name` of its own, and its annotations are
the original's with ids of their own and the copy's `image_id`. New ids follow the highest there is in the file.
"""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.data.folders import listed
from i2i.errors import InputError
from i2i.tools.labelled.layout import Copies, Layout, is_absolute, is_picture, outside, place_of, relative, within

MAX_BYTES = 1 << 30
_SAMPLE = 200

Entry = dict[str, Any]


@dataclass
class _Image:
    """An entry of `images`, its annotations, and the picture if it is there."""

    entry: Entry
    picture: Path | None
    annotations: list[Entry] = field(default_factory=list)


class Coco(Layout):
    name = "coco"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        pictures = {path for path in files if is_picture(path)}
        self._images: dict[Path, dict[int, _Image]] = {}
        self._rest: dict[Path, Entry] = {}
        self._places: defaultdict[Path, list[tuple[Path, _Image]]] = defaultdict(list)
        for path in files:
            if path.suffix.lower() == ".json":
                try:
                    self._add(path, pictures)
                except InputError as error:
                    raise InputError(f"{path}: {error}") from None
        self.lists = list(self._images)
        self.items = dict.fromkeys(sorted(self._places), ())

    def _add(self, path: Path, pictures: set[Path]) -> None:
        """Take in a file, if it is in this format."""
        content = _parsed(self.read(path, MAX_BYTES))
        if not isinstance(content, dict):
            return
        entries, annotations = (_entries(content.pop(name, None), name) for name in ("images", "annotations"))
        categories = {entry["id"] for entry in _entries(content.get("categories", []), "categories")}
        if any(not isinstance(entry.get("file_name"), str) for entry in entries):
            raise InputError("an image without file_name")
        if any("image_id" not in entry for entry in annotations):
            raise InputError("an annotation without image_id")
        base = _base(path, [entry["file_name"] for entry in entries], pictures)
        images = {entry["id"]: _Image(entry, self._picture(base, entry["file_name"], pictures)) for entry in entries}
        _refuse_twice((image.picture for image in images.values() if image.picture), "pictures occur twice in it")
        for key, image in images.items():
            if image.picture is not None:
                self._places[image.picture].append((path, image))
                continue
            name = image.entry["file_name"][:200]
            reason = "no such picture" if relative(name) or within(name, self.folder) else "leads out of the folder"
            self.problems[path / f"images/{key}"] = f"{name}: {reason}"
        for entry in annotations:
            if reason := _wrong_reference(entry, images, categories) or _empty(entry.get("bbox")):
                self.problems[path / f"annotations/{entry['id']}"] = reason
            else:
                images[entry["image_id"]].annotations.append(entry)
        self._images[path], self._rest[path] = images, content

    def _picture(self, base: Path, name: str, pictures: set[Path]) -> Path | None:
        inside = relative(name)
        place = base / inside if inside else within(name, self.folder)
        return place if place in pictures else None

    def splits(self, picture: Path) -> set[str]:
        return super().splits(picture) | {path.stem for path, _ in self._places[picture]}

    def complaint(self, picture: Path, width: int, height: int) -> str:
        for path, image in self._places[picture]:
            if reason := _wrong(image, width, height):
                return f"{path}: {reason}"
        return ""

    def listing(self, source: Path, kept: Set[Path], copies: Copies, out: Path) -> bytes:
        found = self._images[source]
        next_image = itertools.count(1 + max(found, default=0))
        ids = (annotation["id"] for image in found.values() for annotation in image.annotations)
        next_annotation = itertools.count(1 + max(ids, default=0))
        originals = [image for image in found.values() if image.picture in kept]
        images = [_moved(image, out) for image in originals]
        annotations = [annotation for image in originals for annotation in image.annotations]
        for image in found.values():
            for copy in copies.get(image.picture, ()) if image.picture else ():
                key, name = next(next_image), place_of(copy, image.entry["file_name"], out)
                images.append({**image.entry, "id": key, "file_name": name})
                annotations += [{**a, "id": next(next_annotation), "image_id": key} for a in image.annotations]
        content = {**self._rest[source], "images": images, "annotations": annotations}
        return json.dumps(content, allow_nan=False).encode()

    @property
    def summary(self) -> str:
        boxes = sum(len(image.annotations) for images in self._images.values() for image in images.values())
        return f"coco: {len(self.items):,} pictures, {boxes:,} annotations in {', '.join(map(str, self.lists))}"


def _parsed(data: bytes) -> object:
    """The content of a JSON file, None where it cannot be in this format. Raises `InputError`."""
    if b'"images"' not in data or b'"annotations"' not in data:
        return None
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (RecursionError, ValueError) as error:
        raise InputError(f"not valid JSON: {error}") from None


def _finite(text: str) -> float:
    """1e999 would be written as Infinity, which is no JSON."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:80]} is no finite number")
    return number


def _entries(entries: object, name: str) -> list[Entry]:
    """Entries, held to their form. The ids of copies follow theirs, and must still be numbers that can be written."""
    if not (isinstance(entries, list) and all(isinstance(e, dict) and _is_id(e.get("id")) for e in entries)):
        raise InputError(f"expected in {name!r} a list of objects, each with a whole number as its id")
    _refuse_twice((entry["id"] for entry in entries), f"ids occur twice in {name!r}")
    return entries


def _is_id(value: object) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _refuse_twice(values: Iterable[object], what: str) -> None:
    if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
        raise InputError(f"{len(twice)} {what}:", *listed(twice))


def _base(path: Path, names: Sequence[str], pictures: set[Path]) -> Path:
    """The folder that the names are relative to: the one where most of them are."""
    wanted = [name for text in names[:_SAMPLE] if (name := relative(text))]
    folders = {path.parent, *(parent for picture in pictures for parent in picture.parents)}
    ordered = sorted(folders, key=lambda folder: (folder != path.parent, len(folder.parts), folder))
    return max(ordered, key=lambda folder: sum(folder / name in pictures for name in wanted))


def _moved(image: _Image, out: Path) -> Entry:
    """The entry of an original, whose absolute path would lead from the output back to the input."""
    if image.picture is None or not is_absolute(image.entry["file_name"]):
        return image.entry
    return {**image.entry, "file_name": str(out.absolute() / image.picture)}


def _wrong_reference(entry: Entry, images: dict[int, _Image], categories: set[int]) -> str:
    image, category = entry["image_id"], entry.get("category_id")
    if not isinstance(image, int) or image not in images:
        return f"image_id {image!r} is no image"[:200]
    if category is not None and (not isinstance(category, int) or category not in categories):
        return f"category_id {category!r} is no category"[:200]
    return ""


def _wrong(image: _Image, width: int, height: int) -> str:
    entry = image.entry
    given = entry.get("width"), entry.get("height")
    stated = tuple(own if size is None else size for size, own in zip(given, (width, height), strict=True))
    if stated != (width, height):
        return f"image {entry['id']} has {stated[0]!r}x{stated[1]!r} pixels there; the picture has {width}x{height}"
    for annotation in image.annotations:
        if reason := _wrong_box(annotation.get("bbox"), width, height):
            return f"annotation {annotation['id']}: {reason}"
    return ""


def _empty(box: object) -> str:
    """The fault of a box without pixels (the published training set of 2017 has two); empty if there is none."""
    if not (isinstance(box, list) and len(box) == 4 and 0 in box[2:]):
        return ""
    return f"the box {' '.join(map(str, box))[:80]} (x, y, width, height) is empty"


def _wrong_box(box: object, width: int, height: int) -> str:
    if box is None or box == []:
        return ""
    try:
        x, y, w, h = map(float, box if isinstance(box, list) and {*map(type, box)} <= {int, float} else ())
    except (ValueError, OverflowError):  # not four numbers, or one of 400 digits
        return f"bbox {str(box)[:80]}: expected x, y, width, height"
    if outside((x, y, x + w, y + h), width, height):
        return f"the box {x:g} {y:g} {w:g} {h:g} (x, y, width, height) is not within {width}x{height} pixels"
    return ""
