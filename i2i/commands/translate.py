"""Two ways to translate: `translate`, from paths to paths, and `serve`, on a page in the browser.

torchrun --nproc-per-node 4 -m -- i2i translate --style runs/monet photos/ -o out/    in several processes
"""

import secrets
import sys
import time
import webbrowser
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Interval

from i2i.commands.options import POSITIONAL
from i2i.config import DeviceName, narrowed
from i2i.errors import ModelError, OutputError, SomeFailed, UsageError
from i2i.inference.options import FolderOptions, ModelOptions, Precision, RuntimeName
from i2i.machine import meet, place, together
from i2i.signals import BOTH, STOPPING, Signals, interrupted
from i2i.terminal import Progress, fetching, printable, progress, say_plain
from i2i.urls import PathOrURL, StorePath

if TYPE_CHECKING:
    from i2i.folders.report import Report
    from i2i.models.styles import Style


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
    from i2i.folders.worker import check_names

    file = ReportFile(options.report)
    if options.style or options.mix:
        chosen.check_style(options.style)
        check_names(options.style, chosen)
    work = plan(options.inputs, options.out, chosen)
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
        raise SomeFailed(f"{len(report.failed)} of {len(report.records)} inputs failed{others}")


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


FIRST = "monet"
"""The style that the page begins with."""


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    styles: Annotated[tuple[str, ...], POSITIONAL] = ()
    """The styles to offer: names, run folders, model files. Default: all that are on this machine."""
    host: str = "127.0.0.1"
    """Who can open the page: 127.0.0.1 is this machine alone, 0.0.0.0 the whole network. Visitors from the network need
    the token that is printed."""
    port: Annotated[int, Interval(ge=0, le=65_535)] = 7860
    """The number behind the colon in the address; 0 takes a free one."""
    allow_host: tuple[str, ...] = ()
    """Further names of this server, as visitors type them, such as that of a proxy before it."""
    token: bool = False
    """Ask for a token on 127.0.0.1 too, where other users of this machine may reach the page."""
    open: bool = False
    """Open the page in this machine's browser."""
    max_megabytes: Annotated[float, Interval(gt=0, le=1000)] = 64
    """Refuse larger files, in megabytes."""
    max_megapixels: Annotated[float, Interval(gt=0, le=178)] = 50
    """Refuse larger pictures, in megapixels."""
    max_pictures: Annotated[int, Interval(ge=1, le=1000)] = 200
    """Refuse more pictures in one request."""
    time_limit: Annotated[float, Ge(1)] = 600
    """The seconds that one visitor's request may take; it then ends with the pictures done so far."""
    download: bool = False
    """Download the styles that are given if the catalogue has them."""
    device: DeviceName = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Arithmetic, as for `translate`."""
    runtime: RuntimeName = "auto"
    """The library that computes, as for `translate`."""


def serve(options: ServeCommand) -> None:
    from i2i.tools.page import server
    from i2i.tools.page.guard import is_loopback

    server.check_installed()
    styles = offered(options.styles, options.download)
    token = secrets.token_urlsafe(16) if options.token or not is_loopback(options.host) else ""
    with server.listen(options.host, options.port) as listening:
        _serve(options, styles, token, listening)


def offered(names: Sequence[str], download: bool = False) -> "dict[str, Style]":
    """The styles to offer, by the names that the page shows. Raises `I2IError` for one that cannot be used.

    Without `names` all that are on this machine, but for models of values in units; generators of pictures from noise
    take no picture.
    """
    from i2i.models.styles import list_styles

    if names:
        found = list({style.path: style for name in names for style in _named(name, download)}.values())
    else:
        found = [style for style in list_styles() if style.path is not None and not style.problem]
        found.sort(key=lambda style: style.name != FIRST)
    found = [style for style in found if style.input_domain != "noise"]
    in_units = [style for style in found if _is_in_units(style)]
    if names and in_units:
        raise UsageError(
            f"{in_units[0].name} is a model of values in units, which a page cannot show; "
            "use i2i translate, or give styles of pictures"
        )
    found = [style for style in found if style not in in_units]
    if problem := next((style for style in found if style.problem), None):
        raise ModelError(f"{problem.name}: {problem.problem}")
    if twice := [name for name, count in Counter((s.name, s.direction) for s in found).items() if count > 1]:
        raise UsageError(f"two styles are called {twice[0][0]!r}: install one under another name, or give one of them")
    if not found:
        raise UsageError("no style that takes pictures is on this machine; give one: i2i serve STYLE")
    counts = Counter(style.name for style in found)
    return {style.name if counts[style.name] == 1 else f"{style.name} {style.direction}": style for style in found}


def _is_in_units(style: "Style") -> bool:
    """Whether its file says so; that of a checkpoint says nothing."""
    from i2i.models.info import read_info

    if style.path is None or style.path.suffix != ".safetensors" or style.problem:
        return False
    return read_info(style.path).in_units


def _named(name: str, download: bool) -> "list[Style]":
    """The style of that name, or both directions of a run. Visitors see no path of this machine."""
    from i2i.models import styles

    path = Path(name)
    if path.is_dir() and (runs := [style for style in styles.list_styles([path]) if style.source == "run"]):
        return [replace(style, name=path.resolve().name) for style in runs]
    found = styles.find(name, download=download, progress=fetching() if download else None)
    shown = name if styles.is_name(name) else path.stem
    if found.suffix in (".pth", ".pt"):  # it tells its network when it is loaded
        return [styles.Style(name=shown, source="run", path=found)]
    return [styles.style_at(shown, "run", found)]


def _serve(options: ServeCommand, styles: "dict[str, Style]", token: str, listening: socket) -> None:
    """Serve until a signal comes."""
    from i2i.tools.page import server
    from i2i.tools.page.studio import Bounds, Studio

    bounds = Bounds(
        file_bytes=int(options.max_megabytes * 1e6),
        pixels=int(options.max_megapixels * 1e6),
        pictures=options.max_pictures,
        seconds=options.time_limit,
    )
    computing = ModelOptions(device=options.device, precision=options.precision, runtime=options.runtime)
    studio = Studio(styles, computing, bounds)
    hosts, port = server.own_names(options.host, options.allow_host), listening.getsockname()[1]
    with Signals(BOTH, STOPPING, impatient=BOTH) as signals, server.temporary_folder() as folder:
        page = server.Server(studio, folder, hosts, token, port)
        address = server.address(options.host, port, token)
        print(address, flush=True)
        say_plain("Ctrl-C ends the page. " + ("" if token else "Only this machine can open it."))
        if options.open:
            webbrowser.open(address)
        page.run(listening, signals)
    if signals.received:
        raise interrupted(signals.received, "the page is closed; its temporary files are gone", terminated=143)
