"""Judgement on the pictures of a data set: damage, sizes and channels that do not fit, the rule by which labels are
read, and remarks on pictures that look like something else: labels, or numbers in a small part of their range."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from i2i.data.folders import PairRecord, listed
from i2i.data.look import COMPARED, HIGHEST, LabelFacts, Look, PictureFacts, Size, files_of
from i2i.data.options import MAX_DAMAGED
from i2i.errors import InputError
from i2i.images.palettes import FAR, VOID, Palette

NARROW = 0.25
"""Numbers of more than 8 bits in less than this part of their range get a remark."""

CLIPPED = 0.01
"""A larger share of values outside of their range gets a remark."""
_CERTAIN = 60  # a flat picture without anything brighter is no photograph
_DENSE = 0.25  # of higher class indices, this share of all up to the highest must occur


def judge(
    records: Sequence[Path | PairRecord],
    looks: Mapping[Path, Look],
    complaint: Callable[[int, int], str] = lambda height, width: "",
    patient: bool = False,
) -> list[tuple[Path, str]]:
    """The damaged files, each with the reason. With `patient`, files whose channels do not fit count as damaged.

    `complaint(height, width)` is the reason why a size cannot be used, or empty. Raises `InputError` for pairs side by
    side of odd width, for pairs in two files of different sizes, for sizes with a complaint, for channels that do not
    fit, and if more than 5 % of the files are damaged.
    """
    damaged = [(path, look.damage) for path, look in looks.items() if look.damage]
    unusable = [(path, look.unusable) for path, look in looks.items() if look.unusable]
    most = MAX_DAMAGED * len(looks)
    if unusable and (not patient or len(unusable) > most):
        raise InputError(
            f"{len(unusable)} pictures have another number of channels than the network takes; --channels-a and "
            "--channels-b say how many there are:",
            *listed([f"{path}: {reason}" for path, reason in unusable]),
        )
    damaged += unusable
    if len(damaged) > most:
        raise InputError(
            f"{len(damaged)} of {len(looks)} pictures cannot be read, more than the {MAX_DAMAGED:.0%} "
            f"that may be left out (by --on-bad skip):",
            *listed([f"{path}: {reason}" for path, reason in damaged]),
        )
    good = {path: look.size for path, look in looks.items() if not look.damage}
    _check_pairs([r for r in records if isinstance(r, PairRecord)], good)
    _check_sizes(records, good, complaint)
    return damaged


def rule(palette: Palette, looks: Sequence[LabelFacts]) -> Palette:
    """The palette with the rule by which all label pictures of a data set are read: colours, or class indices.

    All hold colours if one of them is not grey, or if the palette is grey and all hold its greys. Otherwise all hold
    indices. The `ruling` pictures decide. Raises `InputError` if some hold colours and others indices, and names one of
    each.
    """
    if palette.indexed:
        return palette
    ruling = [look for look in looks if look.ruling]
    if ruling:
        coloured = not all(look.grey for look in ruling) or _hold_greys(palette, ruling)
        palette = replace(palette, coloured=coloured, indexed=not coloured)
    _check_mixture(palette, looks)
    return palette


def _hold_greys(palette: Palette, looks: Sequence[LabelFacts]) -> bool:
    """Whether pictures of one channel hold the greys of a palette."""
    numbers: frozenset[int] = frozenset().union(*(look.numbers for look in looks))
    if not palette.is_grey:
        return False
    lossy = any(look.lossy for look in looks)
    return numbers <= _greys(palette) or not numbers <= {*range(len(palette)), VOID} or lossy


def _greys(palette: Palette) -> set[int]:
    return {colour[0] for colour in palette.colours if len(set(colour)) == 1}


def _check_mixture(palette: Palette, looks: Sequence[LabelFacts]) -> None:
    colours = next((look for look in looks if not look.grey), None)
    indices = next((look for look in looks if _holds_indices(palette, look)), None)
    if palette.coloured and colours and indices:
        raise InputError(
            f"{indices.path} holds class indices ({', '.join(map(str, sorted(indices.numbers)[:5]))}), and "
            f"{colours.path} colours of {palette.name!r}; the labels of a domain are all of one kind: convert those of "
            "the other one"
        )


def _holds_indices(palette: Palette, look: LabelFacts) -> bool:
    """Whether a picture of one channel holds class indices that are not greys of the palette."""
    if not look.grey or look.lossy or not look.numbers <= {*range(len(palette)), VOID}:
        return False
    return not look.numbers <= {*_greys(palette), VOID}


def check_labels(palette: Palette, looks: Sequence[LabelFacts]) -> None:
    """Raises `InputError` for pictures that hold no labels by the rule of their set, and for binary masks of 0 and 255
    that are read as indices."""
    lines = [f"{look.path}: {reason}" for look in looks if (reason := _no_labels(palette, look))]
    if lines:
        raise InputError(f"{len(lines)} pictures are no labels:", *listed(lines))
    found: frozenset[int] = frozenset().union(*(look.numbers for look in looks))
    if palette.indexed and VOID in found and len(found) <= 2:
        raise InputError(
            f"{looks[0].path} and all other labels hold no class but {min(found)}, and {VOID}, which is none. "
            "For binary masks (0 and 255), pass a text file with the two lines #000000 and #ffffff"
        )


def _no_labels(palette: Palette, look: LabelFacts) -> str:
    """The reason why a picture holds no labels; empty if it does."""
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


def _far(palette: Palette, look: LabelFacts) -> str:
    if look.apart <= FAR or (not look.lossy and look.unlabelled < 0.5):  # a wide border may have no class
        return ""
    return (
        f"its pixels are {look.apart:.0f} levels from the colours of {palette.name!r}, on average; are the labels on "
        "the other side?"
    )


def unlabelled(palette: Palette, looks: Sequence[LabelFacts]) -> float:
    """The share of pixels whose colour is not in the palette, in the pictures that were compared with it."""
    if palette.indexed:
        return 0.0
    return float(np.mean([look.unlabelled for look in looks[:COMPARED]])) if looks else 0.0


def _check_pairs(records: list[PairRecord], good: Mapping[Path, Size]) -> None:
    odd, unequal = [], []
    for record in records:
        files = files_of(record)
        if not all(path in good for path in files):
            continue
        sizes = [good[path] for path in files]
        shown = ", ".join(f"{path}: {width}x{height}" for path, (width, height) in zip(files, sizes, strict=True))
        if record.b is None and sizes[0][0] % 2:
            odd.append(shown)
        elif len(set(sizes)) > 1:
            unequal.append(shown)
    if odd:
        raise InputError(
            f"{len(odd)} pictures have an odd width; A and B side by side have equal widths:", *listed(odd)
        )
    if unequal:
        raise InputError(f"{len(unequal)} pairs differ in size:", *listed(unequal))


def _check_sizes(
    records: Sequence[Path | PairRecord], good: Mapping[Path, Size], complaint: Callable[[int, int], str]
) -> None:
    unusable = []
    for record in records:
        halves = 2 if isinstance(record, PairRecord) and record.b is None else 1
        for path in files_of(record):
            if path in good and (reason := complaint(good[path][1], good[path][0] // halves)):
                unusable.append(f"{path}: {reason}")
    if unusable:
        raise InputError(f"{len(unusable)} pictures cannot be used:", *listed(unusable))


def remarks(where: str, pictures: Sequence[PictureFacts], option: str) -> list[str]:
    """Sentences about pictures that look like labels, or use little of their range. `option` reads them as labels."""
    found = _labels(where, pictures, option), _narrow(where, pictures), _clipped(where, pictures)
    return [text for text in found if text]


def _labels(where: str, pictures: Sequence[PictureFacts], option: str) -> str:
    numbers: frozenset[int] = frozenset().union(*(one.numbers for one in pictures))
    classes = numbers - {VOID}
    if not pictures or not all(one.numbers for one in pictures) or not _are_indices(classes):
        return ""
    count = max(classes) + 1
    void = f", and {VOID}, which is no label" if VOID in numbers else ""
    if any(one.of_palette for one in pictures):
        what, seem = f"a palette, of which they use the numbers 0 to {count - 1}{void}", "labels by colour"
    elif count == 2:
        what, seem = f"the numbers 0 and 1 alone{void}, which a network sees as black", "masks"
    else:
        what = f"few numbers, from {min(classes)} to {count - 1}{void}, which a network sees as nearly black"
        seem = "indices of classes"
    grey = "" if all(one.channels == 1 or one.of_palette for one in pictures) else ", saved as grey ones,"
    return f"{where}: the pictures have {what}. They seem to be {seem}: {option} {count} takes them{grey} as labels"


def _clipped(where: str, pictures: Sequence[PictureFacts]) -> str:
    """A sentence if many values lie outside of the range that was given."""
    share = float(np.mean([one.clipped for one in pictures])) if pictures else 0.0
    return f"{where}: {share:.1%} of the values are outside of the given range, and clipped" if share > CLIPPED else ""


def _are_indices(classes: frozenset[int]) -> bool:
    highest = max(classes, default=0)
    return 1 <= highest <= HIGHEST and (highest <= _CERTAIN or len(classes) >= _DENSE * highest)


def _narrow(where: str, pictures: Sequence[PictureFacts]) -> str:
    deep = [one for one in pictures if one.dtype not in ("uint8", "units")]
    if len(deep) < len(pictures) or len({one.full for one in deep}) != 1:
        return ""
    text = narrow(min(one.low for one in deep), max(one.high for one in deep), deep[0].full)
    return f"{where}: the pictures have {text}" if text else ""


def narrow(low: float, high: float, full: float) -> str:
    """A sentence if numbers from `low` to `high` are a small part of 0 to `full`, with the remedy; else empty."""
    span = high - low
    if span > NARROW * full or span <= 0:
        return ""
    start = 0.0 if low < NARROW * high else low
    factor = float(Fraction(full) / Fraction(high - start))
    by = f"{int(factor)}" if full > 1 else f"{factor:.3g}"
    sees = [2 * value / full - 1 for value in (low, high)]
    moved = f"(v - {start:g}) * {by}" if start else f"v * {by}"
    return (
        f"values from {low:g} to {high:g} of {full:g}, {span / full:.1%} of the range: a network sees {sees[0]:.3f} to "
        f"{sees[1]:.3f}. Stretch all pictures of the set alike beforehand, each value v to {moved}"
    )
