"""A trained generator from wherever it lies: a model file, a folder, a checkpoint, a plain state dict.

Names and shapes of a state dict of ours, `torch.save(generator.state_dict(), "mine.pth")`, tell nearly all of its
configuration. They tell neither padding nor `input_share`, which take their
defaults here, nor dropout, nor whether convolutions with biases stand before instance norm (as assumed here) or before
none. A module given as `generator` says otherwise.
"""

import copy
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2i.config import checked
from i2i.errors import ModelError, UsageError
from i2i.models import junyanz, model_file
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
from i2i.models.metadata import body_sha256, looks_like_safetensors, naming, read_header
from i2i.models.state_dicts import (
    Shapes,
    StateDict,
    read,
    refuse_changed_filters,
    refuse_nonfinite,
    refuse_other_shapes,
    without_prefixes,
)
from i2i.networks import GeneratorConfig, Own, OwnNetwork
from i2i.networks.blocks import Upsampling
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig
from i2i.networks.unet import UNetConfig


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
    if is_checkpoint(path):
        network, info = _from_checkpoint(path, "b2a" if direction == "b2a" else "a2b", dropout, generator)
    else:
        network, info = model_file.load(path, generator)
    if direction not in (None, info.direction):
        arrow = f"{info.direction} ({info.input_domain} → {info.output_domain})"
        raise UsageError(f"{path} translates {arrow}, not {direction}; leave the direction out")
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
        return "i2i" not in read_header(path).metadata
    except ModelError:
        return False  # reading it as a model file says why


def _from_checkpoint(
    path: Path, direction: Direction, dropout: bool | None, generator: nn.Module | None
) -> tuple[nn.Module, ModelInfo]:
    with naming(path):
        network, config = _opened(path, dropout, generator)
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
    ours = without_prefixes(state_dict, is_ours)
    if is_ours(ours):
        refuse_changed_filters(ours)
        config = recognised(ours)
        return junyanz.build(config, ours), config
    found, weights = junyanz.convert(state_dict, dropout=dropout)
    if not isinstance(found, GeneratorConfig):
        raise ModelError(f"a discriminator ({found.kind}), which translates nothing; expected a generator")
    return junyanz.build(found, weights), found


def _is_known(names: Collection[str]) -> bool:
    return junyanz.looks_known(names) or is_ours(names)


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


_MARKS = ("stem.conv.weight", "coarse.0.conv.weight", "down.0.conv.weight")
_GIVE = "give the module, such as generator=i2i.create_generator"


def is_ours(names: Collection[str]) -> bool:
    """Returns whether these may be the names of one of our generators."""
    return any(mark in names for mark in _MARKS)


def recognised(state_dict: Mapping[str, Tensor]) -> ResnetConfig | UNetConfig | CoarseToFineConfig:
    """Returns the configuration of the generator whose state dict this is.

    Raises `ModelError` for names or shapes of another network, and for a configuration that they do not tell.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    find = _resnet if "stem.conv.weight" in shapes else _coarse_to_fine if "coarse.0.conv.weight" in shapes else _unet
    try:
        config = checked(find(shapes))
    except (KeyError, IndexError, ValueError) as error:  # ValueError: a weight of another number of dimensions
        raise ModelError(f"looks like one of our generators, but {error} is missing or has another shape") from None
    except UsageError as error:
        raise ModelError(f"looks like one of our generators, but {error}") from None
    with torch.device("meta"):
        expected = config.build().state_dict()
    refuse_other_shapes(shapes, {name: tuple(tensor.shape) for name, tensor in expected.items()})
    return config


def _count(shapes: Shapes, pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in shapes)


def _normalised(shapes: Shapes, norm: str, convolution: str) -> dict[str, Any]:
    """Returns the normalisation by its weight and the biases of a convolution before one."""
    biased = f"{convolution}.bias" in shapes
    if f"{norm}.weight" in shapes:
        return {"norm": "batch", "bias": True if biased else None}
    if not biased:
        raise ModelError(
            f"its convolutions have neither biases nor batch norm: that is norm='instance' or norm='none'; "
            f"{_GIVE}(name, norm='none', bias=False)"
        )
    return {"norm": "instance"}


def _resnet(shapes: Shapes) -> ResnetConfig:
    separable = "down.0.conv.pointwise.weight" in shapes
    head = shapes["head.pointwise.weight" if separable else "head.weight"]
    width, channels, *_ = shapes["stem.conv.weight"]
    blur = "down.0.conv.downsample.filt" if separable else "down.0.downsample.filt"
    return ResnetConfig(
        in_channels=channels,
        out_channels=head[0],
        width=width,
        blocks=_count(shapes, r"blocks\.\d+\.conv1\.(pointwise\.)?weight"),
        downsampling="antialiased" if blur in shapes else "strided",
        upsampling=_upsampling(shapes, "up.0.conv" if separable else "up.0", separable),
        separable=separable,
        **_normalised(shapes, "stem.norm", "stem.conv"),
    )


def _upsampling(shapes: Shapes, stage: str, separable: bool) -> Upsampling:
    if f"{stage}.upsample.blur.filt" in shapes:
        return "smooth"
    if f"{stage}.upsample.filt" in shapes:
        return "antialiased"
    if separable:  # of one channel each, their kernels have one shape
        raise ModelError(
            "its keys do not tell strided from resize upsampling; "
            f"{_GIVE}('mobile_resnet_9blocks', upsampling='resize')"
        )
    first, second, *_ = shapes[f"{stage}.conv.weight"]
    return "strided" if first > second else "resize"  # a transposed convolution has the channels of its input first


def _unet(shapes: Shapes) -> UNetConfig:
    depth = _count(shapes, r"down\.\d+\.conv\.weight")
    width, channels, *_ = shapes["down.0.conv.weight"]
    normalised = _normalised(shapes, "down.1.norm", "down.0.conv")
    return UNetConfig(
        in_channels=channels,
        out_channels=shapes[f"up.{depth - 1}.conv.weight"][1],  # transposed: (in, out, 4, 4)
        width=width,
        depth=depth,
        dropout=normalised["norm"] == "batch",  # as the published pix2pix
        attention=_attention(shapes, width, depth),
        **normalised,
    )


def _attention(shapes: Shapes, width: int, depth: int) -> int:
    if "attention.f.weight" not in shapes:
        return 0
    channels = shapes["attention.f.weight"][1]
    places = [halvings for halvings in range(1, depth) if width * min(1 << (halvings - 1), 8) == channels]
    by_name = depth - 5  # `unet_<size>_attention` has it where 32 pixels are left
    if by_name in places:
        return by_name
    if len(places) != 1:
        raise ModelError(
            f"its keys do not tell after how many halvings its self-attention stands ({places}); "
            f"{_GIVE}('unet_{1 << depth}', attention=N)"
        )
    return places[0]


def _coarse_to_fine(shapes: Shapes) -> CoarseToFineConfig:
    out_channels, width, *_ = shapes["head.weight"]
    enhancers = _count(shapes, r"enhancers\.\d+\.front\.0\.conv\.weight")
    fine = _count(shapes, r"enhancers\.0\.back\.\d+\.conv1\.weight")
    return CoarseToFineConfig(
        in_channels=shapes["coarse.0.conv.weight"][1],
        out_channels=out_channels,
        width=width,
        enhancers=enhancers,
        halvings=_count(shapes, r"coarse\.\d+\.conv\.weight") // 2,
        blocks=_count(shapes, r"coarse\.\d+\.conv1\.weight"),
        fine_blocks=fine if enhancers else CoarseToFineConfig.fine_blocks,
        **_normalised(shapes, "coarse.0.norm", "coarse.0.conv"),
    )
