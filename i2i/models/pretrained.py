"""A trained generator from wherever it lies, and the folder form of the model file."""

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save as to_safetensors
from torch import nn

from i2i.errors import ModelError, OutputError, UsageError
from i2i.files import atomic_write
from i2i.models import junyanz, model_file
from i2i.models.info import (
    CONFIG_NAME,
    DIRECTIONS,
    WEIGHTS_NAME,
    Direction,
    ModelInfo,
    Statistics,
    Training,
    describe,
    parse,
    to_json,
)
from i2i.models.metadata import MAX_INFO_BYTES, looks_like_safetensors, read_bounded, read_header
from i2i.networks import GeneratorConfig

__all__ = ["from_pretrained", "is_checkpoint", "open_model", "save_pretrained", "weights_sha256"]


def open_model(
    path: Path | str,
    *,
    direction: str | None = None,
    dropout: bool | None = None,
    statistics: Statistics | None = None,
    generator: nn.Module | None = None,
) -> tuple[nn.Module, ModelInfo]:
    """The generator (on the CPU, float32, in eval mode) at `path` and what is known of it.

    `path` is a model file, a folder with `config.json` and `model.safetensors`, or a checkpoint of
    pytorch-CycleGAN-and-pix2pix or of CUT; which one, its content says, not its name. `dropout` (whether its
    noise stays on) and `statistics` (of batch norm: `batch`, of the picture, or `running`, of the training)
    replace what a model file says. A checkpoint says neither, and by default it is used as its authors did:
    with the statistics of the picture, and with the noise of whatever dropout it has; that is what its keys
    tell of a residual generator, and a U-Net is taken to have dropout with batch norm (the published pix2pix
    models) and none otherwise. Where there is only instance norm and no dropout there is nothing to choose.
    `direction` names the direction of a checkpoint (default `a2b`); a model file must agree with it. `generator` is the
    module of an own network (`i2i.train(generator=...)`); a copy of it gets the weights of the model file.

    Raises `ModelError` naming the file for anything else, `UsageError` for options that do not fit it.
    """
    path = Path(path)
    if direction not in (None, *DIRECTIONS):
        raise UsageError(f"direction {direction!r}: expected {' or '.join(DIRECTIONS)}")
    if path.is_dir():
        network, info = from_pretrained(path)
    elif is_checkpoint(path):
        network, info = _from_checkpoint(path, "b2a" if direction == "b2a" else "a2b", dropout)
    else:
        network, info = model_file.load(path, generator)
    if direction not in (None, info.direction):
        arrow = f"{info.direction} ({info.input_domain} → {info.output_domain})"
        raise UsageError(f"{path} translates {arrow}, not {direction}")
    if dropout is not None:
        if dropout and not info.config.get("dropout"):
            raise UsageError(f"{path}: this network has no dropout that could stay on")
        info = replace(info, dropout=dropout)
    return network, info if statistics is None else replace(info, statistics=statistics)


def weights_sha256(path: Path) -> str:
    """The SHA-256 of the weights at `path`: that which a model file states of itself; of a checkpoint, of the file."""
    data = (path / WEIGHTS_NAME if path.is_dir() else path).read_bytes()
    if path.is_dir() or looks_like_safetensors(path):
        return model_file.body_sha256(data)
    return hashlib.sha256(data).hexdigest()


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is no folder and no model file, so that `open_model` takes it for a checkpoint."""
    if path.is_dir():
        return False
    if looks_like_safetensors(path):
        return _has_reference_keys(path)
    return path.suffix != ".safetensors"


def _has_reference_keys(path: Path) -> bool:
    try:
        return junyanz.has_reference_keys(path)
    except ModelError:
        return False  # reading it as a model file says why


def _from_checkpoint(path: Path, direction: Direction, dropout: bool | None) -> tuple[nn.Module, ModelInfo]:
    config, weights = junyanz.load(path, dropout=dropout)
    if not isinstance(config, GeneratorConfig):
        raise ModelError(f"{path}: a discriminator ({config.kind}), which translates nothing; expected a generator")
    info = describe(config, direction=direction, dropout=config.dropout)
    return junyanz.build(config, weights), replace(info, training=Training())  # it was not i2i that trained it


def save_pretrained(folder: Path | str, network: nn.Module, info: ModelInfo, *, replace: bool = True) -> None:
    """Write `config.json` (all of `info`) and `model.safetensors` into `folder`, which is made if need be.

    `replace` as in `atomic_write`.

    Raises `ModelError` as `model_file.save` does, `OutputError` if the folder cannot be written.
    """
    folder = Path(folder)
    try:
        data = to_safetensors(model_file.checked_weights(network, info), {"format": "pt"})
    except ModelError as error:
        raise ModelError(f"{folder}: not written: {error}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from None
    text = to_json(info, model_file.body_sha256(data), indent=2) + "\n"
    atomic_write(folder / WEIGHTS_NAME, lambda file: file.write(data), replace=replace)
    atomic_write(folder / CONFIG_NAME, lambda file: file.write(text.encode()), replace=replace)


def from_pretrained(folder: Path | str) -> tuple[nn.Module, ModelInfo]:
    """The network (on the CPU, float32, in eval mode) and the description that `save_pretrained` wrote.

    `config.json` is at most 1 MiB and 16 levels deep; the weights are held to what it describes.
    Raises `ModelError` naming the file.
    """
    config, weights = Path(folder) / CONFIG_NAME, Path(folder) / WEIGHTS_NAME
    current = config
    try:
        info, digest = parse(read_bounded(config, MAX_INFO_BYTES))
        info = info.completed()
        current = weights
        return model_file.load_network(weights, read_header(weights), info, digest), info
    except ModelError as error:
        raise ModelError(f"{current}: {error}") from None
