"""The folder of one run: who writes to it, its options, its status; and its copy in an object store.

A training whose data set or run folder is in a store uses a copy on this machine (`files.staged`). Changed files are
fetched before the work. After each save the run folder goes to the store, so that a new machine can go on. One of
several processes on a machine fetches, and the others find nothing left to do. Nothing here needs torch to be imported.
"""

import contextlib
import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from i2i import __version__
from i2i.config import RUN_CONFIG, has_config, of_run, run_yaml, to_mapping
from i2i.errors import DivergedError, LockedError, OutputError, UsageError, as_typed, explained
from i2i.files import atomic_write, locked, store_of
from i2i.machine import place
from i2i.terminal import printable, say
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions

COLUMNS = "samples/columns.json"
Changes = dict[str, tuple[Any, Any]]
"""Option → (before, now)."""
Status = Literal["running", "finished", "stopped", "interrupted", "preempted", "diverged", "failed"]


class RunFolder:
    """Created on entering `locked()`, not before."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; it is released when this process ends, however it ends.

        Raises `LockedError` naming the other process, `OutputError` if the folder cannot be written.
        """
        with locked(self.path / ".lock", busy="another run writes here") as held:
            if not held:
                say(f"{self.path}: this file system cannot lock; start no second run in it")
            for folder in (self.path, self.path / "samples"):
                for stray in folder.glob(".i2i-*.part"):
                    stray.unlink(missing_ok=True)
            yield

    def changes(self, options: "RunOptions") -> Changes:
        """The options that differ from the configuration of the run so far."""
        path = self.path / RUN_CONFIG
        if not has_config(self.path):
            return {}
        try:
            before, now = to_mapping(of_run(type(options), self.path)), to_mapping(options)
        except UsageError as error:
            say(f"{path} is not compared: {error}")
            return {}
        return {key: (before[key], now[key]) for key in now if before[key] != now[key]}

    def describe(self, options: "RunOptions", device: str) -> None:
        """Write `config.yaml`, `command.txt` and `environment.json`."""
        import torch

        environment = {
            "i2i": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": device,
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda,
        }
        self.write(RUN_CONFIG, run_yaml(in_store(options)))
        self.write("command.txt", shlex.join(sys.argv) + "\n")
        self.write("environment.json", json.dumps(environment, indent=1) + "\n")

    def status(self, status: Status, step: int, exit_code: int | None, reason: str = "") -> None:
        """Write `status.json`, for schedulers. While the run is going on there is no `exit_code`."""
        facts = {
            "status": status,
            "exit_code": exit_code,
            "step": step,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": place().world_size,
        }
        self.write("status.json", json.dumps(facts | ({"reason": reason} if reason else {}), indent=1) + "\n")

    def failed(self, error: BaseException, step: int) -> None:
        """Write a `status.json` that says how `error` ended the run."""
        status: Status = "diverged" if isinstance(error, DivergedError) else "failed"
        meaning = explained(error) if isinstance(error, Exception) else None
        exit_code = meaning.exit_code if meaning else 1
        if isinstance(error, KeyboardInterrupt):
            status, exit_code = "interrupted", 130
        self.status(status, step, exit_code, str(error) or type(error).__name__)

    def record_columns(self, layout: dict[str, Any]) -> None:
        """Write the layout of sample grids to `samples/columns.json`, unless it says so already."""
        text, path = json.dumps(layout, indent=1) + "\n", self.path / COLUMNS
        if not path.is_file() or path.read_bytes() != text.encode():
            path.parent.mkdir(exist_ok=True)
            self.write(COLUMNS, text)

    def columns(self) -> tuple[str, ...]:
        """The names of the columns of its sample grids, as recorded; none before the first grid."""
        if not (self.path / COLUMNS).is_file():  # a pipe may never answer
            return ()
        try:
            return tuple(map(str, json.loads((self.path / COLUMNS).read_bytes())["columns"]))
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def sample_grid(self, step: int) -> Path:
        """The sample grid of `step`."""
        return self.path / "samples" / f"step-{step:08d}.png"

    def write(self, name: str, text: str) -> None:
        # names that are no UTF-8 stay the bytes that they are; YAML and JSON have escaped them by now
        atomic_write(self.path / name, lambda file: file.write(text.encode(errors="surrogateescape")))


def next_commands(folder: RunFolder, from_noise: bool, own_generator: bool) -> list[str]:
    """Where the samples of a finished run are, and what to type to use it."""
    run = shlex.quote(str(folder.path))
    samples = sorted((folder.path / "samples").glob("step-*.png"))
    both = all((folder.path / f"{direction}.safetensors").exists() for direction in ("a2b", "b2a"))
    style = f"--style {run} --direction a2b" if both else f"--style {run}"
    command = f"i2i sample {style}" if from_noise else f"i2i translate {style} photos/"
    use = f"to {command.split()[1]}: {command} -o out/"
    if own_generator:
        use = "to translate: run = i2i.train(...), then run.translator()(picture)"
    return [*(f"samples: {path}" for path in samples[-1:]), use]


_STATES, _STATUS = "state-*", "status.json"


def fetch_data(options: "RunOptions") -> None:
    """Fetch the data sets that are in a store. Raises `InputError`, or `OutputError` where they find no room."""
    for folder in (options.data, options.paired_data):
        if folder is not None and (place := store_of(folder)):
            from i2i.folders.stores import fetch_folder

            if count := fetch_folder(place, folder):
                say(f"{place}: {count} files fetched to {folder}")


def fetch_run(folder: Path) -> None:
    """Fetch the run folder from its store, if it has one. A new run finds nothing there.

    Raises `InputError` or `OutputError` for a store that cannot be read or written.
    """
    if (place := store_of(folder)) is None:
        return
    from i2i.folders import stores
    from i2i.folders.stores import fetch_folder

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
    from i2i.folders.stores import is_noted, store_folder

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
            f"stop that one, or give another {as_typed('run')}"
        )


def in_store(options: "RunOptions") -> "RunOptions":
    """The options with the places in stores that copies on this machine stand for."""
    paths = {name: getattr(options, name) for name in ("data", "paired_data", "run")}
    places: dict[str, Any] = {name: place for name, path in paths.items() if path and (place := store_of(path))}
    return replace(options, **places)
