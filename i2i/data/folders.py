"""Finding the pictures of a data set: folders, layouts, CSV lists, and a check of every file before training.

Unpaired: `trainA/ trainB/`, `testA/ testB/`. Paired, first match wins:

* `train/A/ train/B/`, `A/train/ B/train/` or `trainA/ trainB/`: pairs by relative path without suffix;
* `train/`: A and B side by side in each picture, A on the left;
* `A/ B/` without folders for splits, which is then the training split;
* a CSV file with the columns `a`, `b` and optionally `split`; paths relative to the file's folder.
"""

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from i2i import images
from i2i.config import nearest
from i2i.errors import ImageError, InputError

Split = Literal["train", "val", "test"]
Pairs = Literal["error", "intersect"]
Check = Literal["quick", "full", "off"]

SPLITS = ("train", "val", "test")
MAX_DAMAGED = 0.05
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
    found = []
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in images.SUFFIXES and path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


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


def check(records: Iterable[Path | PairRecord], mode: Check = "quick", minimum: int = 1) -> list[tuple[Path, str]]:
    """The damaged files among the records, each with the reason; `quick` reads headers, `full` decodes.

    Raises `InputError` for pairs side by side of odd width, for pairs in two files of different sizes, for
    pictures with a side below `minimum`, and if more than 5 % of the files are damaged.
    """
    if mode == "off":
        return []
    wanted = list(records)
    files = [path for record in wanted for path in _files(record)]
    measure = images.probe if mode == "quick" else _decoded_size
    with ThreadPoolExecutor() as pool:
        measured = dict(zip(files, pool.map(lambda path: _measured(measure, path), files), strict=True))
    damaged = [(path, size) for path, size in measured.items() if isinstance(size, str)]
    if len(damaged) > MAX_DAMAGED * len(measured):
        lines = [f"{path}: {reason}" for path, reason in damaged]
        raise InputError(f"{len(damaged)} of {len(measured)} pictures cannot be read:{listed(lines)}")
    _check_pairs([r for r in wanted if isinstance(r, PairRecord)], measured)
    _check_minimum(wanted, measured, minimum)
    return damaged


def _check_pairs(records: list[PairRecord], measured: dict[Path, tuple[int, int] | str]) -> None:
    odd, unequal = [], []
    for record in records:
        a, b = (measured[path] for path in (record.a, record.b or record.a))
        if isinstance(a, str) or isinstance(b, str):
            continue
        if record.b is None and a[0] % 2:
            odd.append(f"{record.a}: {a[0]}x{a[1]}")
        elif record.b is not None and a != b:
            unequal.append(f"{record.a}: {a[0]}x{a[1]}, {record.b}: {b[0]}x{b[1]}")
    if odd:
        raise InputError(f"{len(odd)} pictures have an odd width; A and B side by side have equal widths:{listed(odd)}")
    if unequal:
        raise InputError(f"{len(unequal)} pairs differ in size:{listed(unequal)}")


def _check_minimum(records: list[Path | PairRecord], measured: dict[Path, tuple[int, int] | str], minimum: int) -> None:
    small = []
    for record in records:
        halves = 2 if isinstance(record, PairRecord) and record.b is None else 1
        for path in _files(record):
            size = measured[path]
            if not isinstance(size, str) and min(size[0] // halves, size[1]) < minimum:
                small.append(f"{path}: {size[0] // halves}x{size[1]}")
    if small:
        raise InputError(f"{len(small)} pictures have a side below the crop of {minimum}:{listed(small)}")


def _files(record: Path | PairRecord) -> list[Path]:
    if isinstance(record, Path):
        return [record]
    return [record.a] if record.b is None else [record.a, record.b]


def _measured(measure: Callable[[Path], tuple[int, int]], path: Path) -> tuple[int, int] | str:
    try:
        return measure(path)
    except ImageError as error:
        return str(error)


def _decoded_size(path: Path) -> tuple[int, int]:
    height, width = images.read(path).pixels.shape[:2]
    return width, height


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
            _check_columns(file, reader.fieldnames or [])
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
        value = row.get(column)
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
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "".join(f"\n  {line}" for line in [*lines[:_LISTED], *more])
