"""A look at the files of a data set before training: sizes, damage, and facts about the numbers in the pictures.

`check.py` judges by these facts.
"""

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from i2i import images
from i2i.data.folders import PairRecord
from i2i.data.source import Source, picture_part
from i2i.errors import ImageError, InputError
from i2i.images import LOSSY, Picture, Pixels
from i2i.images.palettes import VOID, Palette, distance, label_pixels, labels_of
from i2i.images.picture import white
from i2i.machine import cores

Check = Literal["auto", "quick", "full", "off"]
Size = tuple[int, int]

SAMPLE = 5_000
"""The number of pictures that `auto` decodes."""
AT_A_TIME = 32 << 20
"""The number of pixels that are decoded at a time."""
COMPARED = 4
"""The number of label pictures whose colours are compared with the palette."""
HIGHEST = 200
"""Class indices are at most this high."""
_BUSY = 0.35  # so many neighbouring pixels differ in labels at most


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
    ruling: bool = True
    grey: bool = False
    lossy: bool = False
    dtype: str = "uint8"
    numbers: frozenset[int] = frozenset()
    apart: float = 0.0
    unlabelled: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """The outcome for one file: its size, or why it cannot be read.

    For a decoded file also the reason why it does not fit the network, if any, and the facts about each of its sources.
    """

    size: Size = (0, 0)
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
        """Waits until the picture of a file fits. A header without a size takes none: the file is damaged."""
        pixels = 0
        with contextlib.suppress(ImageError):
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
        except InputError:  # of odd width: one error names all of them
            continue
        if source.palette:
            facts[source] = replace(_label_facts(path, part, source.palette, first), ruling=ruling)
            continue
        facts[source] = picture_facts(part)
        try:
            part.columns(slice(1)).channels(source.channels)
        except ImageError as error:
            unusable.append(str(error))
    return Look((width, height), unusable=unusable[0] if unusable else "", facts=facts)


def _label_facts(path: Path, picture: Picture, palette: Palette, first: bool) -> LabelFacts:
    plane = label_pixels(picture, palette)
    found = LabelFacts(path, grey=picture.pixels.shape[2] == 1, lossy=picture.format in LOSSY, dtype=str(plane.dtype))
    if plane.shape[2] == 1:
        numbers = _distinct(plane[..., 0]) if plane.dtype == np.uint8 else frozenset(map(int, np.unique(plane)))
        found = replace(found, numbers=numbers)
    if not first or palette.indexed:
        return found
    as_colours = replace(palette, coloured=True)
    unlabelled = float((labels_of(picture, as_colours) == VOID).mean())
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
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    if pixels.shape[2] != 3:
        return None
    for step in (16, 1):  # a few pixels show that most pictures have colours
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
