"""Paths and folders: whether a path leads to something, and all files below a folder.

`pathlib` raises some refusals of the system and hides others, which differ between versions. Here a path that is not
there is nothing, and a path that may not be looked at is an `InputError` with the reason.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import overload

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


class Paths(Sequence[Path]):
    """Paths that are kept as texts, and made when they are wanted: there may be a million."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> "Paths": ...
    def __getitem__(self, place: int | slice) -> "Path | Paths":
        return Paths(self.texts[place]) if isinstance(place, slice) else Path(self.texts[place])


def prefix_of(folder: Path) -> str:
    """The text before the name of a file in the text of its path: `a/` for `a`, nothing for `.`."""
    return str(folder / "x")[:-1]


def suffix_of(path: str) -> str:
    """The suffix of a path that is a text, as pathlib has it."""
    name = path[path.rfind(os.sep) + 1 :]
    dot = name.rfind(".")
    return name[dot:] if 0 < dot < len(name) - 1 else ""


def walk(
    folder: Path,
    refused: Callable[[OSError], object] | None = None,
    *,
    recursive: bool = True,
    follow_links: bool = False,
    not_followed: Callable[[Path], object] = lambda link: None,
    irregular: Callable[[str], object] = lambda path: None,
) -> list[str]:
    """All files below a folder, however deep, without hidden ones, sorted by their relative path.

    They are texts, and not one is looked at beyond its entry in the folder: there may be a million. With
    `follow_links`, folders behind links are searched too, each folder once, so that loops end. Without, each such link
    goes to `not_followed`. A folder that cannot be listed is left out, and the system's error goes to `refused`;
    without that it raises `InputError`. A file that is not known to be regular goes to `irregular` too.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    _first_visit(folder, seen)
    waiting = [folder]
    while waiting:  # not `os.walk`, which calls itself for each level before Python 3.12
        here = waiting.pop()
        try:
            folders, files, odd = _entries(here)
        except OSError as error:
            if refused is None:
                raise InputError(refusal(here, error, "listed")) from None
            refused(error)
            continue
        found += files
        for path in odd:
            irregular(path)
        deeper = []
        for name, is_link in sorted(folders) if recursive else ():
            below = here / name
            if not follow_links and is_link:
                not_followed(below)
            elif not (follow_links or WINDOWS) or _first_visit(below, seen):  # junctions there are no links to Python
                deeper.append(below)
        waiting += reversed(deeper)
    found.sort(key=None if os.sep == "/" else lambda path: path.replace(os.sep, "/"))
    return found


def _entries(folder: Path) -> tuple[list[tuple[str, bool]], list[str], list[str]]:
    """The folders in a folder, each with whether it is a link; the paths of the files; and of those not regular."""
    before = prefix_of(folder)
    folders, files, odd = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is(entry.is_dir):
                folders.append((entry.name, entry.is_symlink()))
                continue
            files.append(before + entry.name)
            if not _is(entry.is_file):
                odd.append(files[-1])
    return folders, files, odd if not files or _may_be_looked_at(files[0]) else files


def _may_be_looked_at(path: str) -> bool:
    """False in a folder that may be listed and not searched: nobody knows what its names lead to."""
    try:
        os.stat(path)  # noqa: PTH116
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:
        return False


def identity(path: str | Path) -> tuple[int, int] | None:
    """Device and number of a file or folder: the same under each of its names. None if there is nothing to look at."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a plan asks for a million, and Path takes its time
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _first_visit(folder: Path, seen: set[tuple[int, int]]) -> bool:
    found = identity(folder)
    if found is None or found in seen:
        return False
    seen.add(found)
    return True
