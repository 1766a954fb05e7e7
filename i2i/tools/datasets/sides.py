"""Pairs as one picture with A and B side by side, or as two pictures of the same name; from one to the other.

Nothing is lost: outputs are PNG, or TIFF where both sources are TIFF. A picture that PNG cannot hold fails.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from i2i import images
from i2i.data.folders import by_stem, find_images, without_partner
from i2i.errors import ImageError, InputError
from i2i.images import Picture
from i2i.images.picture import Depth, white
from i2i.tools.datasets.outputs import Job, Outcome, check_outputs, check_place, write_pictures

_TIFF = {".tif", ".tiff"}


def combine(a: Path, b: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False) -> Outcome:
    """Write each pair of the folders `a` and `b` (partners have the same name) to `out`, A on the left.

    The tree is kept, so `A/train/1.png` and `B/train/1.jpg` become `out/train/1.png`. Pictures without a
    partner, of different sizes, or damaged are recorded as failed. Raises `InputError` if there is no pair at
    all, `UsageError` and `OutputError` as to the outputs.
    """
    check_place(out, (a, b))
    in_a, in_b = (by_stem(folder, find_images(folder)) for folder in (a, b))
    pairs = [(in_a[stem], in_b[stem]) for stem in in_a if stem in in_b]
    if not pairs:
        raise InputError(f"no picture in {a} has the name of one in {b}")
    outputs = [out / one.relative_to(a).with_suffix(_suffix(one, two)) for one, two in pairs]
    check_outputs(outputs, [path for pair in pairs for path in pair], overwrite, skip_existing)
    jobs = [Job(one, [out], partial(_joined, one, two)) for (one, two), out in zip(pairs, outputs, strict=True)]
    outcome = write_pictures(jobs, overwrite, skip_existing)
    outcome.failed[:0] = without_partner(a, in_a, b, in_b)
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
    jobs = [Job(source, pair, partial(_halves, source)) for source, pair in zip(sources, outputs, strict=True)]
    return write_pictures(jobs, overwrite, skip_existing)


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
    sides = [replace(p, pixels=images.with_channels(p.pixels, channels), numbers=None) for p in (a, b)]
    if a.pixels.dtype != b.pixels.dtype:
        depth: Depth = np.float32 if np.float32 in (a.pixels.dtype, b.pixels.dtype) else np.uint16
        sides = [replace(p, **p.planes(lambda plane: images.with_depth(plane, depth))) for p in sides]
    alpha = None
    if a.alpha is not None or b.alpha is not None:
        alpha = np.hstack(
            [np.full_like(p.pixels[..., 0], white(p.pixels)) if p.alpha is None else p.alpha for p in sides]
        )
    # colours that differ cannot both be described
    icc, colour = (a.icc, a.colour) if (a.icc, a.colour) == (b.icc, b.colour) else (None, None)
    extra = [p.extra for p in sides if p.extra is not None]
    joined = Picture(np.hstack([p.pixels for p in sides]), alpha, icc, extra=np.hstack(extra) if extra else None)
    return [replace(joined, colour=colour)]


def _halves(source: Path) -> list[Picture]:
    whole = images.read(source)
    return [whole.half("left"), whole.half("right")]
