"""A folder of this machine and one of a store with the same files: what has changed on one side goes to the other.

A hidden file of the folder notes each file as both sides had it last. So little is listed, and nothing copied twice.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from i2i.data.walking import walk
from i2i.errors import InputError, OutputError
from i2i.files import atomic_write, locked, make_folders, move_into_place, refused
from i2i.folders import stores
from i2i.terminal import printable
from i2i.urls import StorePath

_NOTES, _LOCK, _COMING = ".i2i-store.json", ".i2i-store.lock", ".i2i-store"
_NOTED, _TIMES = 64, 32
"""The notes, which name all files, are written after so many files, but not more often than so many times."""


class _Note(NamedTuple):
    """A file as both sides have it: its size, the store's tag, and the time of its last change here."""

    size: int
    tag: str
    changed: int


def fetch_folder(place: StorePath, folder: Path) -> int:
    """Makes `folder` hold the files below a place of a store, and returns how many were fetched.

    Files that the store still has as they were fetched, or put there, are not fetched again, even if they were changed
    here. Files that came from the store and are there no longer are removed; files of other origin stay. Each file is
    whole or not there. Hidden names are left out. One process at a time; others wait, and find nothing left to do.

    Raises `InputError` if there is nothing, or names that no path can have, or if the store cannot be read, and
    `OutputError` if the folder cannot be written.
    """
    found = {name: entry for name, entry in stores.files(place).items() if not stores.is_hidden(name)}
    if not found or "" in found:
        raise InputError(f"{printable(place)}: no such folder in the store")
    if wrong := [name for name in found if not stores.is_fit(name)]:
        raise InputError(f"{printable(place)}: the name {wrong[0]!a} {stores.UNFIT}")
    with locked(folder / _LOCK):
        notes, coming = _read(folder, place), folder / _COMING
        shutil.rmtree(coming, ignore_errors=True)
        for name in notes.keys() - found.keys():
            with suppress(OSError):
                (folder / name).unlink()
            del notes[name]
        old = {name for name, note in notes.items() if note[:2] == found[name] and (folder / name).is_file()}
        new = {name: coming / str(number) for number, name in enumerate(name for name in found if name not in old)}

        def fetch(name: str) -> None:
            path, part = folder / name, new[name]
            stores.fetch(place / name, part)
            _make(path.parent)
            move_into_place(part, path)
            notes[name] = _Note(*found[name], path.stat().st_mtime_ns)

        _make(coming)
        try:
            _by_groups(fetch, list(new), lambda: _write(folder, place, notes))
        finally:
            shutil.rmtree(coming, ignore_errors=True)
    return len(new)


def store_folder(folder: Path, place: StorePath, names: Sequence[str] | None = None) -> int:
    """Puts the files of a folder, or those of them with these names, to a place of a store; returns how many were put.

    Files that did not change since they were fetched, or put there, are not put again. The one that was changed last is
    put last. Each replaces the store's, and nothing is removed there. Hidden files are left out.

    Raises `OutputError` if the store cannot be written.
    """
    paths = list(map(Path, walk(folder))) if names is None else [folder / name for name in names]
    with locked(folder / _LOCK):
        notes = _read(folder, place)
        stamps = {path.relative_to(folder).as_posix(): path.stat() for path in paths if path.is_file()}
        known = {name: (note.size, note.changed) for name, note in notes.items()}
        new = [name for name, status in stamps.items() if known.get(name) != (status.st_size, status.st_mtime_ns)]
        new.sort(key=lambda name: stamps[name].st_mtime_ns)

        def put(name: str) -> None:
            try:
                stores.put(folder / name, place / name, replace=True)
                entry = stores.files(place / name)[""]
            except InputError as error:
                raise OutputError(str(error)) from None
            notes[name] = _Note(*entry, stamps[name].st_mtime_ns)

        try:
            for name in new:  # in their order
                put(name)
        finally:
            _write(folder, place, notes)
    return len(new)


def is_noted(folder: Path, place: StorePath, name: str) -> bool:
    """Whether the store has that file as it was last fetched, or put there; or has none. Raises `OutputError`."""
    found, note = stores.files(place / name, kind=OutputError), _read(folder, place).get(name)
    return not found or (note is not None and note[:2] == found.get(""))


def _by_groups(function: Callable[[str], None], names: Sequence[str], after: Callable[[], None]) -> None:
    group = max(_NOTED, len(names) // _TIMES)
    for start in range(0, len(names), group):
        try:
            stores.each(function, names[start : start + group])
        finally:
            after()


def _read(folder: Path, place: StorePath) -> dict[str, _Note]:
    """The notes; none if they are of another place, or damaged, and then all is copied again."""
    try:
        found = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
        files = found["files"] if found["place"] == str(place) else {}
        notes = {name: _Note(int(size), str(tag), int(changed)) for name, (size, tag, changed) in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {name: note for name, note in notes.items() if stores.is_fit(name)}


def _write(folder: Path, place: StorePath, notes: dict[str, _Note]) -> None:
    data = json.dumps({"place": str(place), "files": notes}).encode()
    atomic_write(folder / _NOTES, lambda file: file.write(data))


def _make(folder: Path) -> None:
    try:
        make_folders(folder)
    except OSError as error:
        raise refused(folder, error) from None
