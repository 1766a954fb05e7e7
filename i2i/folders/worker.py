"""One part of a folder's translation, on a worker: any process, on this machine or another, that sees the same files.

Paths, options and records travel; pictures never do. Each process loads and checks its translator once. A part that
runs again, because its worker was lost, finds in its journal what was finished before.
"""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, Self

from i2i import __version__
from i2i.config import option_names
from i2i.errors import I2IError, InputError, ModelError, OutputError, UsageError
from i2i.files import refused, sha256
from i2i.films import remove_segments
from i2i.folders import stores
from i2i.folders.jobs import Job
from i2i.folders.pipeline import Pipeline
from i2i.folders.report import Record
from i2i.folders.staging import absolute
from i2i.inference import mix as mixing
from i2i.inference.options import FolderOptions, ModelOptions, mix_as_text, parse_mix
from i2i.inference.translator import Translator, load_translator
from i2i.machine import threads
from i2i.models import styles
from i2i.models.info import CONFIG_NAME, WEIGHTS_NAME, ModelInfo
from i2i.terminal import printable
from i2i.urls import StorePath

Style = str | PathLike[str] | Translator
Fetching = Callable[[int, int | None], object]
Sizes = tuple[tuple[int, int], ...]
Stamp = tuple[int, int] | None
"""Time and size of a file; None if it is not there."""


@dataclass(frozen=True)
class Resolved:
    """How a worker runs the model: all that a picture's bytes depend on, beside the model's file and the options."""

    info: ModelInfo
    style: str
    mix: dict[str, dict[str, Any]]
    device: str
    runtime: str
    precision: str
    paint_size: int
    threads: tuple[int, int]
    """Those of OpenVINO and ONNX Runtime, and those of torch: 0 where torch is not used."""

    @classmethod
    def of(cls, translator: Translator) -> Self:
        device, runtime, precision = str(translator.device), translator.runtime, translator.precision
        mix, by_torch = mixing.facts(translator), _torch_threads() if "torch" in runtime else 0
        numbers = translator.paint_size, (threads(), by_torch)
        return cls(translator.info, translator.style, mix, device, runtime, precision, *numbers)

    def pinned(self, options: FolderOptions) -> FolderOptions:
        """`options` without "auto": other machines would choose otherwise."""
        chosen: dict[str, Any] = {}
        if "," not in self.runtime:  # a mix may have several
            chosen = {"runtime": self.runtime, "precision": self.precision, "paint_size": self.paint_size}
        if options.device == "auto":
            chosen["device"] = self.device.partition(":")[0]
        return replace(options, **chosen)

    def differences(self, other: "Resolved") -> list[str]:
        """In words what differs in `other`; which one of several GPUs it has does not matter."""
        names = ("runtime", "precision", "paint_size", "device")
        pairs = [(name, str(getattr(other, name)), str(getattr(self, name))) for name in names]
        found = [(name, *pair) for name, *pair in pairs if pair[0].partition(":")[0] != pair[1].partition(":")[0]]
        return [f"{name} {one} instead of {another}" for name, one, another in found]


@dataclass(frozen=True)
class Work:
    """All that a worker must know. `digests` are the SHA-256 of the style's files.

    `sizes` are the heights and widths of the pictures if they are few, as for `load_translator`. Relative paths of jobs
    begin at `start`. `folder` is shared by
    driver and workers, for journals and the sign to stop; where results go to a store, it is one there, and has
    neither. `witness` is an input that every worker must see. `resolved` is how all must run the model; None in the
    question to the first one.
    """

    style: Style
    options: FolderOptions
    digests: tuple[str, ...] = ()
    sizes: Sizes | None = None
    start: str = ""
    folder: Path | None = None
    witness: Path | None = None
    resolved: Resolved | None = None
    version: str = __version__

    @classmethod
    def of(cls, style: Style, options: FolderOptions, sizes: Sizes | None, fetching: Fetching | None = None) -> Self:
        """The work with a style that every folder understands, and with its digests. Raises as `styles.find`."""
        start = os.getcwd()  # noqa: PTH109 - pathlib's fails on names that are no UTF-8
        if isinstance(style, Translator):
            return cls(style, options, sizes=sizes, start=start)
        found = _files(style, options, fetching)
        # workers look up a name; a path is true in every folder
        sent = [Path(name).absolute() if Path(name) in (path, path.parent) else name for name, path in found.items()]
        if options.mix:
            weights = parse_mix(options.mix).values()
            mix = mix_as_text(dict(zip(map(str, sent), weights, strict=True)))
            sent, options = [""], replace(options, mix=mix)
        return cls(sent[0], options, _digests(found.values()), sizes, start)

    def with_resolved(self, resolved: Resolved) -> "Work":
        return replace(self, resolved=resolved, options=resolved.pinned(self.options))


def _names(style: str | PathLike[str], options: FolderOptions) -> list[str | Path]:
    return [*parse_mix(options.mix)] if options.mix else [Path(style) if isinstance(style, PathLike) else style]


def check_names(style: Style, options: FolderOptions) -> None:
    """Raises as `styles.check` for a mistake in the name of the style, or of one of the mix."""
    for name in () if isinstance(style, Translator) else _names(style, options):
        styles.check(name, options.direction, download=options.download)


def _files(
    style: str | PathLike[str], options: FolderOptions, fetching: Fetching | None = None
) -> dict[str | Path, Path]:
    """The file or folder of that style, or of each style of the mix. Raises as `styles.find`."""
    found = partial(styles.find, direction=options.direction, download=options.download, progress=fetching)
    return {name: found(name) for name in _names(style, options)}


def _digests(paths: Iterable[Path]) -> tuple[str, ...]:
    """Raises `ModelError` for a file that cannot be read."""
    files = [
        file for path in paths for file in ((path / CONFIG_NAME, path / WEIGHTS_NAME) if path.is_dir() else [path])
    ]
    try:
        return tuple(map(sha256, files))
    except OSError as error:
        raise ModelError(f"{printable(error.filename)}: cannot be read: {error.strerror}") from None


def load(work: Work, fetching: Fetching | None = None) -> Translator:
    """Loads the translator of that work. Raises as `load_translator` and `load_mix`."""
    if isinstance(work.style, Translator):
        return work.style
    chosen = {name: getattr(work.options, name) for name in option_names(ModelOptions())}
    if work.options.mix:
        return mixing.load_mix(work.options.mix, **chosen, sizes=work.sizes, fetching=fetching)
    return load_translator(work.style, **chosen, sizes=work.sizes, fetching=fetching)


class _Here:
    """The translator of this process, the work that it was loaded for, and the one whose files were seen here."""

    lock = Lock()
    work: Work | None = None
    seen: Work | None = None
    translator: Translator | None = None


def forget() -> None:
    """Frees the translator of this process."""
    with _Here.lock:
        _Here.work = _Here.seen = _Here.translator = None


def check_worker(work: Work) -> Resolved:
    """How this worker runs the model. The first to be asked chooses; others must run it as `work` says.

    The errors name the machine: `UsageError` for another version of i2i and for a model that would run otherwise,
    `ModelError` for another file of the style, `OutputError` and `InputError` for files that it does not see.
    """
    try:
        resolved = Resolved.of(_opened(work))
        if work.resolved is None:
            _Here.work = work.with_resolved(resolved)
        elif differences := work.resolved.differences(resolved):
            raise UsageError(
                f"would run the model with {', '.join(differences)}, and its results would differ; choose a device, a "
                "runtime and a precision that all workers have"
            )
        if _Here.seen != work:
            _check_files(work)
            _Here.seen = work
    except I2IError as error:
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None
    return resolved


def _check_files(work: Work) -> None:
    if isinstance(work.folder, StorePath):
        stores.check_writable(work.folder / ".i2i-check")
    elif work.folder is not None:
        try:
            (work.folder / f"{socket.gethostname()}-{os.getpid()}").touch()
        except OSError as error:
            raise OutputError(
                f"{printable(work.folder.parent)}: cannot be written: {error.strerror}; every worker needs the output "
                "folder at this path"
            ) from None
    if isinstance(work.witness, StorePath):
        stores.get_bytes(work.witness, most=1)
    elif work.witness is not None and not os.access(work.witness, os.R_OK):
        raise InputError(f"{printable(work.witness)}: cannot be read; every worker needs the inputs at this path")


def _opened(work: Work) -> Translator:
    """The translator of that work in this process, loaded unless it is there."""
    wanted = replace(work, folder=None, witness=None)
    with _Here.lock:
        if _Here.translator is None or _Here.work != wanted:
            _Here.work = _Here.translator = None  # its memory is free before the next one is loaded
            _check_style(work)
            if work.resolved is not None and threads() != work.resolved.threads[0]:
                os.environ["OMP_NUM_THREADS"] = str(work.resolved.threads[0])
            _Here.translator, _Here.work = load(work), wanted
        if work.resolved is not None and work.resolved.threads[1] not in (0, _torch_threads()):
            sys.modules["torch"].set_num_threads(work.resolved.threads[1])
        return _Here.translator


def _torch_threads() -> int:
    return int(sys.modules["torch"].get_num_threads()) if "torch" in sys.modules else 0


def _check_style(work: Work) -> None:
    if work.version != __version__:
        raise UsageError(f"has i2i {__version__}, and {work.version} shares out the work; install the same version")
    if isinstance(work.style, Translator):
        return
    try:
        found = _files(work.style, work.options).values()
    except UsageError as error:
        raise UsageError(
            f"{error} Every worker needs the style: give a path that all see, or install it there"
        ) from None
    if _digests(found) != work.digests:
        shown = ", ".join(map(printable, found))
        raise ModelError(f"{shown}: another file than the driver's (its SHA-256 differs); copy that one there")


@dataclass(frozen=True)
class Part:
    """Jobs that one worker does one after the other.

    `before` are the stamps of their targets when the part was made. `again`: each of its jobs was in one that was lost.
    """

    number: int
    jobs: tuple[Job, ...]
    before: tuple[Stamp, ...]
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part: a record for each of its jobs, None for one that is left; `error` ended it, if so."""

    records: tuple[Record | None, ...]
    notices: tuple[str, ...] = ()
    error: I2IError | None = None


def translate_part(work: Work, part: Part) -> Outcome:
    """Does a part. A worker may do it that another one, which was lost, has begun. Raises as `check_worker`."""
    check_worker(work)
    journal = Journal(work, part)
    records = journal.found() or {}
    journal.begin()

    def finished(job: Job, record: Record) -> None:
        records[job] = record
        journal.add(job, record)

    rest = [job for job in part.jobs if job not in records]
    pipeline = Pipeline(_opened(work), work.options, finished, journal.has_stop, start=work.start)
    error = None
    try:
        pipeline.run(rest)
    except I2IError as ended:
        error = ended
    return Outcome(tuple(map(records.get, part.jobs)), tuple(pipeline.notices), error)


def stamp(job: Job, start: str) -> Stamp:
    """The stamp of its target; none in a store. A relative path begins at `start`."""
    try:
        status = os.stat(absolute(job, start).target_text)  # noqa: PTH116
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


STOP = "stop"
"""A file in the shared folder: no further picture is wanted."""


class Journal:
    """A line for each record of a part, in a file that outlives its worker.

    A store can hold none: what a part that runs again would put there, and finds there, is done.
    """

    def __init__(self, work: Work, part: Part) -> None:
        self._part, self._start = part, work.start
        self._path: Path | None = None
        if work.folder is not None and not isinstance(work.folder, StorePath):
            self._path = work.folder / f"{part.number}.jsonl"

    def begin(self) -> None:
        """Raises `OutputError`."""
        if self._path is not None:
            try:
                self._path.touch()
            except OSError as error:
                raise refused(self._path, error) from None

    def found(self) -> dict[Job, Record] | None:
        """The records of an attempt before; None if no worker has begun.

        A worker may be lost after the result has got its name and before it was written down here: a target that has
        changed since the part was made is done too.
        """
        if self._path is None or not self._path.exists():
            return None
        jobs, found = self._part.jobs, {}
        for job, before in zip(jobs, self._part.before, strict=True):
            if not job.refused and stamp(job, self._start) not in (None, before):
                found[job] = Record.of(job, "done")
                if job.film:  # lost before its segments were removed
                    remove_segments(absolute(job, self._start).target)
        with suppress(OSError):
            for line in self._path.read_text("ascii").splitlines():
                with suppress(ValueError):  # the last line may be torn
                    number, record = json.loads(line)
                    found[jobs[number]] = Record(**record)
        return found

    def add(self, job: Job, record: Record) -> None:
        if self._path is not None:
            with suppress(OSError), self._path.open("a", encoding="ascii") as file:
                file.write(json.dumps([self._part.jobs.index(job), asdict(record)]) + "\n")

    def has_stop(self) -> bool:
        return self._path is not None and self._path.with_name(STOP).exists()
