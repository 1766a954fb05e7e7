"""A trained generator as a function from picture to picture, of any size."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import nearest
from i2i.errors import ImageError, ModelError, UsageError
from i2i.images import Limits, Picture, Pixels, read, to_pixels, to_tensor
from i2i.networks.blocks import for_translation, has_batch_norm
from i2i.translation import model_file
from i2i.translation.model_file import DIRECTIONS, ModelInfo

_PLAIN_MODES = {"L", "LA", "RGB", "RGBA"}


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a CUDA device, else Apple's, else the CPU. Raises `UsageError`."""
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    expected = UsageError(f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise expected from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise expected
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices are usable")
    if device.type == "mps" and not mps:
        raise UsageError(f"device {name!r} is not there")
    return device


def load_translator(style: str | PathLike[str], direction: str | None = None, device: str = "auto") -> "Translator":
    """The translator in a model file, or in a run folder, which has one model file per direction.

    A run folder with two directions needs `direction`, `a2b` or `b2a`. Raises `UsageError` if there is no
    such style or direction, `ModelError` if the model file cannot be used.
    """
    target = pick_device(device)
    network, info = model_file.load(_find(Path(style), direction))
    if direction is not None and info.direction != direction:
        raise UsageError(f"{style} translates {_arrow(info)}, not {direction}")
    return Translator(network, info, target)


def _find(style: Path, direction: str | None) -> Path:
    if direction not in (None, *DIRECTIONS):
        raise UsageError(f"direction {direction!r}: expected {' or '.join(DIRECTIONS)}")
    if not style.exists():
        beside = [entry.name for entry in style.parent.iterdir()] if style.parent.is_dir() else []
        hint = nearest(style.name, beside)
        raise UsageError(f"style {str(style)!r}: no such run folder or model file.{hint}")
    if not style.is_dir():
        return style
    files = {name: style / f"{name}.safetensors" for name in DIRECTIONS}
    there = {name: file for name, file in files.items() if file.exists()}
    if not there:
        raise ModelError(f"{style}: no model file ({' or '.join(f.name for f in files.values())}) is in this folder")
    if direction is None and len(there) > 1:
        which = "; ".join(_arrow(model_file.read_info(file)) for file in there.values())
        raise UsageError(f"{style} translates in two directions; choose one with direction: {which}")
    if direction is not None and direction not in there:
        raise UsageError(f"{style} has no {direction}; it has {', '.join(there)}")
    return there[direction or next(iter(there))]


def _arrow(info: ModelInfo) -> str:
    return f"{info.direction} ({info.input_domain} → {info.output_domain})"


class Translator:
    """Takes a picture to a picture of the same size.

    `network` is put into its mode of translation for good and moved to `device`.
    """

    def __init__(self, network: nn.Module, info: ModelInfo, device: torch.device | str = "cpu") -> None:
        self.info = info
        self.config = info.network_config()
        self.device = torch.device(device)
        self.network = for_translation(network, info.statistics, info.dropout).to(self.device)
        noisy = info.dropout and any(isinstance(m, nn.Dropout) for m in network.modules())
        self._one_by_one = noisy or (info.statistics == "batch" and has_batch_norm(network))
        self._noisy = noisy

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
                return _as_pil(self.translate(read(path)))
            except ImageError as error:
                raise ImageError(f"{path}: {error}") from None
        if isinstance(image, Image.Image):
            return _as_pil(self._channels_or_usage(_from_pil(image)))
        if isinstance(image, np.ndarray):
            return self._array(image)
        if isinstance(image, Tensor):
            return self._tensor(image)
        raise UsageError(f"a {type(image).__name__} is no picture; expected a path, a PIL image, an array, a tensor")

    def translate(self, picture: Picture, size: int | None = None) -> Picture:
        """`picture` translated: alpha, colour profile and EXIF kept, 16 bits if it has more than 8.

        `size` scales its shorter side to so many pixels first, antialiased. Raises `ImageError` if the
        network's channels cannot be had from it.
        """
        x = to_tensor(picture.channels(self.config.in_channels))
        alpha = None if picture.alpha is None else to_tensor(picture.alpha[..., None])
        if size is not None:
            x, alpha = _resize(x, size), None if alpha is None else _resize(alpha, size)
        depth = np.uint8 if picture.pixels.dtype == np.uint8 else np.uint16
        pixels = to_pixels(self._run(x[None])[0], depth)
        result = _split(pixels)
        if result.alpha is None and alpha is not None:
            result.alpha = to_pixels(alpha, depth)[..., 0]
        return replace(result, icc=picture.icc, exif=picture.exif, format=picture.format)

    def _channels_or_usage(self, picture: Picture) -> Picture:
        try:
            return self.translate(picture)
        except ImageError as error:
            raise UsageError(f"the picture {error}") from None

    def _array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.size == 0:
            raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W), uint8 or uint16")
        pixels = _native(array if array.ndim == 3 else array[..., None])
        own = pixels.shape[2] == self.config.in_channels
        result = self._channels_or_usage(Picture(pixels) if own else _split(pixels))
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
        y = self._noise_of(batch, x) if self._noisy else self.network(x)
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
        content = picture.cpu().contiguous().numpy().tobytes()
        seed = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "little")
        with _seeded(seed, self.device):
            return self.network(x)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and on `device` that follow from `seed`; the random states are restored."""
    apple = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # `torch.manual_seed` would reseed every GPU, beyond what is restored
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if apple is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)


def _split(pixels: Pixels) -> Picture:
    """Two channels are luminance with alpha and four are RGB with alpha, as `Picture.channels` has it."""
    if pixels.shape[2] not in (2, 4):
        return Picture(pixels)
    return Picture(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1].copy())


def _resize(x: Tensor, size: int) -> Tensor:
    height, width = x.shape[-2:]
    scale = size / min(height, width)
    target = (max(size, round(height * scale)), max(size, round(width * scale)))
    Limits().check_size(*target)
    return F.interpolate(x[None], target, mode="bicubic", antialias=True)[0].clamp_(-1, 1)


def _native(pixels: Pixels) -> Pixels:
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _from_pil(image: Image.Image) -> Picture:
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing of the orientation
        image = ImageOps.exif_transpose(image)
    icc = image.info.get("icc_profile")
    if image.mode in ("I", "F"):
        raise UsageError(f"a PIL image of mode {image.mode}, whose range is not defined; expected L, RGB, I;16 …")
    try:
        if image.mode not in _PLAIN_MODES and not image.mode.startswith("I;16"):
            icc = None if image.mode == "CMYK" else icc
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        pixels = _native(np.asarray(image))
    except (OSError, ValueError, SyntaxError) as error:  # a file that was opened only now turns out damaged
        raise UsageError(f"a PIL image of mode {image.mode} that cannot be read: {error}") from None
    picture = _split(pixels if pixels.ndim == 3 else pixels[..., None])
    return replace(picture, icc=icc, exif=image.info.get("exif"))


def _as_pil(picture: Picture) -> Image.Image:
    """PIL holds 16 bits only in grey without alpha; anything else comes as 8 bits."""
    channels = picture.pixels.shape[2]
    if channels not in (1, 3):
        raise UsageError(f"a PIL image cannot hold the {channels} channels of the result; pass an array or a tensor")
    layers = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    if layers.dtype == np.uint16 and layers.shape[2] > 1:
        layers = np.rint(layers / 257).astype(np.uint8)
    image = Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    if picture.exif:
        image.info["exif"] = picture.exif
    return image
