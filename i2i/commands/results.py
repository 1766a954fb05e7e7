"""Commands on trained networks: `evaluate`, `report`, `compare`, `export`, `sample` and `augment`.

A mistake in their options is answered before torch is imported.
"""

import os
import re
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from i2i.commands.options import POSITIONAL
from i2i.commands.translate import watched
from i2i.config import DeviceName, narrowed
from i2i.errors import OutputError, SomeFailed, UsageError
from i2i.evaluation.options import EvaluationOptions, find_inputs
from i2i.files import make_folders, remove_strays
from i2i.inference.sample import SampleOptions
from i2i.models import styles
from i2i.models.info import MAX_SIDE, NOT_PAINTED, ModelInfo
from i2i.signals import BOTH, STOPPING, Signals, interrupted
from i2i.terminal import Progress, counted, fetching, printable, progress, say_plain
from i2i.tools.labelled.augment import AugmentOptions, augment_folder, checked_styles, plan
from i2i.urls import path_of

if TYPE_CHECKING:
    from torch import nn

    from i2i.folders.report import Report


SUFFIXES = {".pth": "reference", ".safetensors": "model_file", ".onnx": "onnx", "": "pretrained"}
MAX_CARD = 8_000


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
    from i2i.evaluation.result import REPORT_NAME, as_text, check_replaceable, write

    if report is not None:
        check_replaceable(report)
    command = shlex.join(sys.argv)
    evaluation = measure(found, chosen, say_plain)
    if report is not None:
        write(evaluation, report, command)
    print(evaluation.to_json(command).rstrip() if options.json else as_text(evaluation.to_mapping(command)))
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
    device: DeviceName = "auto"
    """The device that translates them: auto, cpu, cuda, cuda:N or mps."""


def report(options: ReportCommand) -> None:
    if options.folder is None:
        raise UsageError("expected: i2i report RUN [-o FILE.html] (see --help)")
    if options.out is not None and options.out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {options.out}: expected the name of an HTML file")
    if options.direction is not None and options.pictures is None:
        raise UsageError("--direction chooses the model for --pictures, and there is none")
    from i2i.tools.report import write_report

    began = time.time()
    written = write_report(
        options.folder, options.out, pictures=options.pictures, direction=options.direction, device=options.device
    )
    remove_strays(written.path.parent, began)
    for notice in written.notices:
        say_plain(notice)
    print(f"{printable(written.path)}: {written.size / 1e6:.1f} MB")
    if written.failed:
        raise SomeFailed(
            f"{counted(len(written.failed), 'picture', 'pictures')} could not be translated; first: {written.failed[0]}"
        )


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

    began = time.time()
    found = write_comparison(options.inputs, options.out, options.max, options.overwrite)
    remove_strays(options.out.parent, began)
    for notice in found.notices:
        say_plain(notice)
    print(f"{printable(options.out)}: {options.out.stat().st_size / 1e6:.1f} MB")
    if found.failed:
        raise SomeFailed(f"{counted(len(found.failed), 'picture', 'pictures')} cannot be read:", *found.failed[:10])


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    model: Annotated[str | tuple[str, ...], POSITIONAL] = ()
    """A model file, a folder with config.json, a checkpoint (.pth), a run folder, or the name of a style; for --web,
    one or several."""
    out: Path | None = None
    """The file to write; with --format pretrained, the folder."""
    web: Path | None = None
    """Write a folder for any web server instead: a page that translates pictures in the visitor's browser."""
    web_runtime: Path | None = None
    """For --web: the folder of the npm package onnxruntime-web. Default: node_modules/onnxruntime-web."""
    format: Literal["reference", "pretrained", "model_file", "onnx"] | None = None
    """reference (.pth for pytorch-CycleGAN-and-pix2pix or CUT), pretrained (a folder), model_file (.safetensors) or
    onnx (any batch, height and width; float32 in [-1, 1]). Default: by the suffix of --out."""
    direction: Literal["a2b", "b2a"] | None = None
    """Needed for a run folder with both directions. For a checkpoint: the direction to record. Default: a2b."""
    dropout: bool | None = None
    """Keep dropout on at translation. Default: as the model file says, for a checkpoint as published. The format
    reference cannot record it."""
    norm_stats: Literal["batch", "running"] | None = None
    """Statistics of batch norm: of each picture (batch) or of the training (running). Default: as the model file says,
    else batch. The format reference cannot record it."""
    input_domain: str | None = None
    """The name of the input domain."""
    output_domain: str | None = None
    """The name of the output domain."""
    algorithm: str | None = None
    """The algorithm that trained the model."""
    dataset: str | None = None
    """The name of its data set."""
    licence: str | None = None
    """The licence of the weights."""
    paint_size: Annotated[int, Interval(ge=0, le=MAX_SIDE)] | None = None
    """The shorter side, in pixels, at which larger pictures are translated by default; 0: their own size. For painters,
    whose strokes should be visible at any size."""
    card: Path | None = None
    """A text file about data, recipe, numbers and limits; --list-styles --verbose shows it."""
    half: bool = False
    """Write 16-bit weights into a model file or a page: half the bytes, each rounded by at most 1 in 2,048."""
    overwrite: bool = False
    """Replace an output that exists; of --web, a page that i2i wrote."""
    download: bool = False
    """Download a published style that is not on this machine."""


def export(options: ExportCommand) -> None:
    models = (options.model,) if isinstance(options.model, str) else options.model
    if options.web is not None:
        return _write_page(options, models, options.web)
    if len(models) != 1 or not models[0] or options.out is None:
        raise UsageError("expected: i2i export MODEL -o OUT, or i2i export MODEL... --web FOLDER (see --help)")
    if options.web_runtime is not None:
        raise UsageError("--web-runtime belongs to --web FOLDER")
    _write_file(options, models[0], options.out)


def _write_file(options: ExportCommand, model: str, out: Path) -> None:
    form = options.format or SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise UsageError(f"{out}: unknown suffix; expected .pth, .safetensors, .onnx or none, or give --format")
    if form == "reference":
        _refuse(_described(options) | _given(options, "dropout", "norm_stats", "card"))
    if options.half and form != "model_file":
        raise UsageError(f"--half: only a model file (.safetensors) holds weights of 16 bits, {out} is another form")
    styles.check(model, options.direction, download=options.download)
    files = [out / "config.json", out / "model.safetensors"] if form == "pretrained" else [out]
    if not options.overwrite and (existing := [str(file) for file in files if os.path.lexists(file)]):
        raise UsageError(f"{existing[0]} exists; --overwrite replaces it")
    make_folders(files[0].parent)
    remove_strays(files[0].parent, time.time())
    network, info = _opened(options, model, form)
    from i2i.models import junyanz, model_file

    if form == "reference":
        junyanz.save(out, network, replace=options.overwrite)
    elif form == "onnx":
        from i2i.inference import torch_runtime

        torch_runtime.save_onnx(out, network, info, replace=options.overwrite)
    elif form == "pretrained":
        model_file.save_pretrained(out, network, info, replace=options.overwrite)
    else:
        import torch

        dtype = torch.float16 if options.half else torch.float32
        model_file.save(out, network, info, dtype, replace=options.overwrite)
    say_plain(f"{out}: {info.network}, {info.input_domain} → {info.output_domain}")


def _write_page(options: ExportCommand, models: tuple[str, ...], out: Path) -> None:
    if not models or not all(models):
        raise UsageError("expected: i2i export MODEL... --web FOLDER (see --help)")
    if options.out is not None or options.format is not None:
        raise UsageError("--web FOLDER is the output; leave out -o and --format")
    of_one = [name for name in (*_described(options), *_given(options, "card")) if name != "paint_size"]
    if of_one and len(models) > 1:
        raise UsageError(f"--{of_one[0].replace('_', '-')} describes one style; {len(models)} are given")
    from i2i.tools import website

    for model in models:
        styles.check(model, options.direction, download=options.download)
    library = website.read_runtime(options.web_runtime)
    website.check_folder(out, options.overwrite)
    from i2i.inference.torch_runtime import check_installed, rounded

    check_installed()
    made: dict[str, tuple[nn.Module, ModelInfo]] = {}
    with Signals(BOTH, orderly=False):  # so that an end leaves nothing half-written
        for model in models:
            name = _style_name(model)
            if name in made:
                raise UsageError(f"{model}: a style {name!r} is given already")
            network, info = _opened(options, model)
            website.check_style(name, info)
            made[name] = (rounded(network) if options.half else network, info)
        size = website.write_site(out, made, library, replace=options.overwrite)
    say_plain(f"{out}: {size / 1e6:.1f} MB. Put it on any web server, or try it: python -m http.server -d {out}")


def _style_name(model: str) -> str:
    """The name of a style on the page: that of the style, or of its file or folder."""
    path = path_of(model)
    name = path.stem if path.suffix in styles.MODEL_SUFFIXES else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-") or "style"


def _opened(options: ExportCommand, model: str, form: str = "") -> "tuple[nn.Module, ModelInfo]":
    """The network of a model and its description, with those of the options."""
    described = _given(options, "input_domain", "output_domain", "licence", "paint_size")
    described |= {"card": _lines(options.card)} if options.card is not None else {}
    show = fetching() if options.download else None
    path = styles.find(model, options.direction, download=options.download, progress=show)
    from i2i.models import model_file  # here, so that mistakes do not wait for torch

    if form == "reference" and model_file.is_checkpoint(path):  # elsewhere it chooses, or is compared
        _refuse(_given(options, "direction"))
    network, info = model_file.open_model(
        path, direction=options.direction, dropout=options.dropout, statistics=options.norm_stats
    )
    info = replace(info, training=replace(info.training, **_given(options, "algorithm", "dataset")), **described)
    if options.paint_size and not info.plain:
        raise UsageError(f"--paint-size {options.paint_size}: {NOT_PAINTED}; leave it out")
    return network, info


def _described(options: ExportCommand) -> dict[str, Any]:
    """The options that describe a model."""
    return _given(options, "input_domain", "output_domain", "licence", "paint_size", "algorithm", "dataset")


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a card, which must fit into a model file."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CARD + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--card {path}: cannot be read as text: {error}") from None
    if len(text) > MAX_CARD:
        raise UsageError(f"--card {path}: at most {MAX_CARD:,} characters")
    return tuple(line.rstrip() for line in text.strip().splitlines())


def _refuse(given: dict[str, Any]) -> None:
    if given:
        raise UsageError(f"the reference's layout has no place for {', '.join(given)}")


def _given(options: ExportCommand, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


@dataclass(frozen=True, kw_only=True)
class SampleCommand(SampleOptions):
    style: str = ""
    """The trained GAN: its run folder, its model file, or a name."""
    device: DeviceName = "auto"
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
        raise interrupted(signals.received, f"stopped after {counted(len(written), 'file', 'files')}", terminated=143)
    print(f"{counted(len(written), 'file', 'files')}, the last {printable(written[-1])}")


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
    whole = styles.exists(Path(options.style))  # a path may have commas of its own
    names = [options.style] if whole else [name.strip() for name in options.style.split(",")]
    chosen = narrowed(options, AugmentOptions)
    (_show_plan if options.dry_run else _augment)(options, options.data[0], options.out, names, chosen)


def _show_plan(options: AugmentCommand, data: Path, out: Path, names: list[str], chosen: AugmentOptions) -> None:
    from i2i.folders.report import Record, Report

    work = plan(data, out, checked_styles(names, chosen), chosen)
    jobs = [work.job(copy) for copy in work.copies]
    for line in (work.summary, *work.notices):
        say_plain(line)
    if options.json:
        print(Report(tuple(Record.of(job, "left") for job in jobs)).to_json(), end="")
        return
    for job in jobs:
        print(f"{printable(job.source)} → {printable(job.target)}")


def _augment(options: AugmentCommand, data: Path, out: Path, names: list[str], chosen: AugmentOptions) -> None:
    def run(_: Progress, **given: Any) -> "Report":
        return augment_folder(data, out, names, begin=lambda work: say_plain(work.summary), **given, **vars(chosen))

    report, number = watched(run, options.json)
    if number and report.left:
        raise interrupted(number, "stopped; the same command with --skip-existing goes on", terminated=143)
    failed, left_out = len(report.failed), report.facts["left_out"]
    wrong = [f"{failed} of {len(report.records)} copies failed"] if failed else []
    wrong += [f"{left_out} labels or pictures were left out"] if left_out else []
    if wrong:
        raise SomeFailed("; ".join((*wrong, "the others are done")))
