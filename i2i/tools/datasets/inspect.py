"""Inspect a folder before training: its layout, its pictures, damage, and copies; as text for a person and as JSON for
a program."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i import images
from i2i.data import folders
from i2i.data.check import remarks
from i2i.data.folders import SPLITS, LeftOut, first_lines
from i2i.data.look import PictureFacts, picture_facts
from i2i.data.options import MAX_DAMAGED
from i2i.data.source import Part, picture_part
from i2i.data.walking import is_file, is_folder
from i2i.errors import ImageError, InputError
from i2i.terminal import printable
from i2i.tools.datasets.shape import difference_hash, groups, pixel_hash, same_bytes

SIDE_BY_SIDE = "A and B side by side in each picture"
BY_NAME = "A and B in two folders, pairs by name"
UNPAIRED = "unpaired, A and B in two folders"
LIST = "a CSV list of pairs"
PLAIN = "a plain folder"

_SCRIPTS = dict.fromkeys((SIDE_BY_SIDE, BY_NAME, LIST), "train_pix2pix.py")
_SCRIPTS |= {UNPAIRED: "train_cyclegan.py", PLAIN: "no layout for training yet"}
_CROP = 256  # the size of a training crop by default
_FEW = 8  # pictures of a group that are decoded in any case
_MAX_COPIES = 4


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
    found = _find_groups(data, left_out)
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
    report = Report(data, full, found, looks, list(_problems(found, looks)), [*left_out.lines, *_remarks(found, looks)])
    _compare_partners(report)
    _find_duplicates(report)
    return report


def _find_groups(data: Path, left_out: LeftOut) -> list[Group]:
    """The groups of pictures in a data set, in the order train, val, test. A folder without layout is one group."""
    if is_file(data):
        return list(_of_csv(data))
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    found = [
        Group(name, layout, split, domain, folders.find_images(data / name, left_out))
        for name, layout, split, domain in _places(data)
    ]
    found = [group for group in found if group.paths]
    return found or [Group(".", PLAIN, "", "", folders.find_images(data, left_out))]


def _places(data: Path) -> Sequence[tuple[str, str, str, str]]:
    """The folders of pictures, each with its layout, split and domain."""
    found = []
    for split in SPLITS:
        by_name = [(f"{split}/{side}", BY_NAME, split, side) for side in "AB"]
        joined = [] if any(is_folder(data / name) for name, *_ in by_name) else [(split, SIDE_BY_SIDE, split, "AB")]
        by_name += [(f"{side}/{split}", BY_NAME, split, side) for side in "AB"]
        found += [*by_name, *joined, *((f"{split}{side}", UNPAIRED, split, side) for side in "AB")]
    found = [place for place in found if is_folder(data / place[0])]
    if not any(layout == BY_NAME for _, layout, _, _ in found):
        found += [(side, BY_NAME, "train", side) for side in "AB" if is_folder(data / side)]
    return found


def _of_csv(file: Path) -> Iterator[Group]:
    for split in SPLITS:
        records = folders.paired(file, split)
        for side, paths in (("A", [record.a for record in records]), ("B", [r.b for r in records if r.b is not None])):
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


def _remarks(found: Sequence[Group], looks: dict[Path, Look]) -> Iterator[str]:
    """Pictures that a training would take for something else than they seem to be; unless all are looked at there may
    be more classes."""
    for group in found:
        seen = [looks[path].seen for path in group.paths if looks[path].seen]
        for side, domain in enumerate(group.domain or "?"):
            where = f"{group.name}, {domain}" if len(group.domain) == 2 else group.name
            option = f"--classes-{domain.lower()}" if group.domain else "--classes-a or --classes-b"
            yield from remarks(where, [pictures[side] for pictures in seen], option)


def _problems(found: Sequence[Group], looks: dict[Path, Look]) -> Iterator[str]:
    damaged, total = sum(bool(look.damage) for look in looks.values()), len(looks)
    if damaged > MAX_DAMAGED * total:
        yield f"{damaged} of {total} pictures cannot be read, more than the {MAX_DAMAGED:.0%} that may be left out"
    trained = {group.domain for group in found if group.split == "train"}
    if all(group.layout == PLAIN for group in found):
        yield "no layout for training: `divide` makes one of a plain folder, or see datasets/README.md"
    elif "AB" not in trained and not {"A", "B"} <= trained:
        missing = "A and B" if not trained else "B" if trained == {"A"} else "A"
        yield f"nothing to train on: no training pictures of {missing}"


def _compare_partners(report: Report) -> None:
    looks = report.looks
    others = {(b.name.replace("B", "A"), b.layout): b for b in report.groups if b.domain == "B"}
    for a in report.groups:
        if a.layout == SIDE_BY_SIDE:
            report.odd += [path for path in a.paths if looks[path].width % 2]
        b = others.get((a.name, a.layout)) if a.domain == "A" else None
        if b is None:
            continue
        if a.layout == LIST:
            pairs = list(zip(a.paths, b.paths, strict=True))
        else:
            in_a, in_b = (
                {path.relative_to(report.data / group.name).with_suffix(""): path for path in group.paths}
                for group in (a, b)
            )
            pairs = [(in_a[stem], in_b[stem]) for stem in in_a if stem in in_b]
            if a.layout == UNPAIRED and len(pairs) < max(len(in_a), len(in_b)):
                continue  # then they are not meant as pairs
            if alone := [p for stem, p in (in_a | in_b).items() if (stem in in_a) != (stem in in_b)]:
                report.unpaired[f"{a.name}, {b.name}"] = alone
        whole = [pair for pair in pairs if not any(looks[path].damage for path in pair)]
        unequal = [pair for pair in whole if len({(looks[path].width, looks[path].height) for path in pair}) > 1]
        if a.layout == UNPAIRED:
            fit = "and sizes" if not unequal else f"but {len(unequal)} pairs differ in size"
            report.remarks.append(f"{a.name}, {b.name}: all names match, {fit}: pairs for train_pix2pix.py too")
        else:
            report.unequal += unequal


def _find_duplicates(report: Report) -> None:
    if not report.full:
        report.duplicates = same_bytes(report.looks)
        return
    report.duplicates = groups({path: look.pixels for path, look in report.looks.items()})
    near = groups({path: look.difference for path, look in report.looks.items()})
    report.near = [paths for paths in near if len({report.looks[path].pixels for path in paths}) > 1]


def as_text(report: Report) -> str:
    """The report in lines; names have their control characters escaped, long lists are cut after ten."""
    return "\n".join(_lines(report))


def as_json(report: Report) -> str:
    """The report as one JSON object in ASCII, whatever bytes file names have; lists are complete."""
    names = report.name

    def copies(found: list[list[Path]]) -> list[dict[str, list[str]]]:
        return [{"files": list(map(names, paths)), "splits": sorted(report.splits(paths))} for paths in found]

    content: dict[str, Any] = {
        "data": str(report.data),
        "full": report.full,
        "exit_code": report.exit_code,
        "layouts": report.layouts,
        "groups": [_group(report, group) for group in report.groups],
        "damaged": [{"file": names(path), "reason": reason} for path, reason in report.damaged],
        "without_partner": {where: [names(path) for path in paths] for where, paths in report.unpaired.items()},
        "odd_width": [names(path) for path in report.odd],
        "unequal_sizes": [[names(path) for path in pair] for pair in report.unequal],
        "duplicates": copies(report.duplicates),
        "near_duplicates": copies(report.near),
        "problems": report.problems,
        "remarks": report.remarks,
    }
    return json.dumps(content, indent=2, ensure_ascii=True)


def _small(group: Group, looks: Iterable[Look]) -> int:
    halves = 2 if group.domain == "AB" else 1
    return sum(min(look.width // halves, look.height) < _CROP for look in looks)


def _sizes(looks: Iterable[Look]) -> dict[str, tuple[int, int]]:
    """Width and height of the smallest, the median and the largest picture by area, if there are pictures."""
    found = sorted(((look.width, look.height) for look in looks), key=lambda size: (size[0] * size[1], size))
    return {"smallest": found[0], "median": found[(len(found) - 1) // 2], "largest": found[-1]} if found else {}


def _group(report: Report, group: Group) -> dict[str, Any]:
    looks = report.readable(group)
    found: dict[str, Any] = {"name": group.name, "layout": group.layout, "split": group.split, "domain": group.domain}
    found |= {"pictures": len(group.paths), "readable": len(looks), f"smaller_than_{_CROP}": _small(group, looks)}
    return found | _sizes(looks) | (_kinds(looks) if report.full else {})


def _lines(report: Report) -> Iterator[str]:
    names, full = report.name, report.full
    for layout in report.layouts:
        yield printable(f"{report.data}: {layout} ({_SCRIPTS[layout]})")
        yield from (_group_line(report, group) for group in report.groups if group.layout == layout)
    for name, counts in _kinds(report.looks.values() if full else ()).items():
        yield f"{name}: {', '.join(f'{value} ({count:,})' for value, count in counts.items())}"
    yield from _listed("damaged", [f"{names(path)}: {reason}" for path, reason in report.damaged])
    for where, paths in report.unpaired.items():
        yield from _listed(f"without partner in {where}", [names(path) for path in paths])
    if SIDE_BY_SIDE in report.layouts:
        yield from _listed("of odd width", [names(path) for path in report.odd])
    if {BY_NAME, LIST} & set(report.layouts):
        yield from _listed("pairs of unequal size", [", ".join(map(names, pair)) for pair in report.unequal])
    yield from _copies("duplicates" if full else "duplicates (equal files)", report, report.duplicates)
    if full:
        yield from _copies("near-duplicates (by difference hash, may err)", report, report.near)
    else:
        yield "only headers were read; --full decodes every picture"
    yield from (f"remark: {remark}" for remark in report.remarks)
    yield from (f"problem: {problem}" for problem in report.problems)


def _group_line(report: Report, group: Group) -> str:
    looks = report.readable(group)
    sizes = {name: f"{width}x{height}" for name, (width, height) in _sizes(looks).items()}
    text = "none readable"
    if len(set(sizes.values())) == 1:
        text = sizes["median"]
    elif sizes:
        text = f"{sizes['smallest']} to {sizes['largest']}, median {sizes['median']}"
    small = f"; {count:,} smaller than {_CROP} on a side" if (count := _small(group, looks)) else ""
    return f"  {group.name:8} {len(group.paths):7,} pictures  {text}{small}"


def _kinds(looks: Iterable[Look]) -> dict[str, dict[str, int]]:
    """How often each format, number of channels and depth occurs among readable pictures, the most frequent first."""
    rows = [(look.format, str(look.channels), look.depth) for look in looks if not look.damage]
    counts = [dict(Counter(column).most_common()) for column in zip(*rows, strict=True)] or [{}, {}, {}]
    return dict(zip(("formats", "channels", "depths"), counts, strict=True))


def _listed(what: str, lines: list[str]) -> Iterator[str]:
    yield f"{what}: {len(lines):,}" if lines else f"{what}: none"
    yield from (f"  {printable(line)}" for line in first_lines(lines))


def _copies(what: str, report: Report, found: list[list[Path]]) -> Iterator[str]:
    def equation(paths: list[Path]) -> str:
        more = [f"{len(paths) - _MAX_COPIES} more"] if len(paths) > _MAX_COPIES else []
        return " = ".join([*map(report.name, paths[:_MAX_COPIES]), *more])

    across = [paths for paths in found if len(report.splits(paths)) > 1]
    within = [paths for paths in found if len(report.splits(paths)) <= 1]
    for where, sets in ((" between splits", across), (" within one split", within)):
        yield from _listed(what + where, [equation(paths) for paths in sets])
