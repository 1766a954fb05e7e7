"""Finding the pictures of a data set: folders, layouts and CSV lists.

Unpaired: `trainA/ trainB/`, `testA/ testB/`. Paired, the first match of the train split decides for all splits:

* `train/A/ train/B/`, `A/train/ B/train/` or `trainA/ trainB/`: pairs by relative path without suffix;
* `train/`: A and B side by side in each picture, A on the left;
* `A/ B/` without folders for splits, which is then the training split;
* a CSV file with the columns `a`, `b` and optionally `split`; paths relative to the file's folder, blanks
  around them dropped, a backslash as good as a slash.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal, NoReturn

from i2i import images
from i2i.data.walking import Paths, exists, inside, is_file, is_folder, suffix_of, walk
from i2i.errors import InputError, as_typed, nearest
from i2i.terminal import counted

Split = Literal["train", "val", "test"]
Pairs = Literal["error", "intersect"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_LISTED = 10
_FORMS = (("{}/A", "{}/B"), ("A/{}", "B/{}"), ("{}A", "{}B"), ("{}",))
_WITHOUT_SPLITS = ("A", "B")
_LITTER = ("thumbs.db", "desktop.ini")  # files that systems leave in folders of pictures


@dataclass(frozen=True)
class PairRecord:
    """Where a pair lies: two files, or one (`b` is None) that shows A and B side by side."""

    a: Path
    b: Path | None = None


UNREAD, OTHER = "is not read here", "has no suffix of a picture"
LINKED, DANGLING, SPECIAL = "is a link to a folder", "is a link that leads nowhere", "is not a regular file"
# each reason of one file, and of several in one line
_TOLD = {
    UNREAD: ("file", UNREAD, "are not read here"),
    OTHER: ("file", OTHER, "have no suffix of a picture"),
    LINKED: ("link", "leads to a folder, and is not followed", "lead to folders, and are not followed"),
    DANGLING: ("link", "leads nowhere", "lead nowhere"),
    SPECIAL: ("file", "is not a regular one", "are not regular ones"),
}


class LeftOut:
    """The files that a search for the pictures of `data` left out, by folder and reason, for one message.

    `_TOLD` has the reasons; a search adds others by `note`.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.files: defaultdict[Path, dict[Path, str]] = defaultdict(dict)
        """By folder, the files below it that were left out, each with its reason."""
        self._notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        self._notes[text] = None

    @property
    def lines(self) -> list[str]:
        """A line for each folder and reason, with the number of files and a few names."""
        return [*self._notes, *(line for folder in self.files for line in self.of(folder))]

    def of(self, folder: Path) -> list[str]:
        """The lines of one folder."""
        within = folder.relative_to(self.data) if folder.is_relative_to(self.data) else folder
        lines = []
        for reason in sorted(set(self.files[folder].values())):
            paths = [path for path, why in self.files[folder].items() if why == reason]
            kind, one, many = _TOLD[reason]
            number, verb = (f"1 {kind}", one) if len(paths) == 1 else (f"{len(paths):,} {kind}s", many)
            shown = [str(path.relative_to(folder)) for path in paths[:3]] + ["…"] * (len(paths) > 3)
            if reason in (UNREAD, OTHER):
                shown = list(dict.fromkeys(path.suffix.lower() or "without suffix" for path in paths))
            lines.append(f"{number} of {within if within.parts else folder} {verb}: {', '.join(shown)}")
        return lines


def find_files(folder: Path, left_out: LeftOut) -> list[str]:
    """All regular files below a folder that are not hidden, sorted by their relative path.

    Links to files are followed. Links to folders are not; they and special files are added to `left_out`. Raises
    `InputError` for a folder that is missing or cannot be listed.
    """
    if not exists(folder):
        raise InputError(f"{folder}: no such folder.{near_to(folder)}")
    linked: list[Path] = []
    odd: set[str] = set()
    files = walk(folder, not_followed=linked.append, irregular=odd.add)
    wrong = {path: reason for path in files if path in odd and (reason := _no_file(Path(path)))}
    left_out.files[folder] |= dict.fromkeys(linked, LINKED) | {Path(path): reason for path, reason in wrong.items()}
    return [path for path in files if path not in wrong] if wrong else files


def _no_file(path: Path) -> str:
    """The reason why a path in a folder cannot be read; empty if it leads to a file. Raises `InputError`."""
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - which never raise
        return DANGLING
    return "" if is_file(path) else SPECIAL


def find_images(folder: Path, left_out: LeftOut | None = None) -> Paths:
    """The pictures among the files that `find_files` finds, by suffix in any case.

    Other files are added to `left_out`, but not those that systems leave in folders of pictures.
    """
    left_out = left_out or LeftOut(folder)
    found = []
    for path in find_files(folder, left_out):
        ending = suffix_of(path).lower()
        if ending in images.SUFFIXES:
            found.append(path)
        elif (other := Path(path)).name.lower() not in _LITTER:
            left_out.files[folder][other] = UNREAD if ending in images.UNREAD else OTHER
    return Paths(found)


def train_folders(data: Path, layout: Literal["unpaired", "paired", "one domain"]) -> tuple[Path, ...]:
    """The folders of the pictures to train on; none for a CSV file of pairs. Raises `InputError` for a missing one."""
    if layout == "unpaired":
        sides = data / "trainA", data / "trainB"
        return sides if all(map(is_folder, sides)) else _no_layout(data, "trainA/ and trainB/ (unpaired)")
    if layout == "paired":
        if is_file(data):
            return ()
        if forms := _forms(data, "train"):
            return tuple(data / name for name in next(iter(forms.values())))
        _no_layout(data, "train/ (A and B side by side), A/ and B/, trainA/ and trainB/, or a CSV file (paired)")
    if is_folder(data / "train"):
        return (data / "train",)
    if not is_folder(data):
        _no_layout(data, "train/, or pictures directly in it (one domain)")
    if domains := [name for name in ("trainB", "trainA", "testB", "testA") if is_folder(data / name)]:
        raise InputError(f"{data}: two domains; give one of them, such as {as_typed('data', data / domains[0])}")
    if held_out := [name for name in ("val", "test") if is_folder(data / name)]:
        raise InputError(f"{data}: has {held_out[0]}/, but no train/ to train on")
    return (data,)


def unpaired(data: Path, split: Split, left_out: LeftOut | None = None) -> tuple[Paths, Paths]:
    """The pictures of domain A and of domain B in `<split>A/` and `<split>B/`.

    A missing folder of the train split raises `InputError`, as does an empty one; the other splits may be
    absent or one-sided, and give empty lists then.
    """
    left_out = left_out or LeftOut(data)
    if split == "train":
        a, b = train_folders(data, "unpaired")
        return _not_empty(a, left_out), _not_empty(b, left_out)
    sides = [data / f"{split}{side}" for side in "AB"]
    found = [find_images(side, left_out) if is_folder(side) else Paths(()) for side in sides]
    if any(found) and not all(found):
        has, lacks = sides if found[0] else reversed(sides)
        left_out.note(f"{has.name}/ has pictures and {lacks.name}/ has none: nothing is measured on them")
    return found[0], found[1]


def paired(data: Path, split: Split, pairs: Pairs = "error", left_out: LeftOut | None = None) -> list[PairRecord]:
    """The pairs of a split, in a fixed order; empty if a split other than train is absent.

    All splits have the layout of the training pairs; `left_out` names folders in another layout.
    Raises `InputError` if there is no train split, a folder is empty, names do not match (`pairs="intersect"`
    keeps those that do), or a CSV file is wrong.
    """
    if is_file(data):
        return _from_csv(data, split)
    left_out = left_out or LeftOut(data)
    here, train = _forms(data, split), _forms(data, "train")
    form = next(iter(train or here), None)
    for other in here:
        if other != form:
            mine = train[form] if form in train else here[form] if form else ()
            left_out.note(f"{_named(here[other])} is left out: pairs are taken as in {_named(mine)}")
    if form in here:
        first, *second = (data / name for name in here[form])
        if second:
            return _match(first, second[0], pairs, left_out)
        return [PairRecord(path) for path in _not_empty(first, left_out)]
    if split == "train":
        train_folders(data, "paired")  # which are missing
    return []


def _forms(data: Path, split: Split) -> dict[int, tuple[str, ...]]:
    """The layouts of pairs in which the split is there: their number in order → their folders."""
    named = [tuple(name.format(split) for name in form) for form in _FORMS]
    found = {i: form for i, form in enumerate(named) if all(is_folder(data / name) for name in form)}
    if 0 in found:
        found.pop(len(_FORMS) - 1)  # `train/` is there, as the folder of `train/A/` and `train/B/`
    if split == "train" and not found and all(is_folder(data / name) for name in _WITHOUT_SPLITS):
        if held_out := [f"{side}/{name}" for side in "AB" for name in SPLITS[1:] if is_folder(data / side / name)]:
            raise InputError(f"{data}: has {held_out[0]}/, but no {held_out[0][0]}/train/ to train on")
        found[len(_FORMS)] = _WITHOUT_SPLITS
    return found


def _named(names: Sequence[str]) -> str:
    return " with ".join(f"{name}/" for name in names)


def single_domain(data: Path, split: Split, left_out: LeftOut | None = None) -> Paths:
    """The pictures of a split of one domain, in `<split>/`. Without `train/`, all pictures below the folder are for
    training.

    Raises `InputError` if the folder is missing or there is nothing to train on.
    """
    left_out = left_out or LeftOut(data)
    if split == "train":
        return _not_empty(train_folders(data, "one domain")[0], left_out)
    return _not_empty(data / split, left_out) if is_folder(data / split) else Paths(())


def searched(data: Path) -> list[Path]:
    """The folder of a data set, and the folders in it that a layout names. They may be links to elsewhere."""
    names = ["A", "B", *(f"{split}{side}" for split in SPLITS for side in ("", "A", "B"))]
    places = [data, *(data / name for name in names)]
    places += [data / one / other for one in names for other in names]
    return [place for place in places if os.path.isdir(place)]  # noqa: PTH112 - what may not be looked at is none


def _match(a: Path, b: Path, pairs: Pairs, left_out: LeftOut) -> list[PairRecord]:
    in_a, in_b = (by_stem(folder, _not_empty(folder, left_out)) for folder in (a, b))
    both = [stem for stem in in_a if stem in in_b]
    lonely = []
    for mine, others, folder in ((in_a, in_b, b), (in_b, in_a, a)):
        passed = {_stem(path, folder): f"{path} {reason}" for path, reason in left_out.files[folder].items()}
        for stem in (stem for stem in mine if stem not in others):
            reason = f": its partner {passed[stem]}" if stem in passed else f" has no partner in {folder}"
            lonely.append(f"{mine[stem]}{reason}")
    if not both:
        raise InputError(
            f"no picture in {a} has the name of one in {b}:",
            *listed(lonely),
            "Name the two pictures of a pair alike, such as A/1.jpg and B/1.png, or list the pairs in a CSV file.",
        )
    if pairs == "error":
        whole = counted(len(both), "complete pair", "complete pairs")
        hint = f"{as_typed('pairs', 'intersect')} trains on the others ({whole})."
        refuse(lonely, "picture has no partner", "pictures have no partner", hint)
    elif lonely:
        left_out.note(f"left out: {counted(len(lonely), 'picture', 'pictures')} without a partner, such as {lonely[0]}")
    return [PairRecord(in_a[stem], in_b[stem]) for stem in both]


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def by_stem(folder: Path, paths: Iterable[Path], endings: Sequence[str] = ()) -> dict[str, Path]:
    """Pictures of a folder by their relative path without suffix, and without the first of `endings` that it has.

    Raises `InputError` for two of one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        ending = next((ending for ending in endings if path.stem.endswith(ending) and path.stem != ending), "")
        stem = _stem(path, folder).removesuffix(ending)
        if stem in found:
            raise InputError(f"{found[stem]} and {path} have the same name without suffix; keep one of them")
        found[stem] = path
    return found


def without_partner(a: Path, in_a: dict[str, Path], b: Path, in_b: dict[str, Path]) -> list[tuple[Path, str]]:
    """The pictures of the folders `a` and `b`, by name, that have no partner in the other one, each with the reason."""
    alone = [(path, f"has no partner in {b}") for name, path in in_a.items() if name not in in_b]
    return alone + [(path, f"has no partner in {a}") for name, path in in_b.items() if name not in in_a]


def _from_csv(file: Path, split: Split) -> list[PairRecord]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, skipinitialspace=True)
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            rows = [(f"{file}, line {reader.line_num}", row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as a CSV file: {error}") from None
    for column in "ab":
        if column not in columns:
            raise InputError(
                f"{file}, line 1: no column {column!r}; expected a,b and optionally split, "
                f"found {','.join(columns) or 'nothing'}.{nearest(column, columns)}"
            )
    records = []
    for where, row in rows:
        own = (row.get("split", "train") or "").strip()
        if own not in SPLITS:
            raise InputError(f"{where}: split {own!r}; expected {', '.join(SPLITS)}")
        if own == split:
            records.append(PairRecord(*(_csv_path(file.parent, where, row, column) for column in "ab")))
    if split == "train" and not records:
        raise InputError(f"{file}: no rows of the train split")
    return records


def _csv_path(folder: Path, where: str, row: dict[str, str], column: str) -> Path:
    """The file that a row names, also with the backslashes of Windows."""
    value = (row.get(column) or "").strip()
    if not value:
        raise InputError(f"{where}: nothing in column {column!r}")
    path = folder / value
    if not exists(path) and "\\" in value:
        path = folder / value.replace("\\", "/")
    if not is_file(path):
        raise InputError(f"{where}: {path} is missing or not a file")
    return path


def _not_empty(folder: Path, left_out: LeftOut) -> Paths:
    found = find_images(folder, left_out)
    if not found:
        passed = [f"  {line}" for line in left_out.of(folder)]
        suffixes = ", ".join(sorted(images.SUFFIXES))
        raise InputError(f"{folder}: no pictures in this folder (looked for {suffixes})", *passed)
    return found


def _no_layout(data: Path, wanted: str) -> NoReturn:
    if not exists(data):
        raise InputError(f"{data}: no such folder.{near_to(data)}")
    if not is_folder(data):
        raise InputError(f"{data}: not a folder; expected one with {wanted}")
    raise InputError(f"{data}: looked for {wanted}, and found {_what_it_is(data)}")


def near_to(path: Path) -> str:
    """A hint at a similar name beside a path that is not there, or an empty text."""
    try:
        return nearest(path.name, [p.name for p in inside(path.parent)])
    except InputError:
        return ""


def _what_it_is(data: Path) -> str:
    """A description of a folder in no layout, with a suggestion."""
    if layout := _layout(data):
        return layout
    here = inside(data)
    names = [path.name for path in here if os.path.isdir(path)]  # noqa: PTH112 - which never raises
    for name in names:
        if layout := _layout(data / name):
            return f"{name}/, which is {layout}. Did you mean {as_typed('data', data / name)}?"
    if direct := [path for path in here if path.suffix.lower() in images.SUFFIXES]:
        pictures = counted(len(direct), "picture", "pictures")
        return (
            f"{pictures} directly in it; `i2i prepare-dataset divide {quote(str(data))} -o NEW` makes a data set of it"
        )
    if lists := [path for path in here if path.suffix == ".csv"]:
        return f"a CSV file: use {as_typed('data', lists[0])}"
    has, lacks = ("trainA", "trainB") if "trainA" in names else ("trainB", "trainA")
    if has in names:
        return f"{has}/ without {lacks}/.{nearest(lacks, [name for name in names if name != has])}"
    near = nearest("trainA", names)
    if len(names) == 2 and not near:
        a, b = names
        return f"the folders {a}/ and {b}/. Rename them to A/ and B/ if they hold pairs, else to trainA/ and trainB/"
    return (f"the folders {', '.join(names[:_LISTED])}." + near) if names else "nothing"


def _layout(data: Path) -> str:
    known = (
        ("unpaired", "cyclegan", ("trainA", "trainB")),
        ("paired", "pix2pix", ("train",)),
        ("paired", "pix2pix", ("A", "B")),
    )
    for kind, algorithm, names in known:
        if all(is_folder(data / name) for name in names):
            article, shown = "an" if kind == "unpaired" else "a", ", ".join(f"{name}/" for name in names)
            return f"{article} {kind} folder ({shown}): use i2i train {algorithm}"
    return ""


def refuse(lines: Sequence[str], one: str, many: str, *hints: str) -> None:
    """Raises `InputError` if there are lines: their number with the reason (`one` or `many`), the first of them, and
    hints."""
    if lines:
        raise InputError(f"{counted(len(lines), one, many)}:", *listed(lines), *hints)


def listed(lines: Sequence[str]) -> list[str]:
    """The first ten lines, indented for an error's message, and the number of the others."""
    return [f"  {line}" for line in first_lines(lines)]


def first_lines(lines: Sequence[str]) -> list[str]:
    """The first ten lines, and the number of the others."""
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]
