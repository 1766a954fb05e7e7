"""Commands on the results of trainings: `evaluate`, `report`, `compare`, and what they make, `sample` and `augment`.

i2i evaluate runs/facades
i2i evaluate monet datasets/monet2photo --direction b2a
i2i evaluate out/ expected/ --report evaluation.json
i2i report runs/facades
i2i compare photos/ painted/ -o sheet.png
i2i compare photos/ monet/ vangogh/ -o page.html
i2i sample --style runs/gan_monet --count 64 -o out/ --grid grid.png
i2i sample --style runs/gan_monet --count 5 --walk 12 --grid walk.png
i2i augment --style runs/monet data/ -o augmented/

A mistake in their options is answered before torch is imported.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from i2i.commands.options import POSITIONAL
from i2i.commands.translate import watched
from i2i.config import narrowed
from i2i.errors import OutputError, SomeFailed, UsageError
from i2i.evaluation.options import EvaluationOptions, find_inputs
from i2i.files import remove_strays
from i2i.inference.sample import SampleOptions
from i2i.models.styles import exists
from i2i.signals import BOTH, STOPPING, Signals, interrupted
from i2i.terminal import Progress, printable, progress, say_plain
from i2i.tools.labelled.augment import AugmentOptions

if TYPE_CHECKING:
    from i2i.folders.report import Report


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(EvaluationOptions):
    inputs: Annotated[tuple[str, ...], POSITIONAL] = ()
    """A run folder; a model and pictures to translate with it; or two folders: results, and the pictures that they are
    compared with."""
    report: Path | None = None
    """Write the numbers and their protocol to this JSON file; an earlier evaluation there is replaced. Default: for a
    run, evaluation.json in its folder, where i2i report finds it; else none."""
    json: bool = False
    """Print JSON instead of the table."""


def evaluate(options: EvaluateCommand) -> None:
    if not options.inputs:
        raise UsageError("expected: i2i evaluate RUN, or MODEL PICTURES, or RESULTS EXPECTED (see --help)")
    report = options.report
    if report is not None and (report.suffix.lower() not in ("", ".json") or report.is_dir()):
        raise UsageError(f"--report {report}: expected the name of a JSON file")
    if report is not None and not report.parent.is_dir():
        raise OutputError(f"{report}: cannot be written: no such folder")
    chosen = narrowed(options, EvaluationOptions)
    found = find_inputs(options.inputs, chosen)
    from i2i.evaluation.evaluate import measure
    from i2i.evaluation.result import REPORT_NAME, check_replaceable, table, write

    if report is not None:
        check_replaceable(report)
    command = shlex.join(sys.argv)
    evaluation = measure(found, chosen, say_plain)
    if report is not None:
        write(evaluation, report, command)
    print(evaluation.to_json(command) if options.json else table(evaluation, command), end="" if options.json else "\n")
    if report is None and evaluation.rows and found.run:
        path = found.run / REPORT_NAME
        other = path.with_stem(f"{path.stem}-NAME")
        earlier = f", in the place of the earlier ones; next time, --report {other} keeps both" if path.exists() else ""
        try:
            write(evaluation, path, command)
            say_plain(f"{path}: the numbers, for i2i report{earlier}")
        except (OutputError, UsageError) as error:  # the numbers are printed all the same
            say_plain(f"not kept for the report of the run: {error}")


@dataclass(frozen=True, kw_only=True)
class ReportCommand:
    folder: Annotated[Path | None, POSITIONAL] = None
    """The folder of the run; it may still be training."""
    out: Path | None = None
    """The HTML file to write; an earlier report is replaced. Default: report.html in the run folder."""
    pictures: Path | None = None
    """Translate the pictures of this folder, and show them beside their translations."""
    direction: Literal["a2b", "b2a"] | None = None
    """The direction that translates the pictures. Needed for a run with two."""
    device: str = "auto"
    """The device that translates them: auto, cpu, cuda, cuda:N or mps."""


def report(options: ReportCommand) -> None:
    if options.folder is None:
        raise UsageError("expected: i2i report RUN [-o FILE.html] (see --help)")
    if options.out is not None and options.out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {options.out}: expected the name of an HTML file")
    if options.direction is not None and options.pictures is None:
        raise UsageError("--direction chooses the model for --pictures, and there is none")
    from i2i.tools.report.report import write_report

    written = write_report(
        options.folder,
        options.out,
        pictures=options.pictures,
        direction=options.direction,
        device=options.device,
    )
    for notice in written.notices:
        say_plain(notice)
    print(f"{printable(written.path)}: {written.size / 1e6:.1f} MB")
    if written.failed:
        raise SomeFailed(f"{len(written.failed)} pictures could not be translated; first: {written.failed[0]}")


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    inputs: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Two or more folders, or two or more pictures. Pictures of folders match by their path without suffix."""
    out: Path | None = None
    """The contact sheet (.png, .jpg) or the page (.html) to write."""
    max: Annotated[int, Interval(ge=1, le=500)] = 24
    """Show at most this many pictures of each folder, evenly chosen."""
    overwrite: bool = False
    """Replace an output that exists."""


def compare(options: CompareCommand) -> None:
    """Raises `SomeFailed` if a picture cannot be read; the others are shown."""
    if options.out is None:
        raise UsageError("expected: i2i compare BEFORE AFTER -o SHEET.png|PAGE.html (see --help)")
    from i2i.tools.compare import write_comparison

    found = write_comparison(options.inputs, options.out, options.max, options.overwrite)
    for notice in found.notices:
        say_plain(notice)
    print(f"{printable(options.out)}: {options.out.stat().st_size / 1e6:.1f} MB")
    if found.failed:
        raise SomeFailed(f"{len(found.failed)} pictures cannot be read:", *found.failed[:10])


@dataclass(frozen=True, kw_only=True)
class SampleCommand(SampleOptions):
    style: str = ""
    """The trained GAN: its run folder, its model file, or a name."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def sample(options: SampleCommand) -> None:
    if not options.style:
        raise UsageError("expected: i2i sample --style STYLE -o OUT (see --help)")
    options.check()
    from i2i.inference.sample import load_sampler, make_samples

    began = time.time()
    sampler = load_sampler(options.style, options.device)
    with Signals(BOTH, STOPPING, impatient=BOTH) as signals, progress() as show:
        written = make_samples(sampler, narrowed(options, SampleOptions), show, lambda: bool(signals.received))
    for folder in {path.parent for path in written}:
        remove_strays(folder, began)
    if signals.received:
        raise interrupted(signals.received, f"stopped after {len(written)} files", terminated=143)
    print(f"{len(written)} files, the last {printable(written[-1])}")


@dataclass(frozen=True, kw_only=True)
class AugmentCommand(AugmentOptions):
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


def augment(options: AugmentCommand) -> None:
    if len(options.data) != 1 or options.out is None or not options.style:
        raise UsageError("expected: i2i augment --style STYLE[,STYLE...] DATA -o OUT (see --help)")
    whole = exists(Path(options.style))  # a path may have commas of its own
    styles = [options.style] if whole else [name.strip() for name in options.style.split(",")]
    chosen = narrowed(options, AugmentOptions)
    (_show_plan if options.dry_run else _augment)(options, options.data[0], options.out, styles, chosen)


def _show_plan(options: AugmentCommand, data: Path, out: Path, styles: list[str], chosen: AugmentOptions) -> None:
    from i2i.folders.report import Record, Report
    from i2i.tools.labelled.augment import checked_styles, plan

    work = plan(data, out, checked_styles(styles, chosen), chosen)
    jobs = [work.job(copy) for copy in work.copies]
    for line in (work.summary, *work.notices):
        say_plain(line)
    if options.json:
        print(Report(tuple(Record.of(job, "left") for job in jobs)).to_json(), end="")
        return
    for job in jobs:
        print(f"{printable(job.source)} → {printable(job.target)}")


def _augment(options: AugmentCommand, data: Path, out: Path, styles: list[str], chosen: AugmentOptions) -> None:
    from i2i.tools.labelled.augment import augment_folder

    def run(_: Progress, **given: Any) -> "Report":
        return augment_folder(data, out, styles, begin=lambda work: say_plain(work.summary), **given, **vars(chosen))

    report, number = watched(run, options.json)
    if number and report.left:
        raise interrupted(number, "stopped; the same command with --skip-existing goes on", terminated=143)
    failed, left_out = len(report.failed), report.facts["left_out"]
    wrong = [f"{failed} of {len(report.records)} copies failed"] if failed else []
    wrong += [f"{left_out} labels or pictures were left out"] if left_out else []
    if wrong:
        raise SomeFailed("; ".join((*wrong, "the others are done")))
