"""A report on a data set as text for a person and as JSON for a program."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median_low
from typing import Any

from i2i.data.folders import first_lines
from i2i.terminal import printable
from i2i.tools.datasets.inspect import BY_NAME, CROP, LIST, PLAIN, SIDE_BY_SIDE, UNPAIRED, Group, Look, Report

_SCRIPTS = {
    SIDE_BY_SIDE: "train_pix2pix.py",
    BY_NAME: "train_pix2pix.py",
    LIST: "train_pix2pix.py",
    UNPAIRED: "train_cyclegan.py",
    PLAIN: "no layout for training yet",
}
_MAX_COPIES = 4


def as_text(report: Report) -> str:
    """The report in lines; names have their control characters escaped, long lists are cut after ten."""
    return "\n".join(_lines(report))


def as_json(report: Report) -> str:
    """The report as one JSON object in ASCII, whatever bytes file names have; lists are complete."""
    names = report.name
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
        "duplicates": [_group_of_copies(report, paths, names) for paths in report.duplicates],
        "near_duplicates": [_group_of_copies(report, paths, names) for paths in report.near],
        "problems": report.problems,
        "remarks": report.remarks,
    }
    return json.dumps(content, indent=2, ensure_ascii=True)


def _small(group: Group, looks: Iterable[Look]) -> int:
    halves = 2 if group.domain == "AB" else 1
    return sum(min(look.width // halves, look.height) < CROP for look in looks)


def _group(report: Report, group: Group) -> dict[str, Any]:
    looks = report.readable(group)
    found: dict[str, Any] = {"name": group.name, "layout": group.layout, "split": group.split, "domain": group.domain}
    found |= {"pictures": len(group.paths), "readable": len(looks), f"smaller_than_{CROP}": _small(group, looks)}
    if looks:
        sizes = _sizes(looks)
        found |= {"smallest": list(sizes[0]), "median": list(median_low(sizes)), "largest": list(sizes[-1])}
    return found | (_kinds(looks) if report.full else {})


def _sizes(looks: Iterable[Look]) -> list[tuple[int, int]]:
    """Widths and heights in the order of their areas."""
    return sorted(((look.width, look.height) for look in looks), key=lambda size: (size[0] * size[1], size))


def _group_of_copies(report: Report, paths: list[Path], names: Callable[[Path], str]) -> dict[str, Any]:
    return {"files": [names(path) for path in paths], "splits": sorted(report.splits(paths))}


def _lines(report: Report) -> Iterator[str]:
    for layout in report.layouts:
        yield printable(f"{report.data}: {layout} ({_SCRIPTS[layout]})")
        for group in report.groups:
            if group.layout == layout:
                yield _group_line(report, group)
    for name, counts in _kinds(report.looks.values() if report.full else ()).items():
        yield f"{name}: {', '.join(f'{value} ({count:,})' for value, count in counts.items())}"
    yield from _file_lists(report)
    yield from _copies("duplicates" if report.full else "duplicates (equal files)", report, report.duplicates)
    if report.full:
        yield from _copies("near-duplicates (by difference hash, may err)", report, report.near)
    else:
        yield "only headers were read; --full decodes every picture"
    yield from (f"remark: {remark}" for remark in report.remarks)
    yield from (f"problem: {problem}" for problem in report.problems)


def _group_line(report: Report, group: Group) -> str:
    looks = report.readable(group)
    line = f"  {group.name:8} {len(group.paths):7,} pictures  {_size_range(looks)}"
    small = _small(group, looks)
    return line + (f"; {small:,} smaller than {CROP} on a side" if small else "")


def _size_range(looks: list[Look]) -> str:
    if not looks:
        return "none readable"
    sizes = _sizes(looks)
    smallest, middle, largest = (f"{w}x{h}" for w, h in (sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]))
    return smallest if smallest == largest else f"{smallest} to {largest}, median {middle}"


def _kinds(looks: Iterable[Look]) -> dict[str, dict[str, int]]:
    """How often each format, number of channels and depth occurs among readable pictures, the most frequent first."""
    rows = [(look.format, str(look.channels), look.depth) for look in looks if not look.damage]
    counts = [dict(Counter(column).most_common()) for column in zip(*rows, strict=True)] or [{}, {}, {}]
    return dict(zip(("formats", "channels", "depths"), counts, strict=True))


def _file_lists(report: Report) -> Iterator[str]:
    names = report.name
    yield from _listed("damaged", [f"{names(path)}: {reason}" for path, reason in report.damaged])
    for where, paths in report.unpaired.items():
        yield from _listed(f"without partner in {where}", [names(path) for path in paths])
    if any(group.layout == SIDE_BY_SIDE for group in report.groups):
        yield from _listed("of odd width", [names(path) for path in report.odd])
    if any(group.layout in (BY_NAME, LIST) for group in report.groups):
        yield from _listed("pairs of unequal size", [", ".join(map(names, pair)) for pair in report.unequal])


def _listed(what: str, lines: list[str]) -> Iterator[str]:
    yield f"{what}: {len(lines):,}" if lines else f"{what}: none"
    yield from (f"  {printable(line)}" for line in first_lines(lines))


def _copies(what: str, report: Report, found: list[list[Path]]) -> Iterator[str]:
    names = report.name
    across = [paths for paths in found if len(report.splits(paths)) > 1]
    within = [paths for paths in found if len(report.splits(paths)) <= 1]
    for where, sets in ((" between splits", across), (" within one split", within)):
        yield from _listed(what + where, [_equation([names(path) for path in paths]) for paths in sets])


def _equation(names: list[str]) -> str:
    more = [f"{len(names) - _MAX_COPIES} more"] if len(names) > _MAX_COPIES else []
    return " = ".join([*names[:_MAX_COPIES], *more])
