"""State dicts in files of others: `.pth` files of `torch.save`, and `.safetensors`. No code in a file is ever run."""

import re
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor

from i2i.errors import ModelError
from i2i.models.metadata import MAX_TENSORS, looks_like_safetensors, read_header, regular_file
from i2i.models.pickles import check_pickles
from i2i.networks.blocks import blur_filter

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
IsKnown = Callable[[Collection[str]], bool]
"""Tells whether these may be the names of a known network."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_PREFIX = 4  # names that a key has before those of its network


def read(path: Path, is_known: IsKnown = lambda names: False, *, own: bool = False) -> StateDict:
    """Returns the state dict in the file at `path`: dense tensors on the CPU, in their own types.

    It may be an entry of a dict, such as `{"state_dict": …, "epoch": 3}`: the only one, or the only one with the names
    of a known network. `own`: it is of a module of the
    author's own, which may have integers and one tensor under several names; its shapes are compared before any use.

    Raises `ModelError`, without the file's name, for anything else. A flipped bit is noticed by the checksums of a zip
    file; files of torch before 1.6 have none.
    """
    if looks_like_safetensors(path):
        size, content = regular_file(path), _from_safetensors(path)
    else:
        size = check_pickles(path)
        content = _unwrapped(_from_pickle(path), is_known)
    refuse_hostile(content, size, own)
    if {"networks", "architecture"} <= set(content):
        raise ModelError("a training state, to go on from, and no model: its run has model files (a2b.safetensors)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"entry {name[:80]!r} is a {type(value).__name__}, not a tensor; expected a state dict")
    return dict(content)


def _from_safetensors(path: Path) -> Mapping[Any, Any]:
    read_header(path)
    try:
        # not mapped into memory: a mapped file that shrinks under us would kill the process
        return from_safetensors(path.read_bytes())
    except Exception as error:  # whatever its library makes of odd bytes
        raise ModelError(f"damaged: {error}") from None


def _from_pickle(path: Path) -> dict[Any, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):
            # not mapped, as above
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # whatever bytes can do to the restricted unpickler
        raise ModelError(f"cannot be read as a checkpoint: {_reason(error)}") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"holds a {type(content).__name__}, not a state dict")
    return _as_dict(content)


def _as_dict(content: Mapping[Any, Any]) -> dict[Any, Any]:
    if set(getattr(content, "__dict__", {})) - {"_metadata"}:  # they could replace its methods
        raise ModelError("holds a dict with attributes, not a plain state dict")
    return dict(content)


def _unwrapped(content: dict[Any, Any], is_known: IsKnown) -> Mapping[Any, Any]:
    """Returns the one state dict among the entries of a training's checkpoint, whatever its key.

    The names of a known network tell it; without them, that it holds tensors alone.
    """
    if _has_known_names(content, is_known):
        return content
    nested = {key: _as_dict(value) for key, value in content.items() if isinstance(value, Mapping)}
    found = {key: value for key, value in nested.items() if _has_known_names(value, is_known)}
    if not found:
        if any(isinstance(value, Tensor) for value in content.values()):
            return content
        found = {k: v for k, v in nested.items() if v and all(isinstance(entry, Tensor) for entry in v.values())}
    if len(found) > 1:
        names = ", ".join(repr(key)[:60] if isinstance(key, str) else type(key).__name__ for key in list(found)[:6])
        raise ModelError(f"holds {len(found)} state dicts ({names}); save the one that is meant to a file of its own")
    return next(iter(found.values()), content)


def _has_known_names(content: Mapping[Any, Any], is_known: IsKnown) -> bool:
    names = {_without_wrapper(key) for key in content if isinstance(key, str)}
    return is_known(names) or bool(_common_prefix(names, is_known))


def without_prefixes(state_dict: Mapping[str, Any], is_known: IsKnown) -> dict[str, Any]:
    """Returns the state dict without `module.` and `_orig_mod.`, and without a prefix that all keys have (`netG.`).

    Raises `ModelError` for keys that are then alike.
    """
    tensors: dict[str, Any] = {}
    for key, value in state_dict.items():
        name = _without_wrapper(key)
        if name in tensors:
            raise ModelError(f"{name} occurs twice, with and without the prefix of a wrapper")
        tensors[name] = value
    prefix = "" if is_known(tensors) else _common_prefix(tensors, is_known)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _without_wrapper(key: str) -> str:
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def _common_prefix(names: Collection[str], is_known: IsKnown) -> str:
    """Returns what all names begin with, up to a dot, where those of a known network follow; such as `netG.`."""
    first = next(iter(names), "")
    for dot in islice(re.finditer(r"\.", first), _MAX_PREFIX):
        prefix = first[: dot.end()]
        if not all(name.startswith(prefix) for name in names):
            return ""
        if is_known({name.removeprefix(prefix) for name in names}):
            return prefix
    return ""


def _reason(error: Exception) -> str:
    """Returns torch's message without its advice to load the file unsafely."""
    message = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it holds code or objects ({found[1]}), not weights alone; such files are never run"
    if "weights_only" in message:
        return "it holds code or objects, not weights alone; such files are never run"
    first = message.strip().partition("\n")[0][:200]
    return f"damaged or not written by torch.save ({type(error).__name__}: {first})"


# tensors, whatever file they come from


def refuse_hostile(tensors: Mapping[str, Any], size: int, own: bool = False) -> None:
    """Refuses, by name, tensors of a file of `size` bytes that are no plain weights, without reading their numbers.

    Sparse, quantised, complex or (unless `own`) integer tensors, but for batch norm's counter; and tensors larger than
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
            _refuse_odd(name, tensor, own)
            used += tensor.numel() * tensor.element_size()
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                storages.add(storage.data_ptr())
                stored += storage.nbytes()
            if stored > size:
                raise ModelError(f"{name}: the tensors up to it take {stored:,} bytes, and the file has {size:,}")
            if used > stored and not own:
                raise ModelError(f"{name}: shape {tuple(tensor.shape)} is larger than what is stored for it")


def _refuse_odd(name: str, tensor: Tensor, own: bool) -> None:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_nested:
        raise ModelError(f"{name}: a {type(tensor).__name__}, not a plain tensor")
    if vars(tensor):
        raise ModelError(f"{name}: a tensor with attributes, not a plain tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ModelError(f"{name}: {tensor.layout} on {tensor.device}; expected a dense tensor with numbers")
    counter = name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
    whole = own and not tensor.is_floating_point() and not tensor.is_complex()
    if tensor.dtype not in FLOATS and not counter and not whole:
        raise ModelError(f"{name}: {tensor.dtype}; expected float32, float64, float16 or bfloat16")


def refuse_nonfinite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses, by name, a tensor with a NaN or an infinity, or a number that is one in float32."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ModelError(f"{name}: not finite (NaN, infinity, or beyond the range of float32)")


def refuse_changed_filters(tensors: Mapping[str, Tensor]) -> None:
    """Refuses, by name, a blur filter (`filt`) that is not the binomial one, which is the same in every network."""
    for name, tensor in tensors.items():
        if name.endswith(".filt") and not torch.equal(tensor.float(), blur_filter(tensor.shape[-1]).expand_as(tensor)):
            raise ModelError(f"{name}: not the binomial blur filter of CUT's networks")


def refuse_other_shapes(found: Shapes, expected: Shapes) -> None:
    """Refuses, by name, the first difference between the names and shapes of a file and those of its network."""
    for name, shape in expected.items():
        if name not in found:
            raise ModelError(f"{name} is missing")
        if found[name] != shape:
            raise ModelError(f"{name} has the shape {found[name]}; its network has {shape}")
    for name in found:
        if name not in expected:
            raise ModelError(f"{name[:100]} has no place in its network")
