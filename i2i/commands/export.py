"""Write a trained generator in another form: for the reference, for the hub, as a model file, as ONNX, as a web page.

i2i export runs/monet --direction a2b -o latest_net_G_A.pth
i2i export latest_net_G.pth -o monet.safetensors --output-domain monet --licence BSD-2-Clause
i2i export monet vangogh --web site/
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

from i2i.commands.options import POSITIONAL
from i2i.errors import UsageError
from i2i.models import styles
from i2i.models.info import MAX_SIDE, NOT_PAINTED, ModelInfo
from i2i.terminal import fetching, say_plain
from i2i.urls import path_of

if TYPE_CHECKING:
    from torch import nn

SUFFIXES = {".pth": "reference", ".safetensors": "model_file", ".onnx": "onnx", "": "pretrained"}
MAX_CARD = 8_000


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
        raise UsageError(f"{out}: give --format, or one of the suffixes .pth, .safetensors, .onnx and none (a folder)")
    if form == "reference":
        _refuse(_described(options) | _given(options, "dropout", "norm_stats", "card"))
    if options.half and form != "model_file":
        raise UsageError(f"--half: only a model file (.safetensors) holds weights of 16 bits, {out} is another form")
    files = [out / "config.json", out / "model.safetensors"] if form == "pretrained" else [out]
    if not options.overwrite and (existing := [str(file) for file in files if os.path.lexists(file)]):
        raise UsageError(f"{existing[0]} exists; --overwrite replaces it")
    network, info = _opened(options, model, form)
    from i2i.models import junyanz, model_file

    if form == "reference":
        junyanz.save(out, network, replace=options.overwrite)
    elif form == "onnx":
        from i2i.inference import export

        export.save_onnx(out, network, info, replace=options.overwrite)
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

    library = website.read_runtime(options.web_runtime)
    website.check_folder(out, options.overwrite)
    from i2i.inference.export import check_installed, rounded
    from i2i.signals import BOTH, Signals

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
    from i2i.models import pretrained  # here, so that mistakes do not wait for torch

    if form == "reference" and pretrained.is_checkpoint(path):  # elsewhere it chooses, or is compared
        _refuse(_given(options, "direction"))
    network, info = pretrained.open_model(
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
