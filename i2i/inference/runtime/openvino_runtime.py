"""Running a network with OpenVINO on the CPU. Only converting needs torch."""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from i2i.errors import UsageError
from i2i.inference.runtime.protocol import ConvertedModel, Cpu, Planes
from i2i.machine import Session, threads

if TYPE_CHECKING:
    from torch import nn

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_KERNELS = 64
"""How many compiled kernels are kept for sizes of pictures other than the last: each takes memory, and saves little."""


def version() -> str:
    """Returns the version of the library, on which a conversion depends."""
    from openvino import __version__

    return str(__version__)


class _Core(Session):
    """The one core of a process, which stays to its end.

    A core gives the thread that makes it a stack for signals, and frees that stack when it ends. The thread goes on
    using it if another thread, or a core that was made later, came between; the next signal then ends the process.
    """

    def start(self) -> Any:
        import openvino

        return openvino.Core()


_CORE = _Core()


class OpenVINORuntime(Session):
    """A converted network in `precision`; sizes are free."""

    name = "openvino"

    def __init__(self, converted: ConvertedModel, precision: str) -> None:
        super().__init__()
        self.device, self.precision = Cpu(), precision
        self._network = converted.files["xml"].decode()
        self._weights = np.frombuffer(converted.files["bin"], np.uint8).copy()
        self.held  # noqa: B018 - what cannot be read is noticed now

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("device", "precision", "_network", "_weights")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state)

    def start(self) -> Any:
        _check_here()
        import openvino

        with _CORE.alone:
            core = _CORE.held
        # shared: the compiled network goes on using this memory, which lives as long as this object
        model = core.read_model(self._network, openvino.Tensor(self._weights, shared_memory=True))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],  # unless told it takes bf16 where the processor has it
            "INFERENCE_NUM_THREADS": threads(),
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        }
        return core.compile_model(model, "CPU", options).create_infer_request()

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        with self.alone:
            try:
                results = self.held.infer([np.ascontiguousarray(batch)], share_inputs=True)
            except RuntimeError as error:
                if "alloc" in str(error):
                    raise MemoryError(str(error)) from None
                raise
            result: Planes = np.array(results[0], np.float32)
        return result


def _check_here() -> None:
    """Raises `UsageError` in a folder that may not be searched, where OpenVINO ends the process."""
    if not os.access(".", os.X_OK):
        raise UsageError("the current folder may not be searched, which OpenVINO has to: go to another one")


def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
    """`network`, which is in its mode of translation, as OpenVINO's intermediate representation.

    `side` is a height and width that it takes. Raises what torch or OpenVINO raise for what they cannot convert.
    """
    import openvino
    import torch

    from i2i.acceleration import accelerate, shared_copy

    # OpenVINO has its own instance norm, and as group norm it would lay out every tensor anew (docs/lab-book.md)
    example = torch.zeros(1, channels, side, side)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, about Python values that are constant here
        exported = accelerate(shared_copy(network.cpu()), "inference", engine="exported")
        traced = torch.jit.trace(exported, example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    model.reshape([-1, channels, -1, -1])
    return _serialised(model)


def _serialised(model: Any) -> dict[str, bytes]:
    import tempfile
    from pathlib import Path

    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return {"xml": path.read_bytes(), "bin": path.with_suffix(".bin").read_bytes()}
