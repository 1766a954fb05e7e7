"""The model file: one `.safetensors` per direction with all that its use needs, and no code.

The tensors have the names of the network's state dict; the metadata key `i2i` holds a `ModelInfo` as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from i2i import __version__
from i2i.config import from_mapping, nearest, to_mapping
from i2i.errors import ModelError, UsageError
from i2i.images import atomic_write
from i2i.networks import NETWORKS, GeneratorConfig
from i2i.networks.blocks import Statistics
from i2i.translation.weights import MAX_TENSORS, refuse_hostile, refuse_nonfinite, regular_file

FORMAT_VERSION = 1
DIRECTIONS = ("a2b", "b2a")
Direction = Literal["a2b", "b2a"]
GENERATOR_KINDS: dict[str, Any] = {k: c for k, c in NETWORKS.items() if c in get_args(GeneratorConfig)}
MAX_INFO_BYTES = 1 << 20
MAX_HEADER_BYTES = 8 << 20
_FLOATS = {"F16", "BF16", "F32", "F64"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where the weights come from. `dataset` is the name of the data set, never a path."""

    algorithm: str = ""
    dataset: str = ""
    steps: int = 0
    images_seen: int = 0
    version: str = __version__
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "/" in self.dataset or "\\" in self.dataset:
            raise UsageError(f"dataset {self.dataset!r}: a name was expected, not a path")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model file says of its network. `describe` fills in what the network itself knows.

    `network` and `config` build it. It takes pictures of `input_domain` to `output_domain`, in `value_range`,
    height and width multiples of `size_multiple`. At translation, batch norm uses the `statistics` of the
    picture (`batch`) or of the training (`running`), and `dropout` says whether its noise stays on.
    """

    network: str
    config: dict[str, Any]
    direction: Direction
    input_domain: str
    output_domain: str
    size_multiple: int
    value_range: tuple[float, float] = (-1.0, 1.0)
    statistics: Statistics = "batch"
    dropout: bool = False
    training: Training = field(default_factory=Training)
    licence: str = ""
    format_version: int = FORMAT_VERSION

    def network_config(self) -> GeneratorConfig:
        """The configuration, held to its limits. Raises `ModelError`."""
        cls = GENERATOR_KINDS.get(self.network)
        if cls is None:
            known = ", ".join(GENERATOR_KINDS)
            hint = nearest(self.network, GENERATOR_KINDS)
            raise ModelError(f"unknown network {self.network!r}.{hint} Known: {known}.")
        try:
            config: GeneratorConfig = from_mapping(cls, self.config, f"network {self.network}")
        except UsageError as error:
            raise ModelError(str(error)) from None
        if self.size_multiple != config.size_multiple:
            raise ModelError(f"size_multiple {self.size_multiple}; this {self.network} has {config.size_multiple}")
        return config


def describe(
    network: nn.Module,
    *,
    direction: Direction,
    input_domain: str = "",
    output_domain: str = "",
    statistics: Statistics = "batch",
    dropout: bool = False,
    training: Training | None = None,
    licence: str = "",
) -> ModelInfo:
    """The description of a generator; domains are called A and B unless they have better names."""
    config: Any = network.config
    return ModelInfo(
        network=config.kind,
        config=to_mapping(config),
        direction=direction,
        input_domain=input_domain or direction[0].upper(),
        output_domain=output_domain or direction[2].upper(),
        size_multiple=config.size_multiple,
        statistics=statistics,
        dropout=dropout,
        training=training or Training(),
        licence=licence,
    )


def save(path: Path | str, network: nn.Module, info: ModelInfo) -> None:
    """Write the weights of `network` and `info` to `path`, whole or not at all.

    Raises `ModelError` if the weights are not those of `info`'s configuration or not finite, `OutputError`
    if the file cannot be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    expected = _on_meta(info.network_config()).state_dict()
    try:
        _compare({name: tuple(t.shape) for name, t in weights.items()}, expected)
        refuse_nonfinite(weights)
    except ModelError as error:
        raise ModelError(f"{path}: not written: {error}") from None
    data = to_safetensors(weights, {"i2i": json.dumps(to_mapping(info))})
    atomic_write(Path(path), lambda file: file.write(data))


def load(path: Path | str) -> tuple[nn.Module, ModelInfo]:
    """The network (on the CPU, float32, in eval mode) and the description in a model file.

    Nothing is believed before it is bounded: sizes and names are compared with what the configuration builds
    before a weight is read. Raises `ModelError` naming the file and the key.
    """
    path = Path(path)
    try:
        return _load(path)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def read_info(path: Path | str) -> ModelInfo:
    """The description in a model file, without its weights. Raises `ModelError` naming the file."""
    path = Path(path)
    try:
        with _opened(path) as file:
            return _info(file.metadata())
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _load(path: Path) -> tuple[nn.Module, ModelInfo]:
    with _opened(path) as file:
        info = _info(file.metadata())
        network = _on_meta(info.network_config())
        expected = network.state_dict()
        names = list(file.keys())
        if len(names) > MAX_TENSORS:
            raise ModelError(f"{len(names)} tensors; at most {MAX_TENSORS} are accepted")
        slices = {name: file.get_slice(name) for name in names}
        _compare({name: tuple(s.get_shape()) for name, s in slices.items()}, expected)
        for name, s in slices.items():
            if s.get_dtype() not in (_FLOATS if expected[name].is_floating_point() else {"I64"}):
                raise ModelError(f"{name}: dtype {s.get_dtype()} cannot be its weights")
        try:
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        except Exception as error:
            raise ModelError(f"damaged: {error}") from None
    refuse_hostile(weights)
    refuse_nonfinite(weights)
    # built without drawing initial weights, so that the caller's random numbers are left alone
    network.to_empty(device="cpu").load_state_dict(weights)
    return network.eval(), info


def _opened(path: Path) -> Any:
    regular_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ModelError("not a model file (.safetensors), or damaged: its header is too long")
        return safe_open(path, framework="pt", device="cpu")
    except ModelError:
        raise
    except Exception as error:  # SafetensorError, OSError, and what else damaged bytes lead to
        raise ModelError(f"not a model file (.safetensors), or damaged: {error}") from None


def _info(metadata: Mapping[str, str] | None) -> ModelInfo:
    text = (metadata or {}).get("i2i")
    if text is None:
        raise ModelError("has no metadata key 'i2i': safetensors, but not a model file of i2i")
    if len(text) > MAX_INFO_BYTES:
        raise ModelError(f"its description has {len(text)} characters; at most {MAX_INFO_BYTES} are accepted")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError("its description is not valid JSON") from None
    if not isinstance(values, dict):
        raise ModelError("its description is not a JSON object")
    return _from_json(values)


def _from_json(values: dict[str, Any]) -> ModelInfo:
    version = values.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ModelError(f"format_version {version!r}; expected {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        raise ModelError(f"format_version {version}, this i2i {__version__} reads {FORMAT_VERSION}: upgrade i2i")
    try:
        training = values.get("training", {})
        if not isinstance(training, dict):
            raise ModelError("training: not a JSON object")
        values = values | {"training": from_mapping(Training, training, "training")}
        info = from_mapping(ModelInfo, values)
    except (UsageError, TypeError) as error:
        raise ModelError(f"its description cannot be used: {error}") from None
    if tuple(info.value_range) != (-1.0, 1.0):
        raise ModelError(f"value_range {info.value_range}; format {FORMAT_VERSION} has (-1.0, 1.0)")
    return info


def _on_meta(config: GeneratorConfig) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise ModelError(f"{name} is missing")
        if found[name] != tuple(tensor.shape):
            raise ModelError(f"{name} has the shape {found[name]}; its network has {tuple(tensor.shape)}")
    for name in found:
        if name not in expected:
            raise ModelError(f"{name[:100]} has no place in its network")
