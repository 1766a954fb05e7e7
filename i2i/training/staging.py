"""A training whose data set or run folder is in an object store: it uses a copy on this machine (`files.staged`).

Changed files are fetched from the store before the work. After each save the run folder goes to the store, so that a
new machine can go on. One of several processes on a machine fetches, and the others find nothing left to do.
"""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i.errors import LockedError, OutputError
from i2i.files import store_of
from i2i.terminal import printable, say
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions

_STATES, _STATUS = "state-*", "status.json"


def fetch_data(options: "RunOptions") -> None:
    """Fetch the data sets that are in a store. Raises `InputError`, or `OutputError` where they find no room."""
    for folder in (options.data, options.paired_data):
        if folder is not None and (place := store_of(folder)):
            from i2i.folders.mirror import fetch_folder

            if count := fetch_folder(place, folder):
                say(f"{place}: {count} files fetched to {folder}")


def fetch_run(folder: Path) -> None:
    """Fetch the run folder from its store, if it has one. A new run finds nothing there.

    Raises `InputError` or `OutputError` for a store that cannot be read or written.
    """
    if (place := store_of(folder)) is None:
        return
    from i2i.folders import stores
    from i2i.folders.mirror import fetch_folder

    if stores.files(place):
        fetch_folder(place, folder)
    stores.check_writable(place / _STATUS)


def put_run(folder: Path) -> None:
    """Put what changed in the run folder to its store, if it has one, and remove the states there that are gone here.

    Raises `OutputError`, and `LockedError` if another machine has put its own there since this one fetched the folder.
    """
    if (place := store_of(folder)) is None:
        return
    from i2i.folders import stores
    from i2i.folders.mirror import is_noted, store_folder

    if not is_noted(folder, place, _STATUS):
        _check_own(place, stores.get_bytes(place / _STATUS, OutputError))
    store_folder(folder, place)
    for name in stores.files(place, recursive=False, kind=OutputError):
        if Path(name).match(_STATES) and not (folder / name).exists():
            stores.remove(place / name)


def _check_own(place: StorePath, status: bytes) -> None:
    """Raises `LockedError` unless this process wrote that status. A put that seemed to fail may have succeeded."""
    try:
        found = json.loads(status)
        writer = found["host"], found["pid"]
    except (ValueError, TypeError, KeyError):  # no status of a run
        writer = ("an unknown machine", "?")
    if writer != (socket.gethostname(), os.getpid()):
        raise LockedError(
            f"{place}: another training goes on with this run (pid {printable(writer[1])} on {printable(writer[0])}); "
            "stop that one, or give another --run"
        )


def in_store(options: "RunOptions") -> "RunOptions":
    """The options with the places in stores that copies on this machine stand for."""
    paths = {name: getattr(options, name) for name in ("data", "paired_data", "run")}
    places: dict[str, Any] = {name: place for name, path in paths.items() if path and (place := store_of(path))}
    return replace(options, **places)
