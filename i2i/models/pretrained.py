"""A trained generator from wherever it lies: a model file, a folder, a checkpoint, a plain state dict."""

import copy
import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from torch import nn

from i2i.errors import ModelError, UsageError
from i2i.models import junyanz, model_file, recognition
from i2i.models.info import (
    CONFIG_NAME,
    DIRECTIONS,
    OWN,
    WEIGHTS_NAME,
    Direction,
    ModelInfo,
    Statistics,
    Training,
    describe,
)
from i2i.models.metadata import looks_like_safetensors, read_header
from i2i.models.state_dicts import (
    StateDict,
    read,
    refuse_changed_filters,
    refuse_nonfinite,
    refuse_other_shapes,
    without_prefixes,
)
from i2i.networks import GeneratorConfig
from i2i.networks.own import Own, OwnNetwork


def open_model(
    path: Path | str,
    *,
    direction: str | None = None,
    dropout: bool | None = None,
    statistics: Statistics | None = None,
    generator: nn.Module | None = None,
) -> tuple[nn.Module, ModelInfo]:
    """Returns the generator (on the CPU, float32, in eval mode) at `path` and its description.

    `path` is a model file, a folder with `config.json` and `model.safetensors`, a checkpoint of pytorch-CycleGAN-and-
    pix2pix or CUT, or the state dict of one of our generators; its content says which, not its name. A copy of
    `generator` takes the weights of an own network, and those of a state dict that does not tell its configuration.

    `dropout` (whether its noise stays on) and `statistics` (of batch norm: `batch`, of the picture, or `running`, of
    the training) replace what a model file says. A checkpoint says neither, and by default it is used as its authors
    did: with the statistics of the picture, and with the noise of whatever dropout it has. The keys of the reference's
    residual generator tell its dropout; a U-Net is taken to have dropout with batch norm (the published pix2pix models)
    and none otherwise. An own network uses the statistics of its training and no dropout.

    `direction` names the direction of a checkpoint (default `a2b`); a model file must agree with it.

    Raises `ModelError` naming the file for anything else, `UsageError` for options that do not fit it.
    """
    path = Path(path)
    if direction not in (None, *DIRECTIONS):
        raise UsageError(f"direction {direction!r}: expected {' or '.join(DIRECTIONS)}")
    if path.is_dir():
        network, info = model_file.from_pretrained(path, generator)
    elif is_checkpoint(path):
        network, info = _from_checkpoint(path, "b2a" if direction == "b2a" else "a2b", dropout, generator)
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
    """Returns the SHA-256 of the weights at `path`: that of a model file's weights, or that of a checkpoint's file."""
    data = (path / WEIGHTS_NAME if path.is_dir() else path).read_bytes()
    if path.is_dir() or looks_like_safetensors(path):
        return model_file.body_sha256(data)
    return hashlib.sha256(data).hexdigest()


def is_checkpoint(path: Path) -> bool:
    """Returns whether `open_model` takes the file at `path` for a checkpoint or a plain state dict."""
    if path.is_dir():
        return False
    if not looks_like_safetensors(path):
        return path.suffix != ".safetensors"
    if path.name == WEIGHTS_NAME and path.with_name(CONFIG_NAME).exists():
        return False  # their folder is the model
    try:
        return "i2i" not in read_header(path).metadata
    except ModelError:
        return False  # reading it as a model file says why


def _from_checkpoint(
    path: Path, direction: Direction, dropout: bool | None, generator: nn.Module | None
) -> tuple[nn.Module, ModelInfo]:
    try:
        network, config = _opened(path, dropout, generator)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    own = config.kind == OWN
    info = describe(
        config, direction=direction, statistics="running" if own else "batch", dropout=config.dropout and not own
    )
    return network, replace(info, training=Training())  # it was not i2i that trained it


def _opened(path: Path, dropout: bool | None, generator: nn.Module | None) -> tuple[nn.Module, GeneratorConfig]:
    state_dict = read(path, _is_known, own=generator is not None)
    if generator is not None:
        return _filled(copy.deepcopy(generator), state_dict)
    refuse_nonfinite(state_dict)
    ours = without_prefixes(state_dict, recognition.is_ours)
    if recognition.is_ours(ours):
        refuse_changed_filters(ours)
        config = recognition.recognised(ours)
        return junyanz.build(config, ours), config
    found, weights = junyanz.convert(state_dict, dropout=dropout)
    if not isinstance(found, GeneratorConfig):
        raise ModelError(f"a discriminator ({found.kind}), which translates nothing; expected a generator")
    return junyanz.build(found, weights), found


def _is_known(names: Collection[str]) -> bool:
    return junyanz.looks_known(names) or recognition.is_ours(names)


def _filled(generator: nn.Module, state_dict: StateDict) -> tuple[nn.Module, GeneratorConfig]:
    """Fills `generator`, whose state dict may have been saved through a wrapper."""
    expected = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    weights = without_prefixes(state_dict, lambda names: set(expected) <= set(names))
    refuse_other_shapes({name: tuple(tensor.shape) for name, tensor in weights.items()}, expected)
    refuse_nonfinite(weights)
    generator.load_state_dict(weights)
    config = getattr(generator, "config", None)
    if not isinstance(config, GeneratorConfig):
        channels = (int(getattr(generator, name, 3)) for name in ("in_channels", "out_channels"))
        config = Own.of(generator).config(*channels)
        generator = OwnNetwork(generator, config)
    return generator.eval(), config
