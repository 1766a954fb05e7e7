"""A trained generator as a function from picture to picture, of any size."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import from_mapping
from i2i.device import choose_device
from i2i.errors import ImageError, UsageError
from i2i.images import Limits, Picture, read, to_pixels, to_tensor
from i2i.networks.blocks import Statistics, for_translation, has_batch_norm
from i2i.translation import hub, pretrained, styles
from i2i.translation.memory import bytes_per_pixel, check_memory
from i2i.translation.model_info import ModelInfo
from i2i.translation.noise import seed_of, seeded
from i2i.translation.options import ModelOptions, Precision
from i2i.translation.pil import as_pil, from_pil, native, split_alpha

_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_translator(
    style: str | PathLike[str],
    direction: str | None = None,
    device: str = "auto",
    *,
    precision: Precision = "auto",
    norm_stats: Statistics | None = None,
    dropout: bool | None = None,
    seed: int = 0,
    download: bool = False,
    fetching: Callable[[int, int | None], object] | None = None,
) -> "Translator":
    """The translator that `style` names: a path, `hub:owner/name`, or a name (see `i2i.list_styles`).

    A run folder with two directions needs `direction`, `a2b` or `b2a`. `norm_stats` and `dropout` override what
    the model says of batch norm (statistics of each picture, or of the training) and of dropout at test time.
    `download` allows to fetch a style of the catalogue; `fetching` is then called with the bytes that are there
    and their total, if it is known. Raises `UsageError` if there is no such style, direction
    or device, `ModelError` if the model cannot be used.
    """
    asked = {"direction": direction, "device": device, "precision": precision, "norm_stats": norm_stats}
    from_mapping(ModelOptions, asked | {"dropout": dropout, "seed": seed, "download": download})
    target = choose_device(device)
    path = styles.find(
        style if isinstance(style, str) else Path(style), direction, download=download, progress=fetching
    )
    network, info = pretrained.open_model(path, direction=direction, dropout=dropout, statistics=norm_stats)
    return Translator(network, info, target, precision=precision, seed=seed)


class Translator:
    """Takes a picture to a picture of the same size.

    `network` is put into its mode of translation for good and moved to `device`. `precision` bf16 or fp16 lets
    torch's autocast choose; `seed` varies the noise of dropout, where there is any. Raises `UsageError` for fp16
    on a CPU, which has no fast arithmetic for it.
    """

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        device: torch.device | str = "cpu",
        *,
        precision: Precision = "auto",
        seed: int = 0,
    ) -> None:
        self.info = info
        self.config = info.network_config()
        self.device = torch.device(device)
        self.seed = seed
        if precision == "fp16" and self.device.type == "cpu":
            raise UsageError("precision = 'fp16' needs a GPU; a CPU has fp32 and bf16")
        self._autocast = _REDUCED.get(precision)
        self._buffers = dict(network.named_buffers())  # `for_translation` may drop running statistics
        self.network = for_translation(network, info.statistics, info.dropout).to(self.device)
        noisy = info.dropout and any(isinstance(m, nn.Dropout) for m in network.modules())
        together = info.statistics == "batch" and has_batch_norm(network)
        # on a CPU a batch is no faster, and convolutions round differently in it
        if precision not in ("auto", "fp32", *_REDUCED):
            raise UsageError(f"precision = {precision!r}: expected auto, fp32, bf16 or fp16")
        self._one_by_one = noisy or together or self.device.type == "cpu"
        self._noisy = noisy

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        revision: str | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        seed: int = 0,
    ) -> "Translator":
        """The translator in a folder (`config.json`, `model.safetensors`), or in the hub's `owner/name`.

        Raises `ModelError` if it cannot be used or had.
        """
        target = choose_device(device)
        folder = Path(name)
        network, info = pretrained.from_pretrained(folder if folder.is_dir() else hub.fetch(str(name), revision))
        return cls(network, info, target, precision=precision, seed=seed)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` to `folder`. Raises `OutputError`."""
        network = self.config.build()
        network.load_state_dict(self._buffers | self.network.state_dict())
        pretrained.save_pretrained(Path(folder), network, self.info)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload what `save_pretrained` writes to the hub's `owner/name`; returns its address."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.push(Path(folder), repo_id, private=private)

    def __call__(self, image: Any) -> Any:
        """Translate a picture; the same kind comes back.

        A path (gives a PIL image), a PIL image, a NumPy array (H, W) or (H, W, C) of uint8 or uint16, or a
        tensor (C, H, W) or (N, C, H, W) in [-1, 1], of any height and width. Alpha is kept; a PIL image comes
        upright, as its EXIF says, with EXIF and colour profile in its `info`. Neither the other pictures of a
        batch nor earlier calls have an influence, and the random state is left as it was: the noise of dropout
        is drawn from the picture itself. Raises `ImageError` for a file that cannot be read and `UsageError`
        for anything that is no picture for this network.
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
        if isinstance(image, Tensor):
            return self._tensor(image)
        raise UsageError(f"a {type(image).__name__} is no picture; expected a path, a PIL image, an array, a tensor")

    def translate(self, picture: Picture, size: int | None = None) -> Picture:
        """`picture` translated: its depth, alpha, colour profile and EXIF kept.

        `size` scales its shorter side to so many pixels first, antialiased. Raises `ImageError` if the
        network's channels cannot be had from it, or if it is too large for the memory that is free.
        """
        return self.translate_batch([picture], size)[0]

    @cached_property
    def bytes_per_pixel(self) -> float:
        """About what one picture takes of the CPU's memory, for each of its pixels; 0 on other devices."""
        return bytes_per_pixel(self.config) if self.device.type == "cpu" else 0.0

    def translate_batch(self, pictures: Sequence[Picture], size: int | None = None) -> list[Picture]:
        """Pictures of one size (after `size`) through the network together; otherwise as `translate`."""
        inputs = [to_tensor(picture.channels(self.config.in_channels)) for picture in pictures]
        if size is not None:
            inputs = [_resize(x, size) for x in inputs]
        for x in inputs:  # on a GPU torch says so itself; on a CPU the system may end the whole process
            check_memory(self.bytes_per_pixel, *x.shape[-2:])
        outputs = self._run(torch.stack(inputs))
        return [_finished(y, picture, size) for y, picture in zip(outputs, pictures, strict=True)]

    def _channels_or_usage(self, picture: Picture) -> Picture:
        try:
            return self.translate(picture)
        except ImageError as error:
            raise UsageError(f"the picture {error}") from None

    def _array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.size == 0:
            raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W), uint8 or uint16")
        pixels = native(array if array.ndim == 3 else array[..., None])
        own = pixels.shape[2] == self.config.in_channels
        result = self._channels_or_usage(Picture(pixels) if own else split_alpha(pixels))
        if result.alpha is not None:
            return np.dstack([result.pixels, result.alpha])
        return result.pixels[..., 0] if array.ndim == 2 and result.pixels.shape[2] == 1 else result.pixels

    def _tensor(self, tensor: Tensor) -> Tensor:
        wanted = self.config.in_channels
        if tensor.dim() not in (3, 4) or tensor.shape[-3] != wanted or 0 in tensor.shape[-2:]:
            raise UsageError(f"a tensor {tuple(tensor.shape)}; expected ({wanted}, H, W) or (N, {wanted}, H, W)")
        if not tensor.is_floating_point():
            raise UsageError(f"a tensor of {tensor.dtype}; expected floating point in [-1, 1]")
        batch = tensor.detach().float().reshape(-1, *tensor.shape[-3:])
        if len(batch) == 0:
            return tensor.new_empty((0, self.config.out_channels, *tensor.shape[-2:]))
        result = self._run(batch).to(device=tensor.device, dtype=tensor.dtype)
        # copied here, outside of inference mode, so that the caller may use it in a graph
        return result.clone() if tensor.dim() == 4 else result[0].clone()

    def _run(self, batch: Tensor) -> Tensor:
        parts = batch.split(1) if self._one_by_one else [batch]
        with torch.inference_mode():
            return torch.cat([self._padded(part) for part in parts])

    def _padded(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[-2:]
        rows, top = self._reflected(height)
        columns, left = self._reflected(width)
        x = batch.to(self.device)
        if len(rows) != height or len(columns) != width:
            x = x[..., rows.to(self.device)[:, None], columns.to(self.device)]
        y = self._noise_of(batch, x) if self._noisy else self._network(x)
        return y[..., top : top + height, left : left + width]

    def _reflected(self, length: int) -> tuple[Tensor, int]:
        """Indices that pad `length` pixels to what the network takes, mirrored as often as need be."""
        multiple = self.config.size_multiple
        padded = -(-max(length, self.config.minimum_size) // multiple) * multiple
        before = (padded - length) // 2
        period = max(1, 2 * (length - 1))
        index = (torch.arange(padded) - before) % period
        return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index), before

    def _noise_of(self, picture: Tensor, x: Tensor) -> Tensor:
        with seeded(seed_of(picture, self.seed), self.device):
            return self._network(x)

    def _network(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            y: Tensor = self.network(x)
        return y.float()


def _finished(output: Tensor, picture: Picture, size: int | None) -> Picture:
    depth: Any = picture.pixels.dtype.type
    result = split_alpha(to_pixels(output, depth))
    if result.alpha is None and picture.alpha is not None:
        alpha = picture.alpha
        if size is not None:
            alpha = to_pixels(_resize(to_tensor(alpha[..., None]), size), depth)[..., 0]
        result.alpha = alpha
    return replace(result, icc=picture.icc, exif=picture.exif, format=picture.format)


def resized(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width once the shorter side is scaled to `size`. Raises `ImageError` if that is too large."""
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    Limits().check_size(*target)
    return target


def _resize(x: Tensor, size: int) -> Tensor:
    target = resized(x.shape[-2], x.shape[-1], size)
    return F.interpolate(x[None], target, mode="bicubic", antialias=True)[0].clamp_(-1, 1)
