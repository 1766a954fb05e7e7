"""Data sets that are written: no surprise on the disk, and a record of each file; a plain folder divided into train,
val and test.

The part of a picture depends on its name and the seed alone, up to the boundaries between the parts. Files that are
equal byte for byte come to the same part, and so do the partners of a pair, so that no test picture is trained on.
"""

import hashlib
import os
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from i2i.data.folders import SPLITS, find_images, listed, refuse
from i2i.data.walking import exists, is_folder
from i2i.errors import ExistsError, ImageError, InputError, OutputError, UsageError, check_word
from i2i.files import appeared, atomic_write, make_folders, sha256
from i2i.terminal import counted
from i2i.urls import real

K = TypeVar("K")


@dataclass
class Outcome:
    """How many inputs were done and skipped, and which failed, with the reason."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


Write = Callable[[Path, bool], object]
"""Writes a file at a path, where it may replace another or not."""


@dataclass(frozen=True)
class Job:
    """`make(*sources)` gives for each of the `outputs` a function that writes it. Both may raise `ImageError`."""

    sources: tuple[Path, ...]
    outputs: list[Path]
    make: Callable[..., Sequence[Write]]

    def complaint(self) -> str:
        """The fault of the sources; empty if there is none."""
        try:
            self.make(*self.sources)
        except ImageError as error:
            return f"{self.sources[0]}: {error}"
        return ""


def carry_out(jobs: list[Job], overwrite: bool, skip_existing: bool, all_or_none: bool = False) -> Outcome:
    """Write the outputs of each job. Raises as `check_outputs`, and `OutputError` for the disk.

    A job whose outputs cannot be made fails alone. With `all_or_none` all are made once before the first is written,
    and `InputError` names those that cannot.
    """
    inputs = [path for job in jobs for path in job.sources]
    check_outputs([path for job in jobs for path in job.outputs], inputs, overwrite, skip_existing)

    def wanted(job: Job) -> list[Path]:
        return [path for path in job.outputs if not (skip_existing and is_there(path))]

    if all_or_none:
        with ThreadPoolExecutor() as pool:
            complaints = list(filter(None, pool.map(Job.complaint, filter(wanted, jobs))))
        nothing = "cannot be used, nothing was written"
        refuse(complaints, f"picture {nothing}", f"pictures {nothing}")
    outcome = Outcome()
    for job in jobs:
        if not (missing := wanted(job)):
            outcome.skipped += 1
            continue
        try:
            for path, write in zip(job.outputs, job.make(*job.sources), strict=True):
                if path in missing:
                    make_folders(path.parent)
                    write(path, overwrite)
            outcome.done += 1
        except (ImageError, ExistsError) as error:
            outcome.failed.append((job.sources[0], str(error)))
    return outcome


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
        raise UsageError(
            f"{counted(len(same), 'output is an input', 'outputs are inputs')}; choose another folder with --out:",
            *listed(same),
        )
    if not overwrite and not skip_existing:
        raise UsageError(
            f"{counted(len(existing), 'output is', 'outputs are')} there already; use --overwrite or --skip-existing:",
            *listed([str(path) for path in existing]),
        )


def is_there(path: Path) -> bool:
    """Whether something exists at the path of an output. Raises `OutputError` if the system refuses to say."""
    try:
        return path.exists()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


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
    check_word("domain", domain, Literal["A", "B"] | None)
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UsageError(f"--val {val:g} and --test {test:g} leave nothing to train on; together they are below 1")
    check_place(out, (folder,))
    sources = find_images(folder)
    if not sources:
        raise InputError(f"{folder}: no pictures in it")
    parts = _parts(folder, _units(folder, sources), val, test, seed)
    jobs = [
        Job((source,), [out / f"{split}{domain or ''}" / source.relative_to(folder)], partial(_brought, link))
        for split in SPLITS
        for source in sorted(parts[split])
    ]
    return carry_out(jobs, overwrite, skip_existing)


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


def _brought(link: bool, source: Path) -> list[Write]:
    return [partial(_link if link else _copy, source)]


def _copy(source: Path, target: Path, replace: bool) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        raise ImageError(f"cannot be opened: {error.strerror}") from None
    with file:
        atomic_write(target, lambda copy: shutil.copyfileobj(file, copy), replace=replace)


def _link(source: Path, target: Path, replace: bool) -> None:
    temporary = target.with_name(f".i2i-{secrets.token_hex(8)}.part")
    try:
        if not replace and (not target.is_symlink() or target.exists()):  # a link to nothing counts as free
            target.symlink_to(real(source))
            return
        temporary.symlink_to(real(source))
        temporary.replace(target)
    except FileExistsError:
        raise appeared(target) from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be linked: {error.strerror}") from None
