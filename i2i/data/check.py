"""A look at every picture of a data set before training: damage, sizes that differ, sizes too small."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from i2i import images
from i2i.data.cache import Source, part_of
from i2i.data.folders import PairRecord, listed
from i2i.errors import ImageError, InputError
from i2i.images.palettes import VOID, Palette, distance, to_classes

Check = Literal["quick", "full", "off"]
Size = tuple[int, int]

MAX_DAMAGED = 0.05
FAR_FROM_LABELS = 25
_LOOKED_AT = 4


def check(
    records: Iterable[Path | PairRecord],
    mode: Check = "quick",
    complaint: Callable[[int, int], str] = lambda height, width: "",
) -> list[tuple[Path, str]]:
    """The damaged files among the records, each with the reason; `quick` reads headers, `full` decodes.

    `complaint` says what is wrong with a height and width, or nothing. Raises `InputError` for pairs side by
    side of odd width, for pairs in two files of different sizes, for sizes with a complaint, and if more than
    5 % of the files are damaged.
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
        raise InputError(
            f"{len(damaged)} of {len(measured)} pictures cannot be read, more than the {MAX_DAMAGED:.0%} "
            f"that may be left out:",
            *listed(lines),
        )
    _check_pairs([r for r in wanted if isinstance(r, PairRecord)], measured)
    _check_sizes(wanted, measured, complaint)
    return damaged


def check_labels(sources: Iterable[Source], mode: Check = "quick") -> None:
    """Those of the sources that are labels: each holds class indices of its palette, or colours that look like it.

    Grey ones are all decoded, of colours the first few of each palette. Raises `InputError` for the files where that
    is not so, and if all that hold indices have one class and pixels without any: masks of 0 and 255, most likely.
    """
    if mode == "off":
        return
    sides: dict[Palette, list[Source]] = {}
    for source in sources:
        if source.palette:
            sides.setdefault(source.palette, []).append(source)
    for labels in sides.values():
        found = list(map(_looked_at, labels[:_LOOKED_AT]))
        if any(look.grey for look in found):
            with ThreadPoolExecutor() as pool:
                found += pool.map(_looked_at, labels[_LOOKED_AT:])
        if wrong := [look.complaint for look in found if look.complaint]:
            raise InputError(f"{len(wrong)} pictures are no labels:", *listed(wrong))
        classes = set().union(*(look.classes for look in found))
        if VOID in classes and len(classes) <= 2:
            raise InputError(
                f"{labels[0].path} and all other labels hold no class but {min(classes)}, and {VOID}, which is none. "
                "Masks of 0 and 255 are to be told by their colours: a text file with the lines #000000 and #ffffff"
            )


@dataclass(frozen=True)
class _Look:
    """At a picture of labels: what is wrong with it, whether it is grey, the classes of a grey one."""

    complaint: str = ""
    grey: bool = False
    classes: frozenset[int] = frozenset()


def _looked_at(source: Source) -> _Look:
    palette = source.palette
    assert palette
    try:
        pixels = part_of(images.read(source.path).pixels, source.part)
        grey = pixels.shape[2] == 1
        looked = grey or palette.indexed  # which refuses colours
        classes = frozenset(map(int, np.unique(to_classes(pixels, palette)))) if looked else frozenset()
    except ImageError:  # it cannot be read, which is told elsewhere
        return _Look()
    except InputError as error:
        return _Look(f"{source.path}: {error}")
    if grey or (far := distance(pixels, palette)) <= FAR_FROM_LABELS:
        return _Look(grey=grey, classes=classes)
    return _Look(
        f"{source.path}: its pixels are {far:.0f} levels from the colours of {palette.name!r}, on average; are the "
        "labels on the other side?"
    )


def _check_pairs(records: list[PairRecord], measured: dict[Path, Size | str]) -> None:
    odd, unequal = [], []
    for record in records:
        a, b = (measured[path] for path in (record.a, record.b or record.a))
        if isinstance(a, str) or isinstance(b, str):
            continue
        if record.b is None and a[0] % 2:
            odd.append(f"{record.a}: {_shown(a)}")
        elif record.b is not None and a != b:
            unequal.append(f"{record.a}: {_shown(a)}, {record.b}: {_shown(b)}")
    if odd:
        raise InputError(
            f"{len(odd)} pictures have an odd width; A and B side by side have equal widths:", *listed(odd)
        )
    if unequal:
        raise InputError(f"{len(unequal)} pairs differ in size:", *listed(unequal))


def _check_sizes(
    records: list[Path | PairRecord], measured: dict[Path, Size | str], complaint: Callable[[int, int], str]
) -> None:
    unfit = []
    for record in records:
        halves = 2 if isinstance(record, PairRecord) and record.b is None else 1
        for path in _files(record):
            size = measured[path]
            if not isinstance(size, str) and (reason := complaint(size[1], size[0] // halves)):
                unfit.append(f"{path}: {reason}")
    if unfit:
        raise InputError(f"{len(unfit)} pictures cannot be used:", *listed(unfit))


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _files(record: Path | PairRecord) -> list[Path]:
    if isinstance(record, Path):
        return [record]
    return [record.a] if record.b is None else [record.a, record.b]


def _measured(measure: Callable[[Path], Size], path: Path) -> Size | str:
    try:
        return measure(path)
    except ImageError as error:
        return str(error)


def _decoded_size(path: Path) -> Size:
    height, width = images.read(path).pixels.shape[:2]
    return width, height
