"""Pictures in the page: sample grids through time, and pairs to compare, as `data:` URIs of bounded size.

Pictures of the user through the model of a run, for the page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from i2i.data.folders import find_images
from i2i.errors import ImageError, InputError
from i2i.images import Picture, Pixels, encode, read, with_channels, with_depth

MAX_GRIDS = 24
MAX_ROWS = 8
MAX_SIDE = 1600
GRID_BYTES = 10 << 20
PAIR_BYTES = 6 << 20
_QUALITY = 82
_LINE = 2  # pixels between the cells of a grid, as training writes them


@dataclass(frozen=True)
class Shown:
    """A picture in the page: its address (`data:`), its size there, and what it is."""

    uri: str
    width: int
    height: int
    label: str


@dataclass(frozen=True)
class Pair:
    """Two pictures of one size to be laid over each other."""

    before: Shown
    after: Shown
    label: str


@dataclass(frozen=True)
class Layout:
    """What the columns of a sample grid are, and which of them are worth comparing."""

    columns: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Cells:
    """Where the cells of a grid lie: rows and columns, and the size of each."""

    rows: int
    columns: int
    height: int
    width: int

    def cut(self, grid: Pixels, row: int, column: int) -> Pixels:
        top, left = _LINE + row * (self.height + _LINE), _LINE + column * (self.width + _LINE)
        return grid[top : top + self.height, left : left + self.width]


def layout_of(config: Mapping[str, Any]) -> Layout | None:
    """The layout that the algorithm of a configuration has, known by its options; None for another."""
    a, b = (str(config.get(f"domain_{side}") or side.upper()) for side in "ab")
    if config.get("direction") == "b2a":  # the algorithm's A is then the data's B
        a, b = b, a
    if "lambda_NCE_A" in config:
        return Layout((a, f"{a} → {b}", b, f"{b} → {b}"), ((0, 1), (2, 3)))
    if "lambda_cycle_A" in config:
        return Layout((a, f"{a} → {b}", f"{a} → {b} → {a}", b, f"{b} → {a}", f"{b} → {a} → {b}"), ((0, 1), (3, 4)))
    if "lambda_L1" in config:
        return Layout(("input", "output", "target"), ((0, 1), (2, 1)))
    return None


def cells_of(grid: Pixels, columns: int, samples: int) -> Cells | None:
    """Where the cells of a grid of that many columns and at most `samples` rows lie; None if it is no such grid."""
    height, width = grid.shape[0] - _LINE, grid.shape[1] - _LINE
    if width % columns or width // columns <= _LINE or not _white(grid, width // columns, columns, axis=1):
        return None
    for rows in range(samples, 0, -1):
        if height % rows == 0 and height // rows > _LINE and _white(grid, height // rows, rows, axis=0):
            return Cells(rows, columns, height // rows - _LINE, width // columns - _LINE)
    return None


def _white(grid: Pixels, pitch: int, count: int, axis: int) -> bool:
    lines = np.concatenate([np.arange(i * pitch, i * pitch + _LINE) for i in range(count + 1)])
    return bool((grid.take(lines, axis=axis) == 255).all())


def grids(samples: Mapping[int, Path], notices: list[str]) -> list[tuple[int, Shown]]:
    """Sample grids by step, evenly chosen with the first and the last; those that cannot be read are named.

    At most `MAX_GRIDS`, and fewer where they would take more than `GRID_BYTES`.
    """
    chosen = evenly(list(samples), MAX_GRIDS)
    found: list[tuple[int, Shown]] = []
    for step in chosen:
        try:
            found.append((step, shown(pixels_of(read(samples[step])), f"samples of step {step}")))
        except ImageError as error:
            notices.append(f"samples/{samples[step].name}: {error}")
    while len(found) > 1 and sum(len(grid.uri) for _, grid in found) > GRID_BYTES:
        found = evenly(found, max(1, len(found) // 2))
    if len(found) < len(samples):
        notices.append(f"{len(found)} of {len(samples)} sample grids are shown, evenly chosen")
    return found


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly spread, the last always among them, and the first if there are two."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def sample_pairs(path: Path, layout: Layout | None, samples: int) -> list[Pair]:
    """The pairs of a sample grid, cut from it; none if its layout is another. Raises `ImageError`."""
    if layout is None:
        return []
    grid = pixels_of(read(path))
    cells = cells_of(grid, len(layout.columns), max(1, min(samples, 1000)))
    if cells is None:
        return []
    found = []
    for row in range(min(cells.rows, MAX_ROWS)):
        for columns in layout.pairs:
            before, after = (
                shown(cells.cut(grid, row, column), f"{layout.columns[column]}, sample {row + 1}") for column in columns
            )
            names = " | ".join(layout.columns[column] for column in columns)
            found.append(Pair(before, after, f"Sample {row + 1}: {names}"))
    return within(found)


def within(pairs: Sequence[Pair]) -> list[Pair]:
    """The first of the pairs that together take at most `PAIR_BYTES`."""
    kept, size = [], 0
    for pair in pairs:
        size += len(pair.before.uri) + len(pair.after.uri)
        if size > PAIR_BYTES:
            break
        kept.append(pair)
    return kept


def pixels_of(picture: Picture) -> Pixels:
    """A picture as (H, W, 3) uint8, alpha over white. Raises `ImageError` if it has no such colours."""
    pixels = picture.over("white").pixels
    if pixels.shape[2] not in (1, 3):
        raise ImageError(f"has {pixels.shape[2]} channels, which a page cannot show")
    return with_depth(with_channels(pixels, 3), np.uint8)


def shown(pixels: Pixels, label: str) -> Shown:
    """(H, W, 3) uint8 as WebP in an address, its longer side scaled to at most `MAX_SIDE`."""
    height, width = pixels.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    data = encode(replace(Picture(np.ascontiguousarray(pixels)), format="WEBP"), "WEBP", _QUALITY)
    return Shown(f"data:image/webp;base64,{base64.b64encode(data).decode()}", width, height, label)


MAX_PICTURES = 24
MAX_SHORTER_SIDE = 512


def translated_pairs(
    run: Path, folder: Path, direction: str | None, device: str, notices: list[str]
) -> tuple[list[Pair], list[str]]:
    """The first `MAX_PICTURES` pictures of `folder` with their translations, and those that failed, with the reason.

    One whose shorter side is longer than 512 pixels is scaled to that first. Raises `InputError` if there are no
    pictures, and what `i2i.load_translator` raises if the run has no model of that direction.
    """
    from i2i.inference.translator import load_translator  # here: only this part of a report needs torch

    paths = find_images(folder) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no pictures in this folder" if folder.is_dir() else f"{folder}: no such folder")
    translator = load_translator(run, direction, device)
    pairs, failed = [], []
    for path in paths[:MAX_PICTURES]:
        name = path.relative_to(folder).as_posix()
        try:
            picture = read(path)
            large = min(picture.pixels.shape[:2]) > MAX_SHORTER_SIDE
            result = translator.translate(picture, MAX_SHORTER_SIDE if large else None)
            after = shown(pixels_of(result), f"{name}, translated")
            before = shown(pixels_of(picture), name)
            pairs.append(Pair(before, after, f"{name}: input | output" + (" (scaled)" if large else "")))
        except ImageError as error:
            failed.append(f"{name}: {error}")
    kept = within(pairs)
    if len(kept) + len(failed) < len(paths):
        notices.append(f"{len(kept)} of {len(paths)} pictures of {folder.name} are shown, the first by name")
    return kept, failed
