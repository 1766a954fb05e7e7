"""From a model to a runtime that is ready: by conversion, or from what an earlier conversion has left."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i.errors import I2IError, UsageError
from i2i.translation.memory import bytes_per_pixel
from i2i.translation.model_info import ModelInfo, Statistics
from i2i.translation.options import Precision, RuntimeName
from i2i.translation.runtime import cache, onnx_runtime, openvino_runtime, processor
from i2i.translation.runtime.choice import Chosen, choose_precision, choose_runtime
from i2i.translation.runtime.protocol import Converted, Cpu, Device, Runtime, Traits

if TYPE_CHECKING:
    from torch import nn

_MODULES: Any = {"openvino": openvino_runtime, "onnx": onnx_runtime}


@dataclass(frozen=True)
class Prepared:
    """A runtime, what is known of its network, and whether that draws noise; `network` if it had to be opened."""

    runtime: Runtime
    info: ModelInfo
    traits: Traits
    noisy: bool = False
    network: "nn.Module | None" = None


@dataclass(frozen=True)
class Wanted:
    """What is asked of a runtime, as `ModelOptions` has it."""

    device: str = "auto"
    runtime: RuntimeName = "auto"
    precision: Precision = "auto"
    direction: str | None = None
    dropout: bool | None = None
    norm_stats: Statistics | None = None

    def check(self) -> None:
        """What can be known before there is a model. Raises `UsageError`."""
        device = device_of(self)
        _precision(self.precision, choose_runtime(self.runtime, device.type), device)


def prepare_file(path: Path, wanted: Wanted) -> Prepared:
    """The model at `path`, as `pretrained.open_model` takes it, in the runtime that is wanted.

    Raises `ModelError` as that does, `UsageError` for a device, a runtime or a precision that is not there or
    does not fit the model. A converted model is used again, and then nothing imports torch.
    """
    device = device_of(wanted)
    chosen = choose_runtime(wanted.runtime, device.type)
    precision = _precision(wanted.precision, chosen, device)
    if chosen == "torch":
        return _opened(path, wanted, device, "torch", precision)
    name = _cache_key(path, chosen, wanted)
    if name is not None and (converted := cache.get(name)) is not None:
        try:
            return Prepared(_run(chosen, converted, precision), converted.info, converted.traits)
        except RuntimeError:  # a conversion that cannot be read: made anew below
            pass
    return _opened(path, wanted, device, chosen, precision, name)


def _opened(path: Path, wanted: Wanted, device: Device, chosen: Chosen, precision: str, name: str | None = None) -> Any:
    from i2i.translation import pretrained

    network, info = pretrained.open_model(
        path, direction=wanted.direction, dropout=wanted.dropout, statistics=wanted.norm_stats
    )
    # what the model file was when its hash was taken, it must still be
    keep = name if name is not None and _cache_key(path, chosen, wanted) == name else None
    return prepare_network(network, info, device, wanted.runtime, chosen, precision, keep)


def prepare_network(
    network: "nn.Module",
    info: ModelInfo,
    device: Device,
    asked: RuntimeName,
    chosen: Chosen,
    precision: str,
    keep: str | None = None,
) -> Prepared:
    """`network`, which is put into its mode of translation for good, in the runtime `chosen`.

    If only `auto` chose it, torch does what it cannot do. `keep` is the name under which a conversion is kept.
    """
    from i2i.networks.blocks import for_translation

    config = info.network_config()
    traits = Traits(
        config.in_channels, config.out_channels, config.size_multiple, config.minimum_size, bytes_per_pixel(config)
    )
    for_translation(network, info.statistics, info.dropout)
    noisy = _is_noisy(network)
    if chosen != "torch" and noisy and asked != "auto":
        raise UsageError(
            f"runtime = {chosen!r}: the noise of dropout, which stays on in this model, is torch's; "
            "use torch, or dropout = False"
        )
    if chosen != "torch" and not noisy:
        try:
            side = -(-max(64, config.minimum_size) // config.size_multiple) * config.size_multiple
            converted = Converted(info, traits, _MODULES[chosen].convert(network, config.in_channels, side))
            runtime = _run(chosen, converted, precision)
        except I2IError:
            raise
        except Exception as error:
            if asked != "auto":
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                raise UsageError(f"runtime = {chosen!r}: it cannot take this network: {reason[0]}") from error
        else:
            if keep is not None:
                cache.put(keep, converted)
            return Prepared(runtime, info, traits, network=network)
    import torch

    from i2i.translation.runtime.torch_runtime import TorchRuntime

    target = torch.device(str(device))
    return Prepared(TorchRuntime(network, target, precision), info, traits, noisy, network)


def device_of(wanted: Wanted) -> Device:
    """The device by its name. Raises `UsageError` as `choose_device`, which is asked only if need be: it is torch's."""
    elsewhere = wanted.device == "auto" and wanted.runtime in ("auto", "torch") and processor.may_have_gpu()
    if wanted.device == "cpu" or (wanted.device == "auto" and not elsewhere):
        return Cpu()
    from i2i.device import choose_device

    return choose_device(wanted.device)


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


def _cache_key(path: Path, chosen: Chosen, wanted: Wanted) -> str | None:
    options = {"direction": wanted.direction, "dropout": wanted.dropout, "norm_stats": wanted.norm_stats}
    return cache.key(path, chosen, _MODULES[chosen].version(), options)
