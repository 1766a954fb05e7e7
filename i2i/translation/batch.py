"""Files and folders of pictures through a translator: everything planned before anything is done."""

import contextlib
import os
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import torch

from i2i.cli import printable
from i2i.config import nearest
from i2i.data.folders import find_images, listed
from i2i.errors import I2IError, ImageError, InputError, OutputError, SomeFailed, UsageError
from i2i.images import SUFFIXES, read, write
from i2i.translation.translator import Translator, load_translator

Style = str | PathLike[str] | Translator
Inputs = str | PathLike[str] | Sequence[str | PathLike[str]]
Progress = Callable[[int, int, Path], None]
Status = Literal["done", "skipped", "failed"]

MAX_SIZE = 65_535


@dataclass(frozen=True)
class Job:
    """One picture to translate, and where the result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Record:
    """What became of one input; `reason` says why it failed."""

    source: Path
    target: Path
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """One record per input, in the order of the work."""

    records: tuple[Record, ...]

    def of(self, status: Status) -> list[Record]:
        return [record for record in self.records if record.status == status]

    @property
    def done(self) -> list[Record]:
        return self.of("done")

    @property
    def skipped(self) -> list[Record]:
        return self.of("skipped")

    @property
    def failed(self) -> list[Record]:
        return self.of("failed")


def translate_folder(
    inputs: Inputs,
    out: str | PathLike[str],
    style: Style,
    *,
    direction: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    skip_existing: bool = False,
    size: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Translate pictures, and folders of them recursively, into the folder `out`, the tree and names kept.

    `out` may be the name of a picture if there is one input file. `size` scales the shorter side of each
    picture to so many pixels first; otherwise the result has the size of the input. `progress` is called with
    the number of inputs finished, their total and the last one. A picture that cannot be translated is
    reported as failed and the others are done, unless `strict`, which raises `SomeFailed` at the first.

    Found before any work: `InputError` if there are no pictures; `UsageError` for existing outputs without
    `overwrite` or `skip_existing`, an output that would replace an input, and inputs with one output path;
    `ModelError`; `OutputError` if `out` cannot be written.
    """
    started = time.time()
    if overwrite and skip_existing:
        raise UsageError("overwrite and skip_existing contradict each other")
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise UsageError(f"size {size}: expected 1 to {MAX_SIZE}")
    jobs = plan(inputs, out)
    existing = _check_targets(jobs, overwrite or skip_existing)
    translator = style if isinstance(style, Translator) else load_translator(style, direction, device)
    todo = [job for job in jobs if not (skip_existing and job in existing)]
    if todo:
        _probe(todo[0].target.parent if _is_file_name(out, jobs) else Path(out))
    skipped = [Record(job.source, job.target, "skipped") for job in jobs if skip_existing and job in existing]
    done = []
    for number, job in enumerate(todo, start=1):
        done.append(_translate(translator, job, size, strict))
        if progress is not None:
            progress(number, len(todo), job.source)
    _remove_strays({job.target.parent for job in jobs}, started)
    return Report((*skipped, *done))


def plan(inputs: Inputs, out: str | PathLike[str]) -> list[Job]:
    """Which pictures go where. Raises as `translate_folder` does for what the inputs alone can tell."""
    sources = [Path(p) for p in ([inputs] if isinstance(inputs, str | PathLike) else inputs)]
    out = Path(out)
    jobs: dict[Job, None] = {}  # an input that is named twice is one input
    for source in sources:
        if source.is_dir():
            jobs |= {Job(path, out / path.relative_to(source)): None for path in _listed_in(source, out)}
        elif source.exists():
            jobs[Job(source, out / source.name)] = None
        else:
            near = [p.name for p in source.parent.iterdir()] if source.parent.is_dir() else []
            raise InputError(f"{_shown(source)}: no such file or folder.{nearest(source.name, near)}")
    found = list(_distinct(jobs))
    if not found:
        searched = ", ".join(_shown(s) for s in sources) or "no inputs"
        raise InputError(f"no pictures found in {searched} (looked for {', '.join(sorted(SUFFIXES))})")
    if out.suffix.lower() in SUFFIXES and not out.is_dir():
        if len(sources) != 1 or sources[0].is_dir():
            raise UsageError(f"{_shown(out)} names one picture; several inputs need a folder")
        found = [Job(found[0].source, out)]
    _check_collisions(found)
    return found


def _is_file_name(out: str | PathLike[str], jobs: Sequence[Job]) -> bool:
    return len(jobs) == 1 and jobs[0].target == Path(out)


def _listed_in(folder: Path, out: Path) -> list[Path]:
    inside, target = folder.resolve(), out.resolve()
    if inside == target:
        raise UsageError(f"{_shown(out)} is the input folder; choose another output folder")
    if not target.is_relative_to(inside):
        return find_images(folder)
    below = folder / target.relative_to(inside)
    return [path for path in find_images(folder) if not path.is_relative_to(below)]


def _distinct(jobs: Sequence[Job] | dict[Job, None]) -> Iterator[Job]:
    seen = set()
    for job in jobs:
        key = (job.source.absolute(), job.target)
        if key not in seen:
            seen.add(key)
            yield job


def _check_collisions(jobs: Sequence[Job]) -> None:
    # names that differ only in case or in their Unicode form are one file on many systems
    def key(job: Job) -> str:
        return unicodedata.normalize("NFC", str(job.target)).casefold()

    counts = Counter(key(job) for job in jobs)
    clashing = sorted((job for job in jobs if counts[key(job)] > 1), key=lambda job: (key(job), str(job.source)))
    if clashing:
        pairs = listed([f"{_shown(job.source)} → {_shown(job.target)}" for job in clashing])
        raise UsageError(f"{len(clashing)} inputs share their output paths:{pairs}")


def _check_targets(jobs: Sequence[Job], existing_allowed: bool) -> set[Job]:
    """The jobs whose target exists."""
    existing = {job for job in jobs if os.path.lexists(job.target)}
    inputs = {_identity(job.source) for job in jobs} - {None}
    for job in jobs:
        if job in existing and _identity(job.target) in inputs:
            raise UsageError(f"{_shown(job.target)} is an input and would be overwritten; choose another output")
        if job.target.is_dir():
            raise UsageError(f"{_shown(job.target)} is a folder where a picture would be written")
    if existing and not existing_allowed:
        names = listed([_shown(job.target) for job in jobs if job in existing])
        raise UsageError(f"{len(existing)} outputs exist; choose --overwrite or --skip-existing:{names}")
    return existing


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _probe(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".i2i-", suffix=".part"):
            pass
    except OSError as error:
        raise OutputError(f"{_shown(folder)}: cannot be written: {error.strerror}") from error


def _translate(translator: Translator, job: Job, size: int | None, strict: bool) -> Record:
    try:
        _translate_file(translator, job, size)
    except Exception as error:
        reason = _reason(error)
        if strict:
            raise SomeFailed(f"{_shown(job.source)}: {reason}") from error
        return Record(job.source, job.target, "failed", reason)
    return Record(job.source, job.target, "done")


def _translate_file(translator: Translator, job: Job, size: int | None) -> None:
    result = translator.translate(read(job.source), size)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{_shown(job.target.parent)}: cannot be created: {error.strerror}") from error
    try:
        write(job.target, result)
    except OutputError as error:
        if isinstance(error.__cause__, OSError | RuntimeError):  # the system refused: so it will the next one
            raise
        raise ImageError(str(error)) from None


def _reason(error: Exception) -> str:
    """Why a picture failed. Raises `error` again if the next picture would fail for the same reason."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, I2IError):
        raise error
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return "not enough memory to translate it at this size"
    return f"unexpected error, please report it: {type(error).__name__}: {error}"


def _remove_strays(folders: set[Path], before: float) -> None:
    """Remove what a killed run left half-written; a run beside this one writes newer files."""
    for folder in folders:
        for stray in folder.glob(".i2i-*.part"):
            with contextlib.suppress(OSError):
                if stray.stat().st_mtime < before:
                    stray.unlink()


def _shown(path: Path) -> str:
    """A path for a message, on one line: control characters and undecodable bytes escaped."""
    return printable(str(path)).replace("\n", "\\n")
