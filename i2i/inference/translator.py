"""A trained generator as a function from picture to picture, of any size.

Pictures travel as NumPy arrays, so that a runtime that does without torch starts without it.
"""

import copy
import tempfile
from collections.abc import Callable, Iterable, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from i2i.config import from_mapping
from i2i.images import Picture, Pixels
from i2i.inference.blend import Blend
from i2i.inference.call import Call, check_channels, translate_tensor
from i2i.inference.loaded_model import LoadedModel
from i2i.inference.options import ALPHA, BatchSize, CallOptions, Keep, ModelOptions, Precision, RuntimeName
from i2i.inference.prepare import choose, device_of, load_and_keep, load_file
from i2i.inference.runtimes import Device
from i2i.inference.scaling import Coding, Size
from i2i.models import published, styles
from i2i.models.info import WEIGHTS_NAME, ModelInfo, Statistics

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from i2i.inference.call import PictureLike
    from i2i.networks import GeneratorConfig


_BATCH = 16  # on a GPU; on a CPU a batch is no faster, and convolutions round differently in it


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
    generator: "nn.Module | None" = None,
    fetching: Callable[[int, int | None], object] | None = None,
) -> "Translator":
    """Loads a translator: `i2i.load_translator("monet")("photo.jpg")`.

    * `style`: a path, `hub:owner/name`, or a name (see `i2i.list_styles`).
    * `direction`: `a2b` or `b2a`. A run folder with two directions needs it.
    * `device`: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    * `precision`: `fp32` (within one 8-bit level of plain torch), `bf16`, `fp16` (GPU only), or `auto`: bf16 if the
      hardware has it, else fp32.
    * `runtime`: `torch`, `openvino` (CPU only), `onnx` (CPU only), or `auto`. On a CPU, `auto` takes OpenVINO if it is
      installed. But it takes torch for networks with dropout at translation, and in fp32 for wide residual generators,
      for which torch is faster.
    * `sizes`: the heights and widths of all pictures that will be translated, if they are known. For few pictures
      `auto` avoids torch, because torch takes longer to start.
    * `norm_stats`: batch norm uses the statistics of each picture (`batch`) or of the training (`running`). Default: as
      the model file says.
    * `dropout`: whether dropout stays on. Default: as the model file says.
    * `seed`: the seed of dropout's noise.
    * `compile`: compiles the network (`torch.compile`) at the first picture, and again at the second size. It has no
      effect on bands of rows.
    * `paint_size`: larger pictures are translated at this shorter side, in pixels; 0: at their own size. Default: as
      the model file says.
    * `generator`: an `nn.Module`; the weights of `style` are loaded into a copy of it. It is needed for a network of
      your own (`i2i.train(generator=...)`), because no file holds code, and for a state dict whose configuration cannot
      be inferred.
    * `download`: fetches a style of the catalogue. `fetching` is then called with the bytes so far and their total, if
      it is known.

    Raises `UsageError` for an unknown style, direction, device, runtime or precision, and `ModelError` for a model
    that cannot be used.
    """
    asked = {"direction": direction, "device": device, "precision": precision, "norm_stats": norm_stats}
    more = {"dropout": dropout, "seed": seed, "download": download, "runtime": runtime, "compile": compile}
    options = from_mapping(ModelOptions, asked | more | {"paint_size": paint_size})
    choose(options, device_of(options))
    path = styles.find(style, direction, download=download, progress=fetching)
    model = load_file(path, options, sizes, generator)
    size = (path / WEIGHTS_NAME if path.is_dir() else path).stat().st_size
    return Translator.of_model(model, options.paint_size_of(model.info), str(style), size)


class Translator:
    """A trained generator as a function from a picture to a picture of the same size. `load_translator` makes one.

    The constructor takes a `network` (an `nn.Module`). It switches the network to evaluation permanently, and moves it
    to `device`. The other arguments are those of `load_translator`. `notices` says why torch runs the network if `auto`
    would have taken another runtime.

    Raises `UsageError` for a runtime that is not installed or does not fit the network, for a precision that the device
    lacks, if torch cannot compile, and for a paint size with a model of labels or a colorization.
    """

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
        options = from_mapping(ModelOptions, asked)
        model = load_and_keep(network, info, torch.device(device), options)
        self._use(model, options.paint_size_of(info), "", sum(part.nbytes for part in network.state_dict().values()))

    def _use(self, model: LoadedModel, paint_size: int, style: str, weights_bytes: int) -> None:
        self.model, self.info, self.notices = model, model.info, model.notices
        self.coding = Coding(self.info, model.spec.in_channels, paint_size)
        self.paint_size, self.style, self.weights_bytes = paint_size, style, weights_bytes

    @classmethod
    def of_model(cls, model: LoadedModel, paint_size: int, style: str, weights_bytes: int) -> "Translator":
        """Returns a translator of a model that is loaded; the other arguments are its attributes.

        `style` is the name or path by which it was loaded.
        """
        translator = cls.__new__(cls)
        translator._use(model, paint_size, style, weights_bytes)
        return translator

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], *, revision: str | None = None, **options: Any) -> "Translator":
        """Loads a folder that `save_pretrained` wrote, or the hub's `owner/name`; `options` as for `load_translator`.

        Raises `ModelError` for a model that cannot be fetched or used.
        """
        folder = Path(name)
        if folder.is_dir():
            return load_translator(folder, **options)
        return load_translator(f"hub:{name}@{revision}" if revision else f"hub:{name}", **options)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Writes `config.json` and `model.safetensors` to `folder`. Raises `OutputError`."""
        self.model.save_pretrained(Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Uploads the files of `save_pretrained` to the hub's `owner/name`, and returns their address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return published.push_to_hub(Path(folder), repo_id, private=private)

    def __repr__(self) -> str:
        """Its domains, its network and how that runs, in a line."""
        name, facts = f" {self.style}" if self.style else "", self._facts()
        return f"<Translator{name}: {facts['translates']}; {facts['network']}; {facts['runs in']}>"

    def _repr_html_(self) -> str:
        """For a notebook: the same facts and the card of the model as a table."""
        facts = {"style": self.style, **self._facts()}
        facts["paint size"] = f"{self.paint_size} pixels" if self.paint_size else ""
        facts["licence"] = self.info.licence
        rows = "".join(f"<tr><th>{name}</th><td>{escape(fact)}</td></tr>" for name, fact in facts.items() if fact)
        card = "".join(f"<li>{escape(text)}</li>" for text in self.info.card)
        return f"<table>{rows}</table>" + (f"<ul>{card}</ul>" if card else "")

    def _facts(self) -> dict[str, str]:
        info = self.info
        sides = (
            domain if limits is None else f"{domain}, {limits[0]:g} to {limits[1]:g}"
            for domain, limits in ((info.input_domain, info.input_range), (info.output_domain, info.output_range))
        )
        return {
            "translates": f"{' → '.join(sides)} ({info.direction})",
            "network": f"{info.config.get('module') or info.network}, {self.weights_bytes / 1e6:.1f} MB",
            "runs in": f"{self.runtime} {self.precision} on {self.device}",
        }

    @property
    def device(self) -> Device:
        """Where the network runs; its `type` is cpu, cuda or mps."""
        return self.model.device

    @property
    def runtime(self) -> str:
        """The runtime of the network: torch, openvino or onnx."""
        return self.model.runtime.name

    @property
    def precision(self) -> str:
        """The precision of the network: fp32, bf16 or fp16."""
        return self.model.runtime.precision

    @property
    def config(self) -> "GeneratorConfig":
        """The network's configuration. (This imports torch.)"""
        return self.model.config

    @property
    def network(self) -> "nn.Module":
        """The network in float32, in its mode of translation."""
        return self.model.network

    @property
    def picture_channels(self) -> int:
        """The channels of an input picture: the network's, but 3 for labels and for colorization."""
        return self.coding.picture_channels

    def __call__(
        self,
        image: "PictureLike | Iterable[PictureLike]",
        *,
        size: Size | None = None,
        batch_size: BatchSize = "auto",
        strength: float = 1.0,
        mask: "PictureLike | Iterable[PictureLike] | None" = None,
        keep: Keep | None = None,
    ) -> Any:
        """Translates pictures of any height and width, and returns the same type.

        * A path, bytes, or a file opened in binary mode gives a PIL image.
        * A PIL image gives an upright PIL image, with EXIF and colour profile in its `info`.
        * A NumPy array is (H, W) or (H, W, C), of uint8 or uint16.
        * A tensor is (C, H, W) or (N, C, H, W) in [-1, 1].
        * A list of these, or another iterable, gives a list in the same order.

        `size` scales a picture first, antialiased: to that many pixels on its shorter side, or to (height, width).
        `batch_size`: pictures of a list that have the same size go through the network in batches. Default: 1 on a
        CPU, where batches are no faster, else 16.

        `strength` is the share of the translation, 1 by default; 0 gives the picture. `mask` sets the share for each
        pixel: white takes the translation, black keeps the picture, grey blends. It may be any type of picture, an
        array (H, W) of bool, or of floating point in [0, 1], or `"alpha"`, the alpha of the picture. It must have the
        size of the picture; `size` scales both. For a list of pictures give one mask, or a list of masks.
        `keep="luminance"` takes the luminance of the picture and the colours of the translation, `keep="colour"` the
        reverse.

        A model of labels gives colours of its palette, or class indices in one channel. Alpha stays. A result depends
        only on its picture: the picture also seeds the noise of dropout. torch's random state does not change.

        Raises `ImageError` for a file that cannot be read, and `UsageError` for anything that is no picture for this
        network, and for `strength`, `mask` or `keep` if its results cannot be blended.
        """
        asked = {"size": size, "batch_size": batch_size, "strength": strength, "keep": keep}
        options = from_mapping(CallOptions, asked)
        together = options.batch_size if options.batch_size != "auto" else 1 if self.model.one_by_one else _BATCH
        blend = Blend(options.strength, None if mask is None else ALPHA, options.keep)
        blend.check(self.info)
        return Call(self, options.size, together, blend)(image, mask)

    def translate(self, picture: Picture, size: Size | None = None, blend: Blend | None = None) -> Picture:
        """`picture` translated, and blended with itself: its depth, alpha, colour profile and EXIF kept; `size` as for
        a call.

        Raises `ImageError` if the network's channels cannot be had from it, or if it is too large for the memory that
        is free.
        """
        source = self.coding.source(picture, size)
        made = source.result(self.model.array(source.input))
        return made if blend is None else blend.of(picture, made)

    def translate_batch(self, pictures: Sequence[Picture], size: Size | None = None) -> list[Picture]:
        """Pictures of one `network_size` through the network together; otherwise as `translate`.

        Raises `MemoryError` if they are too much for the memory that is free, also for one; `stream` may have room.
        """
        sources = [self.coding.source(picture, size) for picture in pictures]
        outputs = self.model.batch(np.stack([source.input for source in sources]))
        return [source.result(output) for output, source in zip(outputs, sources, strict=True)]

    def for_film(self) -> "Translator":
        """The same translator for the frames of a film: the noise of dropout is one for all of them."""
        other = copy.copy(self)
        other.model = self.model.with_same_noise()
        return other

    def stream(self, picture: Picture, size: Size | None = None) -> Picture:
        """`translate` by bands of rows, for a picture too large for the memory; raises as `LoadedModel.bands`."""
        source = self.coding.source(picture, size)
        return source.result(self.model.by_bands(source.input))

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture of that size goes through the network."""
        return self.coding.network_size(height, width)

    def translate_tensor(self, tensor: "Tensor", size: Size | None = None) -> "Tensor":
        """A tensor as a call takes it, whose values are known to be a picture's in [-1, 1]; dark or bright as it is."""
        check_channels(self, tensor)
        return translate_tensor(self, tensor, size, Blend())

    def translate_planes(self, planes: Pixels, size: Size | None = None) -> Pixels:
        """(C, H, W) float32 in [-1, 1], which consist of `picture_channels`, translated; neither memory nor values are
        checked."""
        source = self.coding.source_of_planes(planes, size)
        return source.decoded(self.model.unchecked(source.input[None])[0])
