"""What the tools that write data sets have in common: no surprise on disk, and a record of each file."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from i2i.config import real
from i2i.data.folders import find_images, listed
from i2i.data.walking import exists
from i2i.errors import InputError, OutputError, UsageError
from i2i.files import make_folders


@dataclass
class Outcome:
    """What became of the inputs: how many were done and skipped, and what failed, with the reason."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


def by_stem(folder: Path, endings: Sequence[str] = ()) -> dict[str, Path]:
    """The pictures of a folder by their relative path without suffix, and without the first of `endings` that it has.

    Raises `InputError` for a name that occurs twice then, and for a folder that is missing or cannot be listed.
    """
    found: dict[str, Path] = {}
    twice = []
    for path in find_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        ending = next((ending for ending in endings if path.stem.endswith(ending) and path.stem != ending), "")
        stem = stem.removesuffix(ending)
        if stem in found:
            twice.append(f"{found[stem]}, {path}")
        found[stem] = path
    if twice:
        raise InputError(f"{len(twice)} names occur twice, without suffix; keep one of each:", *listed(twice))
    return found


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
    try:
        make_folders(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}") from None


def is_there(path: Path) -> bool:
    """Whether something is where an output is to be. Raises `OutputError` if that may not be looked at."""
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
