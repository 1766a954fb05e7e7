"""The model file: one `.safetensors` per direction with all that its use needs, and no code.

The tensors have the names of the network's state dict. The metadata key `i2i` holds the description (`models.info`),
with a hash of the bytes behind the header. A folder for the Hub holds the same in two files: `config.json` and
`model.safetensors`.
"""

import copy
import math
from pathlib import Path

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from i2i.errors import ModelError, UsageError
from i2i.files import atomic_write, make_folders
from i2i.models.info import CONFIG_NAME, OWN, WEIGHTS_NAME, ModelInfo, parse, read_text, to_json
from i2i.models.metadata import Header, body_sha256, naming, read_header
from i2i.models.state_dicts import refuse_changed_filters, refuse_nonfinite, refuse_other_shapes
from i2i.networks import OwnConfig, OwnNetwork

_FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_INTEGERS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}


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


def load(path: Path | str, generator: nn.Module | None = None) -> tuple[nn.Module, ModelInfo]:
    """Returns the network (on the CPU, float32, in eval mode) and the description in a model file or in a folder.

    The file of an own network takes a copy of `generator`, with whose class it was trained. Nothing is believed before
    it is bounded: sizes and names are compared with those of the network before a weight is read. Raises `ModelError`
    naming the file and the key, `UsageError` for a `generator` that the file does not need.
    """
    path = Path(path)
    weights = path / WEIGHTS_NAME if path.is_dir() else path
    described = path / CONFIG_NAME if path.is_dir() else path
    with naming(described):
        info, digest = parse(read_text(described))
        info = info.completed()
    with naming(weights):
        return _filled(weights, read_header(weights), info, digest, generator), info


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


def _checked_weights(network: nn.Module, info: ModelInfo, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Returns the state dict of `network`, its numbers as `dtype`, if it and `info` could be read back.

    Raises `ModelError`.
    """
    parse(to_json(info, ""))
    weights = {name: _stored(tensor, dtype) for name, tensor in network.state_dict().items()}
    refuse_nonfinite(weights)
    if info.network == OWN:  # the file cannot hold one tensor under two names
        return {name: tensor.clone() for name, tensor in weights.items()}
    refuse_other_shapes(_shapes(weights), _shapes(_on_meta(info).state_dict()))
    refuse_changed_filters(weights)
    return weights


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _filled(path: Path, header: Header, info: ModelInfo, sha256: str, generator: nn.Module | None) -> nn.Module:
    """Returns the network of `info`, or a copy of `generator`, with the weights in the file at `path`.

    Raises `ModelError` naming the key: other names, shapes or dtypes, another hash, numbers that are not finite.
    """
    network = _on_meta(info) if generator is None else _own(info, generator)
    expected = network.state_dict()
    refuse_other_shapes({name: shape for name, (_, shape) in header.tensors.items()}, _shapes(expected))
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
    config = info.network_config()
    if not isinstance(config, OwnConfig):
        raise UsageError(f"generator: the file holds a {info.network}, which needs no module; leave it out")
    return OwnNetwork(copy.deepcopy(generator), config)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
