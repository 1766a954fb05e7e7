"""State dicts in files of others: `.pth` files of `torch.save`, and `.safetensors`. No code in a file is ever run.

Names and shapes of a state dict of ours, `torch.save(generator.state_dict(), "mine.pth")`, tell nearly all of its
configuration. They tell neither padding nor `input_share`, which take their defaults here, nor dropout, nor whether
convolutions with biases stand before instance norm (as assumed here) or before none. A module given as `generator` says
otherwise.
"""

import re
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor

from i2i.config import checked
from i2i.errors import ModelError, UsageError
from i2i.models.metadata import MAX_TENSORS, body_sha256, looks_like_safetensors, read_header
from i2i.models.pickles import check_pickles
from i2i.networks.blocks import Upsampling, blur_filter
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig
from i2i.networks.unet import UNetConfig

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
IsKnown = Callable[[Collection[str]], bool]
"""Tells whether these may be the names of a known network."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_PREFIX = 4  # names that a key has before those of its network


def read(path: Path, *, own: bool = False) -> StateDict:
    """Returns the state dict in the file at `path`: dense tensors on the CPU, in their own types.

    It may be an entry of a dict, such as `{"state_dict": …, "epoch": 3}`: the only one, or the only one with the names
    of a known network. `own`: it is of a module of the author's own, which may have integers and one tensor under
    several names; its shapes are compared before any use.

    Raises `ModelError`, without the file's name, for anything else. A flipped bit is noticed by the checksums of a zip
    file; files of torch before 1.6 have none.
    """
    if looks_like_safetensors(path):
        read_header(path)
        content: Mapping[Any, Any] = tensors_of(path)
    else:
        check_pickles(path)
        content = _unwrapped(_from_pickle(path))
    refuse_hostile(content, own)
    if {"networks", "architecture"} <= set(content):
        raise ModelError("a training state, to go on from, and no model: its run has model files (a2b.safetensors)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"entry {name[:80]!r} is a {type(value).__name__}, not a tensor; expected a state dict")
    return dict(content)


def tensors_of(path: Path, sha256: str = "") -> StateDict:
    """Returns the tensors of a `.safetensors` file, whose bytes behind the header have that hash, if one is given.

    The header has been checked. Raises `ModelError`.
    """
    try:
        # not mapped into memory: a mapped file that shrinks under us would kill the process
        data = path.read_bytes()
        tensors = from_safetensors(data)
    except Exception as error:  # whatever its library makes of odd bytes
        raise ModelError(f"damaged: {error}; fetch or export it again") from None
    if sha256 and body_sha256(data) != sha256:
        raise ModelError("damaged: its weights do not match their SHA-256; fetch or export it again")
    return tensors


def _from_pickle(path: Path) -> dict[Any, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):
            # not mapped, as above
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # whatever bytes can do to the restricted unpickler
        raise ModelError(f"damaged or not written by torch.save ({type(error).__name__})") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"holds a {type(content).__name__}, not a state dict")
    return _as_dict(content)


def _as_dict(content: Mapping[Any, Any]) -> dict[Any, Any]:
    if set(getattr(content, "__dict__", {})) - {"_metadata"}:  # they could replace its methods
        raise ModelError("holds a dict with attributes, not a plain state dict")
    return dict(content)


def _unwrapped(content: dict[Any, Any]) -> Mapping[Any, Any]:
    """Returns the one state dict among the entries of a training's checkpoint, whatever its key.

    The names of a known network tell it; without them, that it holds tensors alone.
    """
    if _has_known_names(content):
        return content
    nested = {key: _as_dict(value) for key, value in content.items() if isinstance(value, Mapping)}
    found = {key: value for key, value in nested.items() if _has_known_names(value)}
    if not found:
        if any(isinstance(value, Tensor) for value in content.values()):
            return content
        found = {k: v for k, v in nested.items() if v and all(isinstance(entry, Tensor) for entry in v.values())}
    if len(found) > 1:
        names = ", ".join(repr(key)[:60] if isinstance(key, str) else type(key).__name__ for key in list(found)[:6])
        raise ModelError(f"holds {len(found)} state dicts ({names}); save the one that is meant to a file of its own")
    return next(iter(found.values()), content)


def _has_known_names(content: Mapping[Any, Any]) -> bool:
    names = {_without_wrapper(key) for key in content if isinstance(key, str)}
    return any(is_known(names) or bool(_common_prefix(names, is_known)) for is_known in (is_ours, is_reference))


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


# tensors, whatever file they come from


def refuse_hostile(tensors: Mapping[str, Any], own: bool = False) -> None:
    """Refuses, by name, dense tensors of a file that are no plain weights, without reading their numbers.

    Complex or (unless `own`) integer ones, but for batch norm's counter; and, unless `own`, those that are together
    larger than the memory behind them, for a copy of them could be of any size. Raises `ModelError`, also for names
    that are no text.
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
            counter = name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
            whole = own and not tensor.is_floating_point() and not tensor.is_complex()
            if tensor.dtype not in FLOATS and not counter and not whole:
                raise ModelError(f"{name}: {tensor.dtype}; expected float32, float64, float16 or bfloat16")
            used += tensor.numel() * tensor.element_size()
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                storages.add(storage.data_ptr())
                stored += storage.nbytes()
            if used > stored and not own:
                raise ModelError(f"{name}: shape {tuple(tensor.shape)} is larger than what is stored for it")


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


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def refuse_other_shapes(found: Shapes, expected: Shapes) -> None:
    """Refuses, naming the first three, differences between the names and shapes of a file and those of its network."""
    faults = [
        f"{name} has the shape {found[name]}; its network has {shape}" if name in found else f"{name} is missing"
        for name, shape in expected.items()
        if found.get(name) != shape
    ]
    faults += [f"{name[:100]} has no place in its network" for name in found if name not in expected]
    if faults:
        more = f", and {len(faults) - 3} more such faults" if len(faults) > 3 else ""
        raise ModelError(f"{'; '.join(faults[:3])}{more}")


# the generators of our own whose state dict a file may hold


_OURS = ("stem.conv.weight", "coarse.0.conv.weight", "down.0.conv.weight")
_REFERENCE = ("mlp_0.0.weight", "model.model.0.weight", "model.1.weight", "model.0.weight", "net.0.weight")
_GIVE = "give the module, such as generator=i2i.create_generator"


def is_ours(names: Collection[str]) -> bool:
    """Returns whether these may be the names of one of our generators."""
    return any(mark in names for mark in _OURS)


def is_reference(names: Collection[str]) -> bool:
    """Returns whether these may be the names of a network that `junyanz` knows, if only to refuse it."""
    return any(mark in names for mark in _REFERENCE)


def recognised(state_dict: Mapping[str, Tensor]) -> ResnetConfig | UNetConfig | CoarseToFineConfig:
    """Returns the configuration of the generator whose state dict this is.

    Raises `ModelError` for names or shapes of another network, and for a configuration that they do not tell.
    """
    shapes = shapes_of(state_dict)
    find = _resnet if "stem.conv.weight" in shapes else _coarse_to_fine if "coarse.0.conv.weight" in shapes else _unet
    try:
        config = checked(find(shapes))
    except (KeyError, IndexError, ValueError) as error:  # ValueError: a weight of another number of dimensions
        raise ModelError(f"looks like one of our generators, but {error} is missing or has another shape") from None
    except UsageError as error:
        raise ModelError(f"looks like one of our generators, but {error}") from None
    if config.norm == "none":
        raise ModelError(
            "its convolutions have neither biases nor batch norm: that is norm='instance' or norm='none'; "
            f"{_GIVE}(name, norm='none', bias=False)"
        )
    with torch.device("meta"):
        refuse_other_shapes(shapes, shapes_of(config.build().state_dict()))
    return config


def count(shapes: Shapes, pattern: str) -> int:
    """Returns how many names match `pattern` as a whole."""
    return sum(bool(re.fullmatch(pattern, name)) for name in shapes)


def normalised(shapes: Shapes, convolution: str, norm: str) -> dict[str, Any]:
    """Returns the normalisation, by its weight and by the biases of a convolution before one."""
    biased = f"{convolution}.bias" in shapes
    if f"{norm}.weight" in shapes:
        return {"norm": "batch", "bias": True if biased else None}
    return {"norm": "instance"} if biased else {"norm": "none", "bias": False}


def _resnet(shapes: Shapes) -> ResnetConfig:
    separable, subpixel = "up.0.conv.pointwise.weight" in shapes, "head.conv.weight" in shapes
    head = shapes["head.conv.weight" if subpixel else "head.pointwise.weight" if separable else "head.weight"]
    width, channels, *_ = shapes["stem.conv.weight"]
    blur = "down.0.conv.downsample.filt" if separable else "down.0.downsample.filt"
    antialiased = blur in shapes or subpixel  # which halves in its first convolution alone
    return ResnetConfig(
        in_channels=channels,
        out_channels=head[0] // 4 if subpixel else head[0],
        width=width // 4 if subpixel else width,
        subpixel=subpixel,
        blocks=count(shapes, r"blocks\.\d+\.conv1\.(pointwise\.)?weight"),
        downsampling="antialiased" if antialiased else "strided",
        upsampling=_upsampling(shapes, "up.0.conv" if separable else "up.0", separable),
        separable=separable,
        **normalised(shapes, "stem.conv", "stem.norm"),
    )


def _upsampling(shapes: Shapes, stage: str, separable: bool) -> Upsampling:
    if f"{stage}.upsample.blur.filt" in shapes:
        return "smooth"
    if f"{stage}.upsample.filt" in shapes:
        return "antialiased"
    if separable:  # their kernels have one channel each, and one shape
        raise ModelError(
            "its keys do not tell strided from resize upsampling; "
            f"{_GIVE}('mobile_resnet_9blocks', upsampling='resize')"
        )
    first, second, *_ = shapes[f"{stage}.conv.weight"]
    return "strided" if first > second else "resize"  # a transposed convolution has the channels of its input first


def _unet(shapes: Shapes) -> UNetConfig:
    depth = count(shapes, r"down\.\d+\.conv\.weight")
    width, channels, *_ = shapes["down.0.conv.weight"]
    norm = normalised(shapes, "down.0.conv", "down.1.norm")
    return UNetConfig(
        in_channels=channels,
        out_channels=shapes[f"up.{depth - 1}.conv.weight"][1],  # transposed: (in, out, 4, 4)
        width=width,
        depth=depth,
        dropout=norm["norm"] == "batch",  # as the published pix2pix
        attention=_attention(shapes, width, depth),
        **norm,
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
    enhancers = count(shapes, r"enhancers\.\d+\.front\.0\.conv\.weight")
    fine = count(shapes, r"enhancers\.0\.back\.\d+\.conv1\.weight")
    return CoarseToFineConfig(
        in_channels=shapes["coarse.0.conv.weight"][1],
        out_channels=out_channels,
        width=width,
        enhancers=enhancers,
        halvings=count(shapes, r"coarse\.\d+\.conv\.weight") // 2,
        blocks=count(shapes, r"coarse\.\d+\.conv1\.weight"),
        fine_blocks=fine if enhancers else CoarseToFineConfig.fine_blocks,
        **normalised(shapes, "coarse.0.conv", "coarse.0.norm"),
    )
