"""`Translate`: a style as a transform, in a `Compose` of albumentations or of torchvision."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from os import PathLike, getpid
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import albumentations as A
import numpy as np
from PIL import Image

from i2i.config import from_mapping
from i2i.errors import ImageError, UsageError
from i2i.images import Pixels, with_channels
from i2i.images.picture import Depth, Picture, native, split_alpha
from i2i.inference.options import ModelOptions, Precision
from i2i.inference.translator import Translator, load_translator
from i2i.models import styles

if TYPE_CHECKING:
    from torch import Tensor

Style = str | PathLike[str]

_DEPTHS: tuple[Depth, ...] = (np.uint8, np.uint16, np.float32)
_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
_OVERSHOOT = 0.6
"""How far Lanczos resampling may leave [0, 1]; what is further out was never a picture in this range."""


class Translate(A.ImageOnlyTransform):
    """A transform that translates the image by a style, for an `albumentations.Compose` or a
    `torchvision.transforms.v2.Compose`.

    Size, dtype, channels and all other targets (masks, boxes, keypoints) do not change.

    * `style`: a name, `hub:owner/name` or a path, as for `i2i.load_translator`; or a list of styles, from which each
      call draws one.
    * `direction`: `a2b` or `b2a`. A run folder with two directions needs it.
    * `blend_ratio`: a range (low, high), from which each call draws the share of the translation: 1 gives the
      translation, 0 the image.
    * `device`: `cpu` (in one thread, so that any number of data workers gives the same images), `auto`, `cuda`,
      `cuda:N` or `mps`.
    * `precision`, `paint_size`: as for `i2i.load_translator`.
    * `download`: downloads published styles when the transform is constructed.
    * `p`: the probability of the transform.

    Images are (H, W) or (H, W, C), uint8, uint16 or float32 in [0, 1], so put the transform before `A.Normalize`. A
    colour style gets a grey image as three equal channels, and the result is the luminance of its translation. A grey
    style gets the luminance, and the result has equal channels. Alpha (the last of 2 or 4 channels) stays. `images`,
    `volume` and `volumes` are translated picture by picture, additional targets of type `image` by the same style.

    In torchvision an image is a `tv_tensors.Image` or `Video`, a PIL image of mode L, LA, RGB, RGBA or I;16, or, where
    a sample has none of these, its first tensor: (..., C, H, W) of uint8, uint16 or floating point in [0, 1], so put
    the transform before `v2.Normalize`. All images of a sample get the same style and blend ratio.

    The random choices use the seed of albumentations' `Compose`, or in torchvision torch's random state. Each process
    loads the model at its first image, and does not notice a file that changes later. Before `A.from_dict` and
    `A.load`, evaluate `i2i.Translate` once, so that albumentations knows the class.

    Raises `UsageError` (a `ValueError`) for options out of range, for an unknown style or direction, and for an image
    of another form; `ModelError` for a model that cannot be used.
    """

    def __init__(
        self,
        style: Style | Sequence[Style],
        direction: str | None = None,
        blend_ratio: tuple[float, float] = (1.0, 1.0),
        device: str = "cpu",
        precision: Precision = "auto",
        download: bool = False,
        p: float = 0.5,
        paint_size: int | None = None,
    ) -> None:
        super().__init__(p=p)
        asked = {"direction": direction, "device": device, "precision": precision, "download": download}
        from_mapping(ModelOptions, asked | {"paint_size": paint_size}, "Translate")
        self.style = _as_text(style) if isinstance(style, str | PathLike) else [_as_text(one) for one in style]
        if not self.style:
            raise UsageError("Translate: expected at least one style")
        self.direction = direction
        try:
            low, high = map(float, blend_ratio)
        except (TypeError, ValueError):
            low, high = 1.0, 0.0
        if not 0 <= low <= high <= 1:
            raise UsageError(f"Translate: blend_ratio = {blend_ratio!r}: expected (low, high) with 0 ≤ low ≤ high ≤ 1")
        self.blend_ratio = low, high
        self.device = device
        self.precision = precision
        self.download = download
        self.paint_size = paint_size
        # found here and not in every worker: a wrong name is an error at once, a download happens once
        self._paths = {name: styles.find(name, direction, download=download) for name in self._styles()}

    def __call__(self, *inputs: Any, force_apply: bool = False, **targets: Any) -> Any:
        """The targets of albumentations, by name, or one sample of torchvision, of any structure."""
        if inputs and not targets:
            return _of_torchvision()(self)(*inputs)
        return super().__call__(*inputs, force_apply=force_apply, **targets)

    @classmethod
    def get_class_fullname(cls) -> str:
        """The public name, which stays when the module moves."""
        return "i2i.Translate"

    def get_params(self) -> dict[str, Any]:
        return {"style": self.py_random.choice(self._styles()), "blend": self.py_random.uniform(*self.blend_ratio)}

    def apply(self, img: Pixels, style: str, blend: float, **_: Any) -> Pixels:
        used = self.direction, self.device, self.precision, self.paint_size
        translator = _loaded(getpid(), self._paths[style], *used)
        image = _checked(img)
        with _one_thread() if translator.device.type == "cpu" else nullcontext():
            translation = _translated(translator, image)
        if blend == 1:
            return translation
        mixed = image + np.float32(blend) * (translation.astype(np.float32) - image)
        return (mixed if image.dtype == np.float32 else np.rint(mixed)).astype(image.dtype)

    def _styles(self) -> list[str]:
        return [self.style] if isinstance(self.style, str) else self.style


@cache
def _of_torchvision() -> Any:
    """The class of torchvision's transforms that finds the images in a sample and leaves the rest."""
    import torch
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    class Adapter(v2.Transform):
        def __init__(self, translate: Translate) -> None:
            super().__init__()
            self.translate = translate

        def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
            self.translate.set_random_seed(int(torch.randint(2**63 - 1, ())))
            return self.translate.get_params() if self.translate.should_apply() else {}

        def transform(self, inpt: object, params: dict[str, Any]) -> object:
            if params and isinstance(inpt, Image.Image):
                if inpt.mode not in _MODES:
                    modes = ", ".join(_MODES)
                    raise UsageError(f"Translate: a PIL image of mode {inpt.mode}; expected {modes}: convert it before")
                return Image.fromarray(self.translate.apply(np.asarray(inpt), **params))
            if params and (isinstance(inpt, tv_tensors.Image | tv_tensors.Video) or type(inpt) is torch.Tensor):
                return tv_tensors.wrap(_translated_tensor(self.translate, inpt, params), like=inpt)
            return inpt

    return Adapter


def _translated_tensor(translate: Translate, tensor: "Tensor", params: dict[str, Any]) -> "Tensor":
    """(..., C, H, W) in its own type and on its own device."""
    import torch

    if tensor.dim() < 3 or not tensor.numel():
        raise UsageError(f"Translate: a tensor of shape {tuple(tensor.shape)}; expected (..., C, H, W)")
    held = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    planes = held.reshape(-1, *tensor.shape[-3:]).numpy()
    made = np.stack([translate.apply(one.transpose(1, 2, 0), **params).transpose(2, 0, 1) for one in planes])
    return torch.from_numpy(made).reshape(tensor.shape).to(tensor)


def _as_text(style: Style) -> str:
    """A style that survives JSON: a path stays one, whatever its name."""
    if isinstance(style, str):
        return style
    path = Path(style)
    return str(path) if path.is_absolute() else f"./{path}"


@cache
def _loaded(
    process: int, path: Path, direction: str | None, device: str, precision: Precision, paint_size: int | None
) -> Translator:
    """One for each process: threads and devices of a parent do not survive a fork."""
    try:
        # torch keeps to the one thread of a worker, and survives a fork
        loaded = load_translator(path, direction, device, precision=precision, runtime="torch", paint_size=paint_size)
    except RuntimeError as error:
        if "forked subprocess" not in str(error):
            raise
        raise UsageError(
            f"Translate: device = {device!r} cannot be used in a forked worker; use the default, device='cpu', "
            "or DataLoader(multiprocessing_context='spawn')"
        ) from None
    if loaded.info.in_units:
        raise UsageError(f"Translate: {path} is a model of values in units; expected one of pictures")
    return loaded


class _Threads:
    """How many torch had before the first of those that are inside `_one_thread`, and how many these are.

    With the lock, for torch tells a thread that is new to it what another has set last: so the last that is set is
    what was there before, whoever comes and goes meanwhile.
    """

    lock = Lock()
    inside = before = 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch computes in one thread inside, as in a worker of a DataLoader: sums over other numbers of threads round
    otherwise."""
    import torch

    with _Threads.lock:
        if not _Threads.inside:
            _Threads.before = torch.get_num_threads()
        _Threads.inside += 1
        torch.set_num_threads(1)  # each for itself: a thread that computed before keeps its own number
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.inside -= 1
            torch.set_num_threads(_Threads.before)


def _checked(image: Pixels) -> Pixels:
    """The image in the byte order of this machine and, if it is floating point, within [0, 1]."""
    image = native(np.asarray(image))
    if image.dtype not in _DEPTHS or image.ndim not in (2, 3) or image.size == 0:
        raise UsageError(
            f"Translate: an image {image.shape} of {image.dtype}; "
            "expected (H, W) or (H, W, C) of uint8, uint16 or float32"
        )
    if image.dtype != np.float32:
        return image
    low, high = float(image.min()), float(image.max())
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):  # so that NaN is refused
        raise UsageError(
            f"Translate: a float32 image from {low:.3g} to {high:.3g}; expected [0, 1]: put it before A.Normalize"
        )
    return image.clip(0, 1)


def _translated(translator: Translator, image: Pixels) -> Pixels:
    """In the shape and dtype of `image`."""
    pixels = image if image.ndim == 3 else image[..., None]
    own = pixels.shape[2] == translator.picture_channels
    picture = Picture(pixels) if own else split_alpha(pixels)
    try:
        result = translator.translate(picture)
        found = with_channels(result.pixels, picture.pixels.shape[2])
    except ImageError as error:
        raise UsageError(f"Translate: an image {image.shape}: {error}") from None
    if picture.alpha is not None:
        found = np.dstack([found, picture.alpha])
    return found.reshape(image.shape)
