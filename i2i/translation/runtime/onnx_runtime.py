"""Running a network with ONNX Runtime on the CPU, in float32. Only converting needs torch."""

from typing import TYPE_CHECKING, Any

from i2i.translation.runtime.processor import threads
from i2i.translation.runtime.protocol import Converted, Cpu, Planes

if TYPE_CHECKING:
    from torch import nn


def version() -> str:
    """What is part of a conversion's identity."""
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntime:
    """A converted network; sizes are free."""

    name, precision = "onnx", "fp32"

    def __init__(self, converted: Converted) -> None:
        import onnxruntime

        self.device = Cpu()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # it plans for pictures of one size
        self._session: Any = onnxruntime.InferenceSession(
            converted.files["onnx"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        try:
            result: Planes = self._session.run(None, {self._input: batch})[0]
        except Exception as error:  # its own, `Fail`, which is nothing but an `Exception`
            if "alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return result


def convert(network: "nn.Module", channels: int, side: int) -> dict[str, bytes]:
    """`network`, which is in its mode of translation, as an ONNX file.

    `side` is a height and width that it takes. Raises what torch raises for what it cannot convert.
    """
    from i2i.translation.export import onnx_bytes

    return {"onnx": onnx_bytes(network, channels, side)}
