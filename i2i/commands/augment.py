"""Augment a labelled folder: translated copies of its pictures, with their labels.

i2i augment --style runs/monet data/ -o augmented/
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from i2i.commands.options import POSITIONAL
from i2i.config import narrowed
from i2i.errors import SomeFailed, UsageError
from i2i.models.styles import exists
from i2i.terminal import fetching, printable, progress, say_plain
from i2i.tools.labelled.plan import AugmentOptions

if TYPE_CHECKING:
    from i2i.folders.report import Report
    from i2i.tools.labelled.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Options(AugmentOptions):
    data: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """The labelled folder: YOLO, Pascal VOC, COCO, or pictures and masks."""
    style: str = ""
    """The trained network, as for i2i translate; several with commas between."""
    out: Path | None = None
    """The folder for the copies."""
    dry_run: bool = False
    """Print the plan, and do nothing."""
    json: bool = False
    """Print a JSON report with a record for each copy."""


def main(options: Options) -> None:
    if len(options.data) != 1 or options.out is None or not options.style:
        raise UsageError("expected: i2i augment --style STYLE[,STYLE...] DATA -o OUT (see --help)")
    whole = exists(Path(options.style))  # a path may have commas of its own
    styles = [options.style] if whole else [name.strip() for name in options.style.split(",")]
    chosen = narrowed(options, AugmentOptions)
    (show if options.dry_run else augment)(options, options.data[0], options.out, styles, chosen)


def show(options: Options, data: Path, out: Path, styles: list[str], chosen: AugmentOptions) -> None:
    from i2i.folders.report import Record, Report
    from i2i.tools.labelled.plan import checked_styles, plan

    work = plan(data, out, checked_styles(styles, chosen), chosen)
    jobs = [work.job(copy) for copy in work.copies]
    for line in (work.summary, *work.notices):
        say_plain(line)
    if options.json:
        print(Report(tuple(Record.of(job, "left") for job in jobs)).to_json(), end="")
        return
    for job in jobs:
        print(f"{printable(job.source)} → {printable(job.target)}")


def augment(options: Options, data: Path, out: Path, styles: list[str], chosen: AugmentOptions) -> None:
    from i2i.folders.report import summarise
    from i2i.signals import BOTH, STOPPING, Signals, interrupted
    from i2i.tools.labelled.augment import augment_folder  # here, so that --help does not wait for torch

    started = time.monotonic()

    def begin(work: "Plan") -> None:
        say_plain(work.summary)

    def finish(report: "Report") -> None:
        summarise(report, time.monotonic() - started)
        if options.json:
            print(report.to_json(), end="")

    def stop() -> bool:
        signals.orderly = True  # from the first file on
        return bool(signals.received)

    with Signals(BOTH, STOPPING, orderly=False, impatient=BOTH) as signals, progress() as shown_progress:
        report = augment_folder(
            data,
            out,
            styles,
            progress=shown_progress,
            stop=stop,
            begin=begin,
            finish=finish,
            fetching=fetching(),
            **vars(chosen),
        )
    if signals.received and report.left:
        again = "stopped; the same command with --skip-existing goes on"
        raise interrupted(signals.received, again, terminated=143)
    failed, left_out = len(report.failed), report.facts["left_out"]
    wrong = [f"{failed} of {len(report.records)} copies failed"] if failed else []
    wrong += [f"{left_out} labels or pictures were left out"] if left_out else []
    if wrong:
        raise SomeFailed("; ".join((*wrong, "the others are done")))
