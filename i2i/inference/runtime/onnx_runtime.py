"""Running a network with ONNX Runtime on the CPU, in float32. Only converting needs torch."""

from typing import TYPE_CHECKING, Any

from i2i.inference.runtime.protocol import ConvertedModel, Cpu, Planes
from i2i.machine import Session, threads

if TYPE_CHECKING:
    from torch import nn


def version() -> str:
    """Returns the version of the library, on which a conversion depends."""
    return str(silent_onnxruntime().__version__)


def silent_onnxruntime() -> Any:
    """The library, told once more to report to nobody: it may have been imported before i2i."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxRuntime(Session):
    """A converted network; sizes are free."""

    name, precision = "onnx", "fp32"

    def __init__(self, converted: ConvertedModel) -> None:
        super().__init__()
        self.device, self._network = Cpu(), converted.files["onnx"]
        self.held  # noqa: B018 - what cannot be read is noticed now

    def __getstate__(self) -> dict[str, Any]:
        return {"device": self.device, "_network": self._network}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state)

    def start(self) -> Any:
        onnxruntime = silent_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # it plans for pictures of one size
        options.enable_cpu_mem_arena = False  # it grows by doubling, and gives nothing back
        return onnxruntime.InferenceSession(self._network, options, providers=["CPUExecutionProvider"])

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        with self.alone:
            session = self.held
        try:
            result: Planes = session.run(None, {session.get_inputs()[0].name: batch})[0]
        except Exception as error:  # its own, `Fail`, which is nothing but an `Exception`
            if "alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return result


def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
    """`network`, which is in its mode of translation, as an ONNX file.

    `side` is a height and width that it takes. Raises what torch raises for what it cannot convert.
    """
    from i2i.inference.export import onnx_bytes

    return {"onnx": onnx_bytes(network, channels, side)}
