"""A network as an ONNX file, of free batch size, height and width, checked against torch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from i2i.acceleration import accelerate, shared_copy
from i2i.errors import UsageError
from i2i.files import atomic_write
from i2i.inference.scaling import padded
from i2i.models.info import ModelInfo, to_json
from i2i.networks.blocks import for_translation

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
        raise UsageError("ONNX has no place for the noise of dropout, which stays on in this model: --dropout False")
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
                raise UsageError(f"--half: {name} has numbers beyond 65,504, the largest of 16 bits; leave it out")
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
