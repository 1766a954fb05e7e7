"""Tensors through a translator: their check, and the way there and back."""

import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from i2i.errors import ImageError, UsageError
from i2i.inference.blend import Blend
from i2i.inference.scaling import Size, resized

if TYPE_CHECKING:
    from torch import Tensor

    from i2i.inference.translator import Translator

_OVERSHOOT = 0.5
"""How far resampling may leave [-1, 1]; what is further out was never a picture in this range."""


def translate(translator: "Translator", tensor: "Tensor", size: Size | None, blend: Blend) -> "Tensor":
    """(C, H, W) or (N, C, H, W) in [-1, 1] translated: in its type, on its device.

    Raises `UsageError` for other channels than the translator takes, and for a mask of another size.
    """
    check_channels(translator, tensor)
    batch = tensor.detach().float().reshape(-1, *tensor.shape[-3:])
    try:
        blend.check_mask(tensor.shape[-2:])
        result = _blended(blend, batch, _batch(translator, batch, size)).to(device=tensor.device, dtype=tensor.dtype)
    except ImageError as error:
        raise UsageError(f"the picture {error}") from None
    # copied here, outside of inference mode, so that the caller may use it in a graph
    return result.clone() if tensor.dim() == 4 else result[0].clone()


def _batch(translator: "Translator", batch: "Tensor", size: Size | None) -> "Tensor":
    import torch

    info, coding = translator.info, translator.coding
    own = batch.shape[-2], batch.shape[-1]
    shape = own if size is None else resized(*own, size)
    if len(batch) == 0:
        indices = coding.outputs is not None and coding.outputs.indexed
        channels = translator.model.spec.out_channels if info.plain else 1 if indices else 3
        return torch.empty(0, channels, *shape)
    if not info.plain or shape != own or translator.network_size(*own) != own:
        planes = [translator.translate_planes(one, size) for one in batch.cpu().numpy()]
        return torch.from_numpy(np.stack(planes))
    return translator.model.tensor(batch)


def _blended(blend: Blend, batch: "Tensor", made: "Tensor") -> "Tensor":
    if blend.is_whole or not len(batch):
        return made
    import torch

    both = zip(batch.cpu().numpy(), made.cpu().numpy(), strict=True)
    return torch.from_numpy(np.stack([blend.of_planes(own, new) for own, new in both]))


def check_channels(translator: "Translator", tensor: "Tensor") -> None:
    """Raises `UsageError` unless `tensor` is (C, H, W) or (N, C, H, W) of floating point, with the channels to take."""
    indices = translator.coding.inputs and tensor.dim() in (3, 4) and tensor.shape[-3] == 1
    channels = 1 if indices else translator.picture_channels  # class indices, as pixels
    if tensor.dim() not in (3, 4) or tensor.shape[-3] != channels or 0 in tensor.shape[-2:]:
        raise UsageError(f"a tensor {tuple(tensor.shape)}; expected ({channels}, H, W) or (N, {channels}, H, W)")
    if not tensor.is_floating_point():
        raise UsageError(f"a tensor of {tensor.dtype}; expected floating point in [-1, 1]")


def check_range(tensor: "Tensor") -> None:
    """Raises `UsageError` for a tensor that is no picture in [-1, 1]; warns once where it seems to be in [0, 1]."""
    if tensor.numel() == 0:
        return
    low, high = (float(value) for value in tensor.detach().aminmax())
    if not max(-low, high) <= 1 + _OVERSHOOT:  # so that NaN is refused
        hint = "; x / 127.5 - 1 brings 0 to 255 there" if low >= 0 and high > 1 else ""
        raise UsageError(f"a tensor with values from {low:.4g} to {high:.4g}; expected a picture in [-1, 1]{hint}")
    if 0 <= low < high <= 1:  # one of a single value says nothing
        _warn_of_range()


@cache
def _warn_of_range() -> None:
    """Once in a process."""
    warnings.warn(
        "a tensor that seems to be in [0, 1], as ToTensor() gives it; a translator takes a picture in [-1, 1]: "
        "x * 2 - 1",
        stacklevel=6,  # who called the translator
    )
