"""The temporary folder of the page: how much lies in it, and what goes first."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def used(folder: Path) -> int:
    """The bytes of all files in `folder`, each counted once, whatever its names."""
    return sum({(status.st_dev, status.st_ino): status.st_size for _, status in _files(folder)}.values())


def delete_old(folder: Path, before: float) -> None:
    """Remove files in folders of `folder` that were last changed before that time, and folders that are empty then."""
    for path, status in _files(folder, "*/**/*"):
        if status.st_mtime < before:
            with contextlib.suppress(OSError):
                path.unlink()
    _delete_empty(folder)


def make_room(folder: Path, most: int) -> None:
    """Remove the oldest files in folders of `folder` until all files take at most so many bytes."""
    size = used(folder)
    for path, _ in sorted(_files(folder, "*/**/*"), key=lambda found: found[1].st_mtime):
        if size <= most:
            break
        with contextlib.suppress(OSError):
            status = path.lstat()
            path.unlink()
            size -= status.st_size if status.st_nlink == 1 else 0
    _delete_empty(folder)


def _files(folder: Path, pattern: str = "**/*") -> Iterator[tuple[Path, os.stat_result]]:
    for path in list(folder.glob(pattern)):
        with contextlib.suppress(OSError):  # others come and go
            if not path.is_dir():
                yield path, path.lstat()


def _delete_empty(folder: Path) -> None:
    for path in sorted(folder.glob("*/**/"), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
