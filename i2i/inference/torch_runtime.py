"""A network in torch, on a CPU or any other device that torch knows; and as an ONNX file, checked against torch.

Dropout that stays on draws from a seed of the picture and leaves torch's global random numbers alone. An ONNX file
takes any batch size, height and width.
"""

import contextlib
import copy
import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.acceleration import DTYPES, accelerate, shared_copy
from i2i.acceleration.exchange import check_compiler, compile_in_place, refused
from i2i.acceleration.inference import Engine
from i2i.device import exact_float32
from i2i.errors import UsageError, as_typed
from i2i.files import atomic_write
from i2i.inference.runtimes import Planes
from i2i.inference.scaling import padded
from i2i.machine import keep_freed_memory
from i2i.models.info import ModelInfo, to_json
from i2i.networks import OwnNetwork
from i2i.networks.blocks import for_translation


def seed_of(picture: Tensor, seed: int = 0) -> int:
    """A number that follows from the content of `picture` and from `seed`."""
    content = picture.cpu().contiguous().numpy().tobytes()
    key = seed.to_bytes(8, "little") if seed else b""
    return int.from_bytes(hashlib.blake2b(content, digest_size=7, key=key).digest(), "little")


_ALONE = threading.Lock()  # the generators belong to the process


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and on `device` that follow from `seed`; the random states are restored."""
    with _ALONE, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        apple = torch.mps.get_rng_state() if device.type == "mps" else None
        # `torch.manual_seed` would reseed every GPU, beyond what is restored
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if apple is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)


_KEPT_MEMORY = 128 << 20


class TorchRuntime:
    """`network`, which is in its mode of translation, in `precision` on `device`, `compiled` or not.

    Raises `UsageError` if it is to be compiled and torch cannot do so, also at the first picture.
    """

    name = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: str, compiled: bool = False) -> None:
        if compiled:
            check_compiler(device)
        if device.type == "cpu":
            keep_freed_memory(_KEPT_MEMORY)
        self.device, self.precision, self._compiled = device, precision, compiled
        self._dtype = DTYPES[precision]
        self._exactly = exact_float32 if device.type == "cuda" and precision == "fp32" else nullcontext
        plain = device.type == "mps" or isinstance(network, OwnNetwork)
        self._format = torch.contiguous_format if plain else torch.channels_last
        engine: Engine = "compiled" if compiled else "eager"
        fast = accelerate(shared_copy(network), "inference", engine=engine, device=device, dtype=self._dtype)
        if self._dtype != torch.float32:
            fast = copy.deepcopy(fast)  # the weights of `network` stay float32
        self.network = fast.to(device, self._dtype).to(memory_format=self._format)
        if compiled:
            compile_in_place(self.network)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._compiled:  # compiled code is not copied
            compile_in_place(self.network)

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        x = torch.from_numpy(batch)
        if self.device.type == "cuda":
            x = x.pin_memory()
        y = self.tensor(x, seed)
        if self.device.type == "cuda":  # both ways through page-locked memory
            y = torch.empty(y.shape, pin_memory=True).copy_(y)
        result: Any = y.cpu().numpy()
        return result

    def tensor(self, x: Tensor, seed: int | None = None) -> Tensor:
        """As `run`, from a tensor on any device to one on this runtime's."""
        with torch.inference_mode():
            # the type changes there: a change before would copy pinned memory to memory that is not pinned
            x = x.to(self.device, non_blocking=True).to(self._dtype, memory_format=self._format)
            with nullcontext() if seed is None else seeded(seed, self.device):
                try:
                    with self._exactly():
                        y: Tensor = self.network(x)
                except RuntimeError as error:
                    if not self._compiled or (reason := refused(error)) is None:
                        raise
                    raise reason from None
                return y.float().contiguous()


TOLERANCE = 1e-3
"""How far the file's output may be from torch's in [-1, 1]; an 8-bit level is 8e-3."""
_WORTH_A_CAST = 64
"""Numbers of a weight from which a cast takes fewer bytes than it saves."""


def save_onnx(path: Path, network: nn.Module, info: ModelInfo, *, replace: bool = True) -> None:
    """Write `network`, which is put into its mode of translation for good, to `path`, with `info` in its metadata.

    `replace` as in `atomic_write`. Raises `UsageError` as `checked_onnx` does; `OutputError`.
    """
    data = checked_onnx(network, info)
    atomic_write(path, lambda file: file.write(data), replace=replace)


def checked_onnx(network: nn.Module, info: ModelInfo, *, compact: bool = False) -> bytes:
    """`network`, which is put into its mode of translation for good, as an ONNX file with `info` in its metadata.

    The result of ONNX Runtime is compared with that of torch first. `compact` as `half_where_exact` has it. Raises
    `UsageError` for a network whose noise of dropout is on, for packages that are not installed, and for results that
    differ.
    """
    if info.dropout:
        off = as_typed("dropout", False, is_switch=False)
        raise UsageError(f"ONNX has no place for the noise of dropout, which stays on in this model: {off}")
    for_translation(network, info.statistics)
    config, multiple = info.network_config(), info.size_multiple
    channels, side = config.in_channels, padded(64, multiple, config.minimum_size)
    data = onnx_bytes(network, channels, side, {"i2i": to_json(info, "")})
    if compact:
        data = half_where_exact(data)
    check_onnx(data, network, (1, channels, side + multiple, side + 2 * multiple))
    return data


def check_installed() -> None:
    """Raises `UsageError` if a package is missing that writes or checks a file."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UsageError(f'{missing[0]}, which writes or checks ONNX, is not installed (pip install "i2i[onnx]")')


def rounded(network: nn.Module) -> nn.Module:
    """`network` with each of its numbers as 16 bits have it. Raises `UsageError` for numbers that 16 bits lack."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
            if not tensor.isfinite().all():
                raise UsageError(f"half: {name} has numbers beyond 65,504, the largest of 16 bits; leave it out")
    return network


def half_where_exact(data: bytes) -> bytes:
    """The ONNX file with each weight of 16 bits that is the same number in 16 bits, and cast back when it is loaded.

    A bundled style has half the bytes so, and computes what it did before.
    """
    import onnx

    model = onnx.load_from_string(data)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _WORTH_A_CAST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def onnx_bytes(network: nn.Module, channels: int, side: int, metadata: dict[str, str] | None = None) -> bytes:
    """`network`, which is in its mode of translation, as an ONNX file: `input` to `output`, both (N, C, H, W).

    `side` is a height and width that it takes; any other such size will do. Raises `UsageError` as `check_installed`.
    """
    check_installed()
    example = torch.zeros(2, channels, side, side)
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings(), _quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            accelerate(shared_copy(network.cpu()), "inference", engine="exported"),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch made no ONNX program")
    model = program.model_proto
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    return bytes(model.SerializeToString())


def check_onnx(data: bytes, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Compare the file with `network` at (N, C, H, W). Raises `UsageError` if they differ by more than `TOLERANCE`."""
    from i2i.inference.runtimes import silent_onnxruntime

    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    session = silent_onnxruntime().InferenceSession(data, providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {"input": x})[0]
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    error = float(np.abs(found - expected).max())
    if not error <= TOLERANCE:
        raise UsageError(f"not written: what ONNX Runtime computes is {error:.1e} from torch's result")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and logs its progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
