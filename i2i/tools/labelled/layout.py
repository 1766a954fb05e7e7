"""The layout of a labelled folder: what all four kinds have in common, and masks, the simplest kind."""

import os
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from i2i import images
from i2i.errors import ImageError, InputError, UsageError
from i2i.terminal import printable

MAX_LABEL_BYTES = 16 << 20
TOLERANCE = 1.0
"""Pixels that a box may reach over the edge: some tools count from 1, others round."""
MASK_PICTURES = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "segmentationclass", "gt", "ground_truth")
"""The names of the folders for pictures and for their masks."""
_EXPECTED = (
    "expected labels: YOLO (.txt beside the pictures, or images/ and labels/), "
    "VOC (JPEGImages/ and Annotations/*.xml), COCO (.json with images and annotations), "
    "or masks (images/ and masks/ with the same names)"
)

Copies = Mapping[Path, Sequence[Path]]
"""The copies of each picture, by its path; all relative."""


class Layout(ABC):
    """Labels of one kind in a folder. All paths are relative to it.

    `items` are the pictures, each with the label files that are its own; `problems` the faults of whole files; `lists`
    the files that name many pictures, which `listing` writes anew.
    """

    name = ""
    takes_masks = False
    """Whether masks are a part of it."""

    @abstractmethod
    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder = folder
        self.items: dict[Path, tuple[Path, ...]] = {}
        self.problems: dict[Path, str] = {}
        self.lists: list[Path] = []

    def read(self, path: Path, limit: int = MAX_LABEL_BYTES) -> bytes:
        """A label file. Raises `InputError`, without its name, if it cannot be read or is larger than `limit`."""
        try:
            with (self.folder / path).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}") from None
        if len(data) > limit:
            raise InputError(f"more than {limit:,} bytes, too large for labels")
        return data

    def lines(self, path: Path) -> list[str]:
        """The lines of a text in UTF-8. Raises `InputError`, without its name."""
        try:
            return self.read(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"byte {error.start} is no UTF-8") from None

    def by_stem(self, pictures: Iterable[Path]) -> dict[Path, Path]:
        """Pictures by path without suffix; of two that would share a label, the second is a problem."""
        found: dict[Path, Path] = {}
        for path in pictures:
            other = found.setdefault(stem(path), path)
            if other != path:
                name = printable(Path(other.name))
                self.problems[path] = f"has the name of {name}, so both would have the same label"
        return found

    def mismatches(self) -> dict[Path, str]:
        """Labels and pictures that do not match: path → reason. Reads labels and headers."""
        found = dict(self.problems)
        for picture in (picture for picture in self.items if picture not in found):
            try:
                reason = self.complaint(picture, *images.probe(self.folder / picture))
            except ImageError as error:
                reason = str(error)
            except InputError as error:
                reason = f"{', '.join(map(str, self.items[picture]))}: {error}"
            if reason:
                found[picture] = reason
        return found

    def complaint(self, picture: Path, width: int, height: int) -> str:
        """The fault in the labels of a picture of that size; empty if there is none."""
        return ""

    def wrong_masks(self, masks: Sequence[Path], width: int, height: int) -> str:
        """The fault of the masks of a picture of that size; empty if there is none."""
        for mask in masks:
            try:
                size = images.probe(self.folder / mask)
            except ImageError as error:
                return f"{mask}: {error}"
            if size != (width, height):
                return f"{mask} has {size[0]}x{size[1]} pixels, its picture {width}x{height}"
        return ""

    def splits(self, picture: Path) -> set[str]:
        """The names of the splits that the picture may belong to."""
        return set(picture.parts[:-1])

    def label(self, source: Path, picture: Path) -> bytes:
        """The label file `source` for a copy of its picture that is called `picture`."""
        return self.read(source)

    def original(self, source: Path, out: Path) -> bytes | None:
        """The file `source` as it is written to the folder `out`, None if that is byte for byte."""
        return None

    def named(self, source: Path, line: str) -> tuple[str, Sequence[Path]]:
        """The word in a line of the list `source` that names pictures, and these."""
        raise NotImplementedError

    def listing(self, source: Path, kept: Set[Path], copies: Copies, out: Path) -> bytes:
        """The file `source` of `lists`, for the folder `out`, with the pictures `kept` of this folder and with `copies`
        of them. In a text the copies stand after their original."""
        lines = []
        for line in self.lines(source):
            word, pictures = self.named(source, line)
            if not pictures or not kept.isdisjoint(pictures):
                lines.append(line)
            made = dict.fromkeys(place_of(copy, word, out) for path in pictures for copy in copies.get(path, ()))
            lines += [line.replace(word, name, 1) for name in made]
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def summary(self) -> str:
        """The result of the search, in a line."""
        return f"{self.name}: {len(self.items):,} pictures, {sum(map(bool, self.items.values())):,} with labels"


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES


def stem(path: Path) -> Path:
    """The path without its suffix, by which pictures and labels find each other."""
    return path.with_name(path.stem)


def exchanged(path: Path, names: Sequence[str], other: str) -> Path | None:
    """`path` with the last of its folders that has one of `names` (lower case) called `other`, if there is one."""
    parts = list(path.parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() in names:
            parts[place] = other
            return Path(*parts)
    return None


def outside(box: Sequence[float], width: float, height: float) -> bool:
    """Whether a box (left, top, right, bottom) is empty, not finite, or over the edge by more than `TOLERANCE`."""
    left, top, right, bottom = box
    inside = -TOLERANCE <= left < right <= width + TOLERANCE and -TOLERANCE <= top < bottom <= height + TOLERANCE
    return not inside


def tails(path: str) -> Iterator[str]:
    """A path from a label file with slashes, and without its first folder, its first two, and so on."""
    parts = posixpath.normpath(path.replace("\\", "/")).split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def renamed(path: str, name: str) -> str:
    """A path from a label file, with slashes or backslashes, whose last part is `name`."""
    return path[: 1 + max(path.rfind("/"), path.rfind("\\"))] + name


def place_of(copy: Path, original: str, out: Path) -> str:
    """The path of a copy in `out`, in the way that a label file has the path of its original."""
    named = copy if is_picture(Path(original)) else copy.with_suffix("")
    return str(out.absolute() / named) if is_absolute(original) else renamed(original, named.name)


def is_absolute(path: str) -> bool:
    """Whether a path from a label file begins at a root, or at a drive of Windows."""
    return re.match(r"/|\\|[A-Za-z]:[/\\]", path) is not None


def within(path: str, folder: Path) -> Path | None:
    """An absolute path that leads into the folder, relative to it."""
    if not Path(path).is_absolute() or "\0" in path:
        return None
    for place, root in ((os.path.normpath(path), folder.absolute()), (os.path.realpath(path), folder.resolve())):
        if Path(place).is_relative_to(root):
            return Path(place).relative_to(root)
    return None


def relative(path: str) -> Path | None:
    """A path from a label file, if it stays within the folder that it is relative to."""
    normal = os.path.normpath(path.replace("\\", "/"))
    inside = path and "\0" not in path and not normal.startswith(("/", "..")) and normal != "."
    return Path(normal) if inside else None


def find_layout(folder: Path, files: Sequence[Path], kinds: Sequence[type[Layout]]) -> Layout:
    """The labels of a folder, of one of these kinds.

    Raises `InputError` if there are none or a file with many labels in it is damaged, `UsageError` if there are
    several kinds.
    """
    try:
        layouts = [kind(folder, files) for kind in kinds]
    except InputError as error:
        raise InputError(f"{printable(folder)}: {error}") from None
    # where nothing matches, a layout with problems says why
    labelled = [layout for layout in layouts if any(layout.items.values()) or layout.lists]
    found = labelled or [layout for layout in layouts if layout.problems]
    if any(layout.takes_masks for layout in found):
        found = [layout for layout in found if not isinstance(layout, Masks)]
    if not found:
        missing = "no labels" if len(kinds) > 1 else f"no {kinds[0].name} labels"
        pictures = sum(map(is_picture, files))
        raise InputError(f"{printable(folder)}: {missing} found beside {pictures:,} pictures; {_EXPECTED}")
    if len(found) > 1:
        summaries = "; ".join(layout.summary for layout in found)
        raise UsageError(f"{printable(folder)} has labels of several kinds, choose one with --layout: {summaries}")
    return found[0]


class Masks(Layout):
    """Masks: pictures in one folder, and masks with the same stems in a folder beside it, copied byte for byte."""

    name = "masks"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder, files)
        found = [path for path in files if is_picture(path)]
        masks = [path for path in found if _is_mask(path)]
        pictures = [path for path in found if not _is_mask(path) and exchanged(path, MASK_PICTURES, "")]
        if not masks or not pictures:
            return
        names = sorted({part for path in found for part in path.parts[:-1] if part.lower() in MASK_FOLDERS})
        of_stem = self.by_stem(masks)
        self.by_stem(pictures)
        for picture in pictures:
            places = [stem(place) for name in names if (place := exchanged(picture, MASK_PICTURES, name))]
            self.items[picture] = tuple(of_stem[place] for place in places if place in of_stem)
            if not self.items[picture]:
                self.problems[picture] = "no mask has its name"
        used = {mask for own in self.items.values() for mask in own}
        for mask in masks:
            if mask not in used:
                self.problems.setdefault(mask, "a mask without a picture")

    def complaint(self, picture: Path, width: int, height: int) -> str:
        return self.wrong_masks(self.items[picture], width, height)


def _is_mask(path: Path) -> bool:
    """The folder nearest to the file decides: `labels/images/a.png` is a picture."""
    kinds = [part.lower() for part in path.parts[:-1] if part.lower() in (*MASK_PICTURES, *MASK_FOLDERS)]
    return bool(kinds) and kinds[-1] in MASK_FOLDERS
