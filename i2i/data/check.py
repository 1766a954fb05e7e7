"""A look at every picture of a data set before training: damage, sizes and channels that do not fit, labels that are
none, and pictures that are not what they are taken for."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from i2i import images
from i2i.data.folders import PairRecord, listed
from i2i.data.options import MAX_DAMAGED as MAX_DAMAGED
from i2i.data.seeming import Seen, different, seen
from i2i.data.source import Source, picture_part
from i2i.errors import ImageError, InputError
from i2i.images import LOSSY, Picture
from i2i.images.palettes import FAR, VOID, Palette, distance, label_pixels, labels_of
from i2i.machine import cores

Check = Literal["auto", "quick", "full", "off"]
Size = tuple[int, int]

SAMPLE = 5_000
"""So many pictures `auto` decodes."""
AT_A_TIME = 32 << 20
"""So many pixels of several pictures are decoded at a time."""
_LOOKED_AT = 4


@dataclass(frozen=True)
class LabelsSeen:
    """A picture of labels: the different numbers of one that may hold indices, and how it is kept; of the first ones
    also how far their colours are from the palette, on average, and the part of the pixels that is none of its.

    The rule follows from those that are `ruling`, which are the same in every process and any mode of a check.
    """

    path: Path
    ruling: bool = True
    grey: bool = False
    lossy: bool = False
    dtype: str = "uint8"
    numbers: frozenset[int] = frozenset()
    apart: float = 0.0
    unlabelled: float = 0.0


@dataclass(frozen=True)
class Look:
    """The outcome for one file: its size, or why it cannot be read; and if it was decoded what each source of it
    is: the reason why it does not fit the network, what it seems to be, or its labels."""

    size: Size = (0, 0)
    damage: str = ""
    unfit: tuple[str, ...] = ()
    seen: Mapping[Source, Seen] = field(default_factory=dict)
    labels: Mapping[Source, LabelsSeen] = field(default_factory=dict)


def check(
    records: Iterable[Path | PairRecord],
    mode: Check = "auto",
    complaint: Callable[[int, int], str] = lambda height, width: "",
) -> list[tuple[Path, str]]:
    """The damaged files among the records, each with the reason; see `look_at` and `judge`."""
    if mode == "off":
        return []
    wanted = list(records)
    return judge(wanted, look_at(wanted, mode), complaint)


def look_at(
    records: Sequence[Path | PairRecord], mode: Check = "auto", sources: Iterable[Source] = ()
) -> dict[Path, Look]:
    """A look at each file of the records, by decoding those that `decoded` names, else at the header; with `off` at
    the labels that need a rule alone.

    `sources` say what the files are to a network; those of labels are decoded in any mode, up to `SAMPLE`.
    """
    files = list(dict.fromkeys(path for record in records for path in _files(record)))
    of_file: dict[Path, list[Source]] = {}
    for source in sources:
        of_file.setdefault(source.path, []).append(source)
    labels = [path for path in files if any(source.palette for source in of_file.get(path, ()))]
    if mode == "off":
        labels = [path for path in labels if any(s.palette and not s.palette.indexed for s in of_file[path])]
    ruling, first = {*decoded(labels, "auto")}, {*labels[:_LOOKED_AT]}
    whole, room = {*decoded(files, mode), *ruling}, _Room()

    def look(path: Path) -> Look:
        try:
            if path not in whole:
                return Look(images.probe(path))
            with room.of(path):
                return _decoded(path, of_file.get(path, ()), path in first, path in ruling)
        except ImageError as error:
            return Look(damage=str(error))

    looked_at = [path for path in files if path in whole] if mode == "off" else files
    with ThreadPoolExecutor(cores() + 1) as pool:
        return dict(zip(looked_at, pool.map(look, looked_at), strict=True))


class _Room:
    """Bounds what is decoded at a time: so many pixels in all, or one picture."""

    def __init__(self) -> None:
        self._held, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Room for the picture of a file, waited for. One whose header says no size takes none: it is damaged."""
        pixels = _pixels(path)
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= AT_A_TIME)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


def _pixels(path: Path) -> int:
    try:
        return math.prod(images.probe(path))
    except ImageError:
        return 0


def decoded(files: Sequence[Path], mode: Check) -> Sequence[Path]:
    """Those of the files that a check decodes: with `auto` all, or of more than `SAMPLE` so many, evenly from all."""
    if mode == "full" or (mode == "auto" and len(files) <= SAMPLE):
        return files
    return [files[i * len(files) // SAMPLE] for i in range(SAMPLE)] if mode == "auto" else ()


def _decoded(path: Path, sources: Iterable[Source], first: bool, ruling: bool) -> Look:
    picture = images.read(path)
    height, width = picture.pixels.shape[:2]
    unfit, pictures, labels = [], {}, {}
    for source in sources:
        try:
            part = picture_part(picture, source.part)
        except InputError:  # of odd width: one error names all of them
            continue
        if source.palette:
            labels[source] = replace(_labels_seen(path, part, source.palette, first), ruling=ruling)
        else:
            pictures[source] = seen(part)
            unfit.append(_unfit(part, source.channels))
    return Look((width, height), unfit=tuple(filter(None, unfit)), seen=pictures, labels=labels)


def _unfit(picture: Picture, channels: int) -> str:
    try:
        picture.columns(slice(1)).channels(channels)
    except ImageError as error:
        return str(error)
    return ""


def _labels_seen(path: Path, picture: Picture, palette: Palette, first: bool) -> LabelsSeen:
    plane = label_pixels(picture, palette)
    found = LabelsSeen(path, grey=picture.pixels.shape[2] == 1, lossy=picture.format in LOSSY, dtype=str(plane.dtype))
    if plane.shape[2] == 1:
        numbers = different(plane[..., 0]) if plane.dtype == np.uint8 else frozenset(map(int, np.unique(plane)))
        found = replace(found, numbers=numbers)
    if not first or palette.indexed:
        return found
    as_colours = replace(palette, coloured=True)
    unlabelled = float((labels_of(picture, as_colours) == VOID).mean())
    return replace(found, apart=distance(picture.pixels, palette), unlabelled=unlabelled)


def judge(
    records: Sequence[Path | PairRecord],
    looks: Mapping[Path, Look],
    complaint: Callable[[int, int], str] = lambda height, width: "",
    patient: bool = False,
) -> list[tuple[Path, str]]:
    """The damaged files, each with the reason; with `patient`, those whose channels do not fit are among them.

    `complaint` says what is wrong with a height and width, or nothing. Raises `InputError` for pairs side by
    side of odd width, for pairs in two files of different sizes, for sizes with a complaint, for channels that do not
    fit, and if more than 5 % of the files are damaged.
    """
    damaged = [(path, look.damage) for path, look in looks.items() if look.damage]
    unfit = [(path, look.unfit[0]) for path, look in looks.items() if look.unfit]
    if unfit and (not patient or len(unfit) > MAX_DAMAGED * len(looks)):
        lines = [f"{path}: {reason}" for path, reason in unfit]
        raise InputError(
            f"{len(unfit)} pictures have another number of channels than the network takes; --channels-a and "
            "--channels-b say how many there are:",
            *listed(lines),
        )
    damaged += unfit
    if len(damaged) > MAX_DAMAGED * len(looks):
        lines = [f"{path}: {reason}" for path, reason in damaged]
        raise InputError(
            f"{len(damaged)} of {len(looks)} pictures cannot be read, more than the {MAX_DAMAGED:.0%} "
            f"that may be left out (by --on-bad skip):",
            *listed(lines),
        )
    good = {path: look.size for path, look in looks.items() if not look.damage}
    _check_pairs([r for r in records if isinstance(r, PairRecord)], good)
    _check_sizes(records, good, complaint)
    return damaged


def rule(palette: Palette, looks: Sequence[LabelsSeen]) -> Palette:
    """The palette with the one rule for all pictures of labels of a data set: whether those without colours hold the
    classes' indices or colours too.

    Where classes have colours, a picture without any holds colours if another one has some, or if all hold greys of
    a palette that is grey; otherwise all hold indices. The ruling ones decide. Raises `InputError` if some have
    colours and others hold indices, naming one of each.
    """
    if palette.indexed:
        return palette
    ruling = [look for look in looks if look.ruling]
    if ruling:
        coloured = not all(look.grey for look in ruling) or _hold_greys(palette, ruling)
        palette = replace(palette, coloured=coloured, indexed=not coloured)
    _check_mixture(palette, looks)
    return palette


def _hold_greys(palette: Palette, looks: Sequence[LabelsSeen]) -> bool:
    """Whether pictures of one channel hold the greys of a palette."""
    numbers: frozenset[int] = frozenset().union(*(look.numbers for look in looks))
    if not palette.is_grey:
        return False
    lossy = any(look.lossy for look in looks)
    return numbers <= _greys(palette) or not numbers <= {*range(len(palette)), VOID} or lossy


def _greys(palette: Palette) -> set[int]:
    return {colour[0] for colour in palette.colours if len(set(colour)) == 1}


def _check_mixture(palette: Palette, looks: Sequence[LabelsSeen]) -> None:
    colours = next((look for look in looks if not look.grey), None)
    indices = next((look for look in looks if _holds_indices(palette, look)), None)
    if palette.coloured and colours and indices:
        raise InputError(
            f"{indices.path} holds class indices ({', '.join(map(str, sorted(indices.numbers)[:5]))}), and "
            f"{colours.path} colours of {palette.name!r}; the labels of a domain are all of one kind: convert those of "
            "the other one"
        )


def _holds_indices(palette: Palette, look: LabelsSeen) -> bool:
    """Whether a picture of one channel has numbers of classes that are no greys of the palette."""
    if not look.grey or look.lossy or not look.numbers <= {*range(len(palette)), VOID}:
        return False
    return not look.numbers <= {*_greys(palette), VOID}


def check_labels(palette: Palette, looks: Sequence[LabelsSeen]) -> None:
    """Raises `InputError` for the pictures that are no labels by the rule of their set, and if all that hold indices
    have one class and pixels without any: masks of 0 and 255, most likely."""
    lines = [f"{look.path}: {reason}" for look in looks if (reason := _no_labels(palette, look))]
    if lines:
        raise InputError(f"{len(lines)} pictures are no labels:", *listed(lines))
    found: frozenset[int] = frozenset().union(*(look.numbers for look in looks))
    if palette.indexed and VOID in found and len(found) <= 2:
        raise InputError(
            f"{looks[0].path} and all other labels hold no class but {min(found)}, and {VOID}, which is none. "
            "Masks of 0 and 255 are to be told by their colours: a text file with the lines #000000 and #ffffff"
        )


def _no_labels(palette: Palette, look: LabelsSeen) -> str:
    """Why a picture is none of labels; empty if it is one."""
    if not palette.indexed:
        return _far(palette, look)
    if look.lossy and look.grey:
        return "a lossy format, which may have changed the indices of classes; keep them as PNG, TIFF, BMP, GIF or PPM"
    classes = f"0 to {len(palette) - 1}"
    if not look.numbers:
        return (
            f"a picture of colours without a palette of its own; expected a grey one of class indices, {classes}, or "
            "one with a palette. A text file names the colours of classes, a colour a line"
        )
    wrong = sorted(look.numbers - {*range(len(palette)), VOID})
    if wrong or look.dtype != "uint8":
        held = "a grey picture" if look.grey else "a picture with a palette"
        return f"{held} holds class indices, {classes} or {VOID}; found {wrong[0] if wrong else look.dtype}"
    return ""


def _far(palette: Palette, look: LabelsSeen) -> str:
    if look.apart <= FAR or (not look.lossy and look.unlabelled < 0.5):  # a wide border is none of the classes
        return ""
    return (
        f"its pixels are {look.apart:.0f} levels from the colours of {palette.name!r}, on average; are the labels on "
        "the other side?"
    )


def unlabelled(palette: Palette, looks: Sequence[LabelsSeen]) -> float:
    """The part of the pixels, of the pictures that were looked at for it, whose colour is none of the palette's."""
    if palette.indexed:
        return 0.0
    return float(np.mean([look.unlabelled for look in looks[:_LOOKED_AT]])) if looks else 0.0


def _check_pairs(records: list[PairRecord], good: Mapping[Path, Size]) -> None:
    odd, unequal = [], []
    for record in records:
        if record.a not in good or (record.b or record.a) not in good:
            continue
        a, b = (good[path] for path in (record.a, record.b or record.a))
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
    records: Sequence[Path | PairRecord], good: Mapping[Path, Size], complaint: Callable[[int, int], str]
) -> None:
    unfit = []
    for record in records:
        halves = 2 if isinstance(record, PairRecord) and record.b is None else 1
        for path in _files(record):
            if path in good and (reason := complaint(good[path][1], good[path][0] // halves)):
                unfit.append(f"{path}: {reason}")
    if unfit:
        raise InputError(f"{len(unfit)} pictures cannot be used:", *listed(unfit))


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _files(record: Path | PairRecord) -> list[Path]:
    if isinstance(record, Path):
        return [record]
    return [record.a] if record.b is None else [record.a, record.b]
