"""The model file: one `.safetensors` per direction with all that its use needs, and no code. And a trained generator
from wherever it lies: a model file, a folder, a checkpoint, a plain state dict.

The tensors have the names of the network's state dict. The metadata key `i2i` holds the description (`models.info`),
with a hash of the bytes behind the header. A folder for the Hub holds the same in two files: `config.json` and
`model.safetensors`.
"""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from i2i.config import to_mapping
from i2i.errors import ModelError, UsageError, check_word
from i2i.files import atomic_write, make_folders
from i2i.models import junyanz
from i2i.models.info import (
    CONFIG_NAME,
    OWN,
    WEIGHTS_NAME,
    Direction,
    ModelInfo,
    Statistics,
    Training,
    describe,
    parse,
    read_text,
    to_json,
)
from i2i.models.metadata import (
    MAX_HEADER_BYTES,
    body_sha256,
    looks_like_safetensors,
    naming,
    read_header,
    regular_file,
)
from i2i.models.state_dicts import (
    FLOATS,
    StateDict,
    is_ours,
    read,
    recognised,
    refuse_changed_filters,
    refuse_nonfinite,
    refuse_other_shapes,
    shapes_of,
    tensors_of,
    without_prefixes,
)
from i2i.networks import GeneratorConfig, Own, OwnConfig, OwnNetwork

_MOST_BYTES = 8  # of a number
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def save(
    path: Path | str,
    network: nn.Module,
    info: ModelInfo,
    dtype: torch.dtype = torch.float32,
    *,
    replace: bool = True,
) -> None:
    """Writes the weights of `network` and `info` to `path`, whole or not at all; `replace` as in `atomic_write`.

    As `torch.float16` the weights take half the bytes and are rounded, by at most 1 in 2,048 of each. Raises
    `ModelError` if the weights are not those of `info`'s configuration or not finite in that type, or `info`
    could not be read back; `OutputError` if the file cannot be written.
    """
    with naming(f"{path}: not written"):
        weights = _checked_weights(network, info, dtype)
    data = to_safetensors(weights, {"i2i": to_json(info, body_sha256(to_safetensors(weights)))})
    atomic_write(Path(path), lambda file: file.write(data), replace=replace)


def save_pretrained(folder: Path | str, network: nn.Module, info: ModelInfo, *, replace: bool = True) -> None:
    """Writes `config.json` (all of `info`) and `model.safetensors` into `folder`, which is made if need be.

    `replace` as in `atomic_write`. Raises `ModelError` as `save` does, `OutputError` if the folder cannot be written.
    """
    folder = Path(folder)
    with naming(f"{folder}: not written"):
        data = to_safetensors(_checked_weights(network, info), {"format": "pt"})
    make_folders(folder)
    text = to_json(info, body_sha256(data), indent=2) + "\n"
    atomic_write(folder / WEIGHTS_NAME, lambda file: file.write(data), replace=replace)
    atomic_write(folder / CONFIG_NAME, lambda file: file.write(text.encode()), replace=replace)


def _checked_weights(network: nn.Module, info: ModelInfo, dtype: torch.dtype = torch.float32) -> StateDict:
    """Returns the state dict of `network`, its numbers as `dtype`, if it and `info` could be read back.

    Raises `ModelError`.
    """
    parse(to_json(info, ""))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    refuse_nonfinite(weights)
    if info.network == OWN:  # the file cannot hold one tensor under two names
        return {name: tensor.clone() for name, tensor in weights.items()}
    refuse_other_shapes(shapes_of(weights), shapes_of(_on_meta(info.network_config()).state_dict()))
    refuse_changed_filters(weights)
    return weights


def _on_meta(config: GeneratorConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def load(path: Path | str, generator: nn.Module | None = None) -> tuple[nn.Module, ModelInfo]:
    """Returns the network (on the CPU, float32, in eval mode) and the description in a model file or in a folder.

    The file of an own network takes a copy of `generator`, with whose class it was trained. Nothing is believed before
    it is bounded: sizes and names are compared with those of the network before a weight is read. Raises `ModelError`
    naming the file and the key, `UsageError` for a `generator` that the file does not need.
    """
    path = Path(path)
    weights, described = (path / WEIGHTS_NAME, path / CONFIG_NAME) if path.is_dir() else (path, path)
    with naming(described):
        info, digest = parse(read_text(described))
        config = info.network_config()
        # each value spelled out, and no dropout where the network has none
        info = replace(info, config=to_mapping(config), dropout=info.dropout and config.dropout)
    with naming(weights):
        _, shapes = read_header(weights)
        if generator is None:
            network = _on_meta(config)
        elif isinstance(config, OwnConfig):
            network = OwnNetwork(copy.deepcopy(generator), config)
        else:
            raise UsageError(f"generator: the file holds a {info.network}, which needs no module; leave it out")
        expected = network.state_dict()
        refuse_other_shapes(shapes, shapes_of(expected))
        regular_file(weights, MAX_HEADER_BYTES + sum(_MOST_BYTES * tensor.numel() for tensor in expected.values()))
        found = tensors_of(weights, digest)
        for name, tensor in found.items():
            if tensor.dtype not in (FLOATS if expected[name].is_floating_point() else _INTEGERS):
                raise ModelError(f"{name}: {tensor.dtype} cannot be its weights")
        refuse_nonfinite(found)
        if generator is None:
            refuse_changed_filters(found)
    # built without drawing initial weights, so that the caller's random numbers are left alone; in float32, as it was
    own = {name: value.to(expected[name].dtype) for name, value in found.items()}
    network.load_state_dict(own, assign=True)
    return network.eval(), info


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
    check_word("direction", direction, Direction | None)
    check_word("statistics", statistics, Statistics | None)
    if is_checkpoint(path):
        network, info = _from_checkpoint(path, "b2a" if direction == "b2a" else "a2b", dropout, generator)
    else:
        network, info = load(path, generator)
    if direction not in (None, info.direction):
        raise UsageError(f"{path} translates {info.arrow}, not {direction}; leave the direction out")
    if dropout is not None:
        if dropout and not info.config.get("dropout"):
            raise UsageError(f"{path}: this network has no dropout that could stay on")
        info = replace(info, dropout=dropout)
    return network, info if statistics is None else replace(info, statistics=statistics)


def weights_sha256(path: Path) -> str:
    """Returns the SHA-256 of the weights at `path`: that of a model file's weights, or that of a checkpoint's file."""
    data = (path / WEIGHTS_NAME if path.is_dir() else path).read_bytes()
    if path.is_dir() or looks_like_safetensors(path):
        return body_sha256(data)
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
        return "i2i" not in read_header(path)[0]
    except ModelError:
        return False  # reading it as a model file says why


def _from_checkpoint(
    path: Path, direction: Direction, dropout: bool | None, generator: nn.Module | None
) -> tuple[nn.Module, ModelInfo]:
    with naming(path):
        weights = read(path, own=generator is not None)
        if generator is not None:
            network, config = _with_weights(copy.deepcopy(generator), weights)
        else:
            config, weights = _converted(weights, dropout)
            network = junyanz.build(config, weights)
    own = config.kind == OWN
    info = describe(
        config, direction=direction, statistics="running" if own else "batch", dropout=config.dropout and not own
    )
    return network, replace(info, training=Training())  # it was not i2i that trained it


def _converted(state_dict: StateDict, dropout: bool | None) -> tuple[GeneratorConfig, StateDict]:
    refuse_nonfinite(state_dict)
    ours = without_prefixes(state_dict, is_ours)
    if is_ours(ours):
        refuse_changed_filters(ours)
        return recognised(ours), ours
    config, weights = junyanz.convert(state_dict, dropout=dropout)
    if not isinstance(config, GeneratorConfig):
        raise ModelError(f"a discriminator ({config.kind}), which translates nothing; expected a generator")
    return config, weights


def _with_weights(generator: nn.Module, state_dict: StateDict) -> tuple[nn.Module, GeneratorConfig]:
    """Fills `generator`, whose state dict may have been saved through a wrapper."""
    expected = shapes_of(generator.state_dict())
    weights = without_prefixes(state_dict, lambda names: set(expected) <= set(names))
    refuse_other_shapes(shapes_of(weights), expected)
    refuse_nonfinite(weights)
    generator.load_state_dict(weights)
    config = getattr(generator, "config", None)
    if not isinstance(config, GeneratorConfig):
        channels = (int(getattr(generator, name, 3)) for name in ("in_channels", "out_channels"))
        config = Own.of(generator).config(*channels)
        generator = OwnNetwork(generator, config)
    return generator.eval(), config
