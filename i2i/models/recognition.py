"""Which of our generators a plain state dict is of: `torch.save(generator.state_dict(), "mine.pth")`.

Names and shapes tell nearly all of its configuration. They tell neither padding nor `input_share`, which take their
defaults here, nor dropout, nor whether convolutions with biases stand before instance norm (as assumed here) or before
none. A module given as `generator` says otherwise.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from i2i.config import checked
from i2i.errors import ModelError, UsageError
from i2i.models.state_dicts import Shapes, refuse_other_shapes
from i2i.networks.blocks import Upsampling
from i2i.networks.coarse_to_fine import CoarseToFineConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

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
