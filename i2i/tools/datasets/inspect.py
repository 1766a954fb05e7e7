"""Inspect a folder before training: its layout, its pictures, damage, and copies."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from i2i import images
from i2i.data import folders
from i2i.data.check import remarks
from i2i.data.folders import SPLITS, LeftOut, PairRecord
from i2i.data.look import PictureFacts, picture_facts
from i2i.data.options import MAX_DAMAGED
from i2i.data.source import Part, picture_part
from i2i.data.walking import is_file, is_folder
from i2i.errors import ImageError, InputError
from i2i.tools.datasets.shape import difference_hash, groups, pixel_hash, same_bytes

SIDE_BY_SIDE = "A and B side by side in each picture"
BY_NAME = "A and B in two folders, pairs by name"
UNPAIRED = "unpaired, A and B in two folders"
LIST = "a CSV list of pairs"
PLAIN = "a plain folder"

# the size of a training crop by default
CROP = 256

_FEW = 8  # pictures of a group that are decoded in any case


@dataclass(frozen=True)
class Look:
    """One file: its size in pixels and, after decoding, the rest; or `damage`, the reason why it cannot be read."""

    width: int = 0
    height: int = 0
    format: str = ""
    channels: int = 0
    depth: str = ""
    pixels: str | None = None
    difference: int | None = None
    damage: str = ""
    seen: tuple[PictureFacts, ...] = ()
    """How a training would take it: one entry, or one for each half if A and B lie side by side."""


@dataclass(frozen=True)
class Group:
    """The pictures of one split and domain ("A", "B", "AB" for both in one picture, or "")."""

    name: str
    layout: str
    split: str
    domain: str
    paths: Sequence[Path]


@dataclass
class Report:
    """The findings. `problems` would stop a training, `remarks` would not."""

    data: Path
    full: bool
    groups: list[Group]
    looks: dict[Path, Look]
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unpaired: dict[str, list[Path]] = field(default_factory=dict)
    odd: list[Path] = field(default_factory=list)
    unequal: list[tuple[Path, Path]] = field(default_factory=list)
    duplicates: list[list[Path]] = field(default_factory=list)
    near: list[list[Path]] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """A path as text, relative to the data set where it lies in it."""
        root = self.data if is_folder(self.data) else self.data.parent
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

    @property
    def layouts(self) -> list[str]:
        """The layouts of its groups."""
        return list(dict.fromkeys(group.layout for group in self.groups))

    def readable(self, group: Group) -> list[Look]:
        """The looks at those pictures of a group that can be read."""
        return [look for path in group.paths if not (look := self.looks[path]).damage]

    @property
    def damaged(self) -> list[tuple[Path, str]]:
        return [(path, look.damage) for path, look in self.looks.items() if look.damage]

    @property
    def exit_code(self) -> int:
        """0: fine. 3: some files are bad. 4: nothing to train on, or more damage than a training accepts."""
        if self.problems:
            return 4
        return 3 if self.damaged or self.odd or self.unequal or self.unpaired else 0

    def splits(self, paths: Iterable[Path]) -> set[str]:
        """The splits that files belong to."""
        wanted = set(paths)
        return {group.split for group in self.groups if not wanted.isdisjoint(group.paths)}


def inspect(data: Path, full: bool = False) -> Report:
    """A report on a data set: a folder in any layout, a plain folder, or a CSV list.

    Without `full` only headers are read, and files compared whose bytes are equal in number; with it every
    picture is decoded: format, channels and depth, hidden damage, duplicates by pixels, near-duplicates. Raises
    `InputError` if there is no such folder or no picture in it.
    """
    left_out = LeftOut(data)
    found = find_groups(data, left_out)
    paths = list(dict.fromkeys(path for group in found for path in group.paths))
    if not paths:
        raise InputError(f"{data}: no pictures in it", *folders.listed(left_out.lines))
    two = {path for group in found if group.domain == "AB" for path in group.paths}
    few = {path for group in found for path in group.paths[:: max(1, len(group.paths) // _FEW)]}

    def look(path: Path) -> Look:
        try:
            return _decoded(path, path in two) if full else _probed(path, path in two, path in few)
        except ImageError as error:
            return Look(damage=str(error))

    with ThreadPoolExecutor() as pool:
        looks = dict(zip(paths, pool.map(look, paths), strict=True))
    report = Report(data, full, found, looks, remarks=left_out.lines)
    _judge_damage(report)
    _judge_layout(report)
    _judge_seeming(report)
    _compare_partners(report)
    _find_duplicates(report)
    return report


def find_groups(data: Path, left_out: LeftOut | None = None) -> list[Group]:
    """The groups of pictures in a data set, in the order train, val, test. A folder without layout is one group.

    Files that are passed over are added to `left_out`.
    """
    if is_file(data):
        return list(_listed(data))
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    left_out = left_out or LeftOut(data)
    found = [
        Group(name, layout, split, domain, folders.find_images(data / name, left_out))
        for name, layout, split, domain in _places(data)
    ]
    found = [group for group in found if group.paths]
    return found or [Group(".", PLAIN, "", "", folders.find_images(data, left_out))]


def _places(data: Path) -> list[tuple[str, str, str, str]]:
    """The folders of pictures, each with its layout, split and domain."""
    found = [place for split in SPLITS for place in _of_split(data, split)]
    if not any(layout == BY_NAME for _, layout, _, _ in found):
        found += [(side, BY_NAME, "train", side) for side in "AB" if is_folder(data / side)]
    return found


def _of_split(data: Path, split: str) -> Iterator[tuple[str, str, str, str]]:
    sides = [(f"{split}/{side}", side) for side in "AB"] + [(f"{side}/{split}", side) for side in "AB"]
    for name, side in sides:
        if is_folder(data / name):
            yield name, BY_NAME, split, side
    if is_folder(data / split) and not any(is_folder(data / split / side) for side in "AB"):
        yield split, SIDE_BY_SIDE, split, "AB"
    for side in "AB":
        if is_folder(data / f"{split}{side}"):
            yield f"{split}{side}", UNPAIRED, split, side


def _listed(file: Path) -> Iterator[Group]:
    for split in SPLITS:
        records: list[PairRecord] = folders.paired(file, split)  # type: ignore[arg-type]
        for side in "AB":
            paths = [path for record in records if (path := record.a if side == "A" else record.b) is not None]
            if paths:
                yield Group(f"{split} {side}", LIST, split, side, paths)


def _probed(path: Path, two: bool, whole: bool) -> Look:
    width, height = images.probe(path)
    seen: tuple[PictureFacts, ...] = ()
    if whole:
        with contextlib.suppress(ImageError):  # only `full` reports damage that decoding finds
            seen = _seen(images.read(path), two)
    return Look(width, height, seen=seen)


def _decoded(path: Path, two: bool) -> Look:
    picture = images.read(path)
    return Look(
        picture.width,
        picture.height,
        picture.format,
        picture.band_count + (picture.alpha is not None),
        str(picture.pixels.dtype),
        pixel_hash(picture),
        difference_hash(picture),
        seen=_seen(picture, two),
    )


def _seen(picture: images.Picture, two: bool) -> tuple[PictureFacts, ...]:
    parts: tuple[Part, ...] = ("left", "right") if two else ("whole",)
    if two and picture.width % 2:
        return ()
    return tuple(picture_facts(picture_part(picture, part)) for part in parts)


def _judge_seeming(report: Report) -> None:
    """Pictures that a training would take for something else than they seem to be; unless all are looked at there may
    be more classes."""
    for group in report.groups:
        found = [report.looks[path].seen for path in group.paths if report.looks[path].seen]
        for side, domain in enumerate(group.domain or "?"):
            where = f"{group.name}, {domain}" if len(group.domain) == 2 else group.name
            option = f"--classes-{domain.lower()}" if group.domain else "--classes-a or --classes-b"
            report.remarks += remarks(where, [pictures[side] for pictures in found], option)


def _judge_damage(report: Report) -> None:
    damaged, total = len(report.damaged), len(report.looks)
    if damaged > MAX_DAMAGED * total:
        report.problems.append(
            f"{damaged} of {total} pictures cannot be read, more than the {MAX_DAMAGED:.0%} that may be left out"
        )


def _judge_layout(report: Report) -> None:
    trained = {group.domain for group in report.groups if group.split == "train"}
    if report.layouts == [PLAIN]:
        report.problems.append(
            "no layout for training: `divide` makes one of a plain folder, or see datasets/README.md"
        )
    elif "AB" not in trained and not {"A", "B"} <= trained:
        missing = "A and B" if not trained else "B" if trained == {"A"} else "A"
        report.problems.append(f"nothing to train on: no training pictures of {missing}")


def _compare_partners(report: Report) -> None:
    for group in report.groups:
        if group.layout == SIDE_BY_SIDE:
            report.odd += [path for path in group.paths if report.looks[path].width % 2]
    for a, b in _two_sides(report.groups):
        if a.layout == LIST:
            pairs = list(zip(a.paths, b.paths, strict=True))
        else:
            in_a, in_b = (_stems(report.data / group.name, group.paths) for group in (a, b))
            pairs = [(in_a[stem], in_b[stem]) for stem in in_a if stem in in_b]
            if a.layout == UNPAIRED and len(pairs) < max(len(in_a), len(in_b)):
                continue  # then they are not meant as pairs
            alone = [p for stem, p in (in_a | in_b).items() if (stem in in_a) != (stem in in_b)]
            if alone:
                report.unpaired[f"{a.name}, {b.name}"] = alone
        unequal = [pair for pair in pairs if _differ(*(report.looks[path] for path in pair))]
        if a.layout == UNPAIRED:
            fit = "and sizes" if not unequal else f"but {len(unequal)} pairs differ in size"
            report.remarks.append(f"{a.name}, {b.name}: all names match, {fit}: pairs for train_pix2pix.py too")
        else:
            report.unequal += unequal


def _two_sides(found: list[Group]) -> Iterator[tuple[Group, Group]]:
    """Groups that belong together as A and B."""
    for a in found:
        for b in found:
            form = (b.name.replace("B", "A"), b.split, b.domain, b.layout)
            if a.domain == "A" and form == (a.name, a.split, "B", a.layout):
                yield a, b


def _stems(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def _differ(a: Look, b: Look) -> bool:
    return not a.damage and not b.damage and (a.width, a.height) != (b.width, b.height)


def _find_duplicates(report: Report) -> None:
    if not report.full:
        report.duplicates = same_bytes(report.looks)
        return
    report.duplicates = groups({path: look.pixels for path, look in report.looks.items()})
    near = groups({path: look.difference for path, look in report.looks.items()})
    report.near = [paths for paths in near if len({report.looks[path].pixels for path in paths}) > 1]
