"""`translate`: pictures, films and folders of them through a trained generator, in one process or in several:

torchrun --nproc-per-node 4 -m -- i2i translate --style runs/monet photos/ -o out/
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from i2i.commands.options import POSITIONAL
from i2i.config import narrowed
from i2i.errors import OutputError, SomeFailed, UsageError
from i2i.inference.options import FolderOptions
from i2i.machine import meet, place, together
from i2i.signals import BOTH, STOPPING, Signals, interrupted
from i2i.terminal import Progress, fetching, printable, progress, say_plain
from i2i.urls import PathOrURL, StorePath

if TYPE_CHECKING:
    from i2i.folders.report import Report


@dataclass(frozen=True, kw_only=True)
class TranslateCommand(FolderOptions):
    inputs: Annotated[tuple[PathOrURL, ...], POSITIONAL] = ()
    """Pictures, films, folders, URLs such as s3://bucket/photos, or `-` to read paths from the standard input, one a
    line or separated by NUL."""
    style: str = ""
    """The trained network: a name from --list-styles, a run folder, a model file, a checkpoint of
    pytorch-CycleGAN-and-pix2pix (.pth), or hub:owner/name."""
    out: PathOrURL | None = None
    """The folder for the results, or a file for a single input; or the URL of one. Results keep their names and
    subfolders."""
    report: PathOrURL | None = None
    """Write a JSON file with a record for each input; run.jsonl gets each one as soon as it is known, on a line of its
    own, and the rest of the report goes into run.json beside it at the end."""
    json: bool = False
    """Print that report, or the list of styles, on the standard output."""
    show: bool = False
    """Show the first result on a terminal that can show pictures (kitty, iTerm2, sixel)."""
    dry_run: bool = False
    """Print the plan, and do nothing."""
    list_styles: bool = False
    """List the names that --style takes, and the runs in runs/."""
    install_style: Path | None = None
    """Install a model file or checkpoint as a style of your own, with the name --as."""
    as_: str = ""
    """The name for --install-style."""
    verbose: bool = False
    """With --list-styles, show all that is known of each style."""


def translate(options: TranslateCommand) -> None:
    if options.list_styles:
        return _list_styles(options)
    if options.install_style is not None or options.as_:
        return _install_style(options)
    if not options.inputs:
        raise UsageError("no pictures given; expected: i2i translate --style monet photos/ -o out/")
    if not (options.style or options.mix or options.dry_run):
        raise UsageError("--style is missing; give --style monet, or another one of i2i translate --list-styles")
    here = place()
    processes = here.world_size
    options = share(options, here.rank, processes)
    _check_report(options.report, options.out)
    chosen = narrowed(options, FolderOptions)
    try:
        (_plan if options.dry_run else _translate)(options, chosen)
    except SomeFailed:
        _wait_for_others(processes)
        raise
    _wait_for_others(processes)


def share(options: TranslateCommand, rank: int, processes: int) -> TranslateCommand:
    """Returns the options of one of several processes, started by torchrun: its shard, and a report with its name."""
    if processes == 1:
        return options
    if options.cluster:
        raise UsageError("--cluster shares out the work itself; start one process, without torchrun")
    if Path("-") in options.inputs:
        raise UsageError("a list on the standard input goes to one process; give folders and files to several")
    number, parts = options.part()
    part = f"{number + rank * parts + 1}/{parts * processes}"
    report = options.report and options.report.with_stem(f"{options.report.stem}-{part.replace('/', '-of-')}")
    return replace(options, shard=part, report=report, show=options.show and rank == 0)


def _wait_for_others(processes: int) -> None:
    """Until all are done: torchrun ends the others as soon as one has ended with a failure, be it of one picture."""
    if processes == 1:
        return
    from datetime import timedelta

    from torch import distributed

    with together("translation"):
        meet("gloo", timedelta(days=30))
        distributed.barrier()
    distributed.destroy_process_group()


def _check_report(report: Path | None, out: Path | None) -> None:
    """Raises `OutputError` for a report in a folder that is not there, and will not be made with the output."""
    if report is None or isinstance(report, StorePath):
        return
    folder, above = report.parent.absolute(), (Path() if out is None or isinstance(out, StorePath) else out).absolute()
    if not (folder.is_dir() or folder.is_relative_to(above) or above.is_relative_to(folder)):
        raise OutputError(f"{report}: cannot be written: no such folder")


def _list_styles(options: TranslateCommand) -> None:
    from i2i.models.styles import as_json as to_json
    from i2i.models.styles import list_styles as found
    from i2i.models.styles import table

    print(to_json(found()) if options.json else table(found(), cards=options.verbose))


def _install_style(options: TranslateCommand) -> None:
    if options.install_style is None or not options.as_:
        raise UsageError("expected: i2i translate --install-style FILE --as NAME")
    from i2i.models import styles

    path = styles.install(options.install_style, options.as_, direction=options.direction, overwrite=options.overwrite)
    print(f"{printable(path)}: use it with --style {options.as_}")


def _plan(options: TranslateCommand, chosen: FolderOptions) -> None:
    from i2i.folders.plan import plan
    from i2i.folders.report import Report, ReportFile, masked, records_of
    from i2i.inference.options import parse_mix
    from i2i.models import styles

    file = ReportFile(options.report)
    if options.style or options.mix:
        chosen.check_style(options.style)
    work = plan(options.inputs, options.out, chosen)
    for style in parse_mix(options.mix) if options.mix else [options.style]:
        if style and not style.startswith("hub:"):  # that would fetch it
            styles.find(style, options.direction)
    report = Report(records_of(work, {}), notices=work.notices)
    file.begin(work)
    file.end(report)
    if options.json:
        sys.stdout.writelines(report.pieces())
        return
    for job in work.todo:
        if job.refused:
            print(f"{printable(job.source_text)}: {job.refused}")
            continue
        mask = f" ({printable(masked(job.mask))})" if job.mask_text else ""
        print(f"{printable(job.source_text)} → {printable(job.target_text)}{mask}")
    say_plain(f"{len(work.todo)} to do, {len(work.skipped)} exist, {work.other} other files are left alone")
    for notice in work.notices:
        say_plain(notice)


def _translate(options: TranslateCommand, chosen: FolderOptions) -> None:
    from i2i.folders.batch import translate_folder

    def run(show: Progress, **given: Any) -> "Report":
        more = given | vars(chosen) | {"frames": show.frames, "report": options.report}
        return translate_folder(options.inputs, options.out, options.style, **more)

    report, number = watched(run, options.json)
    if options.show and report.done:
        from i2i.tools.show import show

        if reason := show(report.done[0].target):
            say_plain(reason)
    if number and report.left:
        again = "what is done is done" if options.in_place else "the same command with --skip-existing goes on"
        raise interrupted(number, f"stopped; {again}", terminated=143)
    if report.failed:
        others = "; the others are done" if len(report.failed) < len(report.records) else ""
        raise SomeFailed(f"{len(report.failed)} of {len(report.records)} pictures failed{others}")


def watched(run: Callable[..., "Report"], as_json: bool) -> "tuple[Report, int]":
    """The report of `run`, a translation of a folder that a signal ends in good order, and the signal, or 0."""
    from i2i.folders.report import summarise

    started = time.monotonic()

    def finish(report: "Report") -> None:
        summarise(report, time.monotonic() - started)
        if as_json:
            sys.stdout.writelines(report.pieces())

    def stop() -> bool:
        signals.orderly = True  # from the first picture on
        return bool(signals.received)

    with Signals(BOTH, STOPPING, orderly=False, impatient=BOTH) as signals, progress() as show:
        report = run(show, progress=show, stop=stop, finish=finish, fetching=fetching())
    return report, signals.received
