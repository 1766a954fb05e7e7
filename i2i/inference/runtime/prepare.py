"""The choice of a runtime and its preparation from a model, by conversion or from the result of an earlier one.

On a CPU OpenVINO starts sooner than torch and is faster, but for wide residual generators in float32. ONNX Runtime is
slower than both and is used only where it is asked for (docs/lab-book.md).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from i2i import machine
from i2i.errors import I2IError, UsageError
from i2i.inference.loaded_model import LoadedModel, Origin
from i2i.inference.memory import bytes_per_pixel
from i2i.inference.options import ModelOptions, Precision, RuntimeName
from i2i.inference.runtime import cache, onnx_runtime, openvino_runtime
from i2i.inference.runtime.protocol import ConvertedModel, Cpu, Device, InputSpec, Runtime
from i2i.inference.scaling import painted_size
from i2i.machine import place
from i2i.models.info import FROM_NOISE, OWN, ModelInfo

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
    """Returns the runtime for that kind of device, `compiled` by torch or not.

    Raises `UsageError` for one that is not installed or does not run there.
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
    """Returns fp32, bf16 or fp16; `auto` is bf16 where the hardware itself computes it.

    Raises `UsageError` for a precision that the device or the runtime lacks.
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
    """Returns whether torch, which has `acceleration.winograd`, translates so many pixels (None: many) sooner than
    OpenVINO."""
    if precision != "fp32" or info.network != "resnet" or (pixels is not None and pixels < _PIXELS):
        return False
    if info.config.get("separable"):  # nothing for `winograd` is left
        return False
    return int(info.config.get("width", 64)) in _WIDTHS and int(info.config.get("blocks", 9)) > 0


def _installed(runtime: str) -> bool:
    # a folder of that name, without code, has no origin
    return (spec := find_spec(_PACKAGES[runtime])) is not None and spec.origin is not None


_MODULES: Any = {"openvino": openvino_runtime, "onnx": onnx_runtime}


def check(options: ModelOptions) -> None:
    """Raises `UsageError` for a device, a runtime or a precision that no model could have here."""
    device = device_of(options)
    _precision(options.precision, choose_runtime(options.runtime, device.type, options.compile), device)


def load_file(path: Path, options: ModelOptions, sizes: Sequence[tuple[int, int]] | None = None) -> LoadedModel:
    """Loads the model at `path`, as `pretrained.open_model` takes it, into the runtime of `options`.

    `sizes` are the heights and widths of the pictures to be translated; None: many. A model that was converted before
    is used again, and then nothing imports torch.

    Raises `ModelError` as `open_model` does, `UsageError` for a device, a runtime or a precision that is not there or
    does not fit the model.
    """
    device = device_of(options)
    chosen = choose_runtime(options.runtime, device.type, options.compile)
    notices: tuple[str, ...] = ()
    if reason := _not_imported(chosen):
        if options.runtime != "auto":
            raise UsageError(f"runtime = {chosen!r}: {NAMES[chosen]} is installed, but cannot be imported: {reason}")
        notices = (f"{NAMES[chosen]} cannot be imported ({reason}): torch is used instead",)
        chosen = "torch"
    precision = _precision(options.precision, chosen, device)
    key = cache_key(path, chosen, options)
    found = cache.get(key) if chosen != "torch" and key is not None else None
    if found is not None and not (
        options.runtime == "auto" and torch_is_faster(found.info, precision, network_pixels(sizes, options, found.info))
    ):
        try:
            runtime = _run(chosen, found, precision)
            return LoadedModel(runtime, found.info, found.spec, seed=options.seed, origin=Origin(path, options, key))
        except Exception:  # whatever a runtime makes of a conversion that it cannot read: it is made anew below
            pass
    loaded = _opened(path, options, sizes, device, chosen, precision, key)
    # a conversion that fails ends at torch, whose key is another
    key = key if loaded.runtime.name == chosen else cache_key(path, "torch", options)
    loaded.notices, loaded.origin = notices + loaded.notices, Origin(path, options, key)
    return loaded


def network_pixels(sizes: Sequence[tuple[int, int]] | None, options: ModelOptions, info: ModelInfo) -> int | None:
    """Returns how many pixels go through the network; None: many."""
    if sizes is None:
        return None
    paint_size = options.paint_size_of(info)
    return sum(math.prod(painted_size(height, width, paint_size)) for height, width in sizes)


def _not_imported(chosen: Chosen) -> str:
    """Returns why a runtime that is installed cannot be imported, if so."""
    try:
        _version(chosen)
    except Exception as error:  # a missing library, another version of NumPy, half an upgrade
        return _last_line(error)
    return ""


def _opened(
    path: Path,
    options: ModelOptions,
    sizes: Sequence[tuple[int, int]] | None,
    device: Device,
    chosen: Chosen,
    precision: Precision,
    key: str | None,
) -> LoadedModel:
    from i2i.models import pretrained

    network, info = pretrained.open_model(
        path, direction=options.direction, dropout=options.dropout, statistics=options.norm_stats
    )
    # what the model file was when its hash was taken, it must still be
    keep = key if chosen != "torch" and key is not None and cache_key(path, chosen, options) == key else None
    pixels = network_pixels(sizes, options, info)
    return load_network(network, info, device, options, chosen, precision, keep, pixels)


def load_network(
    network: "nn.Module",
    info: ModelInfo,
    device: Device,
    options: ModelOptions,
    chosen: Chosen,
    precision: Precision,
    keep: str | None = None,
    pixels: int | None = None,
) -> LoadedModel:
    """Loads `network`, which is put into its mode of translation for good, into the runtime `chosen`.

    If only `auto` chose it, torch runs what it cannot run, and what torch runs faster. A conversion is kept in the
    cache under the name `keep`.
    """
    from i2i.networks.blocks import for_translation

    config = info.network_config()
    if info.network in FROM_NOISE:
        raise UsageError(f"{info.network} makes pictures from noise: use i2i sample")
    spec = InputSpec(config.in_channels, config.out_channels, config.size_multiple, config.minimum_size, None)
    for_translation(network, info.statistics, info.dropout)
    noisy = _is_noisy(network)
    asked = options.runtime
    if info.network == OWN and asked not in ("auto", "torch"):  # a conversion could lose what its code decides
        raise UsageError(f"runtime = {asked!r}: an own generator runs with torch")
    if info.network == OWN or (asked == "auto" and torch_is_faster(info, precision, pixels)):
        chosen = "torch"
    if chosen != "torch" and noisy and asked != "auto":
        raise UsageError(
            f"runtime = {chosen!r}: the noise of dropout, which stays on in this model, is torch's; "
            "use torch, or dropout = False"
        )
    notices: tuple[str, ...] = ()
    if chosen != "torch" and not noisy:
        try:
            spec = replace(spec, bytes_per_pixel=bytes_per_pixel(config, chosen))  # now, as later there is no torch
            converted = ConvertedModel(info, spec, _MODULES[chosen].convert(network, spec.in_channels, _side(spec)))
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
            return LoadedModel(runtime, info, spec, seed=options.seed)
    import torch

    from i2i.inference.runtime.torch_runtime import TorchRuntime

    by_torch = TorchRuntime(network, torch.device(str(device)), precision, options.compile)
    return LoadedModel(by_torch, info, spec, seed=options.seed, noisy=noisy, notices=notices)


def _side(spec: InputSpec) -> int:
    """Returns a height and width that the network takes, at least 64."""
    return -(-max(64, spec.minimum_size) // spec.size_multiple) * spec.size_multiple


def device_of(options: ModelOptions) -> Device:
    """Returns the device by its name. Torch is imported only where the answer depends on it. Raises `UsageError`."""
    elsewhere = options.device == "auto" and options.runtime in ("auto", "torch") and machine.may_have_gpu()
    if options.device == "cpu" or (options.device == "auto" and not elsewhere):
        return Cpu()
    from i2i.device import choose_device

    here = place()  # started by torchrun, each process has a device of its own
    return choose_device(options.device, here.local_rank, here.world_size)


def gpu_has_bf16(device: Any) -> bool:
    """Returns whether `device` is a CUDA device with matrix units for bf16."""
    if device.type != "cuda":
        return False
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)


def _precision(asked: Precision, chosen: Chosen, device: Device) -> Precision:
    return choose_precision(asked, chosen, device.type, gpu_has_bf16(device))


def _is_noisy(network: "nn.Module") -> bool:
    from torch import nn

    return any(isinstance(module, nn.Dropout) and module.training for module in network.modules())


def _run(chosen: Chosen, converted: ConvertedModel, precision: str) -> Runtime:
    if chosen == "onnx":
        return onnx_runtime.OnnxRuntime(converted)
    return openvino_runtime.OpenVINORuntime(converted, precision)


def cache_key(path: Path, runtime: str, options: ModelOptions) -> str | None:
    """Returns a name for the content of the model at `path` as it is now, and for how it is used."""
    used = {"direction": options.direction, "dropout": options.dropout, "norm_stats": options.norm_stats}
    return cache.key(path, runtime, _version(runtime), used)


def _version(runtime: str) -> str:
    return str(_MODULES[runtime].version()) if runtime != "torch" else ""


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
