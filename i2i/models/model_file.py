"""The model file: one `.safetensors` per direction with all that its use needs, and no code.

The tensors have the names of the network's state dict. The metadata key `i2i` holds the description (`models.info`),
with a hash of the bytes behind the header. `refuse_hostile` and its neighbours check the tensors of any file.
"""

import copy
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from i2i.errors import ModelError, UsageError
from i2i.files import atomic_write
from i2i.models.info import (
    DIRECTIONS,
    FORMAT_VERSION,
    Direction,
    ModelInfo,
    Training,
    describe,
    document,
    parse,
    read_info,
    to_json,
)
from i2i.models.metadata import MAX_TENSORS, Header, read_header
from i2i.networks.blocks import blur_filter
from i2i.networks.own import OwnConfig, OwnNetwork

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


__all__ = [
    "DIRECTIONS",
    "FORMAT_VERSION",
    "Direction",
    "ModelInfo",
    "Training",
    "describe",
    "load",
    "read_info",
    "save",
]

_FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_INTEGERS = {"I64": 8}


def save(
    path: Path | str,
    network: nn.Module,
    info: ModelInfo,
    dtype: torch.dtype = torch.float32,
    *,
    replace: bool = True,
) -> None:
    """Write the weights of `network` and `info` to `path`, whole or not at all; `replace` as in `atomic_write`.

    As `torch.float16` the weights take half the bytes and are rounded, by at most 1 in 2,048 of each. Raises
    `ModelError` if the weights are not those of `info`'s configuration or not finite in that type, or `info`
    could not be read back; `OutputError` if the file cannot be written.
    """
    try:
        weights = checked_weights(network, info, dtype)
    except ModelError as error:
        raise ModelError(f"{path}: not written: {error}") from None
    data = to_safetensors(weights, {"i2i": to_json(info, body_sha256(to_safetensors(weights)))})
    atomic_write(Path(path), lambda file: file.write(data), replace=replace)


def load(path: Path | str, generator: nn.Module | None = None) -> tuple[nn.Module, ModelInfo]:
    """The network (on the CPU, float32, in eval mode) and the description in a model file. The file of an own network
    takes a copy of `generator`, whose class it was trained with.

    Nothing is believed before it is bounded: sizes and names are compared with what the configuration builds
    before a weight is read. Raises `ModelError` naming the file and the key.
    """
    path = Path(path)
    try:
        header = read_header(path)
        info, digest = parse(document(header.metadata))
        info = info.completed()
        return load_network(path, header, info, digest, generator), info
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def checked_weights(network: nn.Module, info: ModelInfo, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The state dict of `network`, its numbers as `dtype`, if it and `info` could be read back. Raises `ModelError`."""
    parse(to_json(info, ""))
    weights = {name: _stored(tensor, dtype) for name, tensor in network.state_dict().items()}
    own = isinstance(network, OwnNetwork)
    _compare({name: tuple(t.shape) for name, t in weights.items()}, weights if own else _on_meta(info).state_dict())
    refuse_nonfinite(weights)
    if not own:
        refuse_changed_filters(weights)
    return weights


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def body_sha256(data: bytes) -> str:
    """The SHA-256 of what follows the header of a `.safetensors` file."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()


def load_network(
    path: Path, header: Header, info: ModelInfo, sha256: str, generator: nn.Module | None = None
) -> nn.Module:
    """The network of `info` with the weights in the file at `path`, whose header is `header`; `generator` as in `load`.

    Raises `ModelError` naming the key: other names, shapes or dtypes, another hash, numbers that are not finite.
    """
    network = _on_meta(info) if generator is None else _own(info, generator)
    expected = network.state_dict()
    _compare({name: shape for name, (_, shape) in header.tensors.items()}, expected)
    body = 0
    for name, (dtype, shape) in header.tensors.items():
        sizes = _FLOATS if expected[name].is_floating_point() else _INTEGERS
        if dtype not in sizes:
            raise ModelError(f"{name}: dtype {dtype[:20]} cannot be its weights")
        body += math.prod(shape) * sizes[dtype]
    if body != header.body:
        raise ModelError(f"damaged: {header.body:,} bytes of weights; its network has {body:,}")
    weights = _weights(path, sha256)
    refuse_nonfinite(weights)
    if generator is None:
        refuse_changed_filters(weights)
    # built without drawing initial weights, so that the caller's random numbers are left alone; in float32, as it was
    own = {name: value.to(expected[name].dtype) for name, value in weights.items()}
    network.load_state_dict(own, assign=True)
    return network.eval()


def _weights(path: Path, sha256: str) -> dict[str, Tensor]:
    # read, not mapped into memory: a mapped file that shrinks under us would kill the process
    try:
        data = path.read_bytes()
        weights = from_safetensors(data)
    except Exception as error:  # SafetensorError, OSError, and what else damaged bytes lead to
        raise ModelError(f"not a model file (.safetensors), or damaged: {error}") from None
    if sha256 and body_sha256(data) != sha256:
        raise ModelError("damaged: its weights do not match their SHA-256; fetch or export it again")
    return weights


def _on_meta(info: ModelInfo) -> nn.Module:
    config = info.network_config()
    with torch.device("meta"):
        return config.build()


def _own(info: ModelInfo, generator: nn.Module) -> OwnNetwork:
    """A copy of `generator`, to be filled. Raises `UsageError` if the file brings a network with a name."""
    config = info.network_config()
    if not isinstance(config, OwnConfig):
        raise UsageError(f"generator: the file holds a {info.network}, which needs no module; leave it out")
    return OwnNetwork(copy.deepcopy(generator), config)


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise ModelError(f"{name} is missing")
        if found[name] != tuple(tensor.shape):
            raise ModelError(f"{name} has the shape {found[name]}; its network has {tuple(tensor.shape)}")
    for name in found:
        if name not in expected:
            raise ModelError(f"{name[:100]} has no place in its network")
