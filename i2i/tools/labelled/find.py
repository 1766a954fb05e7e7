"""Which layout a folder has, and whether its labels match its pictures."""

import re
from collections.abc import Callable
from pathlib import Path

from i2i import images
from i2i.config import nearest
from i2i.data.folders import LINKED, LeftOut, first_lines, listed, near_to, no_file
from i2i.data.walking import exists, is_folder, walk
from i2i.errors import ImageError, InputError, UsageError
from i2i.folders.plan import shown
from i2i.tools.labelled.coco import Coco
from i2i.tools.labelled.layout import Item, Layout, is_picture
from i2i.tools.labelled.masks import Masks
from i2i.tools.labelled.options import LayoutName
from i2i.tools.labelled.voc import Voc
from i2i.tools.labelled.yolo import Yolo

LAYOUTS: dict[str, Callable[[Path, list[Path]], Layout]] = {"coco": Coco, "voc": Voc, "yolo": Yolo, "masks": Masks}
_EXPECTED = (
    "expected labels: YOLO (.txt beside the pictures, or images/ and labels/), "
    "VOC (JPEGImages/ and Annotations/*.xml), COCO (.json with images and annotations), "
    "or masks (images/ and masks/ with the same names)"
)


def files_in(folder: Path, left_out: LeftOut) -> list[Path]:
    """All regular files below a folder that are not hidden, relative to it. Raises `InputError`.

    Links to folders and what is no regular file are added to `left_out`.
    """
    if not is_folder(folder):
        reason = "not a folder" if exists(folder) else "no such folder"
        raise InputError(f"{shown(folder)}: {reason}.{near_to(folder)}")

    def refused(error: OSError) -> None:
        raise InputError(f"{shown(Path(error.filename))}: cannot be listed: {error.strerror}")

    linked: list[Path] = []
    reasons = {path: no_file(path) for path in walk(folder, refused, not_followed=linked.append)}
    left_out.add(folder, dict.fromkeys(linked, LINKED) | {path: reason for path, reason in reasons.items() if reason})
    return [path.relative_to(folder) for path, reason in reasons.items() if not reason]


def find(folder: Path, name: LayoutName, files: list[Path]) -> Layout:
    """The labels of a folder.

    Raises `InputError` if there are none or a file with many labels in it is damaged, `UsageError` if there are
    several kinds and `name` is `auto`.
    """
    kinds = LAYOUTS.values() if name == "auto" else [LAYOUTS[name]]
    try:
        layouts = [kind(folder, files) for kind in kinds]
    except InputError as error:
        raise InputError(f"{shown(folder)}: {error}") from None
    # where nothing matches, what looks like labels says why
    found = [layout for layout in layouts if _has_labels(layout)] or [layout for layout in layouts if layout.problems]
    if any(isinstance(layout, Voc) for layout in found):  # its segmentations are masks, and come along
        found = [layout for layout in found if not isinstance(layout, Masks)]
    if not found:
        pictures = sum(map(is_picture, files))
        what = "no labels" if name == "auto" else f"no {name} labels"
        raise InputError(f"{shown(folder)}: {what} found beside {pictures:,} pictures; {_EXPECTED}")
    if len(found) > 1:
        which = "; ".join(layout.summary for layout in found)
        raise UsageError(f"{shown(folder)} has labels of several kinds, choose one with --layout: {which}")
    return found[0]


def _has_labels(layout: Layout) -> bool:
    return any(item.labels for item in layout.items) or bool(layout.lists)


def check(layout: Layout) -> dict[Path, str]:
    """What does not match: the reason for each picture or label file, by relative path. Reads labels and headers."""
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


def refuse(problems: dict[Path, str], folder: Path) -> None:
    """Raises `InputError` that names the first ten."""
    if problems:
        raise InputError(
            f"{shown(folder)}: {len(problems)} labels or pictures do not match:",
            *listed(described(problems)),
            "Mend them, or use --on-bad skip to leave out those pictures, or annotations.",
        )


def described(problems: dict[Path, str]) -> list[str]:
    return [f"{shown(path)}: {reason}" for path, reason in problems.items()]


def some(problems: dict[Path, str]) -> list[str]:
    """The first ten, and how many more there are."""
    return first_lines(described(problems))


def of_split(layout: Layout, items: list[Item], split: str) -> list[Item]:
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
