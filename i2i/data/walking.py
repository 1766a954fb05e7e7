"""Paths and folders: whether a path leads to something, and all files below a folder.

`pathlib` raises some refusals of the system and hides others, which differ between versions. Here a path that is not
there is nothing, and a path that may not be looked at is an `InputError` with the reason.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from i2i.errors import InputError
from i2i.files import WINDOWS

_NOTHING = (errno.ENOENT, errno.ENOTDIR)


def mode(path: Path) -> int:
    """The system's `st_mode` of a path, through links; 0 if there is nothing. Raises `InputError`."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _NOTHING:
            return 0
        raise InputError(refusal(path, error)) from None
    except ValueError as error:  # a NUL byte
        raise InputError(f"{path}: cannot be looked at: {error}") from None


def is_folder(path: Path) -> bool:
    """Whether the path leads to a folder. Raises `InputError`."""
    return stat.S_ISDIR(mode(path))


def is_file(path: Path) -> bool:
    """Whether the path leads to a regular file. Raises `InputError`."""
    return stat.S_ISREG(mode(path))


def exists(path: Path) -> bool:
    """Whether the path leads to anything. Raises `InputError`."""
    return mode(path) != 0


def inside(folder: Path) -> list[Path]:
    """The paths directly in a folder, sorted by name. Raises `InputError`."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(refusal(folder, error, "listed")) from None


def refusal(path: Path, error: OSError, done: str = "looked at") -> str:
    """A message with the path and the system's reason."""
    hint = f" (no permission for the folder {path.parent})" if error.errno == errno.EACCES and done != "listed" else ""
    return f"{path}: cannot be {done}: {error.strerror or error}{hint}"


def walk(
    folder: Path,
    refused: Callable[[OSError], object] | None = None,
    *,
    recursive: bool = True,
    follow_links: bool = False,
    not_followed: Callable[[Path], object] = lambda link: None,
) -> list[Path]:
    """All files below a folder, however deep, without hidden ones, sorted by their relative path.

    With `follow_links`, folders behind links are searched too, each folder once, so that loops end. Without, each
    such link goes to `not_followed`. A folder that cannot be listed is left out, and the system's error goes to
    `refused`; without that it raises `InputError`.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    _first_visit(folder, seen)
    waiting = [folder]
    while waiting:  # not `os.walk`, which calls itself for each level before Python 3.12
        folders: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        for entry in _entries(waiting.pop(), refused):
            (folders if _is_folder(entry) else files).append(entry)
        found += [Path(entry.path) for entry in files]
        deeper = []
        for entry in sorted(folders, key=lambda entry: entry.name) if recursive else ():
            path = Path(entry.path)
            if not follow_links and entry.is_symlink():
                not_followed(path)
            elif not (follow_links or WINDOWS) or _first_visit(path, seen):  # junctions there are no links to Python
                deeper.append(path)
        waiting += reversed(deeper)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _entries(folder: Path, refused: Callable[[OSError], object] | None) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        if refused is None:
            raise InputError(refusal(folder, error, "listed")) from None
        refused(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _first_visit(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True
