"""The choice of a runtime and its preparation from a model, by conversion or from the result of an earlier one.

On a CPU OpenVINO starts sooner than torch and is faster, but for wide residual generators in float32. ONNX Runtime is
slower than both and is used only where it is asked for (docs/lab-book.md).
"""

import math
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from i2i import machine
from i2i.errors import I2IError, UsageError
from i2i.inference.memory import bytes_per_pixel
from i2i.inference.options import Precision, RuntimeName
from i2i.inference.runtime import cache, onnx_runtime, openvino_runtime
from i2i.inference.runtime.protocol import Converted, Cpu, Device, Runtime, Traits
from i2i.inference.scaling import painted_size
from i2i.machine import place
from i2i.models.info import FROM_NOISE, NOT_PAINTED, ModelInfo, Statistics

if TYPE_CHECKING:
    from torch import nn


Chosen = Literal["torch", "openvino", "onnx"]
_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
_WIDTHS = range(32, 129)
"""Channels at full resolution with which it was measured to be faster, and residual blocks have no more than the 512
that `acceleration.winograd` is for."""
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
    if asked == "bf16" and not machine.has_bf16():
        raise UsageError("precision = 'bf16': this processor has no bf16 (AVX-512 BF16 or AMX); use fp32")
    if asked == "auto":
        return "bf16" if runtime != "onnx" and machine.has_bf16() else "fp32"
    return asked


def torch_is_faster(info: ModelInfo, precision: Precision, pixels: int | None) -> bool:
    """Whether torch, which has `acceleration.winograd`, does so many pixels (None: many) sooner than OpenVINO."""
    if precision != "fp32" or info.network != "resnet" or (pixels is not None and pixels < _PIXELS):
        return False
    if info.config.get("separable"):  # nothing for `winograd` is left
        return False
    return int(info.config.get("width", 64)) in _WIDTHS and int(info.config.get("blocks", 9)) > 0


def _installed(runtime: str) -> bool:
    # a folder of that name, without code, has no origin
    return (spec := find_spec(_PACKAGES[runtime])) is not None and spec.origin is not None


_MODULES: Any = {"openvino": openvino_runtime, "onnx": onnx_runtime}


@dataclass(frozen=True)
class Prepared:
    """A runtime, what is known of its network, and whether that draws noise; `network` if it had to be opened.

    `notices` say why another runtime was not taken; `key` is what `cache_key` said of the model's file, if any.
    """

    runtime: Runtime
    info: ModelInfo
    traits: Traits
    noisy: bool = False
    network: "nn.Module | None" = None
    notices: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What is asked of a runtime, as `ModelOptions` has it."""

    device: str = "auto"
    runtime: RuntimeName = "auto"
    precision: Precision = "auto"
    direction: str | None = None
    dropout: bool | None = None
    norm_stats: Statistics | None = None
    sizes: tuple[tuple[int, int], ...] | None = None
    """Heights and widths of the pictures to be translated; None: many."""
    compile: bool = False
    paint_size: int | None = None

    def paint_size_of(self, info: ModelInfo) -> int:
        """The paint size asked for, or else that of the model. Raises `UsageError` for a model that paints nothing."""
        if self.paint_size and not info.plain:
            raise UsageError(f"paint_size = {self.paint_size}: {NOT_PAINTED}; leave it out")
        return info.paint_size if self.paint_size is None else self.paint_size

    def pixels(self, info: ModelInfo) -> int | None:
        """How many go through the network; None: many."""
        if self.sizes is None:
            return None
        paint_size = self.paint_size_of(info)
        return sum(math.prod(painted_size(height, width, paint_size)) for height, width in self.sizes)

    def check(self) -> None:
        """What can be known before there is a model. Raises `UsageError`."""
        device = device_of(self)
        _precision(self.precision, choose_runtime(self.runtime, device.type, self.compile), device)


def prepare_file(path: Path, wanted: Wanted) -> Prepared:
    """The model at `path`, as `pretrained.open_model` takes it, in the runtime that is wanted.

    Raises `ModelError` as that does, `UsageError` for a device, a runtime or a precision that is not there or
    does not fit the model. A converted model is used again, and then nothing imports torch.
    """
    device = device_of(wanted)
    chosen = choose_runtime(wanted.runtime, device.type, wanted.compile)
    notices: tuple[str, ...] = ()
    if reason := _not_imported(chosen):
        if wanted.runtime != "auto":
            raise UsageError(f"runtime = {chosen!r}: {NAMES[chosen]} is installed, but cannot be imported: {reason}")
        notices = (f"{NAMES[chosen]} cannot be imported ({reason}): torch is used instead",)
        chosen = "torch"
    precision = _precision(wanted.precision, chosen, device)
    key = cache_key(path, chosen, wanted)
    converted = cache.get(key) if chosen != "torch" and key is not None else None
    if converted is not None and not (
        wanted.runtime == "auto" and torch_is_faster(converted.info, precision, wanted.pixels(converted.info))
    ):
        try:
            return Prepared(_run(chosen, converted, precision), converted.info, converted.traits, key=key)
        except Exception:  # whatever a runtime makes of a conversion that it cannot read: it is made anew below
            pass
    prepared = _opened(path, wanted, device, chosen, precision, key)
    # a conversion that fails ends at torch, whose key is another
    key = key if prepared.runtime.name == chosen else cache_key(path, "torch", wanted)
    return replace(prepared, notices=notices + prepared.notices, key=key)


def _not_imported(chosen: Chosen) -> str:
    """Why a runtime that is installed cannot be imported, if so."""
    try:
        _version(chosen)
    except Exception as error:  # a missing library, another version of NumPy, half an upgrade
        return _last_line(error)
    return ""


def _opened(
    path: Path, wanted: Wanted, device: Device, chosen: Chosen, precision: Precision, key: str | None
) -> Prepared:
    from i2i.models import pretrained

    network, info = pretrained.open_model(
        path, direction=wanted.direction, dropout=wanted.dropout, statistics=wanted.norm_stats
    )
    # what the model file was when its hash was taken, it must still be
    keep = key if chosen != "torch" and key is not None and cache_key(path, chosen, wanted) == key else None
    return prepare_network(
        network, info, device, wanted.runtime, chosen, precision, keep, wanted.pixels(info), wanted.compile
    )


def prepare_network(
    network: "nn.Module",
    info: ModelInfo,
    device: Device,
    asked: RuntimeName,
    chosen: Chosen,
    precision: Precision,
    keep: str | None = None,
    pixels: int | None = None,
    compiled: bool = False,
) -> Prepared:
    """`network`, which is put into its mode of translation for good, in the runtime `chosen`.

    If only `auto` chose it, torch does what it cannot do, and what torch does sooner. `keep` is the name under which a
    conversion is kept.
    """
    from i2i.networks.blocks import for_translation

    config = info.network_config()
    if info.network in FROM_NOISE:
        raise UsageError(f"{info.network} makes pictures from noise: use i2i sample")
    traits = Traits(config.in_channels, config.out_channels, config.size_multiple, config.minimum_size, None)
    for_translation(network, info.statistics, info.dropout)
    noisy = _is_noisy(network)
    if asked == "auto" and torch_is_faster(info, precision, pixels):
        chosen = "torch"
    if chosen != "torch" and noisy and asked != "auto":
        raise UsageError(
            f"runtime = {chosen!r}: the noise of dropout, which stays on in this model, is torch's; "
            "use torch, or dropout = False"
        )
    notices: tuple[str, ...] = ()
    if chosen != "torch" and not noisy:
        try:
            side = -(-max(64, config.minimum_size) // config.size_multiple) * config.size_multiple
            traits = replace(traits, bytes_per_pixel=bytes_per_pixel(config, chosen))  # now, as later there is no torch
            converted = Converted(info, traits, _MODULES[chosen].convert(network, config.in_channels, side))
            runtime = _run(chosen, converted, precision)
        except I2IError:
            raise
        except Exception as error:
            reason = _last_line(error)
            if asked != "auto":
                raise UsageError(f"runtime = {chosen!r}: it cannot take this network: {reason}") from error
            notices = (f"{NAMES[chosen]} cannot take this network ({reason}): torch is used instead",)
        else:
            if keep is not None:
                cache.put(keep, converted)
            return Prepared(runtime, info, traits, network=network)
    import torch

    from i2i.inference.runtime.torch_runtime import TorchRuntime

    target = torch.device(str(device))
    return Prepared(TorchRuntime(network, target, precision, compiled), info, traits, noisy, network, notices)


def device_of(wanted: Wanted) -> Device:
    """The device by its name. Raises `UsageError` as `choose_device`, which is asked only if need be: it is torch's."""
    elsewhere = wanted.device == "auto" and wanted.runtime in ("auto", "torch") and machine.may_have_gpu()
    if wanted.device == "cpu" or (wanted.device == "auto" and not elsewhere):
        return Cpu()
    from i2i.device import choose_device

    here = place()  # started by torchrun, each process has a device of its own
    return choose_device(wanted.device, here.local_rank, here.world_size)


def gpu_has_bf16(device: Any) -> bool:
    """Whether `device` is a CUDA device with matrix units for bf16."""
    if device.type != "cuda":
        return False
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)


def _precision(asked: Precision, chosen: Chosen, device: Device) -> Precision:
    return choose_precision(asked, chosen, device.type, gpu_has_bf16(device))


def _is_noisy(network: "nn.Module") -> bool:
    from torch import nn

    return any(isinstance(module, nn.Dropout) and module.training for module in network.modules())


def _run(chosen: Chosen, converted: Converted, precision: str) -> Runtime:
    if chosen == "onnx":
        return onnx_runtime.OnnxRuntime(converted)
    return openvino_runtime.OpenVINORuntime(converted, precision)


def cache_key(path: Path, runtime: str, wanted: Wanted) -> str | None:
    """What stands for the content of the model at `path` as it is now, and for how it is used."""
    options = {"direction": wanted.direction, "dropout": wanted.dropout, "norm_stats": wanted.norm_stats}
    return cache.key(path, runtime, _version(runtime), options)


def _version(runtime: str) -> str:
    return str(_MODULES[runtime].version()) if runtime != "torch" else ""


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
