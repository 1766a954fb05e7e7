"""Weights from elsewhere: what is asked of their tensors before they are used."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from i2i.errors import ModelError
from i2i.networks.antialias import blur_filter
from i2i.translation.metadata import MAX_TENSORS

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def refuse_hostile(tensors: Mapping[str, Any], size: int) -> None:
    """Refuse, by name, tensors of a file of `size` bytes that are no plain weights, without reading their numbers.

    Sparse, quantised, complex or integer tensors (but for batch norm's counter), and tensors larger than
    the memory behind them (expanded, or many over one storage), for a copy of those could be of any size;
    and that memory can be no larger than the file. Raises `ModelError`, also for names that are no text.
    """
    for name in tensors:
        if not isinstance(name, str):
            raise ModelError(f"a key is of type {type(name).__name__}; expected the names of tensors")
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{len(tensors)} tensors; at most {MAX_TENSORS} are accepted")
    storages: set[int] = set()
    used = stored = 0
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            _refuse_odd(name, tensor)
            used += tensor.numel() * tensor.element_size()
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                storages.add(storage.data_ptr())
                stored += storage.nbytes()
            if stored > size:
                raise ModelError(f"{name}: the tensors up to it take {stored:,} bytes, and the file has {size:,}")
            if used > stored:
                raise ModelError(f"{name}: shape {tuple(tensor.shape)} is larger than what is stored for it")


def _refuse_odd(name: str, tensor: Tensor) -> None:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_nested:
        raise ModelError(f"{name}: a {type(tensor).__name__}, not a plain tensor")
    if vars(tensor):
        raise ModelError(f"{name}: a tensor with attributes, not a plain tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ModelError(f"{name}: {tensor.layout} on {tensor.device}; expected a dense tensor with numbers")
    counter = name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
    if tensor.dtype not in FLOATS and not counter:
        raise ModelError(f"{name}: {tensor.dtype}; expected float32, float64, float16 or bfloat16")


def refuse_nonfinite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse, by name, a tensor with a NaN or an infinity, or a number that is one in float32."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ModelError(f"{name}: not finite (NaN, infinity, or beyond the range of float32)")


def refuse_changed_filters(tensors: Mapping[str, Tensor]) -> None:
    """Refuse, by name, a blur filter (`filt`) that is not the binomial one, which is the same in every network."""
    for name, tensor in tensors.items():
        if name.endswith(".filt") and not torch.equal(tensor.float(), blur_filter(tensor.shape[-1]).expand_as(tensor)):
            raise ModelError(f"{name}: not the binomial blur filter of CUT's networks")
