"""Pairs of pictures of the same name: put side by side into one picture and taken apart again; and label pictures whose
alpha tells instances apart, from a folder of labels and a folder of instance maps.

Pairs lose nothing: outputs are PNG, or TIFF where both sources are TIFF. A picture that PNG cannot hold fails.

A training with `--instance-edges` finds things to meet where the class changes or the alpha does. So all that counts is
which neighbours have different numbers; scaled down to the nearest pixel, others become neighbours.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from i2i import images
from i2i.data.check import busyness
from i2i.data.folders import by_stem, find_images, refuse, without_partner
from i2i.errors import ImageError, InputError
from i2i.images import LOSSY, Picture, Pixels
from i2i.images.picture import Depth, white
from i2i.tools.datasets.shape import Job, Outcome, Write, carry_out, check_place

_TIFF = {".tif", ".tiff"}
REACH = 8
"""Instances of one number are further apart than so many pixels, along rows and columns."""

_NUMBERS = range(255, 0, -1)
_BUSY = 0.5  # so many neighbouring pixels differ at most
# the names that Cityscapes gives to the pictures of one scene
_ENDINGS = tuple(
    f"_gt{kind}_{what}"
    for kind in ("Fine", "Coarse")
    for what in ("labelIds", "labelTrainIds", "color", "instanceIds", "instanceTrainIds")
)


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
    jobs = [Job(pair, [out / pair[0].relative_to(a).with_suffix(_suffix(*pair))], _joined) for pair in pairs]
    outcome = carry_out(jobs, overwrite, skip_existing)
    outcome.failed[:0] = without_partner(a, in_a, b, in_b)
    return outcome


def separate(folder: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False) -> Outcome:
    """Write the halves of each picture of `folder`: the left one to `out/A`, the right one to `out/B`.

    The tree is kept, so `train/1.jpg` becomes `out/A/train/1.png` and `out/B/train/1.png`. Pictures of odd
    width or damaged are recorded as failed. Raises as `combine` does.
    """
    check_place(out, (folder,))
    sources = find_images(folder)
    if not sources:
        raise InputError(f"{folder}: no pictures in it")
    names = {path: path.relative_to(folder).with_suffix(_suffix(path)) for path in sources}
    jobs = [Job((path,), [out / side / name for side in "AB"], _halves) for path, name in names.items()]
    return carry_out(jobs, overwrite, skip_existing)


def _suffix(*sources: Path) -> str:
    return ".tif" if all(path.suffix.lower() in _TIFF for path in sources) else ".png"


def _joined(one: Path, two: Path) -> list[Write]:
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
        sides = [replace(p, **p.mapped(lambda plane: images.with_depth(plane, depth))) for p in sides]
    alpha = None
    if a.alpha is not None or b.alpha is not None:
        alpha = np.hstack(
            [np.full_like(p.pixels[..., 0], white(p.pixels)) if p.alpha is None else p.alpha for p in sides]
        )
    # colours that differ cannot both be described
    icc, colour = (a.icc, a.colour) if (a.icc, a.colour) == (b.icc, b.colour) else (None, None)
    extra = [p.extra for p in sides if p.extra is not None]
    joined = Picture(np.hstack([p.pixels for p in sides]), alpha, icc, extra=np.hstack(extra) if extra else None)
    return [_lossless(replace(joined, colour=colour), _suffix(one, two))]


def _halves(source: Path) -> list[Write]:
    whole = images.read(source)
    return [_lossless(whole.half("left"), _suffix(source)), _lossless(whole.half("right"), _suffix(source))]


def _lossless(picture: Picture, suffix: str) -> Write:
    """Writes the picture whole. Raises `ImageError` if it loses something in a file of that suffix."""
    if lost := images.not_kept_by(suffix, picture):
        raise ImageError(f"{lost[0]}; name the sources .tif")
    return lambda path, replace: images.write(path, picture, replace=replace)


def add_instances(
    labels: Path, maps: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False
) -> Outcome:
    """Write each picture of `labels` to `out` as PNG, with the numbers of its instances as alpha.

    A label picture has 8 bits and 1 or 3 channels, and stays as it is. Its partner in `maps`, of the same size and name
    (the endings of Cityscapes do not count, and are left out), has 8 or 16 bits and 1 or 3 channels: each value, or
    colour, is an instance. Alphas are those of `numbered`.

    Every picture is made once before the first is written. Raises, with nothing written, `InputError` for pictures
    without a partner, of different sizes, damaged, or no maps, and where `numbered` does; `UsageError` as to the
    outputs. Raises `OutputError` for the disk. A picture that can no longer be read in its turn counts as failed.
    """
    check_place(out, (labels, maps))
    in_labels, in_maps = (by_stem(folder, find_images(folder), _ENDINGS) for folder in (labels, maps))
    lonely = [f"{path} {reason}" for path, reason in without_partner(labels, in_labels, maps, in_maps)]
    refuse(lonely, "picture has no partner of the same name", "pictures have no partner of the same name")
    if not in_labels:
        raise InputError(f"{labels}: no pictures in it")
    jobs = [Job((path, in_maps[stem]), [out / f"{stem}.png"], _with_instances) for stem, path in in_labels.items()]
    return carry_out(jobs, overwrite, skip_existing, all_or_none=True)


def numbered(instances: Pixels) -> Pixels:
    """A map of instances (H, W, C), any integers, as numbers from 1 to 255, (H, W) uint8.

    Up to 255 instances have numbers of their own, from the largest, 255, downwards. If there are more, instances share
    a number that are more than `REACH` pixels apart along rows and columns. So boundaries stay what they are, and with
    shared numbers still do when the map is scaled down to an eighth. 0 is not used: some programs drop the colours of
    what is fully transparent. Raises `ImageError` where more than 255 numbers would be needed.
    """
    found, flat, sizes = np.unique(_packed(instances), return_inverse=True, return_counts=True)
    which = flat.reshape(instances.shape[:2])
    table = np.zeros(len(found), np.uint8)
    if len(found) <= len(_NUMBERS):
        table[np.argsort(-sizes, kind="stable")] = _NUMBERS[: len(found)]
    else:
        table[:] = _shared_numbers(_near(which, len(found)))
    numbers: Pixels = table[which]
    return numbers


def _near(which: Pixels, count: int) -> list[set[int]]:
    """For each of `count` instances those that are within `REACH` pixels; `which` (H, W) are their indices."""
    near: list[set[int]] = [set() for _ in range(count)]
    for plane in (which, which.T):
        for distance in range(1, REACH + 1):
            one, other = plane[distance:], plane[:-distance]
            met = one != other
            for a, b in zip(*np.divmod(np.unique(one[met] * count + other[met]), count), strict=True):
                near[a].add(int(b))
                near[b].add(int(a))
    return near


def _shared_numbers(near: list[set[int]]) -> list[int]:
    """A number for each instance, different from those near it: the least used one that is free.

    Those with the most others near them come first. Then 255 numbers suffice unless more than 255 instances have that
    many near them (Welsh, Powell 1967).
    """
    numbers = [0] * len(near)
    used = Counter(dict.fromkeys(_NUMBERS, 0))
    for i in sorted(range(len(near)), key=lambda i: -len(near[i])):
        taken = {numbers[other] for other in near[i]}
        free = [number for number in _NUMBERS if number not in taken]
        if not free:
            raise ImageError(f"{len(near):,} instances, too close together for the {len(_NUMBERS)} numbers of an alpha")
        numbers[i] = min(free, key=lambda number: used[number])
        used[numbers[i]] += 1
    return numbers


def _with_instances(label: Path, map_: Path) -> list[Write]:
    pixels = _labels(images.read(label))
    try:
        instances = _instances(images.read(map_))
        if pixels.shape[:2] == instances.shape[:2]:
            return [_lossless(Picture(pixels, numbered(instances)), ".png")]
    except ImageError as error:
        raise ImageError(f"its partner {map_}: {error}") from None
    sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (pixels, instances)]
    raise ImageError(f"{sizes[0]}, and its partner {map_} {sizes[1]}; labels and instances have equal sizes")


def _labels(picture: Picture) -> Pixels:
    pixels = _colours(picture)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{pixels.dtype}, where labels have 8 bits; are they in the other folder?")
    # one that was saved with loss is a busy picture too
    if picture.format not in LOSSY and busyness(_packed(pixels)) > _BUSY:
        raise ImageError("no labels: most neighbouring pixels differ, as in a photograph")
    return pixels


def _instances(picture: Picture) -> Pixels:
    pixels = _colours(picture)
    if pixels.dtype == np.float32:
        raise ImageError("floating point, where instances are numbers of 8 or 16 bits, or colours")
    if picture.format in LOSSY:
        raise ImageError(f"{picture.format} may have changed pixels; a map of instances is PNG, TIFF, BMP, GIF or PPM")
    if busyness(_packed(pixels)) > _BUSY:
        raise ImageError("no map of instances: most neighbouring pixels differ, as in a photograph")
    return pixels


def _colours(picture: Picture) -> Pixels:
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.shape[2] not in (1, 3):
        raise ImageError(f"{pixels.shape[2]} channels, where a map has 1 or 3")
    if alpha is not None and (alpha != images.with_depth(np.full((1, 1), 255, np.uint8), alpha.dtype.type)).any():
        raise ImageError("parts of it are transparent; a map has no alpha, or an opaque one")
    return pixels


def _packed(pixels: Pixels) -> Pixels:
    """(H, W, C) of at most 16 bits as one number a pixel, (H, W)."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    red, green, blue = (pixels[..., i].astype(np.int64) for i in range(3))
    return red << 32 | green << 16 | blue
