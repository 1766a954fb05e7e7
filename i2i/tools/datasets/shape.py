"""Data sets that are written: no surprise on the disk, and a record of each file; a plain folder divided into train,
val and test.

The part of a picture depends on its name and the seed alone, up to the boundaries between the parts. Files that are
equal byte for byte come to the same part, and so do the partners of a pair, so that no test picture is trained on.
`same_bytes`, `pixel_hash` and `difference_hash` find pictures that are equal by bytes, by pixels, or nearly.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np

from i2i.data.folders import SPLITS, find_images, listed
from i2i.data.walking import exists, is_folder
from i2i.errors import ExistsError, ImageError, InputError, OutputError, UsageError
from i2i.files import appeared, atomic_write, make_folders, sha256
from i2i.images import Picture
from i2i.images.picture import white
from i2i.urls import real

K = TypeVar("K")


@dataclass
class Outcome:
    """How many inputs were done and skipped, and which failed, with the reason."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


def check_place(out: Path, inputs: Iterable[Path]) -> None:
    """Raises `UsageError` if `out` is one of the folders `inputs` or inside one: a second run would read it."""
    for folder in inputs:
        if real(out).is_relative_to(real(folder)):
            raise UsageError(f"{out}: is {folder} or inside it; choose another folder with --out")


def check_outputs(outputs: list[Path], inputs: Iterable[Path], overwrite: bool, skip_existing: bool) -> None:
    """Raises `UsageError`, before any work, for outputs that would replace one another, an input, or a file.

    `overwrite` allows to replace a file that is no input; `skip_existing` leaves those that are there.
    """
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other")
    counts = Counter(str(path).casefold() for path in outputs)
    if twice := [str(path) for path in outputs if counts[str(path).casefold()] > 1]:
        raise UsageError(f"{len(twice)} outputs would have the name of another one:", *listed(twice))
    existing = [path for path in outputs if is_there(path)]
    if not existing:
        return
    read = {_identity(path) for path in inputs if exists(path)}
    if same := [str(path) for path in existing if _identity(path) in read]:
        raise UsageError(f"{len(same)} outputs are inputs; choose another folder with --out:", *listed(same))
    if not overwrite and not skip_existing:
        raise UsageError(
            f"{len(existing)} outputs are there already; use --overwrite or --skip-existing:",
            *listed([str(path) for path in existing]),
        )


def is_there(path: Path) -> bool:
    """Whether something exists at the path of an output. Raises `OutputError` if the system refuses to say."""
    try:
        return path.exists()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def folders_above(path: Path) -> Iterator[None]:
    """Create the folders above `path`; those that are empty at the end, and were not there, go again."""
    missing = [parent for parent in path.absolute().parents if not is_there(parent)]
    make_folders(path.parent)
    try:
        yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def groups(keys: Mapping[K, Hashable | None]) -> list[list[K]]:
    """The items that share a key, where there are at least two; None is no key."""
    found: dict[Hashable, list[K]] = defaultdict(list)
    for item, key in keys.items():
        if key is not None:
            found[key].append(item)
    return [items for items in found.values() if len(items) > 1]


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """The files that are equal byte for byte; only files of equal size are read. Files that vanish are left out."""
    by_size = groups({path: _or_none(lambda path: path.stat().st_size, path) for path in paths})
    return groups({path: _or_none(sha256, path) for group in by_size for path in group})


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
    if np.ptp(small) < 0.02 * white(picture.pixels):
        return None
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def _or_none(ask: Callable[[Path], K], path: Path) -> K | None:
    try:
        return ask(path)
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
        make_folders(target.parent)
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
