"""Data sets in another shape: a plain folder divided into train, val and test; pairs as one picture with A and B side
by side, or as two pictures of the same name.

The part of a picture depends on its name and the seed alone, up to the boundaries between the parts. Files that are
equal byte for byte come to the same part, and so do the partners of a pair, so that no test picture is trained on.
`same_bytes`, `pixel_hash` and `difference_hash` find pictures that are equal by bytes, by pixels, or nearly.

Pairs lose nothing: outputs are PNG, or TIFF where both sources are TIFF. A picture that PNG cannot hold fails.
"""

import hashlib
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np

from i2i import images
from i2i.data.folders import SPLITS, by_stem, find_images, without_partner
from i2i.data.walking import is_folder
from i2i.errors import ExistsError, ImageError, InputError, OutputError, UsageError
from i2i.files import appeared, sha256
from i2i.images import Picture, atomic_write
from i2i.images.picture import Depth, white
from i2i.tools.datasets.outputs import Job, Outcome, check_outputs, check_place, is_there, make_folder, write_pictures
from i2i.urls import real

K = TypeVar("K")


def groups(keys: Mapping[K, Hashable | None]) -> list[list[K]]:
    """The items that share a key, where there are at least two; None is no key."""
    found: dict[Hashable, list[K]] = defaultdict(list)
    for item, key in keys.items():
        if key is not None:
            found[key].append(item)
    return [items for items in found.values() if len(items) > 1]


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """The files that are equal byte for byte; only files of equal size are read. Files that vanish are left out."""
    by_size = groups({path: _size(path) for path in paths})
    return groups({path: _digest(path) for group in by_size for path in group})


def pixel_hash(picture: Picture) -> str:
    """Equal for pictures of equal size, channels, depth and pixels (alpha included), whatever their files."""
    digest = hashlib.sha256()
    for part in (picture.pixels, picture.extra, picture.alpha):
        if part is not None:
            digest.update(f"{part.shape} {part.dtype}".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()


def difference_hash(picture: Picture) -> int | None:
    """64 bits, equal for most copies of a picture that were scaled or compressed anew.

    The picture is shrunk to 9x8 grey values; each bit says whether one is brighter than its left neighbour. None
    for a picture without detail, whose bits would be those of any other. (Known as dHash; it proves nothing.)
    """
    grey = picture.pixels.mean(axis=2, dtype=np.float32)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    white = 1.0 if picture.pixels.dtype == np.float32 else np.iinfo(picture.pixels.dtype).max
    if np.ptp(small) < 0.02 * white:
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def split_dataset(
    folder: Path,
    out: Path,
    *,
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    domain: Literal["A", "B"] | None = None,
    link: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> Outcome:
    """Copy, or `link` symbolically, the pictures of `folder` to `out/train`, `out/val` and `out/test`.

    `val` and `test` are fractions of the whole, rounded. Names and trees are kept. With `domain` the folders are
    `trainA`, `valA`, `testA` or those of B, for unpaired training. If `folder` has the folders A and B, pictures
    of the same name in them are a pair. Raises `InputError` for a folder without pictures or with too few,
    `UsageError` for fractions that leave no training pictures and as to the outputs, `OutputError` for the disk.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(f"--val {val:g} and --test {test:g} leave nothing to train on; together they are below 1")
    check_place(out, (folder,))
    sources = find_images(folder)
    if not sources:
        raise InputError(f"{folder}: no pictures in it")
    parts = _parts(folder, _units(folder, sources), val, test, seed)
    plan = [
        (source, out / f"{split}{domain or ''}" / source.relative_to(folder))
        for split in SPLITS
        for source in sorted(parts[split])
    ]
    check_outputs([target for _, target in plan], sources, overwrite, skip_existing)
    outcome = Outcome()
    for source, target in plan:
        if skip_existing and is_there(target):
            outcome.skipped += 1
            continue
        make_folder(target.parent)
        try:
            _bring(source, target, link, overwrite)
            outcome.done += 1
        except (ImageError, ExistsError) as error:
            outcome.failed.append((source, str(error)))
    return outcome


def _units(folder: Path, sources: Sequence[Path]) -> list[list[Path]]:
    """The pictures that must stay together: partners of a pair, and copies of one file."""
    paired = is_folder(folder / "A") and is_folder(folder / "B")
    unit: dict[Path, list[Path]] = {path: [path] for path in sources}
    together = same_bytes(sources)
    if paired:
        partners: dict[str, list[Path]] = {}
        for path in sources:
            side, _, name = path.relative_to(folder).with_suffix("").as_posix().partition("/")
            partners.setdefault(name if side in ("A", "B") and name else str(path), []).append(path)
        together += partners.values()
    for first, *others in together:
        for other in others:
            if unit[other] is not unit[first]:
                unit[first] += unit[other]
                for path in unit[other]:
                    unit[path] = unit[first]
    return list({id(paths): sorted(paths) for paths in unit.values()}.values())


def _parts(folder: Path, units: list[list[Path]], val: float, test: float, seed: int) -> dict[str, list[Path]]:
    """Units in an order that the seed decides; the first ones are test, then val, as far as they fit."""

    def order(unit: list[Path]) -> bytes:
        return hashlib.sha256(b"%d:" % seed + os.fsencode(unit[0].relative_to(folder).as_posix())).digest()

    total = sum(map(len, units))
    wanted = {"test": round(test * total), "val": round(val * total), "train": total}
    parts: dict[str, list[Path]] = {split: [] for split in wanted}
    for unit in sorted(units, key=order):
        split = next(split for split in wanted if len(parts[split]) + len(unit) <= wanted[split])
        parts[split] += unit
    if not parts["train"]:
        raise InputError(f"{folder}: {total} pictures are too few to divide")
    return parts


def _bring(source: Path, target: Path, link: bool, replace: bool) -> None:
    if link:
        _link(real(source), target, replace)
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror}") from None
    with file:
        atomic_write(target, lambda copy: shutil.copyfileobj(file, copy), replace=replace)


def _link(source: Path, target: Path, replace: bool) -> None:
    temporary = target.with_name(f".i2i-{secrets.token_hex(8)}.part")
    try:
        if not replace and (not target.is_symlink() or target.exists()):
            target.symlink_to(source)
            return
        temporary.symlink_to(source)
        temporary.replace(target)
    except FileExistsError:
        raise appeared(target) from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be linked: {error.strerror}") from None


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


def separate(folder: Path, out: Path, *, overwrite: bool = False, skip_existing: bool = False) -> Outcome:
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
    return [replace(joined, colour=colour)]


def _halves(source: Path) -> list[Picture]:
    whole = images.read(source)
    return [whole.half("left"), whole.half("right")]
