"""A look at every picture of a data set before training: damage, sizes that differ, sizes too small."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from i2i import images
from i2i.data.cache import Source, part_of
from i2i.data.folders import PairRecord, listed
from i2i.errors import ImageError, InputError
from i2i.images.palettes import distance, to_classes

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
            f"that may be left out:{listed(lines)}"
        )
    _check_pairs([r for r in wanted if isinstance(r, PairRecord)], measured)
    _check_sizes(wanted, measured, complaint)
    return damaged


def check_labels(sources: Iterable[Source]) -> None:
    """Those of the sources that are labels: each holds class indices of its palette, or colours that look like it.

    Of colours the first few are looked at. Raises `InputError` for the files where that is not so.
    """
    labels = [source for source in sources if source.palette]
    indexed = [source for source in labels if source.palette and source.palette.indexed]
    coloured = [source for source in labels if source.palette and not source.palette.indexed][:_LOOKED_AT]
    with ThreadPoolExecutor() as pool:
        wrong = [line for line in pool.map(_no_labels, [*indexed, *coloured]) if line]
    if wrong:
        raise InputError(f"{len(wrong)} pictures are no labels:{listed(wrong)}")


def _no_labels(source: Source) -> str:
    """What is wrong with a picture of labels; empty if nothing is, or if it cannot be read, which is told elsewhere."""
    assert source.palette
    try:
        pixels = part_of(images.read(source.path).pixels, source.part)
        to_classes(pixels, source.palette)
    except ImageError:
        return ""
    except InputError as error:
        return f"{source.path}: {error}"
    far = distance(pixels, source.palette)
    if far <= FAR_FROM_LABELS:
        return ""
    return (
        f"{source.path}: its pixels are {far:.0f} levels from the colours of {source.palette.name!r}, on average; are "
        "the labels on the other side?"
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
        raise InputError(f"{len(odd)} pictures have an odd width; A and B side by side have equal widths:{listed(odd)}")
    if unequal:
        raise InputError(f"{len(unequal)} pairs differ in size:{listed(unequal)}")


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
        raise InputError(f"{len(unfit)} pictures cannot be used:{listed(unfit)}")


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
