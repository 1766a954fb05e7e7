"""The options of an augmentation, and its plan, before any work: labels found and checked, pictures drawn, copies and
their names."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Le

from i2i import images
from i2i.config import nearest
from i2i.data.folders import LeftOut, find_files, first_lines, listed, near_to
from i2i.data.walking import exists, is_folder
from i2i.errors import ImageError, InputError, UsageError
from i2i.folders.jobs import Job
from i2i.images import written_suffix
from i2i.inference.options import ModelOptions
from i2i.models import styles as known_styles
from i2i.models.info import DIRECTIONS
from i2i.models.styles import MODEL_SUFFIXES, STYLE_NAME
from i2i.terminal import printable
from i2i.tools.datasets.shape import check_outputs, check_place
from i2i.tools.labelled.coco import Coco
from i2i.tools.labelled.layout import Item, Layout, Masks, is_picture
from i2i.tools.labelled.voc import Voc
from i2i.tools.labelled.yolo import Yolo

LayoutName = Literal["auto", "yolo", "voc", "coco", "masks"]


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(ModelOptions):
    """How a labelled folder is augmented."""

    layout: LayoutName = "auto"
    """The kind of labels; auto looks for it, and says what it found."""
    names: str = ""
    """Names for the copies of each style, with commas between: photo_NAME.jpg. Default: the names of the styles."""
    copies: Annotated[int, Ge(1)] | None = None
    """Translate each picture by so many of the styles, drawn at random. Default: all."""
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """The share of the pictures that is translated, drawn at random."""
    split: str = ""
    """Translate only this split: pictures in a folder train/ or train2017/, ImageSets/*/train.txt, or *_train.json."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Another number, other draws (and another noise where dropout stays on); the same number, the same."""
    copies_only: bool = False
    """Write the copies and their labels alone, without the originals."""
    on_bad: Literal["error", "skip"] = "error"
    """Labels that do not match: refuse before any work, or leave those pictures out."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Quality of JPEG, WebP and AVIF copies, 1 to 100. Default: visually lossless."""
    overwrite: bool = False
    """Replace outputs that exist."""
    skip_existing: bool = False
    """Write only missing outputs; lists (COCO .json, ImageSets) are written anew."""
    batch_size: Annotated[int, Interval(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Pictures of equal size that go through the network together; auto is 1 on a CPU, else 16."""
    workers: Annotated[int, Interval(ge=1, le=256)] | Literal["auto"] = "auto"
    """Threads that read, and as many that write; auto is 1 on a CPU, else up to 8. They change no result."""


LAYOUTS: dict[str, Callable[[Path, list[Path]], Layout]] = {"coco": Coco, "voc": Voc, "yolo": Yolo, "masks": Masks}
_EXPECTED = (
    "expected labels: YOLO (.txt beside the pictures, or images/ and labels/), "
    "VOC (JPEGImages/ and Annotations/*.xml), COCO (.json with images and annotations), "
    "or masks (images/ and masks/ with the same names)"
)


@dataclass(frozen=True)
class Copy:
    """A translation of a picture by a style (its number), with the names of the copy and its labels."""

    item: Item
    style: int
    picture: Path
    labels: tuple[Path, ...]


@dataclass(frozen=True)
class Plan:
    """`originals` are files to be copied as they are, `kept` the pictures among them; all paths are relative.

    `problems` are the labels and pictures that are left out, with the reason; `not_read` are lines about places that
    were not read, such as folders behind links.
    """

    layout: Layout
    out: Path
    originals: tuple[Path, ...]
    kept: frozenset[Path]
    copies: tuple[Copy, ...]
    problems: dict[Path, str]
    not_read: tuple[str, ...] = ()

    def job(self, copy: Copy) -> Job:
        source, target = self.layout.folder / copy.item.picture, self.out / copy.picture
        return Job(str(source), str(target), str(copy.picture))

    def outputs(self) -> list[Path]:
        relative = [*self.originals, *self.layout.lists]
        relative += [path for copy in self.copies for path in (copy.picture, *copy.labels)]
        return [self.out / path for path in relative]

    @property
    def summary(self) -> str:
        """The labels that were found and the files to write, in a line."""
        originals = f"{len(self.originals):,} files as they are" if self.originals else "no originals"
        return f"{self.layout.summary}; {len(self.copies):,} translated copies, {originals}"

    @property
    def notices(self) -> tuple[str, ...]:
        """The first ten labels and pictures that are left out, and what was not read."""
        left_out = f"{len(self.problems)} labels or pictures do not match and are left out:"
        return (*self.not_read, *((left_out, *first_lines(_described(self.problems))) if self.problems else ()))


def plan(folder: Path, out: Path, names: Sequence[str], options: AugmentOptions) -> Plan:
    """The plan for copies with these names. Reads labels and the headers of pictures.

    Raises `InputError` if there are no labels, or some do not match (unless `on_bad` is skip); `UsageError` for
    outputs that exist without `overwrite` or `skip_existing`, or that have the name of an input or of one another.
    """
    check_place(out, (folder,))
    if not is_folder(folder):
        reason = "not a folder" if exists(folder) else "no such folder"
        raise InputError(f"{printable(folder)}: {reason}.{near_to(folder)}")
    left_out = LeftOut(folder)
    files = [Path(path).relative_to(folder) for path in find_files(folder, left_out)]
    layout = find_layout(folder, options.layout, files)
    problems = _check_labels(layout)
    if problems and options.on_bad == "error":
        mend = "Mend them, or use --on-bad skip to leave out those pictures, or annotations."
        lines = listed(_described(problems))
        raise InputError(f"{printable(folder)}: {len(problems)} labels or pictures do not match:", *lines, mend)
    good = [item for item in layout.items if item.picture not in problems]
    if not good:
        lines = listed(_described(problems))
        raise InputError(f"{printable(folder)}: none of its pictures has labels that match:", *lines)
    copies = tuple(_draw_copies(_of_split(layout, good, options.split), names, options))
    bad = set(problems) | {label for item in layout.items if item.picture in problems for label in item.labels}
    bad -= {label for item in good for label in item.labels}
    originals = () if options.copies_only else tuple(f for f in files if f not in bad and f not in layout.lists)
    kept = frozenset() if options.copies_only else frozenset(item.picture for item in good)
    found = Plan(layout, out, originals, kept, copies, problems, tuple(left_out.lines))
    check_outputs(found.outputs(), [folder / path for path in files], options.overwrite, options.skip_existing)
    return found


def checked_styles(styles: Sequence[str], options: AugmentOptions) -> list[str]:
    """The names for the copies of each style, after a look for the styles that need no download.

    Raises `UsageError` for options that contradict each other, unknown styles, and names that cannot be used.
    """
    if not styles:
        raise UsageError("expected at least one style")
    if options.copies is not None and options.copies > (count := len(styles)):
        raise UsageError(f"copies = {options.copies}: with {count} styles there are {count} translations of a picture")
    names = [name.strip() for name in options.names.split(",")] if options.names else list(map(_style_name, styles))
    if len(names) != len(styles):
        raise UsageError(
            f"names = {options.names!r}: expected one for each of {len(styles)} styles, with commas between"
        )
    for name in names:
        if not STYLE_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a part of file names; choose another with --names")
    if twice := [name for name, count in Counter(name.lower() for name in names).items() if count > 1]:
        raise UsageError(f"several styles have the name {twice[0]!r}; choose others with --names a,b,...")
    for style in styles:
        if not style.startswith("hub:") and not options.download:  # others are looked for when they are loaded
            known_styles.find(style, options.direction)
    return names


def _style_name(style: str) -> str:
    """`runs/monet`, `runs/monet/b2a.safetensors`, `hub:me/monet@main` and `monet` are all called monet."""
    path = Path(style.removeprefix("hub:").partition("@")[0] if style.startswith("hub:") else style)
    if path.suffix not in MODEL_SUFFIXES:
        return path.name or path.absolute().name
    return path.absolute().parent.name if path.stem in DIRECTIONS else path.stem


def find_layout(folder: Path, name: LayoutName, files: list[Path]) -> Layout:
    """The labels of a folder.

    Raises `InputError` if there are none or a file with many labels in it is damaged, `UsageError` if there are
    several kinds and `name` is `auto`.
    """
    kinds = LAYOUTS.values() if name == "auto" else [LAYOUTS[name]]
    try:
        layouts = [kind(folder, files) for kind in kinds]
    except InputError as error:
        raise InputError(f"{printable(folder)}: {error}") from None
    # where nothing matches, a layout with problems says why
    found = [layout for layout in layouts if _has_labels(layout)] or [layout for layout in layouts if layout.problems]
    if any(isinstance(layout, Voc) for layout in found):  # its segmentations are masks, and come along
        found = [layout for layout in found if not isinstance(layout, Masks)]
    if not found:
        pictures = sum(map(is_picture, files))
        missing = "no labels" if name == "auto" else f"no {name} labels"
        raise InputError(f"{printable(folder)}: {missing} found beside {pictures:,} pictures; {_EXPECTED}")
    if len(found) > 1:
        kinds_found = "; ".join(layout.summary for layout in found)
        raise UsageError(f"{printable(folder)} has labels of several kinds, choose one with --layout: {kinds_found}")
    return found[0]


def _has_labels(layout: Layout) -> bool:
    return any(item.labels for item in layout.items) or bool(layout.lists)


def _check_labels(layout: Layout) -> dict[Path, str]:
    """Labels and pictures that do not match: path → reason. Reads labels and headers."""
    found = dict(layout.problems)
    for item in layout.items:
        if item.picture in found:
            continue
        try:
            reason = layout.complaint(item, *images.probe(layout.folder / item.picture))
        except ImageError as error:
            reason = str(error)
        except InputError as error:
            reason = f"{', '.join(map(str, item.labels))}: {error}"
        if reason:
            found[item.picture] = reason
    return found


def _described(problems: dict[Path, str]) -> list[str]:
    return [f"{printable(path)}: {reason}" for path, reason in problems.items()]


def _of_split(layout: Layout, items: list[Item], split: str) -> list[Item]:
    """The items of a split. Raises `UsageError` if there is none."""
    if not split:
        return items
    belongs = re.compile(rf"(.*[_-])?{re.escape(split)}(\d{{4}})?")
    chosen = [item for item in items if any(map(belongs.fullmatch, layout.splits(item)))]
    if not chosen:
        known = sorted({name for item in items for name in layout.splits(item)})
        raise UsageError(
            f"split = {split!r}: no picture belongs to it.{nearest(split, known)} Found: {', '.join(known[:20])}"
        )
    return chosen


def _draw_copies(items: Sequence[Item], names: Sequence[str], options: AugmentOptions) -> list[Copy]:
    """The copies, style by style; the draws for a picture follow from the seed and its path."""
    count = max(1, round(options.fraction * len(items)))
    drawn = set(sorted(items, key=lambda item: _draw(options.seed, item, ""))[:count])
    found = []
    for item in (item for item in items if item in drawn):
        ranked = sorted(range(len(names)), key=lambda style: _draw(options.seed, item, names[style]))
        found += [_copy(item, style, names[style]) for style in ranked[: options.copies]]
    return sorted(found, key=lambda copy: copy.style)


def _draw(seed: int, item: Item, name: str) -> bytes:
    return hashlib.blake2b(
        b"\0".join((str(seed).encode(), name.encode(), os.fsencode(item.picture.as_posix())))
    ).digest()


def _copy(item: Item, style: int, name: str) -> Copy:
    def renamed(path: Path, suffix: str) -> Path:
        return path.with_name(f"{path.stem}_{name}{suffix}")

    picture = renamed(item.picture, written_suffix(item.picture.suffix))
    return Copy(item, style, picture, tuple(renamed(label, label.suffix) for label in item.labels))
