"""A generator that is ready to run: planes of any size through its network, within the memory that is free.

The memory that a picture takes is estimated first: a machine that runs out of it ends the process.
"""

import copy
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from i2i.errors import ImageError, ModelError, as_typed, out_of_memory
from i2i.images import Pixels
from i2i.images.picture import Depth
from i2i.inference.options import ModelOptions
from i2i.inference.runtimes import Device, InputSpec, Runtime, content_key
from i2i.inference.scaling import Planes, fitted, padded
from i2i.machine import available_memory
from i2i.models.info import OWN, ModelInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from i2i.images.large import Bands
    from i2i.inference.streaming import RowSink
    from i2i.networks import GeneratorConfig

UNWATCHED = 1 << 28
_SIDE = 256
# convolutions hold copies of what they take and give, in another layout: measured 1.31 to 1.56 (docs/lab-book.md)
_LAID_OUT_ANEW = {"torch": 1.5, "openvino": 1.5, "onnx": 2.2}
# the picture itself: 8 bits and 32, before and after, padded
_BESIDE = 60.0
# and for each channel of the first layer, beside the columns of the last one's kernels, of which there are 21
_MOST_OF_A_CHANNEL = 50.0
_COLUMNS = 21 * 4 * 2.0


def bytes_per_pixel(config: "GeneratorConfig", runtime: str = "torch") -> float:
    """Estimates the bytes that a picture takes in that network for each of its pixels, without computing it."""
    from i2i.acceleration.inference import peak_bytes

    side = padded(_SIDE, config.size_multiple, config.minimum_size)
    return _BESIDE + _LAID_OUT_ANEW[runtime] * peak_bytes(config, side, runtime == "torch") / side**2


def surely_fits(channels: int, height: int, width: int) -> bool:
    """Whether a picture is so small that it fits in any network whose first layer has so many channels."""
    return (_BESIDE + _COLUMNS + _MOST_OF_A_CHANNEL * channels) * height * width < UNWATCHED


def bytes_of_pairs(attention: int, height: int, width: int) -> int:
    """The bytes of all pairs of places, scores and weights, in a runtime that holds them all at once.

    Self-attention stands after `attention` halvings; 0 is none.
    """
    return 8 * ((height >> attention) * (width >> attention)) ** 2 if attention else 0


def fits(per_pixel: float, height: int, width: int, extra: int = 0) -> bool:
    """Whether a picture of that size, and `extra` more bytes, fit into the memory that is free."""
    need = per_pixel * height * width + extra
    return need < UNWATCHED or need <= available_memory()


def too_much(config: "GeneratorConfig", height: int, width: int, reason: str, there: int) -> str:
    """The message for a picture that does not fit into `there` bytes and, for that `reason`, cannot be streamed."""
    need = bytes_per_pixel(config) * height * width
    largest = int(min(height, width) * min(1.0, there / need) ** 0.5) // 64 * 64
    would_fit = 0 < largest < min(height, width)
    hint = f"; {as_typed('size', largest)} would fit" if would_fit else f"; try a smaller {as_typed('size')}"
    needs = f"{width}x{height} pixels need about {need / 1e9:.1f} GB here, {there / 1e9:.1f} GB are free"
    return f"{needs}, and {reason}{hint}"


def not_finite(network: str, precision: str) -> str:
    """The message for a network whose values are no picture, with what may help."""
    hint = "" if precision == "fp32" else f"; {as_typed('precision', 'fp32')} may help"
    return f"{network} makes values that are not finite of it in {precision}{hint}"


def open_file(path: Path, options: ModelOptions, generator: "nn.Module | None" = None) -> "tuple[nn.Module, ModelInfo]":
    """The network and the description that `options` make of the model at `path`. (This imports torch.)"""
    from i2i.models import model_file

    return model_file.open_model(
        path,
        direction=options.direction,
        dropout=options.dropout,
        statistics=options.norm_stats,
        generator=generator,
    )


class Origin(NamedTuple):
    """The file of a model, the options with which it was opened, and the `content_key` of it then."""

    path: Path
    options: ModelOptions
    key: str | None


class LoadedModel:
    """A network in its runtime, with its description.

    `noisy`: it draws noise, from `seed` and each picture. `notices` say why another runtime was not taken. `network` is
    opened from `origin` when it is needed, unless it was kept.
    """

    def __init__(
        self,
        runtime: Runtime,
        info: ModelInfo,
        spec: InputSpec,
        *,
        seed: int = 0,
        noisy: bool = False,
        notices: tuple[str, ...] = (),
        origin: Origin | None = None,
    ) -> None:
        self.runtime, self.info, self.spec = runtime, info, spec
        self.seed, self.noisy, self.notices, self.origin = seed, noisy, notices, origin
        # on a CPU a batch is no faster, and convolutions round differently in it
        self.one_by_one = noisy or self.device.type == "cpu"
        self._same_noise = False

    @property
    def device(self) -> Device:
        return self.runtime.device

    @cached_property
    def config(self) -> "GeneratorConfig":
        """The network's configuration. (This imports torch.)"""
        return self.info.network_config()

    @cached_property
    def network(self) -> "nn.Module":
        """The network in float32, in its mode of translation.

        Raises `ModelError` if the file that was loaded has changed since.
        """
        import torch

        from i2i.networks.blocks import for_translation

        assert self.origin is not None
        path, options, key = self.origin
        network, _ = open_file(path, options)
        # a run that is still training writes its model anew: bands would be of another network than the rest
        if key is not None and content_key(path, self.runtime.name, options) != key:
            raise ModelError(f"{path} has changed since it was loaded")
        self.buffers = dict(network.named_buffers())
        return for_translation(network, self.info.statistics, self.info.dropout).to(torch.device(str(self.device)))

    def with_same_noise(self) -> "LoadedModel":
        """The same, but that every picture gets the noise of `seed` alone."""
        other = copy.copy(self)
        other._same_noise = True
        return other

    def digest(self) -> str:
        """A digest of the network and of its use."""
        if self.origin is not None and self.origin.key is not None:
            return self.origin.key
        found = hashlib.sha256(repr(self.info).encode())
        for name, tensor in self.network.state_dict().items():
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def save_pretrained(self, folder: Path) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`. Raises `OutputError`."""
        from i2i.models import model_file

        network = copy.deepcopy(self.network)
        for name, buffer in self.buffers.items():  # the mode of translation may have dropped some
            module, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(module), leaf, buffer)
        model_file.save_pretrained(folder, network, self.info)

    @cached_property
    def bytes_per_pixel(self) -> float:
        """An estimate of the CPU memory for each pixel of one picture; 0 on other devices."""
        if self.device.type != "cpu" or self.info.network == OWN:
            return 0.0
        known = self.spec.bytes_per_pixel
        return bytes_per_pixel(self.config) if known is None else known

    def batch(self, planes: Pixels) -> Pixels:
        """(N, C, H, W) float32 in [-1, 1] → (N, D, H, W).

        Raises `MemoryError` if that is too much for the memory that is free, `ImageError` for values that are not
        finite.
        """
        # on a GPU torch says so itself; on a CPU the system may end the whole process
        if not self._fits(*planes.shape[-2:]):
            raise MemoryError
        return self._finite(self.unchecked(planes))

    def array(self, planes: Pixels) -> Pixels:
        """(C, H, W) → (D, H, W), by bands of rows if need be. Raises as `bands`, and `ImageError` as `batch`."""
        try:
            return self.batch(planes[None])[0]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        return self.by_bands(planes)  # behind the handler: its traceback would hold the memory

    def by_bands(self, planes: Pixels) -> Pixels:
        """As `array`, by bands of rows. (This imports torch.)"""
        import torch

        from i2i.inference.streaming import stream_tensor

        options = self._for_bands(*planes.shape[-2:])
        return self._finite(stream_tensor(self.network, torch.from_numpy(planes), **options).numpy())

    def bands(self, bands: "Bands", sink: "RowSink", depth: Depth) -> None:
        """The picture of `bands` translated, to `sink` by rows of that depth. (This imports torch.)

        Raises `ImageError` for a network that takes pictures only as a whole, `SpoolError` if there is no room for the
        spool.
        """
        from i2i.inference.streaming import stream_bands

        options = self._for_bands(bands.height, bands.width)  # first, as the network is read for it
        stream_bands(self.network, bands, sink, depth, **options)

    def _for_bands(self, height: int, width: int) -> dict[str, Any]:
        """The options of `streaming.stream` for a picture of that size."""
        if self.info.network == OWN:
            raise ImageError("is too large for the memory, and an own network takes a picture only as a whole")
        import torch

        from i2i.inference.streaming import streamable

        device = torch.device(str(self.device))
        if reason := streamable(self.config, self.noisy):
            free = available_memory()
            if device.type == "cuda":  # memory that torch keeps there for this process is free too
                kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
                free = torch.cuda.mem_get_info(device)[0] + kept
            raise ImageError(too_much(self.config, height, width, reason, free))
        autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.runtime.precision)
        return {"device": device, "autocast": autocast}

    def unchecked(self, planes: Pixels) -> Pixels:
        """As `batch`, whatever memory is free and whatever comes out."""
        result: Pixels = np.concatenate(self._parts(planes, self.runtime.run))
        return result

    def tensor(self, batch: "Tensor") -> "Tensor":
        """As `unchecked`, for a tensor; what is on the GPU stays there."""
        import torch

        if self.device.type == "cpu":
            return torch.from_numpy(self.unchecked(batch.cpu().numpy()))
        runtime: Any = self.runtime  # torch's
        return torch.cat(self._parts(batch.to(runtime.device), runtime.tensor))

    def _fits(self, height: int, width: int) -> bool:
        if self.device.type != "cpu" or self.info.network == OWN:  # nothing is known of an own network
            return True
        # torch and OpenVINO go through them in parts
        attention = self.info.config.get("attention", 0) if self.runtime.name == "onnx" else 0
        pairs = bytes_of_pairs(attention, height, width)
        if surely_fits(self.info.config["width"], height, width) and pairs < UNWATCHED:
            return True
        return fits(self.bytes_per_pixel, height, width, pairs)

    def _finite(self, output: Pixels) -> Pixels:
        """Raises `ImageError` for values that would come out as black."""
        if not np.isfinite(output).all():
            raise ImageError(not_finite(self.info.network, self.runtime.precision))
        return output

    def _parts(self, batch: Planes, run: Callable[[Planes, int | None], Planes]) -> list[Planes]:
        """`batch`, an array or a tensor (N, C, H, W), by `run`, in as many parts as go together."""
        step = 1 if self.one_by_one else len(batch)
        return [self._padded(batch[i : i + step], run) for i in range(0, len(batch), step)]

    def _padded(self, batch: Planes, run: Callable[[Planes, int | None], Planes]) -> Planes:
        seed = None
        if self.noisy:
            import torch

            from i2i.inference.torch_runtime import seed_of

            seed = self.seed if self._same_noise else seed_of(torch.as_tensor(batch), self.seed)
        return fitted(batch, self.spec.size_multiple, self.spec.minimum_size, lambda x: run(x, seed))
