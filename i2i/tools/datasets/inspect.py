"""Inspect a folder before training: its layout, its pictures, damage, and copies; as text for a person and as JSON for
a program."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from i2i import images
from i2i.data import folders
from i2i.data.check import PictureFacts, picture_facts, remarks
from i2i.data.folders import SPLITS, LeftOut, first_lines
from i2i.data.options import MAX_DAMAGED
from i2i.data.source import Part, picture_part
from i2i.data.walking import is_file, is_folder
from i2i.errors import ImageError, InputError
from i2i.images import Picture
from i2i.images.picture import white
from i2i.terminal import printable
from i2i.tools.datasets.shape import groups, same_bytes

SIDE_BY_SIDE = "A and B side by side in each picture"
BY_NAME = "A and B in two folders, pairs by name"
UNPAIRED = "unpaired, A and B in two folders"
LIST = "a CSV list of pairs"
PLAIN = "a plain folder"

_USES = dict.fromkeys((SIDE_BY_SIDE, BY_NAME, LIST), "for i2i train pix2pix")
_USES |= {UNPAIRED: "for i2i train cyclegan", PLAIN: "no layout for training yet"}
_CROP = 256  # the size of a training crop by default
_SMALL = f"smaller_than_{_CROP}"
_FEW = 8  # pictures of a group that are decoded in any case
_MAX_COPIES = 4
_KINDS = {"format": "formats", "channels": "channels", "depth": "depths"}


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
    """The findings, in the words of the JSON. `problems` would stop a training, `remarks` would not.

    A group has its pictures, how many are small, and the smallest, the median and the largest by area; if all are
    decoded, also their formats, channels and depths.
    """

    data: str
    full: bool
    layouts: list[str]
    groups: list[dict[str, Any]]
    damaged: list[dict[str, str]] = field(default_factory=list)
    without_partner: dict[str, list[str]] = field(default_factory=dict)
    odd_width: list[str] = field(default_factory=list)
    unequal_sizes: list[list[str]] = field(default_factory=list)
    duplicates: list[dict[str, list[str]]] = field(default_factory=list)
    near_duplicates: list[dict[str, list[str]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: fine. 3: some files are bad. 4: nothing to train on, or more damage than a training accepts."""
        if self.problems:
            return 4
        return 3 if self.damaged or self.odd_width or self.unequal_sizes or self.without_partner else 0


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
    root = data if is_folder(data) else data.parent
    of_split = [(group.split, frozenset(group.paths)) for group in found]

    def name(path: Path) -> str:
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

    def copies(alike: list[list[Path]]) -> list[dict[str, list[str]]]:
        """Files that are equal, and the splits that they belong to."""
        splits = [{split for split, files in of_split if not files.isdisjoint(paths)} for paths in alike]
        return [
            {"files": list(map(name, paths)), "splits": sorted(of)} for paths, of in zip(alike, splits, strict=True)
        ]

    report = Report(
        str(data), full, list(dict.fromkeys(group.layout for group in found)), [_group(g, looks, full) for g in found]
    )
    report.damaged = [{"file": name(path), "reason": seen.damage} for path, seen in looks.items() if seen.damage]
    report.problems, report.remarks = list(_problems(found, looks)), [*left_out.lines, *_remarks(found, looks)]
    _compare_partners(report, data, found, looks, name)
    duplicates = groups({path: seen.pixels for path, seen in looks.items()}) if full else same_bytes(looks)
    near = groups({path: seen.difference for path, seen in looks.items()})
    near = [paths for paths in near if len({looks[path].pixels for path in paths}) > 1]
    report.duplicates, report.near_duplicates = copies(duplicates), copies(near)
    return report


def _find_groups(data: Path, left_out: LeftOut) -> list[Group]:
    """The groups of pictures in a data set, in the order train, val, test. A folder without layout is one group."""
    if is_file(data):
        return list(_of_csv(data))
    if not is_folder(data):
        raise InputError(f"{data}: no such folder.{folders.near_to(data)}")
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


def _seen(picture: Picture, two: bool) -> tuple[PictureFacts, ...]:
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
            options = [f"classes_{side}" for side in (domain.lower() if group.domain else "ab")]
            yield from remarks(where, [pictures[side] for pictures in seen], *options)


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


def _compare_partners(
    report: Report, data: Path, found: Sequence[Group], looks: dict[Path, Look], name: Callable[[Path], str]
) -> None:
    others = {(b.name.replace("B", "A"), b.layout): b for b in found if b.domain == "B"}
    for a in found:
        if a.layout == SIDE_BY_SIDE:
            report.odd_width += [name(path) for path in a.paths if looks[path].width % 2]
        b = others.get((a.name, a.layout)) if a.domain == "A" else None
        if b is None:
            continue
        if a.layout == LIST:
            pairs = list(zip(a.paths, b.paths, strict=True))
        else:
            in_a, in_b = (
                {path.relative_to(data / group.name).with_suffix(""): path for path in group.paths} for group in (a, b)
            )
            pairs = [(in_a[stem], in_b[stem]) for stem in in_a if stem in in_b]
            if a.layout == UNPAIRED and len(pairs) < max(len(in_a), len(in_b)):
                continue  # then they are not meant as pairs
            if alone := [p for stem, p in (in_a | in_b).items() if (stem in in_a) != (stem in in_b)]:
                report.without_partner[f"{a.name}, {b.name}"] = list(map(name, alone))
        whole = [pair for pair in pairs if not any(looks[path].damage for path in pair)]
        unequal = [pair for pair in whole if len({(looks[path].width, looks[path].height) for path in pair}) > 1]
        if a.layout == UNPAIRED:
            fit = "and sizes" if not unequal else f"but {len(unequal)} pairs differ in size"
            report.remarks.append(f"{a.name}, {b.name}: all names match, {fit}: pairs for i2i train pix2pix too")
        else:
            report.unequal_sizes += [list(map(name, pair)) for pair in unequal]


def as_json(report: Report) -> str:
    """The report as one JSON object in ASCII, whatever bytes file names have; lists are complete."""
    return json.dumps({**vars(report), "exit_code": report.exit_code}, indent=2, ensure_ascii=True)


def _group(group: Group, looks: dict[Path, Look], full: bool) -> dict[str, Any]:
    seen = [look for path in group.paths if not (look := looks[path]).damage]
    halves = 2 if group.domain == "AB" else 1
    found: dict[str, Any] = {"name": group.name, "layout": group.layout, "split": group.split, "domain": group.domain}
    small = sum(min(look.width // halves, look.height) < _CROP for look in seen)
    found |= {"pictures": len(group.paths), "readable": len(seen), _SMALL: small}
    if sizes := sorted(((look.width, look.height) for look in seen), key=lambda size: (size[0] * size[1], size)):
        found |= {"smallest": sizes[0], "median": sizes[(len(sizes) - 1) // 2], "largest": sizes[-1]}
    if full:  # how often each kind occurs, the most frequent first
        for kind, name in _KINDS.items():
            found[name] = dict(Counter(str(getattr(look, kind)) for look in seen).most_common())
    return found


def as_text(report: Report) -> str:
    """The report in lines; names have their control characters escaped, long lists are cut after ten."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    for layout in report.layouts:
        yield printable(f"{report.data}: {layout} ({_USES[layout]})")
        yield from (_group_line(group) for group in report.groups if group["layout"] == layout)
    for name in _KINDS.values() if report.full else ():
        counts = sum((Counter(group[name]) for group in report.groups), Counter[str]()).most_common()
        yield f"{name}: {', '.join(f'{value} ({count:,})' for value, count in counts)}"
    yield from _listed("damaged", [f"{bad['file']}: {bad['reason']}" for bad in report.damaged])
    for where, names in report.without_partner.items():
        yield from _listed(f"without partner in {where}", names)
    if SIDE_BY_SIDE in report.layouts:
        yield from _listed("of odd width", report.odd_width)
    if {BY_NAME, LIST} & set(report.layouts):
        yield from _listed("pairs of unequal size", list(map(", ".join, report.unequal_sizes)))
    yield from _copies("duplicates" if report.full else "duplicates (equal files)", report.duplicates)
    if report.full:
        yield from _copies("near-duplicates (by difference hash, may err)", report.near_duplicates)
    else:
        yield "only headers were read; --full decodes every picture"
    yield from (f"remark: {remark}" for remark in report.remarks)
    yield from (f"problem: {problem}" for problem in report.problems)


def _group_line(group: dict[str, Any]) -> str:
    text = "none readable"
    if "median" in group:
        smallest, median, largest = (f"{w}x{h}" for w, h in (group[k] for k in ("smallest", "median", "largest")))
        text = median if smallest == largest else f"{smallest} to {largest}, median {median}"
    small = f"; {count:,} smaller than {_CROP} on a side" if (count := group[_SMALL]) else ""
    return f"  {group['name']:8} {group['pictures']:7,} pictures  {text}{small}"


def _listed(what: str, lines: list[str]) -> Iterator[str]:
    yield f"{what}: {len(lines):,}" if lines else f"{what}: none"
    yield from (f"  {printable(line)}" for line in first_lines(lines))


def _copies(what: str, found: list[dict[str, list[str]]]) -> Iterator[str]:
    def equation(files: list[str]) -> str:
        more = [f"{len(files) - _MAX_COPIES} more"] if len(files) > _MAX_COPIES else []
        return " = ".join([*files[:_MAX_COPIES], *more])

    for where, is_across in ((" between splits", True), (" within one split", False)):
        lines = [equation(copies["files"]) for copies in found if (len(copies["splits"]) > 1) == is_across]
        yield from _listed(what + where, lines)


def pixel_hash(picture: Picture) -> str:
    """Equal for pictures of equal size, channels, depth and pixels (alpha included), whatever their files."""
    digest = hashlib.sha256()
    for part in (picture.pixels, picture.extra, picture.alpha):
        if part is not None:
            digest.update(f"{part.shape} {part.dtype}".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()


def difference_hash(picture: Picture) -> int | None:
    """64 bits, equal for most copies of a picture that were scaled or compressed anew.

    The picture is shrunk to 9x8 grey values; each bit says whether one is brighter than its left neighbour. None
    for a picture without detail, whose bits would be those of any other. (Known as dHash; it proves nothing.)
    """
    grey = picture.pixels.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    if np.ptp(small) < 0.02 * white(picture.pixels):
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
