"""A trained generator as a function from picture to picture, of any size.

Pictures travel as NumPy arrays, so that a runtime that does without torch starts without it.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from i2i.config import from_mapping
from i2i.errors import ImageError, ModelError, UsageError
from i2i.images import Picture, Pixels, read, resize_planes
from i2i.images.picture import split_alpha
from i2i.images.pil import as_pil, from_pil, native
from i2i.inference.coding import Coding
from i2i.inference.failures import not_finite, out_of_memory
from i2i.inference.memory import UNWATCHED, bytes_per_pixel, fits, of_pairs, surely_fits
from i2i.inference.options import ModelOptions, Precision, RuntimeName
from i2i.inference.runtime.prepare import (
    Prepared,
    Wanted,
    cache_key,
    choose_precision,
    choose_runtime,
    device_of,
    gpu_has_bf16,
    prepare_file,
    prepare_network,
)
from i2i.inference.runtime.protocol import Device
from i2i.inference.scaling import Enlargement, fitted, painted_size, resized, scaled
from i2i.models import hub, styles
from i2i.models.info import OWN, ModelInfo, Statistics

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from i2i.inference.streaming import Streamer
    from i2i.networks import GeneratorConfig


_OVERSHOOT = 0.5
"""How far resampling may leave [-1, 1]; what is further out was never a picture in this range."""


def load_translator(
    style: str | PathLike[str],
    direction: str | None = None,
    device: str = "auto",
    *,
    precision: Precision = "auto",
    runtime: RuntimeName = "auto",
    norm_stats: Statistics | None = None,
    dropout: bool | None = None,
    seed: int = 0,
    download: bool = False,
    sizes: Sequence[tuple[int, int]] | None = None,
    compile: bool = False,
    paint_size: int | None = None,
    fetching: Callable[[int, int | None], object] | None = None,
    generator: "nn.Module | None" = None,
) -> "Translator":
    """Loads a translator: `i2i.load_translator("monet")("photo.jpg")`.

    * `style`: a path, `hub:owner/name`, or a name (see `i2i.list_styles`).
    * `direction`: `a2b` or `b2a`. A run folder with two directions needs it.
    * `device`: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    * `precision`: `fp32` (within one 8-bit level of the plain way), `bf16`, `fp16`, or `auto`: bf16 where the hardware
      computes it.
    * `runtime`: `torch`, `openvino` and `onnx` (both on a CPU only), or `auto`. On a CPU, `auto` takes OpenVINO if it
      is installed. It takes torch for networks that draw noise, and in fp32 for wide residual generators, for which
      torch is faster.
    * `sizes`: the heights and widths of all pictures that will be translated. If they are few, `auto` avoids torch,
      which starts later.
    * `norm_stats`: batch norm by the statistics of each picture (`batch`) or of the training (`running`). Default: as
      the model says.
    * `dropout`: whether dropout stays on. Default: as the model says.
    * `seed`: varies the noise of dropout.
    * `compile`: torch compiles the network, at the first picture and again at the second size; not for bands of rows.
    * `paint_size`: the shorter side, in pixels, at which larger pictures are translated; 0 is their own size. Default:
      as the model says.
    * `generator`: the module of an own network (`i2i.train(generator=...)`). A copy of it gets the weights of the model
      file; a file never brings code. It runs with torch.
    * `download`: fetches a style of the catalogue. `fetching` is then called with the bytes so far and their total, if
      it is known.

    Raises `UsageError` for an unknown style, direction, device, runtime or precision, and `ModelError` for a model
    that cannot be used.
    """
    asked = {"direction": direction, "device": device, "precision": precision, "norm_stats": norm_stats}
    more = {"dropout": dropout, "seed": seed, "download": download, "runtime": runtime, "compile": compile}
    from_mapping(ModelOptions, asked | more | {"paint_size": paint_size})
    known = None if sizes is None else tuple(sizes)
    wanted = Wanted(device, runtime, precision, direction, dropout, norm_stats, known, compile, paint_size)
    wanted.check()
    path = styles.find(
        style if isinstance(style, str) else Path(style), direction, download=download, progress=fetching
    )
    if generator is None:
        return Translator._of_file(path, wanted, seed)
    return Translator._of_module(path, wanted, seed, generator)


class _Source(NamedTuple):
    """The planes of a picture; what goes through the network of them, perhaps `small`, and the alpha of that."""

    planes: Pixels
    small: Pixels
    alpha: Pixels | None = None


class Translator:
    """A trained generator as a function from a picture to a picture of the same size. `load_translator` makes one.

    The constructor takes a `network` from Python. It switches the network to its mode of translation, for good, and
    moves it to `device`. The other arguments are those of `load_translator`. `notices` say why torch runs the network
    where `auto` would have taken another runtime.

    Raises `UsageError` for a runtime that is not installed or does not fit the network, for a precision that the device
    lacks, where torch cannot compile, and for a paint size with a model of labels or of colours.
    """

    _origin: tuple[Path, Wanted, str | None]

    def __init__(
        self,
        network: "nn.Module",
        info: ModelInfo,
        device: "torch.device | str" = "cpu",
        *,
        precision: Precision = "auto",
        runtime: RuntimeName = "torch",
        compile: bool = False,
        seed: int = 0,
        paint_size: int | None = None,
    ) -> None:
        import torch

        asked = {"precision": precision, "runtime": runtime, "compile": compile, "seed": seed, "paint_size": paint_size}
        from_mapping(ModelOptions, asked)
        wanted = Wanted(compile=compile, paint_size=paint_size)
        self._buffers = dict(network.named_buffers())  # the mode of translation may drop running statistics
        target = torch.device(device)
        chosen = choose_runtime(runtime, target.type, compile)
        exact = choose_precision(precision, chosen, target.type, gpu_has_bf16(target))
        self._use(prepare_network(network, info, target, runtime, chosen, exact, compiled=compile), wanted, seed)
        self.network = network.to(target)

    def _use(self, prepared: Prepared, wanted: Wanted, seed: int) -> None:
        self.info, self.seed, self.notices = prepared.info, seed, prepared.notices
        self._runtime, self._traits, self._noisy = prepared.runtime, prepared.traits, prepared.noisy
        self.coding = Coding(self.info, self._traits.in_channels)
        self.paint_size = wanted.paint_size_of(self.info)
        # on a CPU a batch is no faster, and convolutions round differently in it
        self._one_by_one = self._noisy or self.device.type == "cpu"

    @classmethod
    def _of_file(cls, path: Path, wanted: Wanted, seed: int) -> "Translator":
        translator = cls.__new__(cls)
        prepared = prepare_file(path, wanted)
        translator._use(prepared, wanted, seed)
        translator._origin = path, wanted, prepared.key
        return translator

    @classmethod
    def _of_module(cls, path: Path, wanted: Wanted, seed: int, generator: "nn.Module") -> "Translator":
        import torch

        from i2i.models import pretrained

        if wanted.runtime not in ("auto", "torch"):
            raise UsageError(f"runtime = {wanted.runtime!r}: an own generator runs with torch")
        network, info = pretrained.open_model(
            path,
            direction=wanted.direction,
            dropout=wanted.dropout,
            statistics=wanted.norm_stats,
            generator=generator,
        )
        device = torch.device(str(device_of(wanted)))
        options: Any = {"precision": wanted.precision, "compile": wanted.compile, "paint_size": wanted.paint_size}
        return cls(network, info, device, seed=seed, **options)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: all but what is made again when needed. Each runtime sees to its own."""
        return {name: value for name, value in self.__dict__.items() if name != "streamer"}

    @property
    def device(self) -> Device:
        """Where the network runs; its `type` is cpu, cuda or mps."""
        return self._runtime.device

    @property
    def runtime(self) -> str:
        """The runtime of the network: torch, openvino or onnx."""
        return self._runtime.name

    @property
    def precision(self) -> str:
        """The precision of the network: fp32, bf16 or fp16."""
        return self._runtime.precision

    @property
    def picture_channels(self) -> int:
        """The channels of an input picture: the network's, but 3 for labels and for colorization."""
        return self.coding.picture_channels

    @cached_property
    def bytes_per_pixel(self) -> float:
        """An estimate of the CPU memory for each pixel of one picture; 0 on other devices."""
        if self.device.type != "cpu" or self.info.network == OWN:
            return 0.0
        known = self._traits.bytes_per_pixel
        return bytes_per_pixel(self.config) if known is None else known

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

        network = self._opened()
        self._buffers = dict(network.named_buffers())
        return for_translation(network, self.info.statistics, self.info.dropout).to(torch.device(str(self.device)))

    def _opened(self) -> "nn.Module":
        from i2i.models import pretrained

        path, wanted, key = self._origin
        network, _ = pretrained.open_model(
            path, direction=wanted.direction, dropout=wanted.dropout, statistics=wanted.norm_stats
        )
        # a run that is still training writes its model anew: bands would be of another network than the rest
        if key is not None and cache_key(path, self._runtime.name, wanted) != key:
            raise ModelError(f"{path} has changed since it was loaded")
        return network

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        runtime: RuntimeName = "auto",
        compile: bool = False,
        seed: int = 0,
        paint_size: int | None = None,
    ) -> "Translator":
        """Loads a folder that `save_pretrained` wrote, or the hub's `owner/name`.

        Raises `ModelError` for a model that cannot be fetched or used.
        """
        from_mapping(ModelOptions, {"paint_size": paint_size})
        wanted = Wanted(device, runtime, precision, compile=compile, paint_size=paint_size)
        wanted.check()
        folder = Path(name)
        return cls._of_file(folder if folder.is_dir() else hub.fetch(str(name), revision), wanted, seed)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`. Raises `OutputError`."""
        from i2i.models import pretrained

        network, current = self.config.build(), self.network  # whose reading sets the buffers
        network.load_state_dict(self._buffers | current.state_dict())
        pretrained.save_pretrained(Path(folder), network, self.info)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Uploads the files of `save_pretrained` to the hub's `owner/name`, and returns their address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.push(Path(folder), repo_id, private=private)

    def __call__(self, image: Any) -> Any:
        """Translates a picture of any height and width, and returns the same kind.

        * A path gives a PIL image.
        * A PIL image comes back upright, with EXIF and colour profile in its `info`.
        * A NumPy array is (H, W) or (H, W, C), of uint8 or uint16.
        * A tensor is (C, H, W) or (N, C, H, W) in [-1, 1].

        Labels are colours of the model's palette, or class indices in one channel. Alpha stays. A result depends on its
        picture alone: the noise of dropout is drawn from it, and torch's random state stays as it was.

        Raises `ImageError` for a file that cannot be read, and `UsageError` for anything that is no picture for this
        network.
        """
        if isinstance(image, str | PathLike):
            path = Path(image)
            try:
                return as_pil(self.translate(read(path)))
            except ImageError as error:
                raise ImageError(f"{path}: {error}") from None
        if isinstance(image, Image.Image):
            return as_pil(self._channels_or_usage(from_pil(image)))
        if isinstance(image, np.ndarray):
            return self._array(image)
        if "torch" in sys.modules and isinstance(image, sys.modules["torch"].Tensor):
            self._check_tensor(image)
            _check_range(image)
            return self.translate_tensor(image)
        raise UsageError(f"a {type(image).__name__} is no picture; expected a path, a PIL image, an array, a tensor")

    def translate(self, picture: Picture, size: int | None = None) -> Picture:
        """`picture` translated: its depth, alpha, colour profile and EXIF kept.

        `size` scales its shorter side to so many pixels first, antialiased. Raises `ImageError` if the
        network's channels cannot be had from it, or if it is too large for the memory that is free.
        """
        try:
            return self.translate_batch([picture], size)[0]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            # on, without its traceback, which would hold the memory
        return self.stream(picture, size)

    def translate_batch(self, pictures: Sequence[Picture], size: int | None = None) -> list[Picture]:
        """Pictures of one `network_size` through the network together; otherwise as `translate`.

        Raises `MemoryError` if they are too much for the memory that is free, also for one; `stream` may have room.
        """
        sources = [self._source(picture, size) for picture in pictures]
        outputs = self._run(np.stack([self.coding.encode(source.small) for source in sources]))
        made = zip(outputs, sources, pictures, strict=True)
        return [self._result(output, source, picture, size) for output, source, picture in made]

    def _run(self, batch: Pixels) -> Pixels:
        """A batch, (N, C, H, W), through the network. Raises `MemoryError` and `ImageError` as `translate_batch`."""
        # on a GPU torch says so itself; on a CPU the system may end the whole process
        if not self._fits(*batch.shape[-2:]):
            raise MemoryError
        return self._finite(np.concatenate(self._parts(batch, self._runtime.run)))

    def planes(self, planes: Pixels) -> Pixels:
        """(C, H, W) float32 in [-1, 1] through the network, at their own size, by bands of rows if need be.

        Raises as `stream`.
        """
        try:
            return self._run(planes[None])[0]
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        return self._finite(self.streamer.planes(planes))

    def _finite(self, output: Pixels) -> Pixels:
        """Raises `ImageError` for what would come out as black."""
        if not np.isfinite(output).all():
            raise ImageError(not_finite(self.info.network, self.precision))
        return output

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture, or what `size` makes of it, goes through the network."""
        return painted_size(height, width, self.paint_size)

    def _result(self, output: Pixels, source: _Source, picture: Picture, size: int | None) -> Picture:
        """The output for `source.small` as a picture of the size of `source.planes`."""
        if source.small is not source.planes:
            output = Enlargement(output, source.small, source.planes.shape[-2:], source.alpha).whole(source.planes)
        return self.coding.result(output, source.planes, picture, size)

    def _fits(self, height: int, width: int) -> bool:
        if self.device.type != "cpu" or self.info.network == OWN:  # nothing is known of an own network
            return True
        # torch and OpenVINO go through them in parts
        pairs = of_pairs(self.info.config.get("attention", 0), height, width) if self.runtime == "onnx" else 0
        if surely_fits(self.info.config["width"], height, width) and pairs < UNWATCHED:
            return True
        return fits(self.bytes_per_pixel, height, width, pairs)

    def stream(self, picture: Picture, size: int | None = None) -> Picture:
        """`translate` by bands of rows, for a picture that is too large for the memory; as `Streamer.picture`."""
        source = self._source(picture, size)
        output = self._finite(self.streamer.planes(self.coding.encode(source.small)))
        return self._result(output, source, picture, size)

    @cached_property
    def streamer(self) -> "Streamer":
        """What translates pictures too large for the memory. (This imports torch.)"""
        if self.info.network == OWN:
            raise ImageError("is too large for the memory, and an own network takes a picture only as a whole")
        import torch

        from i2i.inference.streaming import Streamer

        autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        device = torch.device(str(self.device))
        return Streamer(self.network, self.config, self._noisy, device, autocast)

    def _source(self, picture: Picture, size: int | None) -> _Source:
        own = planes = self.coding.source(picture)
        height, width = own.shape[-2:]
        if size is not None:
            planes = self.coding.resized(own, *resized(height, width, size), picture)
        shape = self.network_size(*planes.shape[-2:])
        return _Source(planes, planes) if shape == planes.shape[-2:] else _Source(planes, *scaled(own, picture, shape))

    def _channels_or_usage(self, picture: Picture) -> Picture:
        try:
            return self.translate(picture)
        except ImageError as error:
            raise UsageError(f"the picture {error}") from None

    def _array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.size == 0:
            raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W), uint8 or uint16")
        pixels = native(array if array.ndim == 3 else array[..., None])
        own = pixels.shape[2] == self.picture_channels
        result = self._channels_or_usage(Picture(pixels) if own else split_alpha(pixels))
        if result.alpha is not None:
            return np.dstack([result.pixels, result.alpha])
        return result.pixels[..., 0] if array.ndim == 2 and result.pixels.shape[2] == 1 else result.pixels

    def _check_tensor(self, tensor: "Tensor") -> None:
        wanted = self.picture_channels
        if self.coding.inputs and tensor.dim() in (3, 4) and tensor.shape[-3] == 1:  # class indices, as pixels
            wanted = 1
        if tensor.dim() not in (3, 4) or tensor.shape[-3] != wanted or 0 in tensor.shape[-2:]:
            raise UsageError(f"a tensor {tuple(tensor.shape)}; expected ({wanted}, H, W) or (N, {wanted}, H, W)")
        if not tensor.is_floating_point():
            raise UsageError(f"a tensor of {tensor.dtype}; expected floating point in [-1, 1]")

    def translate_tensor(self, tensor: "Tensor") -> "Tensor":
        """A tensor as a call takes it, whose values are known to be a picture's in [-1, 1]; dark or bright as it is."""
        import torch

        self._check_tensor(tensor)
        batch = tensor.detach().float().reshape(-1, *tensor.shape[-3:])
        if len(batch) == 0:
            indices = self.coding.outputs is not None and self.coding.outputs.indexed
            channels = self._traits.out_channels if self.info.plain else 1 if indices else 3
            return tensor.new_empty((0, channels, *tensor.shape[-2:]))
        painted = self.network_size(*batch.shape[-2:]) != batch.shape[-2:]
        way = self._painted if painted else self._tensor_parts if self.info.plain else self._coded
        parts = way(batch)
        result = torch.cat(parts).to(device=tensor.device, dtype=tensor.dtype)
        # copied here, outside of inference mode, so that the caller may use it in a graph
        return result.clone() if tensor.dim() == 4 else result[0].clone()

    def _tensor_parts(self, batch: "Tensor") -> "list[Tensor]":
        import torch

        if self.device.type == "cpu":
            return [torch.from_numpy(part) for part in self._parts(batch.cpu().numpy(), self._runtime.run)]
        runtime: Any = self._runtime  # torch's: what is on the GPU stays there
        return self._parts(batch.to(runtime.device), runtime.tensor)

    def _painted(self, batch: "Tensor") -> "list[Tensor]":
        import torch

        sources, size = batch.cpu().numpy(), batch.shape[-2:]
        small = np.stack([resize_planes(source, *self.network_size(*size)) for source in sources])
        made = zip(np.concatenate(self._parts(small, self._runtime.run)), small, sources, strict=True)
        return [torch.from_numpy(Enlargement(painted, one, size).whole(source))[None] for painted, one, source in made]

    def _coded(self, batch: "Tensor") -> "list[Tensor]":
        import torch

        made = []
        for planes in batch.cpu().numpy():
            try:
                source = self.coding.source_of_planes(planes)
            except ImageError as error:
                raise UsageError(f"the picture {error}") from None
            (output,) = self._parts(self.coding.encode(source)[None], self._runtime.run)
            made.append(torch.from_numpy(self.coding.decode(output[0], source))[None])
        return made

    def _parts(self, batch: Any, run: Callable[[Any, int | None], Any]) -> list[Any]:
        """What `run` makes of `batch`, an array or a tensor (N, C, H, W), in as many parts as it is run."""
        step = 1 if self._one_by_one else len(batch)
        return [self._padded(batch[i : i + step], run) for i in range(0, len(batch), step)]

    def _padded(self, batch: Any, run: Callable[[Any, int | None], Any]) -> Any:
        seed = self._seed_of(batch) if self._noisy else None
        return fitted(batch, self._traits.size_multiple, self._traits.minimum_size, lambda x: run(x, seed))

    def _seed_of(self, picture: Any) -> int:
        import torch

        from i2i.inference.runtime.torch_runtime import seed_of

        return seed_of(torch.as_tensor(picture), self.seed)


def _check_range(tensor: "Tensor") -> None:
    """Raises `UsageError` for a tensor that is no picture in [-1, 1]; warns once where it seems to be in [0, 1]."""
    if tensor.numel() == 0:
        return
    low, high = (float(value) for value in tensor.detach().aminmax())
    if not max(-low, high) <= 1 + _OVERSHOOT:  # so that NaN is refused
        hint = "; x / 127.5 - 1 brings 0 to 255 there" if low >= 0 and high > 1 else ""
        raise UsageError(f"a tensor with values from {low:.4g} to {high:.4g}; expected a picture in [-1, 1]{hint}")
    if 0 <= low < high <= 1:  # one of a single value says nothing
        _warn_of_range()


@cache
def _warn_of_range() -> None:
    """Once in a process."""
    warnings.warn(
        "a tensor that seems to be in [0, 1], as ToTensor() gives it; a translator takes a picture in [-1, 1]: "
        "x * 2 - 1",
        stacklevel=4,
    )
