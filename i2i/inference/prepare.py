"""The choice of a runtime and its preparation from a model, by conversion or from the result of an earlier one.

On a CPU OpenVINO starts sooner than torch and is faster, but for wide residual generators in float32. ONNX Runtime is
slower than both and is used only where it is asked for (docs/lab-book.md).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from i2i import machine
from i2i.errors import I2IError, UsageError
from i2i.inference.loaded_model import LoadedModel, Origin, bytes_per_pixel, open_file
from i2i.inference.options import ModelOptions, Precision, RuntimeName
from i2i.inference.runtimes import (
    CONVERTED,
    Chosen,
    ConvertedModel,
    Cpu,
    Device,
    InputSpec,
    content_key,
    keep_conversion,
    kept_conversion,
)
from i2i.inference.scaling import padded, painted_size
from i2i.models.info import FROM_NOISE, OWN, ModelInfo

if TYPE_CHECKING:
    from torch import nn

_WIDTHS = range(32, 129)
"""Channels at full resolution with which it was measured to be faster, and residual blocks have no more than the 512
that `acceleration.winograd` is for."""
_PIXELS = 1 << 20
"""From so many on torch makes up for its later start (docs/lab-book.md)."""


def choose(options: ModelOptions, device: Device) -> tuple[Chosen, Precision]:
    """The runtime and the precision for `options` on that device.

    Raises `UsageError` for those that no model could have here.
    """
    gpu_has_bf16 = False
    if device.type == "cuda":
        import torch

        gpu_has_bf16 = torch.cuda.get_device_capability(str(device)) >= (8, 0)  # matrix units for it
    chosen = choose_runtime(options.runtime, device.type, options.compile)
    return chosen, choose_precision(options.precision, chosen, device.type, gpu_has_bf16)


def choose_runtime(asked: RuntimeName, device: str, compiled: bool = False) -> Chosen:
    """The runtime for that kind of device, `compiled` by torch or not.

    Raises `UsageError` for one that is not installed or does not run there.
    """
    if compiled and asked in CONVERTED:
        raise UsageError(f"compile = True: it is torch that compiles; leave it out with {CONVERTED[asked].title}")
    if compiled or asked == "torch" or (asked == "auto" and not (device == "cpu" and _installed("openvino"))):
        return "torch"
    chosen: Chosen = "openvino" if asked == "auto" else asked
    title = CONVERTED[chosen].title
    if device != "cpu":
        raise UsageError(f"runtime = {chosen!r}: {title} is used on the CPU only; {device} needs torch")
    if not _installed(chosen):
        raise UsageError(
            f'runtime = {chosen!r}: {title} is not installed (pip install "i2i[{chosen}]"); torch is always there'
        )
    return chosen


def _installed(runtime: str) -> bool:
    # a folder of that name, without code, has no origin
    return (spec := find_spec(CONVERTED[runtime].package)) is not None and spec.origin is not None


def choose_precision(asked: Precision, runtime: Chosen, device: str, gpu_has_bf16: bool = False) -> Precision:
    """fp32, bf16 or fp16; `auto` is bf16 where the hardware itself computes it.

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
    """Whether torch, which has `acceleration.winograd`, translates so many pixels (None: many) sooner than OpenVINO."""
    if precision != "fp32" or info.network != "resnet" or (pixels is not None and pixels < _PIXELS):
        return False
    if info.config.get("separable"):  # nothing for `winograd` is left
        return False
    return int(info.config.get("width", 64)) in _WIDTHS and int(info.config.get("blocks", 9)) > 0


def device_of(options: ModelOptions) -> Device:
    """The device by its name. Torch is imported only where the answer depends on it. Raises `UsageError`."""
    elsewhere = options.device == "auto" and options.runtime in ("auto", "torch") and machine.may_have_gpu()
    if options.device == "cpu" or (options.device == "auto" and not elsewhere):
        return Cpu()
    from i2i.device import choose_device

    here = machine.place()  # started by torchrun, each process has a device of its own
    return choose_device(options.device, here.local_rank, here.world_size)


def load_file(
    path: Path,
    options: ModelOptions,
    sizes: Sequence[tuple[int, int]] | None = None,
    generator: "nn.Module | None" = None,
) -> LoadedModel:
    """Loads the model at `path`, as `model_file.open_model` takes it with `generator`, into the runtime of `options`.

    `sizes` are the heights and widths of the pictures to be translated; None: many. A model that was converted before
    is used again, and then nothing imports torch.

    Raises `ModelError` as `open_model` does, `UsageError` for a device, a runtime or a precision that is not there or
    does not fit the model.
    """
    device = device_of(options)
    if generator is not None:
        return load_and_keep(*open_file(path, options, generator), device, options)
    chosen, precision = choose(options, device)
    notices: tuple[str, ...] = ()
    try:
        if chosen != "torch":
            CONVERTED[chosen].version()
    except Exception as error:  # a missing library, another version of NumPy, half an upgrade
        title, reason = CONVERTED[chosen].title, _last_line(error)
        if options.runtime != "auto":
            raise UsageError(f"runtime = {chosen!r}: {title} is installed, but cannot be imported: {reason}") from None
        notices = (f"{title} cannot be imported ({reason}): torch is used instead",)
        chosen = "torch"
    key = content_key(path, chosen, options)
    found = kept_conversion(key) if chosen != "torch" and key is not None else None
    if found is not None and not (
        options.runtime == "auto" and torch_is_faster(found.info, precision, network_pixels(sizes, options, found.info))
    ):
        try:
            runtime = CONVERTED[chosen](found, precision)
            return LoadedModel(runtime, found.info, found.spec, seed=options.seed, origin=Origin(path, options, key))
        except Exception:  # whatever a runtime makes of a conversion that it cannot read: it is made anew below
            pass
    network, info = open_file(path, options)
    # the model file must not have changed since its hash was taken
    keep = key if chosen != "torch" and content_key(path, chosen, options) == key else None
    pixels = network_pixels(sizes, options, info)
    loaded = load_network(network, info, device, options, chosen, precision, keep, pixels)
    # a conversion that fails ends at torch, whose key is another
    key = key if loaded.runtime.name == chosen else content_key(path, "torch", options)
    loaded.notices, loaded.origin = notices + loaded.notices, Origin(path, options, key)
    return loaded


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def network_pixels(sizes: Sequence[tuple[int, int]] | None, options: ModelOptions, info: ModelInfo) -> int | None:
    """How many pixels go through the network; None: many."""
    if sizes is None:
        return None
    paint_size = options.paint_size_of(info)
    return sum(math.prod(painted_size(height, width, paint_size)) for height, width in sizes)


def load_and_keep(network: "nn.Module", info: ModelInfo, device: Device, options: ModelOptions) -> LoadedModel:
    """As `load_network` for a module from Python, which no file has."""
    import torch

    buffers = dict(network.named_buffers())  # the mode of translation may drop running statistics
    loaded = load_network(network, info, device, options, *choose(options, device))
    loaded.network, loaded.buffers = network.to(torch.device(str(device))), buffers
    return loaded


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

    If only `auto` chose it, torch runs what it cannot run, and what torch runs faster. A conversion is kept under the
    key `keep`.
    """
    import torch

    from i2i.inference.torch_runtime import TorchRuntime
    from i2i.networks.blocks import for_translation

    config, asked, seed = info.network_config(), options.runtime, options.seed
    if info.network in FROM_NOISE:
        raise UsageError(f"{info.network} makes pictures from noise: use i2i sample")
    spec = InputSpec(config.in_channels, config.out_channels, config.size_multiple, config.minimum_size, None)
    for_translation(network, info.statistics, info.dropout)
    noisy = any(isinstance(module, torch.nn.Dropout) and module.training for module in network.modules())
    if info.network == OWN and asked not in ("auto", "torch"):  # a conversion could lose what its code decides
        raise UsageError(f"runtime = {asked!r}: an own generator runs with torch")
    if info.network == OWN or (asked == "auto" and (noisy or torch_is_faster(info, precision, pixels))):
        chosen = "torch"
    if chosen != "torch" and noisy:
        raise UsageError(
            f"runtime = {chosen!r}: the noise of dropout, which stays on in this model, is torch's; "
            "use torch, or dropout = False"
        )
    notices: tuple[str, ...] = ()
    if chosen != "torch":
        kind, side = CONVERTED[chosen], padded(64, spec.size_multiple, spec.minimum_size)
        try:
            spec = replace(spec, bytes_per_pixel=bytes_per_pixel(config, chosen))  # now, as later there is no torch
            converted = ConvertedModel(info, spec, kind.convert(network, spec.in_channels, side))
            runtime = kind(converted, precision)
        except I2IError:
            raise
        except Exception as error:
            reason = _last_line(error)
            if asked != "auto":
                raise UsageError(f"runtime = {chosen!r}: it cannot take this network: {reason}") from error
            notices = (f"{kind.title} cannot take this network ({reason}): torch is used instead",)
        else:
            if keep is not None:
                keep_conversion(keep, converted)
            return LoadedModel(runtime, info, spec, seed=seed)
    by_torch = TorchRuntime(network, torch.device(str(device)), precision, options.compile)
    return LoadedModel(by_torch, info, spec, seed=seed, noisy=noisy, notices=notices)
