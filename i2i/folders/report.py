"""The report of a folder translation: a record of each input, as a file, and its outcome in a few lines."""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from i2i.errors import OutputError, UsageError
from i2i.files import atomic_write, refused, remove_strays, write_all
from i2i.folders import stores
from i2i.folders.jobs import Job, SourceAndTarget
from i2i.folders.plan import Plan
from i2i.images import Picture, not_kept_by
from i2i.images.palettes import FAR
from i2i.terminal import printable, say_plain
from i2i.urls import StorePath

_CONVERTED = {(3, 1): "colours taken as luminance", (1, 3): "grey taken as three channels"}

Progress = Callable[[int, int, Path], object]
"""Called with the number of inputs finished, their total and the last one; or with the frames of a film that are done,
their number (0 if it is not known) and the film."""
Status = Literal["done", "skipped", "failed", "left"]
_NO_NUMBERS: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Record(SourceAndTarget):
    """The outcome of one input. Its texts are those of its job.

    Its status is `done`; `skipped`, because its result exists or it is no regular file; `failed`; or `left`, because
    the work was stopped before. `reason` says why it is not done, `note` what else has changed in the picture. `film`
    has the numbers of a film: frames, and if it was smoothed flicker and sharpness before and after.
    """

    status: Status
    reason: str = ""
    note: str = ""
    film: Mapping[str, float] = field(default_factory=lambda: _NO_NUMBERS)

    @classmethod
    def of(cls, job: Job, status: Status, reason: str = "", note: str = "") -> "Record":
        """The record of a job. Many records have one reason or note, which is kept once."""
        return cls(job.source_text, job.target_text, status, sys.intern(reason), sys.intern(note))

    def of_same(self, job: Job, here: Job) -> "Record":
        """This record of the job `here`, with the paths of `job` in their place, also within its texts.

        The texts stay free of control characters.
        """
        reason, note = self.reason, self.note
        for name in ("target_text", "source_text", "mask_text"):
            used, given = getattr(here, name), getattr(job, name)
            if used != given:
                reason, note = (text.replace(used, printable(given)) for text in (reason, note))
        return replace(Record.of(job, self.status, reason, note), film=self.film)

    def to_json(self) -> str:
        """A JSON object in ASCII on one line."""
        texts = {"source": self.source_text, "target": self.target_text, "status": self.status}
        texts |= {"reason": self.reason, "note": self.note}
        return json.dumps({**texts, "film": self.film} if self.film else texts)


@dataclass(frozen=True)
class Report:
    """One record per input, in the order of the work.

    `facts` are enough to repeat the work; `notices` are remarks for the user.
    """

    records: tuple[Record, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

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

    @property
    def left(self) -> list[Record]:
        return self.of("left")

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(record.status for record in self.records)
        return {status: found[status] for status in get_args(Status)}

    def to_json(self) -> str:
        """ASCII, whatever the names are: bytes that are no UTF-8 appear as lone surrogates (`\\udcff`)."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The text of `to_json` part by part, for a million records are too much at once."""
        yield self.summary().removesuffix("\n}\n") + ',\n "records": ['
        separator = "\n  "
        for record in self.records:
            yield separator + record.to_json()
            separator = ",\n  "
        yield "\n ]\n}\n" if self.records else "]\n}\n"

    def summary(self) -> str:
        """The report without its records."""
        return json.dumps({**self.facts, "notices": self.notices, "counts": self.counts}, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; its folder is made if need be. Raises `OutputError`."""
        _write(path, self.pieces())


LINES = ".jsonl"
"""The suffix of a report that is written as it goes."""
_TOGETHER = 1000


class ReportFile:
    """The file of a report, if there is one.

    With the suffix `.jsonl` it gets a line for each input as soon as its outcome is known, so the file of a killed run
    is true as far as it goes; the rest of the report comes at the end, into the `.json` beside it. With another suffix
    all is written at the end. Raises `UsageError` for a name that is not that of a report.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            _check(path)
        self.path, self._began = path, time.time()
        self._lines: FileIO | None = None
        self._error: OutputError | None = None

    @property
    def failed(self) -> bool:
        """Whether a line could not be written. The work had better end; `end` raises the error."""
        return self._error is not None

    def begin(self, work: Plan) -> None:
        """Before the work. A report of lines replaces that of an earlier run. Raises `OutputError`."""
        if isinstance(self.path, StorePath):
            stores.check_writable(self.path)
        if self.path is None or self.path.suffix.lower() != LINES:
            return
        _write(self.path, ())
        try:
            self.path.with_suffix(".json").unlink(missing_ok=True)  # once it is there again, the run has ended
            self._lines = FileIO(self.path, "ab")
        except OSError as error:
            raise refused(self.path, error) from error
        self.add(*records_of_others(work))

    def add(self, *records: Record) -> None:
        """Write a line for each record."""
        for start in range(0, len(records), _TOGETHER):
            self._write(
                "".join(f"{record.to_json()}\n" for record in records[start : start + _TOGETHER]).encode("ascii")
            )

    def end(self, report: Report) -> None:
        """After the work. Raises `OutputError`."""
        if self.path is None:
            return
        if self._lines is None:
            report.write(self.path)
        else:
            self.add(*report.left)
            self._lines.close()
            if self._error is None:
                _write(self.path.with_suffix(".json"), [report.summary()])
        if not isinstance(self.path, StorePath):
            remove_strays(self.path.parent, self._began)
        if self._error is not None:
            raise self._error

    def _write(self, data: bytes) -> None:
        if self._lines is None or self._error is not None:
            return
        size = os.fstat(self._lines.fileno()).st_size
        try:
            write_all(self._lines.fileno(), data)
        except OSError as error:
            assert self.path is not None
            self._error = refused(self.path, error)
            with contextlib.suppress(OSError):
                self._lines.truncate(size)  # no half line


def _check(path: Path) -> None:
    """Raises `UsageError` for a name that is not that of a report."""
    suffix, in_store = path.suffix.lower(), isinstance(path, StorePath)
    if str(path) == "-":
        raise UsageError("report -: expected the name of a JSON file; the command prints the report with --json")
    if suffix not in ("", ".json", LINES) or (not in_store and path.is_dir()):
        raise UsageError(f"report {path}: expected the name of a JSON file, such as run.json or run.jsonl")
    if suffix == LINES and in_store:
        raise UsageError(f"report {path}: an object of a store cannot grow line by line; give {path.stem}.json")
    if suffix == LINES and path.with_suffix(".json").is_dir():
        raise UsageError(f"report {path}: the rest of it would go into {path.with_suffix('.json')}, a folder")


def _write(path: Path, pieces: Iterable[str]) -> None:
    if isinstance(path, StorePath):
        stores.put_bytes("".join(pieces).encode("ascii"), path)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    atomic_write(path, lambda file: file.writelines(piece.encode("ascii") for piece in pieces))


def records_of(work: Plan, found: Mapping[Job, Record]) -> tuple[Record, ...]:
    """A record for every input of `work`: the one in `found`, else as the plan has it."""
    done = [found.get(job) or Record.of(job, "left", job.refused, masked(job.mask)) for job in work.todo]
    return (*records_of_others(work), *done)


def records_of_others(work: Plan) -> list[Record]:
    """The records of the inputs with which there is nothing to do."""
    skipped = [Record.of(job, "skipped", "exists") for job in work.skipped]
    return skipped + [Record.of(job, "skipped", "not a regular file") for job in work.special]


def unlabelled(share: float) -> str:
    """A note on labels, for the share of pixels without a class; empty if all have one."""
    if not share:
        return ""
    part = f"{share:.1%}" if share >= 0.001 else "fewer than 0.1%"
    return f"{part} of its pixels are more than {FAR} levels from every colour of the classes: they are no label"


def clipped(picture: Picture) -> str:
    """A note on values outside of the range of a model, and on pixels without data; empty if there are none."""
    found = []
    if picture.units is not None and picture.units.clipped:
        low, high = picture.units.range
        found.append(f"{picture.units.clipped} values outside of {low:g} to {high:g}, which the network sees clipped")
    if picture.missing is not None:
        found.append(f"{np.count_nonzero(picture.missing)} pixels without data stay so")
    return "; ".join(found)


def painted(shape: tuple[int, int], size: tuple[int, ...]) -> str:
    """A note on a picture of `size` that was painted at another height and width, `shape`; empty if they are equal."""
    return "" if shape == size else f"painted at {shape[1]}x{shape[0]} pixels"


def masked(mask: Path | None) -> str:
    """A note on the mask of a picture; empty if it has none of its own."""
    return "" if mask is None else f"mask {mask}"


def changes(picture: Picture, result: Picture, channels: int, suffix: str) -> str:
    """A note on what else changes on the way to `channels` and into a file of `suffix`; often empty."""
    found = not_kept_by(suffix, result)
    if converted := _CONVERTED.get((picture.pixels.shape[2], channels)):
        found.insert(0, converted)
    if picture.extra is not None and channels != picture.band_count:
        found.insert(0, f"bands beyond red, green and blue left out: {picture.extra.shape[2]}")
    if picture.has_more_frames:
        found.append("the first of several pages or frames")
    return "; ".join(found)


def summarise(report: Report, seconds: float) -> None:
    """Counts, failures and notices, on stderr."""
    counts = report.counts | {"translated": report.counts["done"]}
    said = ", ".join(f"{counts[what]} {what}" for what in ("translated", "skipped", "failed", "left"))
    say_plain(f"{said} in {seconds:.1f} s")
    for record in report.failed:
        say_plain(f"{record.source_text}: {record.reason}")
    for notice in report.notices:
        say_plain(notice)
