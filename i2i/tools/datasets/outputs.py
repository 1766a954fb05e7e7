"""Shared by the tools that write data sets: no surprise on the disk, and a record of each file."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from i2i import images
from i2i.data.folders import listed
from i2i.data.walking import exists
from i2i.errors import ExistsError, ImageError, OutputError, UsageError
from i2i.files import make_folders
from i2i.images import Picture
from i2i.urls import real


@dataclass
class Outcome:
    """How many inputs were done and skipped, and which failed, with the reason."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One input: `make` gives a picture for each of the `outputs`. It may raise `ImageError`."""

    source: Path
    outputs: list[Path]
    make: Callable[[], list[Picture]]


def write_pictures(jobs: Iterable[Job], overwrite: bool, skip_existing: bool) -> Outcome:
    """Write the pictures of each job, whole or not at all. Raises `OutputError` for the disk.

    A job whose pictures cannot be made, or lose something in the format of their file, fails alone.
    """
    outcome = Outcome()
    for job in jobs:
        missing = [not (skip_existing and is_there(path)) for path in job.outputs]
        if not any(missing):
            outcome.skipped += 1
            continue
        try:
            wanted = [(path, p) for path, p, new in zip(job.outputs, job.make(), missing, strict=True) if new]
            for path, picture in wanted:
                if lost := images.not_kept_by(path.suffix, picture):
                    raise ImageError(f"{lost[0]}; name the sources .tif")
            for path, picture in wanted:
                make_folder(path.parent)
                images.write(path, picture, replace=overwrite)
            outcome.done += 1
        except (ImageError, ExistsError) as error:
            outcome.failed.append((job.source, str(error)))
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
        raise UsageError("--overwrite and --skip-existing exclude each other")
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


def make_folder(folder: Path) -> None:
    """Create a folder and those above it. Raises `OutputError`."""
    make_folders(folder)


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
    make_folder(path.parent)
    try:
        yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
