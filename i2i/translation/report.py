"""What became of each input, and the file that says so."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from i2i.atomic import atomic_write
from i2i.errors import OutputError
from i2i.images import Picture, lost
from i2i.images.palettes import FAR
from i2i.translation.job import Job, Plan

_CONVERTED = {(3, 1): "colours taken as luminance", (1, 3): "grey taken as three channels"}

Progress = Callable[[int, int, Path], object]
"""Called with the number of inputs finished, their total and the last one."""
Status = Literal["done", "skipped", "failed", "left"]


@dataclass(frozen=True)
class Record:
    """What became of one input.

    `done`; `skipped`, because its result exists or it is no regular file; `failed`; or `left`, because the work
    was stopped before. `reason` says why it is not done, `note` what was changed beside the translation.
    """

    source: Path
    target: Path
    status: Status
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One record per input, in the order of the work.

    `facts` are what one needs to do it again, `notices` what else one should know.
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
    """A record for every input of `work`: as `found`, or what the plan says of it, or that it is left."""
    skipped = [Record(job.source, job.target, "skipped", "exists") for job in work.skipped]
    special = [Record(job.source, job.target, "skipped", "not a regular file") for job in work.special]
    done = [found.get(job, Record(job.source, job.target, "left")) for job in work.todo]
    return (*skipped, *special, *done)


def unlabelled(share: float) -> str:
    """What to say of labels of which this share of the pixels has no class; nothing where all have one."""
    if not share:
        return ""
    part = f"{share:.1%}" if share >= 0.001 else "fewer than 0.1%"
    return f"{part} of its pixels are more than {FAR} levels from every colour of the classes: they are no label"


def painted(shape: tuple[int, int], size: tuple[int, ...]) -> str:
    """What to say of a picture of that `size` that was painted at another height and width; nothing if it was not."""
    return "" if shape == size else f"painted at {shape[1]}x{shape[0]} pixels"


def changes(picture: Picture, result: Picture, channels: int, suffix: str) -> str:
    """What is changed beside the translation, on the way to `channels` and into a file of `suffix`; often nothing."""
    found = lost(result, suffix)
    if converted := _CONVERTED.get((picture.pixels.shape[2], channels)):
        found.insert(0, converted)
    if picture.extra is not None and channels != picture.band_count:
        found.insert(0, f"bands beyond red, green and blue left out: {picture.extra.shape[2]}")
    if picture.more:
        found.append("the first of several pages or frames")
    return "; ".join(found)
