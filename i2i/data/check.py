"""A check of the pictures of a data set before training: damage, sizes and channels that do not fit, the rule by which
labels are read, and pictures that look like something else: labels, or numbers in a small part of their range.

`look_at` finds facts about each file, all else judges by them.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from i2i import images
from i2i.data.folders import PairRecord, refuse
from i2i.data.options import MAX_DAMAGED
from i2i.data.source import Source, picture_part
from i2i.errors import ImageError, InputError, as_typed
from i2i.images import LOSSY, Picture, Pixels
from i2i.images.palettes import FAR, VOID, Palette, distance, label_pixels, labels_of
from i2i.images.picture import white
from i2i.machine import cores

Check = Literal["auto", "quick", "full", "off"]

SAMPLE = 5_000
"""The number of pictures that `auto` decodes."""
AT_A_TIME = 32 << 20
"""The number of pixels that are decoded at a time."""
COMPARED = 4
"""The number of label pictures whose colours are compared with the palette."""
HIGHEST = 200
"""Class indices are at most this high."""
NARROW = 0.25  # numbers of more than 8 bits in less than this part of their range get a remark
CLIPPED = 0.01  # as does a larger share of values outside of their range
_BUSY = 0.35  # so many neighbouring pixels differ in labels at most
_CERTAIN = 60  # a flat picture without anything brighter is no photograph
_DENSE = 0.25  # beyond `_CERTAIN` this share of all indices up to the highest must occur


@dataclass(frozen=True)
class PictureFacts:
    """The numbers in a picture: their type; with more than 8 bits, the lowest, the highest and the full scale.

    `numbers` are the distinct ones of a flat 8-bit picture that may hold labels. `of_palette`: the file has a palette.
    `clipped` is the share of values in units outside of their range.
    """

    dtype: str
    low: float = 0.0
    high: float = 0.0
    full: float = 255.0
    numbers: frozenset[int] = field(default_factory=frozenset)
    of_palette: bool = False
    channels: int = 1
    clipped: float = 0.0


@dataclass(frozen=True)
class LabelFacts:
    """A picture of labels: its distinct numbers, if they may be indices, and how they are stored.

    `apart` is the mean distance of its colours from the palette, `unlabelled` the share of pixels without a class; both
    are measured for the first few pictures. `ruling` pictures decide how the labels of the set are read; they are the
    same in every process and any mode of a check.
    """

    path: Path
    ruling: bool
    grey: bool
    lossy: bool
    dtype: str
    numbers: frozenset[int] = frozenset()
    apart: float = 0.0
    unlabelled: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome for one file: its size, or why it cannot be read.

    For a decoded file also the reason why it does not fit the network, if any, and the facts about each of its sources.
    """

    size: tuple[int, int] = (0, 0)
    damage: str = ""
    unusable: str = ""
    facts: Mapping[Source, PictureFacts | LabelFacts] = field(default_factory=dict)


def look_at(
    records: Sequence[Path | PairRecord], mode: Check = "auto", sources: Iterable[Source] = ()
) -> dict[Path, Look]:
    """A look at each file of the records: `decoded` names the files to decode, the others are read up to the header.

    `sources` say how a network takes the files. Files of labels are decoded in any mode, up to `SAMPLE`. With `off`
    only labels that need a rule are looked at.
    """
    files = list(dict.fromkeys(path for record in records for path in files_of(record)))
    of_file: dict[Path, list[Source]] = {}
    for source in sources:
        of_file.setdefault(source.path, []).append(source)
    labels = [path for path in files if any(source.palette for source in of_file.get(path, ()))]
    if mode == "off":
        labels = [path for path in labels if any(s.palette and not s.palette.indexed for s in of_file[path])]
    ruling, first = {*decoded(labels, "auto")}, {*labels[:COMPARED]}
    whole, budget = {*decoded(files, mode), *ruling}, _PixelBudget()

    def look(path: Path) -> Look:
        try:
            if path not in whole:
                return Look(images.probe(path))
            with budget.of(path):
                return _decoded(path, of_file.get(path, ()), path in first, path in ruling)
        except ImageError as error:
            return Look(damage=str(error))

    looked_at = [path for path in files if path in whole] if mode == "off" else files
    with ThreadPoolExecutor(cores() + 1) as pool:
        return dict(zip(looked_at, pool.map(look, looked_at), strict=True))


def files_of(record: Path | PairRecord) -> list[Path]:
    """The file of a picture, or the one or two of a pair."""
    if isinstance(record, Path):
        return [record]
    return [record.a] if record.b is None else [record.a, record.b]


def decoded(files: Sequence[Path], mode: Check) -> Sequence[Path]:
    """The files that a check decodes: with `auto` at most `SAMPLE`, evenly from all."""
    if mode == "full" or (mode == "auto" and len(files) <= SAMPLE):
        return files
    return [files[i * len(files) // SAMPLE] for i in range(SAMPLE)] if mode == "auto" else ()


class _PixelBudget:
    """Bounds the pixels that are decoded at a time; a larger picture is decoded alone."""

    def __init__(self) -> None:
        self._held, self._changed = 0, threading.Condition()

    @contextlib.contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Waits until the picture of a file fits. Raises `ImageError` for a header without a size."""
        pixels = math.prod(images.probe(path))
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= AT_A_TIME)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


def _decoded(path: Path, sources: Sequence[Source], first: bool, ruling: bool) -> Look:
    pictures_of = {values: images.read(path, values=values) for values in {s.values for s in sources} or {None}}
    height, width = next(iter(pictures_of.values())).pixels.shape[:2]
    unusable: list[str] = []
    facts: dict[Source, PictureFacts | LabelFacts] = {}
    for source in sources:
        try:
            part = picture_part(pictures_of[source.values], source.part)
        except InputError:  # pictures of odd width: one error names all of them
            continue
        if source.palette:
            facts[source] = _label_facts(path, part, source.palette, first, ruling)
            continue
        facts[source] = picture_facts(part)
        try:
            part.columns(slice(1)).channels(source.channels)
        except ImageError as error:
            unusable.append(str(error))
    return Look((width, height), unusable=unusable[0] if unusable else "", facts=facts)


def _label_facts(path: Path, picture: Picture, palette: Palette, first: bool, ruling: bool) -> LabelFacts:
    plane = label_pixels(picture, palette)
    grey, lossy, numbers = picture.pixels.shape[2] == 1, picture.format in LOSSY, frozenset[int]()
    if plane.shape[2] == 1:
        numbers = _distinct(plane[..., 0]) if plane.dtype == np.uint8 else frozenset(map(int, np.unique(plane)))
    found = LabelFacts(path, ruling, grey, lossy, str(plane.dtype), numbers)
    if not first or palette.indexed:
        return found
    unlabelled = float((labels_of(picture, replace(palette, coloured=True)) == VOID).mean())
    return replace(found, apart=distance(picture.pixels, palette), unlabelled=unlabelled)


def picture_facts(picture: Picture) -> PictureFacts:
    """The facts about a decoded picture."""
    pixels = picture.pixels
    if picture.units is not None:
        return PictureFacts("units", clipped=picture.units.clipped / pixels.size)
    if pixels.dtype != np.uint8:
        return PictureFacts(str(pixels.dtype), float(pixels.min()), float(pixels.max()), white(pixels))
    of_palette = picture.numbers is not None
    plane = picture.numbers if of_palette else _grey_plane(pixels)
    if plane is None or picture.format in LOSSY:
        return PictureFacts("uint8")
    found = _distinct(plane)
    few = max(found - {VOID}, default=0) <= HIGHEST and busyness(plane) <= _BUSY
    numbers = found if few else frozenset()
    return PictureFacts("uint8", numbers=numbers, of_palette=of_palette, channels=pixels.shape[2])


def _grey_plane(pixels: Pixels) -> Pixels | None:
    """The one channel of a grey picture (H, W, C), also where it is there three times; None for colours."""
    if pixels.shape[2] not in (1, 3):
        return None
    for step in (16, 1) if pixels.shape[2] == 3 else ():  # a few pixels show that most pictures have colours
        few = pixels[::step, ::step]
        if (few[..., 0] != few[..., 1]).any() or (few[..., 0] != few[..., 2]).any():
            return None
    return pixels[..., 0]


def _distinct(plane: Pixels) -> frozenset[int]:
    """The distinct numbers of (H, W) uint8."""
    counts: Any = cv2.calcHist([np.ascontiguousarray(plane)], [0], None, [256], [0, 256])
    return frozenset(map(int, np.flatnonzero(counts)))


def busyness(plane: Pixels) -> float:
    """The share of neighbouring pixels of (H, W) that differ. In photographs of facades it is 57 % to 96 %."""
    apart = [one != other for one, other in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1]))]
    return float(sum(map(np.count_nonzero, apart)) / max(1, sum(pairs.size for pairs in apart)))


def judge(
    records: Sequence[Path | PairRecord],
    looks: Mapping[Path, Look],
    complaint: Callable[[int, int], str] = lambda height, width: "",
    patient: bool = False,
) -> list[str]:
    """The damaged files, a line with the reason for each. With `patient`, files whose channels do not fit count as
    damaged.

    `complaint(height, width)` is the reason why a size cannot be used, or empty. Raises `InputError` for pairs side by
    side of odd width, for pairs in two files of different sizes, for sizes with a complaint, for channels that do not
    fit, and if more than 5 % of the files are damaged.
    """
    damaged = [f"{path}: {look.damage}" for path, look in looks.items() if look.damage]
    unusable = [f"{path}: {look.unusable}" for path, look in looks.items() if look.unusable]
    most = MAX_DAMAGED * len(looks)
    ways = f"{as_typed('channels_a')} and {as_typed('channels_b')} set it"
    channels = f"another number of channels than the network takes; {ways}"
    refused = unusable if not patient or len(unusable) > most else []
    refuse(refused, f"picture has {channels}", f"pictures have {channels}")
    damaged += unusable
    of_all = f"of {len(looks)} pictures cannot be read, more than the {MAX_DAMAGED:.0%} that may be left out"
    refuse(damaged if len(damaged) > most else [], *[f"{of_all} (by {as_typed('on_bad', 'skip')})"] * 2)
    good = {path: look.size for path, look in looks.items() if not look.damage}
    odd, unequal, wrong = list[str](), list[str](), list[str]()
    for record in records:
        files, halves = files_of(record), 2 if isinstance(record, PairRecord) and record.b is None else 1
        sizes = [good[path] for path in files if path in good]
        if len(sizes) == len(files) and (sizes[0][0] % halves or len(set(sizes)) > 1):
            shown = ", ".join(f"{path}: {width}x{height}" for path, (width, height) in zip(files, sizes, strict=True))
            (odd if halves == 2 else unequal).append(shown)
        for path in files:
            if path in good and (reason := complaint(good[path][1], good[path][0] // halves)):
                wrong.append(f"{path}: {reason}")
    width = "an odd width; A and B side by side have equal widths"
    refuse(odd, f"picture has {width}", f"pictures have {width}")
    hint = "Scale or crop both pictures of a pair to one size, or remove them; `i2i prepare-dataset check` lists all."
    refuse(unequal, "pair differs in size", "pairs differ in size", hint)
    refuse(wrong, "picture cannot be used", "pictures cannot be used")
    return damaged


def rule(palette: Palette, looks: Sequence[LabelFacts]) -> Palette:
    """The palette with the rule for all label pictures of a data set: they hold colours, or class indices.

    They hold colours if a picture is not grey, or if the palette is grey and all pictures have its greys. Otherwise
    they hold indices. The `ruling` pictures decide. Raises `InputError` if some hold
    colours and others indices, and names one of each.
    """
    if palette.indexed:
        return palette
    known = {*range(len(palette)), VOID}
    greys = {colour[0] for colour in palette.colours if len(set(colour)) == 1}
    if ruling := [look for look in looks if look.ruling]:
        numbers = frozenset[int]().union(*(look.numbers for look in ruling))
        no_indices = not numbers <= known or any(look.lossy for look in ruling)
        hold_greys = palette.is_grey and (numbers <= greys or no_indices)
        coloured = hold_greys or not all(look.grey for look in ruling)
        palette = replace(palette, coloured=coloured, indexed=not coloured)
    colours = next((look for look in looks if not look.grey), None)
    ours = (look for look in looks if look.grey and not look.lossy and look.numbers <= known)
    indices = next((look for look in ours if not look.numbers <= {*greys, VOID}), None)
    if palette.coloured and colours and indices:
        raise InputError(
            f"{indices.path} holds class indices ({', '.join(map(str, sorted(indices.numbers)[:5]))}), and "
            f"{colours.path} colours of {palette.name!r}; the labels of a domain are all of one kind: convert those of "
            "the other one"
        )
    return palette


def check_labels(palette: Palette, looks: Sequence[LabelFacts]) -> None:
    """Raises `InputError` for pictures that hold no labels by the rule of their set, and for binary masks of 0 and 255
    that are read as indices."""
    reason_of = _no_indices if palette.indexed else _no_colours
    wrong = [f"{one.path}: {reason}" for one in looks if (reason := reason_of(palette, one))]
    refuse(wrong, "picture is no label map", "pictures are no label maps")
    found = frozenset[int]().union(*(look.numbers for look in looks))
    if palette.indexed and VOID in found and len(found) <= 2:
        raise InputError(
            f"{looks[0].path} and all other labels hold no class but {min(found)}, and {VOID}, which is none. "
            "For binary masks (0 and 255), pass a text file with the two lines #000000 and #ffffff"
        )


def _no_indices(palette: Palette, look: LabelFacts) -> str:
    """The reason why a picture holds no class indices; empty if it does."""
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


def _no_colours(palette: Palette, look: LabelFacts) -> str:
    if look.apart <= FAR or (not look.lossy and look.unlabelled < 0.5):  # a wide border may have no class
        return ""
    return (
        f"its pixels are {look.apart:.0f} levels from the colours of {palette.name!r}, on average; are the labels on "
        "the other side, or did scaling or compression blend their colours?"
    )


def unlabelled(palette: Palette, looks: Sequence[LabelFacts]) -> float:
    """The share of pixels whose colour is not in the palette, in the pictures that were compared with it."""
    return float(np.mean([look.unlabelled for look in looks[:COMPARED]])) if looks and not palette.indexed else 0.0


def remarks(where: str, pictures: Sequence[PictureFacts], *options: str) -> list[str]:
    """Sentences about pictures that look like labels, as which `options` read them, or use little of their range."""
    if not pictures:
        return []
    found = [_seem_labels(pictures, options)]
    deep = [one for one in pictures if one.dtype not in ("uint8", "units")]
    if len(deep) == len(pictures) and len({one.full for one in deep}) == 1:
        text = narrow(min(one.low for one in deep), max(one.high for one in deep), deep[0].full)
        found.append(text and f"the pictures have {text}")
    if (share := float(np.mean([one.clipped for one in pictures]))) > CLIPPED:
        found.append(f"{share:.1%} of the values are outside of the given range, and clipped")
    return [f"{where}: {text}" for text in found if text]


def _seem_labels(pictures: Sequence[PictureFacts], options: Sequence[str]) -> str:
    numbers = frozenset[int]().union(*(one.numbers for one in pictures))
    highest = max(classes := numbers - {VOID}, default=0)
    are_indices = 1 <= highest <= HIGHEST and (highest <= _CERTAIN or len(classes) >= _DENSE * highest)
    if not all(one.numbers for one in pictures) or not are_indices:
        return ""
    void = f", and {VOID}, which is no label" if VOID in numbers else ""
    if any(one.of_palette for one in pictures):
        what, seem = f"a palette, of which they use the numbers 0 to {highest}{void}", "labels by colour"
    elif highest == 1:
        what, seem = f"the numbers 0 and 1 alone{void}, which a network sees as black", "masks"
    else:
        what = f"few numbers, from {min(classes)} to {highest}{void}, which a network sees as nearly black"
        seem = "indices of classes"
    grey = "" if all(one.channels == 1 or one.of_palette for one in pictures) else ", saved as grey ones,"
    ways = " or ".join(as_typed(option, highest + 1) for option in options)
    return f"the pictures have {what}. They seem to be {seem}: {ways} takes them{grey} as labels"


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
