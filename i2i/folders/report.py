"""The report of a folder translation: a record of each input, as a file, and lines on a terminal.

A terminal shows a live line, any other stream a plain line now and then, and both the outcome at the end.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from i2i.errors import OutputError
from i2i.files import atomic_write
from i2i.folders.plan import Job, Plan
from i2i.images import Picture, not_kept_by
from i2i.images.palettes import FAR
from i2i.terminal import drawable, tell

_CONVERTED = {(3, 1): "colours taken as luminance", (1, 3): "grey taken as three channels"}

Progress = Callable[[int, int, Path], object]
"""Called with the number of inputs finished, their total and the last one."""
Status = Literal["done", "skipped", "failed", "left"]


@dataclass(frozen=True)
class Record:
    """The outcome of one input.

    Its status is `done`; `skipped`, because its result exists or it is no regular file; `failed`; or `left`, because
    the work was stopped before. `reason` says why it is not done, `note` what else has changed in the picture.
    """

    source: Path
    target: Path
    status: Status
    reason: str = ""
    note: str = ""


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

    def to_json(self) -> str:
        """ASCII, whatever the names are: bytes that are no UTF-8 appear as lone surrogates (`\\udcff`)."""
        counts = {status: len(self.of(status)) for status in ("done", "skipped", "failed", "left")}
        records = [
            {
                "source": str(record.source),
                "target": str(record.target),
                "status": record.status,
                "reason": record.reason,
                "note": record.note,
            }
            for record in self.records
        ]
        return (
            json.dumps({**self.facts, "notices": self.notices, "counts": counts, "records": records}, indent=1) + "\n"
        )

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; its folder is made if need be. Raises `OutputError`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        atomic_write(path, lambda file: file.write(self.to_json().encode("ascii")))


def records_of(work: Plan, found: Mapping[Job, Record]) -> tuple[Record, ...]:
    """A record for every input of `work`: the one in `found`, else as the plan has it."""
    skipped = [Record(job.source, job.target, "skipped", "exists") for job in work.skipped]
    special = [Record(job.source, job.target, "skipped", "not a regular file") for job in work.special]
    done = [found.get(job, Record(job.source, job.target, "left", job.refused, masked(job.mask))) for job in work.todo]
    return (*skipped, *special, *done)


def unlabelled(share: float) -> str:
    """A note on labels, for the share of pixels without a class; empty if all have one."""
    if not share:
        return ""
    part = f"{share:.1%}" if share >= 0.001 else "fewer than 0.1%"
    return f"{part} of its pixels are more than {FAR} levels from every colour of the classes: they are no label"


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


PLAIN_SECONDS = 30.0


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A function to call with the number of pictures finished, their total and the last one. Writes to stderr."""
    if not drawable():
        yield _Plain()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, started = bar.add_task("", total=None, speed=""), time.monotonic()

        def show(number: int, total: int, _: Path) -> None:
            speed = number / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=number, total=total, speed=f"{speed:.1f} images/s")

        yield show


class _Plain:
    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, number: int, total: int, _: Path) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        speed = number / (now - self._started)
        left = (total - number) / speed
        tell(f"{number}/{total}, {speed:.1f} images/s, {left:.0f} s left")


def fetching() -> Callable[[int, int | None], None]:
    """A function to call with the bytes of a download that are there, and their total if it is known."""
    state = {"last": time.monotonic()}
    live = drawable()

    def show(there: int, total: int | None) -> None:
        now, whole = time.monotonic(), there == total
        if whole or now - state["last"] >= (0.2 if live else PLAIN_SECONDS):
            state["last"] = now
            of = f" of {total / 1e6:.0f}" if total else ""
            print(
                f"fetched {there / 1e6:.0f}{of} MB",
                end="\r" if live and not whole else "\n",
                file=sys.stderr,
                flush=True,
            )

    return show


def summarise(report: Report, seconds: float) -> None:
    """Counts, failures and notices, on stderr."""
    counts = {"translated": report.done, "skipped": report.skipped, "failed": report.failed, "left": report.left}
    tell(", ".join(f"{len(records)} {what}" for what, records in counts.items()) + f" in {seconds:.1f} s")
    for line in (*(f"{record.source}: {record.reason}" for record in report.failed), *report.notices):
        tell(line)
