"""Pairs as one picture with A and B side by side, and as two pictures of the same name: there and back.

What is written loses nothing: PNG, or TIFF where both sources are TIFF; what PNG cannot hold fails.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from i2i import images
from i2i.data.folders import find_images
from i2i.errors import ExistsError, ImageError, InputError
from i2i.images import Picture, Pixels
from i2i.images.picture import Depth
from i2i.tools.datasets.outputs import Outcome, by_stem, check_outputs, check_place, is_there, make_folder

_TIFF = {".tif", ".tiff"}


def combine(a: Path, b: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False) -> Outcome:
    """Write each pair of the folders `a` and `b` (partners have the same name) to `out`, A on the left.

    The tree is kept, so `A/train/1.png` and `B/train/1.jpg` become `out/train/1.png`. Pictures without a
    partner, of different sizes, or damaged are recorded as failed. Raises `InputError` if there is no pair at
    all, `UsageError` and `OutputError` as to the outputs.
    """
    check_place(out, (a, b))
    in_a, in_b = by_stem(a), by_stem(b)
    pairs = [(in_a[stem], in_b[stem]) for stem in in_a if stem in in_b]
    if not pairs:
        raise InputError(f"no picture in {a} has the name of one in {b}")
    outputs = [out / one.relative_to(a).with_suffix(_suffix(one, two)) for one, two in pairs]
    check_outputs(outputs, [path for pair in pairs for path in pair], overwrite, skip_existing)
    outcome = Outcome()
    outcome.failed += [(path, f"no partner in {b}") for stem, path in in_a.items() if stem not in in_b]
    outcome.failed += [(path, f"no partner in {a}") for stem, path in in_b.items() if stem not in in_a]
    for (one, two), output in zip(pairs, outputs, strict=True):
        _record(outcome, one, [output], overwrite, skip_existing, partial(_joined, one, two))
    return outcome


def split(folder: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False) -> Outcome:
    """Write the halves of each picture of `folder`: the left one to `out/A`, the right one to `out/B`.

    The tree is kept, so `train/1.jpg` becomes `out/A/train/1.png` and `out/B/train/1.png`. Pictures of odd
    width or damaged are recorded as failed. Raises as `combine` does.
    """
    check_place(out, (folder,))
    sources = find_images(folder)
    if not sources:
        raise InputError(f"{folder}: no pictures in it")
    names = [path.relative_to(folder).with_suffix(_suffix(path)) for path in sources]
    outputs = [[out / side / name for side in "AB"] for name in names]
    check_outputs([path for pair in outputs for path in pair], sources, overwrite, skip_existing)
    outcome = Outcome()
    for source, pair in zip(sources, outputs, strict=True):
        _record(outcome, source, pair, overwrite, skip_existing, partial(_halves, source))
    return outcome


def _record(
    outcome: Outcome,
    source: Path,
    outputs: list[Path],
    overwrite: bool,
    skip_existing: bool,
    make: Callable[[], list[Picture]],
) -> None:
    there = {path for path in outputs if skip_existing and is_there(path)}
    if len(there) == len(outputs):
        outcome.skipped += 1
        return
    try:
        pictures = make()
    except ImageError as error:
        outcome.failed.append((source, str(error)))
        return
    if lost := [
        reason for path, p in zip(outputs, pictures, strict=True) for reason in images.not_kept_by(path.suffix, p)
    ]:
        outcome.failed.append((source, f"{lost[0]}; name the sources .tif"))
        return
    try:
        for path, picture in zip(outputs, pictures, strict=True):
            if path not in there:
                make_folder(path.parent)
                images.write(path, picture, replace=overwrite)
    except ExistsError as error:
        outcome.failed.append((source, str(error)))
    else:
        outcome.done += 1


def _suffix(*sources: Path) -> str:
    return ".tif" if all(path.suffix.lower() in _TIFF for path in sources) else ".png"


def _joined(one: Path, two: Path) -> list[Picture]:
    a = images.read(one)
    try:
        b = images.read(two)
    except ImageError as error:
        raise ImageError(f"its partner {two}: {error}") from None
    if a.pixels.shape[:2] != b.pixels.shape[:2]:
        sizes = [f"{p.pixels.shape[1]}x{p.pixels.shape[0]}" for p in (a, b)]
        raise ImageError(f"{sizes[0]}, and its partner {two} {sizes[1]}; A and B side by side have equal sizes")
    if a.band_count - a.pixels.shape[2] != b.band_count - b.pixels.shape[2]:
        raise ImageError(f"{a.band_count} channels, and its partner {two} {b.band_count}; they must have equally many")
    channels = max(a.pixels.shape[2], b.pixels.shape[2])
    sides = [_with_channels(p, channels) for p in (a, b)]
    if a.pixels.dtype != b.pixels.dtype:
        depth = np.float32 if np.float32 in (a.pixels.dtype, b.pixels.dtype) else np.uint16
        sides = [_with_depth(p, depth) for p in sides]
    alpha = None
    if a.alpha is not None or b.alpha is not None:
        alpha = np.hstack([_opaque(p) if p.alpha is None else p.alpha for p in sides])
    # colours that differ cannot both be described
    icc, colour = (a.icc, a.colour) if (a.icc, a.colour) == (b.icc, b.colour) else (None, None)
    extra = [p.extra for p in sides if p.extra is not None]
    joined = Picture(np.hstack([p.pixels for p in sides]), alpha, icc, extra=np.hstack(extra) if extra else None)
    return [replace(joined, colour=colour)]


def _with_channels(picture: Picture, channels: int) -> Picture:
    return replace(picture, pixels=images.with_channels(picture.pixels, channels))


def _with_depth(picture: Picture, depth: Depth) -> Picture:
    alpha, extra = (p if p is None else images.with_depth(p, depth) for p in (picture.alpha, picture.extra))
    return replace(picture, pixels=images.with_depth(picture.pixels, depth), alpha=alpha, extra=extra)


def _opaque(picture: Picture) -> Pixels:
    dtype = picture.pixels.dtype
    return np.full_like(picture.pixels[..., 0], 1 if dtype == np.float32 else np.iinfo(dtype).max)


def _halves(source: Path) -> list[Picture]:
    whole = images.read(source)
    half, odd = divmod(whole.pixels.shape[1], 2)
    if odd:
        raise ImageError(f"odd width {whole.pixels.shape[1]}; A and B side by side have equal widths")
    sides = (slice(None, half), slice(half, None))
    return [whole.columns(side) for side in sides]
