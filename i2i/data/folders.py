"""Finding the pictures of a data set: folders, layouts and CSV lists.

Unpaired: `trainA/ trainB/`, `testA/ testB/`. Paired, first match wins:

* `train/A/ train/B/`, `A/train/ B/train/` or `trainA/ trainB/`: pairs by relative path without suffix;
* `train/`: A and B side by side in each picture, A on the left;
* `A/ B/` without folders for splits, which is then the training split;
* a CSV file with the columns `a`, `b` and optionally `split`; paths relative to the file's folder, blanks
  around them dropped.
"""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from i2i import images
from i2i.config import nearest
from i2i.errors import InputError

Split = Literal["train", "val", "test"]
Pairs = Literal["error", "intersect"]

SPLITS = ("train", "val", "test")
_LISTED = 10


@dataclass(frozen=True)
class PairRecord:
    """Where a pair lies: two files, or one (`b` is None) that shows A and B side by side."""

    a: Path
    b: Path | None = None


def find_images(folder: Path) -> list[Path]:
    """All pictures below a folder by suffix in any case, sorted by their relative path.

    Links to files are followed, links to folders are not; hidden names and special files are left out.
    Raises `InputError` for a folder that is missing or cannot be listed.
    """
    return [p for p in walk(folder, _cannot_list) if p.suffix.lower() in images.SUFFIXES and p.is_file()]


def walk(
    folder: Path,
    refused: Callable[[OSError], object],
    *,
    recursive: bool = True,
    follow_links: bool = False,
) -> list[Path]:
    """All names below a folder that are no folders and not hidden, sorted by their relative path.

    With `follow_links`, folders behind links are searched too, each folder once, so that loops end. A folder
    that cannot be listed is given to `refused` as the system's error and left out.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    _first_visit(folder, seen)
    for parent, folders, files in os.walk(folder, onerror=refused, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        if follow_links:
            folders[:] = [name for name in folders if _first_visit(Path(parent, name), seen)]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _first_visit(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def unpaired(data: Path, split: Split) -> tuple[list[Path], list[Path]]:
    """The pictures of domain A and of domain B in `<split>A/` and `<split>B/`.

    A missing folder of the train split raises `InputError`, as does an empty one; the other splits may be
    absent or one-sided, and give empty lists then.
    """
    sides = [data / f"{split}A", data / f"{split}B"]
    found = []
    for side in sides:
        if side.is_dir():
            found.append(find_images(side))
        elif split == "train":
            _no_layout(data, "trainA/ and trainB/ (unpaired)")
        else:
            found.append([])
        if split == "train" and not found[-1]:
            raise InputError(f"{side}: no pictures in this folder (looked for {_suffixes()})")
    return found[0], found[1]


def paired(data: Path, split: Split, pairs: Pairs = "error") -> list[PairRecord]:
    """The pairs of a split, in a fixed order; empty if a split other than train is absent.

    Raises `InputError` if there is no train split, a folder is empty, names do not match (`pairs="intersect"`
    keeps those that do), or a CSV file is wrong.
    """
    if data.is_file():
        return _from_csv(data, split)
    for a, b in ((data / split / "A", data / split / "B"), (data / "A" / split, data / "B" / split)):
        if a.is_dir() and b.is_dir():
            return _match(a, b, pairs)
    if (data / split).is_dir():
        return [PairRecord(path) for path in _not_empty(data / split)]
    if (data / f"{split}A").is_dir() and (data / f"{split}B").is_dir():
        return _match(data / f"{split}A", data / f"{split}B", pairs)
    if split != "train":
        return []
    if (data / "A").is_dir() and (data / "B").is_dir():
        return _match(data / "A", data / "B", pairs)
    _no_layout(data, "train/ (A and B side by side), A/ and B/, trainA/ and trainB/, or a CSV file (paired)")


def one_domain(data: Path, split: Split) -> list[Path]:
    """The pictures of a split of one domain, in `<split>/`; without a `train/`, all below the folder are for training.

    Raises `InputError` if the folder is missing or there is nothing to train on.
    """
    if (data / split).is_dir():
        return _not_empty(data / split)
    if split != "train":
        return []
    if not data.is_dir():
        _no_layout(data, "train/, or pictures directly in it (one domain)")
    if sides := [name for name in ("trainB", "trainA", "testB", "testA") if (data / name).is_dir()]:
        raise InputError(f"{data}: two domains; give one of them, such as --data {data / sides[0]}")
    if held_out := [name for name in ("val", "test") if (data / name).is_dir()]:
        raise InputError(f"{data}: has {held_out[0]}/, to be measured on, but no train/")
    return _not_empty(data)


def searched(data: Path) -> list[Path]:
    """The folder of a data set and those in it that a layout names, which may be links to elsewhere."""
    names = ["A", "B", *(f"{split}{side}" for split in SPLITS for side in ("", "A", "B"))]
    places = [data, *(data / name for name in names)]
    places += [data / one / other for one in names for other in names]
    return [place for place in places if os.path.isdir(place)]  # noqa: PTH112 - what may not be looked at is none


def _match(a: Path, b: Path, pairs: Pairs) -> list[PairRecord]:
    in_a, in_b = (_by_stem(folder) for folder in (a, b))
    both = [stem for stem in in_a if stem in in_b]
    lonely = [f"{path} has no partner in {b}" for stem, path in in_a.items() if stem not in in_b]
    lonely += [f"{path} has no partner in {a}" for stem, path in in_b.items() if stem not in in_a]
    if not both:
        raise InputError(f"no picture in {a} has the name of one in {b}:{listed(lonely)}")
    if lonely and pairs == "error":
        raise InputError(
            f"{len(lonely)} pictures have no partner:{listed(lonely)}\n"
            f"Use --pairs intersect to train on the {len(both)} pairs that are complete."
        )
    return [PairRecord(in_a[stem], in_b[stem]) for stem in both]


def _by_stem(folder: Path) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in _not_empty(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in stems:
            raise InputError(f"{stems[stem]} and {path} have the same name without suffix; keep one of them")
        stems[stem] = path
    return stems


def _from_csv(file: Path, split: Split) -> list[PairRecord]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            _check_columns(file, reader.fieldnames)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as a CSV file: {error}") from None
    records = [_csv_record(file, line, row) for line, row in rows if _csv_split(file, line, row) == split]
    if split == "train" and not records:
        raise InputError(f"{file}: no rows of the train split")
    return records


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    for column in ("a", "b"):
        if column not in columns:
            raise InputError(
                f"{file}, line 1: no column {column!r}; expected a,b and optionally split, "
                f"found {','.join(columns) or 'nothing'}.{nearest(column, columns)}"
            )


def _csv_split(file: Path, line: int, row: dict[str, str]) -> str:
    split = (row.get("split", "train") or "").strip()
    if split not in SPLITS:
        raise InputError(f"{file}, line {line}: split {split!r}; expected {', '.join(SPLITS)}")
    return split


def _csv_record(file: Path, line: int, row: dict[str, str]) -> PairRecord:
    sides = []
    for column in ("a", "b"):
        value = (row.get(column) or "").strip()
        if not value:
            raise InputError(f"{file}, line {line}: nothing in column {column!r}")
        sides.append(file.parent / value)
        if not sides[-1].is_file():
            raise InputError(f"{file}, line {line}: {sides[-1]} is missing or not a file")
    return PairRecord(*sides)


def _not_empty(folder: Path) -> list[Path]:
    found = find_images(folder)
    if not found:
        raise InputError(f"{folder}: no pictures in this folder (looked for {_suffixes()})")
    return found


def _no_layout(data: Path, wanted: str) -> NoReturn:
    if not data.exists():
        near = nearest(data.name, [p.name for p in data.parent.iterdir()] if data.parent.is_dir() else [])
        raise InputError(f"{data}: no such folder.{near}")
    if not data.is_dir():
        raise InputError(f"{data}: not a folder; expected one with {wanted}")
    raise InputError(f"{data}: looked for {wanted}, and found {_what_it_is(data)}")


def _what_it_is(data: Path) -> str:
    """What a folder that does not fit looks like, and what to do with it."""
    names = sorted(path.name for path in data.iterdir() if path.is_dir())
    layout = _layout(data)
    if layout:
        return layout
    for name in names:
        if layout := _layout(data / name):
            return f"{name}/, which is {layout}. Did you mean --data {data / name}?"
    direct = [path for path in data.iterdir() if path.suffix.lower() in images.SUFFIXES]
    if direct:
        return f"{len(direct)} pictures directly in it; put them into a folder train/, or trainA/ and trainB/"
    lists = sorted(path for path in data.glob("*.csv"))
    if lists:
        return f"a CSV file: use --data {lists[0]}"
    near = nearest("trainA", names) or nearest("train", names)
    return (f"the folders {', '.join(names[:_LISTED])}." + near) if names else "nothing"


def _layout(data: Path) -> str:
    if (data / "trainA").is_dir() and (data / "trainB").is_dir():
        return "an unpaired folder (trainA/, trainB/): use scripts/train_cyclegan.py"
    if (data / "train").is_dir():
        return "a paired folder (train/): use scripts/train_pix2pix.py"
    if (data / "A").is_dir() and (data / "B").is_dir():
        return "a paired folder (A/, B/): use scripts/train_pix2pix.py"
    return ""


def _cannot_list(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}")


def _suffixes() -> str:
    return ", ".join(sorted(images.SUFFIXES))


def listed(lines: Sequence[str]) -> str:
    """The first ten lines, each on its own line, and how many more there are."""
    return "".join(f"\n  {line}" for line in first_lines(lines))


def first_lines(lines: Sequence[str]) -> list[str]:
    """The first ten lines, and how many more there are."""
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]
