"""Which runtime and which precision: the fastest that is there and exact enough, or the one asked for.

On a CPU OpenVINO starts sooner than torch and is the faster one, but for wide residual generators in fp32; ONNX
Runtime is slower than both and is used only where it is asked for (docs/lab-book.md).
"""

from importlib.util import find_spec
from typing import Literal

from i2i.errors import UsageError
from i2i.translation.model_info import ModelInfo
from i2i.translation.options import Precision, RuntimeName
from i2i.translation.runtime import processor

Chosen = Literal["torch", "openvino", "onnx"]
_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
_WIDTHS = range(32, 129)
"""Channels at full resolution with which it was measured to be faster, and residual blocks have no more than the 512
that `networks.winograd` is for."""
_PIXELS = 1 << 20
"""From so many on torch makes up for its later start (docs/lab-book.md)."""
NAMES = {"openvino": "OpenVINO", "onnx": "ONNX Runtime"}


def choose_runtime(asked: RuntimeName, device: str, compiled: bool = False) -> Chosen:
    """The runtime for that kind of device, `compiled` by torch or not.

    Raises `UsageError` for one that is not installed or not for it.
    """
    if compiled and asked in NAMES:
        raise UsageError(f"compile = True: it is torch that compiles; leave it out with {NAMES[asked]}")
    if compiled:
        return "torch"
    if asked == "torch" or (asked == "auto" and not (device == "cpu" and _installed("openvino"))):
        return "torch"
    chosen: Chosen = "openvino" if asked == "auto" else asked
    if device != "cpu":
        raise UsageError(f"runtime = {chosen!r}: {NAMES[chosen]} is used on the CPU only; {device} needs torch")
    if not _installed(chosen):
        raise UsageError(
            f'runtime = {chosen!r}: {NAMES[chosen]} is not installed (pip install "i2i[{chosen}]"); '
            "torch is always there"
        )
    return chosen


def choose_precision(asked: Precision, runtime: Chosen, device: str, gpu_has_bf16: bool = False) -> Precision:
    """fp32, bf16 or fp16; `auto` is bf16 where it is computed by the hardware itself.

    Raises `UsageError` for what the device or the runtime has not.
    """
    if device != "cpu":
        reduced = device == "cuda" and gpu_has_bf16
        return ("bf16" if reduced else "fp32") if asked == "auto" else asked
    if asked == "fp16":
        raise UsageError("precision = 'fp16' needs a GPU; a CPU has fp32 and bf16")
    if asked == "bf16" and runtime == "onnx":
        raise UsageError("precision = 'bf16': ONNX Runtime computes in fp32 on a CPU; openvino and torch have bf16")
    if asked == "bf16" and not processor.has_bf16():
        raise UsageError("precision = 'bf16': this processor has no bf16 (AVX-512 BF16 or AMX); use fp32")
    if asked == "auto":
        return "bf16" if runtime != "onnx" and processor.has_bf16() else "fp32"
    return asked


def torch_is_faster(info: ModelInfo, precision: Precision, pixels: int | None) -> bool:
    """Whether torch, which has `networks.winograd`, does so many pixels (None: many) sooner than OpenVINO."""
    if precision != "fp32" or info.network != "resnet" or (pixels is not None and pixels < _PIXELS):
        return False
    if info.config.get("separable"):  # nothing for `winograd` is left
        return False
    return int(info.config.get("width", 64)) in _WIDTHS and int(info.config.get("blocks", 9)) > 0


def _installed(runtime: str) -> bool:
    # a folder of that name, without code, has no origin
    return (spec := find_spec(_PACKAGES[runtime])) is not None and spec.origin is not None
