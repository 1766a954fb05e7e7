"""Pictures in the page, as `data:` URIs of bounded size, and their HTML: grids through time, pairs to compare."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from i2i.data.folders import find_images
from i2i.errors import ImageError, InputError
from i2i.images import Picture, Pixels, encode, read, with_channels, with_depth
from i2i.tools.markup import Section, escape, note

MAX_GRIDS = 24
MAX_PAIRS = 24
MAX_SIDE = 1600
MAX_SHORTER_SIDE = 512
"""A picture of the user whose shorter side is longer than this is scaled before it is translated."""
GRID_BYTES = 10 << 20
PAIR_BYTES = 6 << 20
DRAG = '<span class="hint" hidden>Drag the line, or use the arrow keys; Enter shows a picture larger.</span>'
_QUALITY = 82
_GAP = 2  # pixels between the cells of a grid

T = TypeVar("T")


@dataclass(frozen=True)
class SampleColumns:
    """`samples/columns.json`: the names of the columns of a sample grid, such as `real_A`, and its layout.

    The grid shows `inputs` pictures with their outputs, `inputs_per_row` of them next to each other, below a strip of
    captions of `caption_height` pixels.
    """

    columns: list[str]
    inputs: int
    inputs_per_row: int = 1
    caption_height: int = 0

    @property
    def comparisons(self) -> list[tuple[int, int]]:
        """The columns to compare: each real picture with the one after it, and a last one, a target, with its fake."""
        names = self.columns
        found = [(i, i + 1) for i, name in enumerate(names[:-1]) if name.startswith("real_")]
        if found and names[-1].startswith("real_") and (fake := names[-1].replace("real_", "fake_")) in names:
            found.append((len(names) - 1, names.index(fake)))
        return found


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture in the page: its address (`data:`), its size there, and its description."""

    uri: str
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Pair:
    """Two pictures of one size to be laid over each other."""

    before: EmbeddedPicture
    after: EmbeddedPicture
    label: str


def embed(pixels: Pixels, label: str, icc: bytes | None = None) -> EmbeddedPicture:
    """(H, W, 3) uint8 as WebP in an address, its longer side scaled to at most `MAX_SIDE`."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    data = encode(replace(Picture(np.ascontiguousarray(pixels)), icc=icc, format="WEBP"), "WEBP", _QUALITY)
    return EmbeddedPicture(f"data:image/webp;base64,{base64.b64encode(data).decode()}", width, height, label)


def image(picture: EmbeddedPicture, css: str = "") -> str:
    """The HTML of a picture; one of a pair is decoded when it comes into view."""
    kind = f' class="{css}" loading="lazy"' if css else ""
    return (
        f'<img{kind} src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.label, 300)}">'
    )


def comparisons(pairs: Sequence[Pair], name: str, title: str, remark: str, few: bool = False) -> Section:
    """A section of pairs side by side; the script lays them over each other with a slider. `remark` is HTML.

    With `few` pictures in a page each of them is larger.
    """
    figures = "".join(
        f'<figure class="compare"><div class="pair">{image(pair.before, "before")}{image(pair.after, "after")}</div>'
        f"<figcaption>{escape(pair.label, 300)}</figcaption></figure>\n"
        for pair in pairs
    )
    cards = f'<div class="{"cards few" if few else "cards"}">{figures}</div>\n'
    return Section(name, title, (note(remark) if remark else "") + cards if pairs else "")


def in_colour(picture: Picture) -> Pixels:
    """A picture as (H, W, 3) uint8, alpha over white. Raises `ImageError` if it has no such colours."""
    pixels = picture.composited_on("white").pixels
    if pixels.shape[2] not in (1, 3):
        raise ImageError(f"has {pixels.shape[2]} channels, which a page cannot show")
    return with_depth(with_channels(pixels, 3), np.uint8)


def sample_grids(samples: Mapping[int, Path], notices: list[str]) -> list[tuple[int, EmbeddedPicture]]:
    """Sample grids by step, evenly chosen with the first and the last; those that cannot be read are named.

    At most `MAX_GRIDS`, and fewer where they would take more than `GRID_BYTES`.
    """
    found: list[tuple[int, EmbeddedPicture]] = []
    for step in evenly(list(samples), MAX_GRIDS):
        try:
            found.append((step, embed(in_colour(read(samples[step])), f"samples of step {step}")))
        except ImageError as error:
            notices.append(f"samples/{samples[step].name}: {error}")
    while len(found) > 1 and sum(len(grid.uri) for _, grid in found) > GRID_BYTES:
        found = evenly(found, max(1, len(found) // 2))
    if len(found) < len(samples):
        notices.append(f"{len(found)} of {len(samples)} sample grids are shown, evenly chosen")
    return found


def sample_pairs(path: Path, layout: SampleColumns) -> list[Pair]:
    """The pairs to compare of a sample grid, cut from it; none if it has another layout. Raises `ImageError`."""
    cells = cells_of(in_colour(read(path)), layout)
    found = []
    for row, pictures in enumerate(cells, 1):
        for columns in layout.comparisons:
            before, after = (embed(pictures[i], f"{layout.columns[i]}, sample {row}") for i in columns)
            names = " | ".join(layout.columns[i] for i in columns)
            found.append(Pair(before, after, f"Sample {row}: {names}"))
    return _within_budget(found)


def cells_of(grid: Pixels, layout: SampleColumns) -> list[list[Pixels]]:
    """The pictures of each row of a sample grid; none if it has another layout."""
    lines, across = -(-layout.inputs // layout.inputs_per_row), len(layout.columns) * layout.inputs_per_row
    inner = grid.shape[0] - layout.caption_height - _GAP, grid.shape[1] - _GAP
    if not lines or not across or inner[0] % lines or inner[1] % across:
        return []
    height, width = inner[0] // lines, inner[1] // across
    if min(height, width) <= _GAP:
        return []
    cells = [
        grid[layout.caption_height + _GAP + y * height :, _GAP + x * width :][: height - _GAP, : width - _GAP]
        for y in range(lines)
        for x in range(across)
    ]
    count = len(layout.columns)
    return [cells[i * count : (i + 1) * count] for i in range(layout.inputs)]


def translated_pairs(
    run: Path, folder: Path, direction: str | None, device: str, notices: list[str]
) -> tuple[list[Pair], list[str]]:
    """The first `MAX_PAIRS` pictures of `folder` with their translations, and those that failed, with the reason.

    Raises `InputError` if there are no pictures, and as `i2i.load_translator` without a model of that direction.
    """
    from i2i.inference.translator import load_translator  # here: only this part of a report needs torch

    paths = find_images(folder) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no pictures in this folder" if folder.is_dir() else f"{folder}: no such folder")
    translator = load_translator(run, direction, device)
    pairs, failed = [], []
    for path in paths[:MAX_PAIRS]:
        name = path.relative_to(folder).as_posix()
        try:
            picture = read(path)
            large = min(picture.pixels.shape[:2]) > MAX_SHORTER_SIDE
            result = translator.translate(picture, MAX_SHORTER_SIDE if large else None)
            after = embed(in_colour(result), f"{name}, translated")
            before = embed(in_colour(picture), name)
            pairs.append(Pair(before, after, f"{name}: input | output" + (" (scaled)" if large else "")))
        except ImageError as error:
            failed.append(f"{name}: {error}")
    kept = _within_budget(pairs)
    if len(kept) + len(failed) < len(paths):
        notices.append(f"{len(kept)} of {len(paths)} pictures of {folder.name} are shown, the first by name")
    return kept, failed


def _within_budget(pairs: Sequence[Pair]) -> list[Pair]:
    """The first of the pairs that together take at most `PAIR_BYTES`."""
    sizes = np.cumsum([len(pair.before.uri) + len(pair.after.uri) for pair in pairs])
    return list(pairs[: int((sizes <= PAIR_BYTES).sum())])


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly spread, the last always among them, and the first if there are two."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
