"""One part of a folder's translation, on a worker: any process, on this machine or another, that sees the same files.

Paths, options and records travel; pictures never do. Each process loads and checks its translator once. A part that
runs again, because its worker was lost, finds in its journal what was finished before.
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any, Self

from i2i import __version__
from i2i.config import option_names
from i2i.errors import I2IError, InputError, ModelError, OutputError, UsageError
from i2i.files import sha256
from i2i.folders import stores
from i2i.folders.pipeline import Pipeline, Stop
from i2i.folders.plan import Job
from i2i.folders.report import Progress, Record
from i2i.folders.staging import runner_of
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
_CHECK = ".i2i-check"
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
    """Of OpenVINO and ONNX Runtime, and of torch, which is 0 where torch is not used."""

    @classmethod
    def of(cls, translator: Translator) -> Self:
        device, runtime, precision = str(translator.device), translator.runtime, translator.precision
        mix, by_torch = mixing.facts(translator), _torch_threads() if "torch" in runtime else 0
        numbers = translator.paint_size, (threads(), by_torch)
        return cls(translator.info, translator.style, mix, device, runtime, precision, *numbers)

    def pinned(self, options: FolderOptions) -> FolderOptions:
        """`options` without "auto": other machines would choose otherwise."""
        chosen: dict[str, Any] = {"precision": self.precision, "paint_size": self.paint_size}
        if "," in self.runtime:  # a mix of several runtimes
            chosen = {}
        else:
            chosen["runtime"] = self.runtime
        if options.device == "auto":
            chosen["device"] = self.device.partition(":")[0]
        return replace(options, **chosen)

    def differences(self, other: "Resolved") -> list[str]:
        """In words what differs in `other`."""
        found = [
            f"{name} {getattr(other, name)} instead of {getattr(self, name)}"
            for name in ("runtime", "precision", "paint_size")
            if getattr(self, name) != getattr(other, name)
        ]
        if self.device.partition(":")[0] != other.device.partition(":")[0]:
            found.append(f"device {other.device} instead of {self.device}")
        if self.info != other.info:
            found.append("another description of the model")
        return found


@dataclass(frozen=True)
class Work:
    """All that a worker must know. `digests` are the SHA-256 of the style's files.

    `sizes` are the heights and widths of the pictures if they are few, as for `load_translator`. `folder` is shared by
    driver and workers, for journals and the sign to stop. `witness` is an input that every worker must see. `resolved`
    is how all must run the model; None in the question to the first one.
    """

    style: Style
    options: FolderOptions
    digests: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] | None = None
    folder: Path | None = None
    witness: Path | None = None
    resolved: Resolved | None = None
    version: str = __version__

    @classmethod
    def of(
        cls,
        style: Style,
        options: FolderOptions,
        sizes: Sequence[tuple[int, int]] | None,
        fetching: Fetching | None = None,
    ) -> Self:
        """The work with paths that are true in every folder and with the digests of its style.

        Raises as `styles.find`.
        """
        few = None if sizes is None else tuple(sizes)
        if isinstance(style, Translator):
            return cls(style, _everywhere(options), sizes=few)
        names = list(parse_mix(options.mix)) if options.mix else [_named(style)]
        found = {name: _find(name, options, fetching) for name in names}
        sent = {name: _sent(name, path) for name, path in found.items()}
        digests = tuple(digest for path in found.values() for digest in _digests(path))
        options = _everywhere(options)
        if not options.mix:
            return cls(next(iter(sent.values())), options, digests, few)
        mix = mix_as_text({str(sent[name]): weight for name, weight in parse_mix(options.mix).items()})
        return cls("", replace(options, mix=mix), digests, few)

    def with_resolved(self, resolved: Resolved) -> "Work":
        return replace(self, resolved=resolved, options=resolved.pinned(self.options))


def _everywhere(options: FolderOptions) -> FolderOptions:
    return replace(options, mask=options.mask.absolute()) if isinstance(options.mask, Path) else options


def _named(style: str | PathLike[str]) -> str | Path:
    return style if isinstance(style, str) else Path(style)


def _find(style: str | Path, options: FolderOptions, fetching: Fetching | None = None) -> Path:
    return styles.find(style, options.direction, download=options.download, progress=fetching)


def _sent(style: str | Path, found: Path) -> str | Path:
    """A name as it is, which every worker looks up; a path as every folder understands it."""
    return Path(style).absolute() if Path(style) in (found, found.parent) else style


def _digests(path: Path) -> tuple[str, ...]:
    files = (path / CONFIG_NAME, path / WEIGHTS_NAME) if path.is_dir() else (path,)
    try:
        return tuple(sha256(file) for file in files)
    except OSError as error:
        raise ModelError(f"{printable(path)}: cannot be read: {error.strerror}") from None


def load(work: Work, fetching: Fetching | None = None) -> Translator:
    """Loads the translator of that work. Raises as `load_translator` and `load_mix`."""
    if isinstance(work.style, Translator):
        return work.style
    chosen = {name: getattr(work.options, name) for name in option_names(ModelOptions())}
    if work.options.mix:
        return mixing.load_mix(work.options.mix, **chosen, sizes=work.sizes, fetching=fetching)
    return load_translator(work.style, **chosen, sizes=work.sizes, fetching=fetching)


class _Here:
    """The translator of this process, what it was loaded for, and the work that was checked here."""

    lock = Lock()
    loaded_for: Work | None = None
    translator: Translator | None = None
    checked: Work | None = None


def forget() -> None:
    """Frees the translator of this process."""
    with _Here.lock:
        _Here.loaded_for = _Here.translator = _Here.checked = None


def describe(work: Work) -> Resolved:
    """How this worker runs the model of `work`, which is the first to be asked. Raises what `check_worker` raises."""
    with _Here.lock, _on_this_machine():
        translator = _loaded(work)
        resolved = Resolved.of(translator)
        _Here.loaded_for = work.with_resolved(resolved)
        return resolved


def check_worker(work: Work) -> str:
    """Checks that this worker can do the work as all others do; returns the name of its machine.

    The errors name the machine: `UsageError` for another version of i2i and for a model that would run otherwise,
    `ModelError` for another file of the style, `OutputError` and `InputError` for files that it does not see.
    """
    with _Here.lock, _on_this_machine():
        if _Here.checked != work:
            _check(work)
            _Here.checked = work
    return socket.gethostname()


def opened(work: Work) -> Translator:
    """The translator of that work in this process, which is loaded once. Raises as `check_worker`."""
    with _Here.lock, _on_this_machine():
        return _loaded(work)


def _check(work: Work) -> None:
    found = Resolved.of(_loaded(work))
    if work.resolved is not None and (differences := work.resolved.differences(found)):
        raise UsageError(
            f"would run the model with {', '.join(differences)}, and its results would differ; choose a device, a "
            "runtime and a precision that all workers have"
        )
    if isinstance(work.folder, StorePath):
        stores.check_writable(work.folder / _CHECK)
    elif work.folder is not None:
        try:
            with tempfile.NamedTemporaryFile(dir=work.folder, prefix=".i2i-", suffix=".part"):
                pass
        except OSError as error:
            raise OutputError(
                f"{printable(work.folder.parent)}: cannot be written: {error.strerror}; every worker needs the output "
                "folder at this path"
            ) from None
    if isinstance(work.witness, StorePath):
        stores.check_readable(work.witness)
    elif work.witness is not None and not os.access(work.witness, os.R_OK):
        raise InputError(f"{printable(work.witness)}: cannot be read; every worker needs the inputs at this path")


def _loaded(work: Work) -> Translator:
    """The translator, loaded unless it is there. The lock is held."""
    wanted = replace(work, folder=None, witness=None)
    if _Here.translator is None or _Here.loaded_for != wanted:
        _Here.loaded_for = _Here.translator = None  # its memory is free before the next one is loaded
        _check_style(work)
        if work.resolved is not None and threads() != work.resolved.threads[0]:
            os.environ["OMP_NUM_THREADS"] = str(work.resolved.threads[0])
        _Here.translator, _Here.loaded_for = load(work), wanted
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
    names = list(parse_mix(work.options.mix)) if work.options.mix else [_named(work.style)]
    try:
        found = [_find(name, work.options) for name in names]
    except UsageError as error:
        raise UsageError(
            f"{error} Every worker needs the style: give a path that all see, or install it there"
        ) from None
    if tuple(digest for path in found for digest in _digests(path)) != work.digests:
        shown = ", ".join(printable(path) for path in found)
        raise ModelError(f"{shown}: another file than the driver's (its SHA-256 differs); copy that one there")


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """The errors inside name this machine."""
    try:
        yield
    except I2IError as error:
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None


@dataclass(frozen=True)
class Part:
    """Jobs that one worker does one after the other. `before` are the stamps of their targets when it was made."""

    number: int
    jobs: tuple[Job, ...]
    before: tuple[Stamp, ...]


@dataclass(frozen=True)
class Made:
    """The outcome of a part: a record for each of its jobs, None for one that is left; `error` ended it, if so."""

    records: tuple[Record | None, ...]
    notices: tuple[str, ...] = ()
    error: I2IError | None = None


def translate_part(work: Work, part: Part) -> Made:
    """Does a part. A worker may do it that another one, which was lost, has begun. Raises as `check_worker`."""
    check_worker(work)
    translator = opened(work)
    journal = Journal(work, part)
    found = journal.found()
    journal.begin()
    rest = [job for number, job in enumerate(part.jobs) if number not in found]
    made = translate_jobs(translator, work.options, rest, finished=journal.add, stop=journal.stopped)
    records = dict(zip(rest, made.records, strict=True))
    return replace(made, records=tuple(found.get(number) or records[job] for number, job in enumerate(part.jobs)))


def translate_jobs(
    translator: Translator,
    options: FolderOptions,
    jobs: Sequence[Job],
    *,
    finished: Callable[[Job, Record], object] = lambda job, record: None,
    frames: Progress | None = None,
    stop: Stop = lambda: False,
) -> Made:
    """Does jobs in this process, one after the other. `finished` is called with each as soon as it is recorded."""
    pipeline = runner_of(Pipeline(translator, options, stop=stop, frames=frames, finished=finished), jobs)
    error = None
    try:
        pipeline.run(jobs)
    except I2IError as ended:
        error = ended
    return Made(tuple(pipeline.records.get(job) for job in jobs), tuple(pipeline.notices), error)


def stamp(path: Path) -> Stamp:
    if isinstance(path, StorePath):
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class Journal:
    """A line for each record of a part, in a file that outlives its worker.

    A store can hold none: what a part that runs again would put there, and finds there, is done.
    """

    STOP = "stop"

    def __init__(self, work: Work, part: Part) -> None:
        assert work.folder is not None
        self._kept = not isinstance(work.folder, StorePath)
        self._part, self._path, self._stop = part, work.folder / f"{part.number}.jsonl", work.folder / self.STOP

    @cached_property
    def begun(self) -> bool:
        """Whether a worker has begun with the part before this journal was opened."""
        return self._kept and self._path.exists()

    def begin(self) -> None:
        """Raises `OutputError`."""
        if not self._kept:
            return
        try:
            self._path.touch()
        except OSError as error:
            raise OutputError(f"{printable(self._path)}: cannot be written: {error.strerror}") from None

    def found(self) -> dict[int, Record]:
        """What an attempt before has recorded, by the number of the job.

        A worker may be lost after the result has got its name and before it was written down here: a target that has
        changed since the part was made is done too.
        """
        if not self.begun:
            return {}
        found = {}
        for number, job in enumerate(self._part.jobs):
            if not job.refused and stamp(job.target) not in (None, self._part.before[number]):
                found[number] = Record.of(job, "done")
        with suppress(OSError):
            for line in self._path.read_text("ascii").splitlines():
                with suppress(ValueError, KeyError):  # the last line may be torn
                    number, facts = json.loads(line)
                    job = self._part.jobs[number]
                    found[number] = replace(Record.of(job, "done"), **facts)
        return found

    def add(self, job: Job, record: Record) -> None:
        if not self._kept:
            return
        facts = {name: value for name, value in asdict(record).items() if not name.endswith("_text")}
        with suppress(OSError), self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps([self._part.jobs.index(job), facts]) + "\n")

    def stopped(self) -> bool:
        """Whether the driver wants no further picture."""
        return self._kept and self._stop.exists()
