"""One call of a translator: pictures of any kind, one or many, and each comes back as the kind that it was."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat, zip_longest
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from PIL import Image

from i2i.errors import ImageError, UsageError, out_of_memory
from i2i.images import Picture, Pixels, decode, read
from i2i.images.decoding import from_pil
from i2i.images.encoding import as_pil
from i2i.images.picture import DEFAULT_LIMITS, native, split_alpha
from i2i.images.units import ValueRange, as_stored, in_units
from i2i.inference.blend import Blend, Mask, checked_mask
from i2i.inference.options import ALPHA
from i2i.inference.scaling import Size, resized

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

    from i2i.inference.translator import Translator

_NONE_LEFT = object()


@runtime_checkable
class Readable(Protocol):
    """A file that is open."""

    def read(self, size: int, /) -> bytes: ...


PictureLike: TypeAlias = (
    "str | PathLike[str] | bytes | bytearray | memoryview | Readable | Image.Image | np.ndarray[Any, Any] | Tensor"
)
"""All that a translator takes for a picture."""


class Given(NamedTuple):
    """A picture, how its translation is returned, and what an error calls it."""

    picture: Picture
    returned: Callable[[Picture], Any]
    name: str = ""

    def explained(self, error: ImageError) -> Exception:
        """The error to raise: a file cannot be used, or the caller has passed a picture that does not fit."""
        return ImageError(f"{self.name}: {error}") if self.name else UsageError(f"the picture {error}")


Work = tuple[Given, Blend]
"""A picture, and how its translation is blended with it."""


@dataclass(frozen=True)
class Call:
    """Its options: `together` pictures of a list that have one size go through the network together."""

    translator: "Translator"
    size: Size | None
    together: int
    blend: Blend

    def __call__(self, image: object, mask: object) -> Any:
        """Returns the translation of `image`, or a list of those of several, which have one mask or a list of them."""
        if is_several(image):
            return self._translated(self._pairs(image, mask))
        return self._translated([(image, self._with(mask))])[0]

    def _with(self, mask: object) -> Blend:
        if is_several(mask):
            raise UsageError("mask: several for one picture or tensor; expected one, or one for each picture of a list")
        return replace(self.blend, mask=mask_of(mask))

    def _pairs(self, images: Iterable[object], mask: object) -> Iterator[tuple[object, Blend]]:
        if not is_several(mask):
            yield from zip(images, repeat(self._with(mask)), strict=False)
            return
        for image, one in zip_longest(images, mask, fillvalue=_NONE_LEFT):
            if image is _NONE_LEFT or one is _NONE_LEFT:
                raise UsageError("mask: a list of another length than that of the pictures; expected one for each")
            yield image, self._with(one)

    def _translated(self, pairs: Iterable[tuple[object, Blend]]) -> list[Any]:
        results: dict[int, Any] = {}
        waiting: dict[tuple[int, ...], dict[int, Work]] = {}
        for number, (image, blend) in enumerate(pairs):
            if is_tensor(image):
                check_channels(self.translator, image)
                _check_range(image)
                results[number] = translate_tensor(self.translator, image, self.size, blend)
                continue
            one = given(image, self.translator.picture_channels, self.translator.info.input_range)
            shape = one.picture.pixels.shape[:2]
            try:
                blend.check_mask(shape, one.picture.alpha)
            except ImageError as error:
                raise one.explained(error) from None
            group = waiting.setdefault(shape, {})
            group[number] = one, blend
            if len(group) == self.together:
                results |= self._group(waiting.pop(shape))
        for group in waiting.values():
            results |= self._group(group)
        return [results[number] for number in sorted(results)]

    def _group(self, works: dict[int, Work]) -> dict[int, Any]:
        """Pictures of one size; one by one where they fail together, so that the error names its picture."""
        if len(works) > 1:
            try:
                made = self.translator.translate_batch([one.picture for one, _ in works.values()], self.size)
                both = zip(works.items(), made, strict=True)
                return {number: one.returned(blend.of(one.picture, new)) for (number, (one, blend)), new in both}
            except ImageError:
                pass
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
        return {number: self._alone(*work) for number, work in works.items()}

    def _alone(self, one: Given, blend: Blend) -> Any:
        try:
            return one.returned(self.translator.translate(one.picture, self.size, blend))
        except ImageError as error:
            raise one.explained(error) from None


def given(value: object, channels: int, values: ValueRange | None = None) -> Given:
    """Returns `value` as a picture for a network whose pictures have that many channels, with `values` in units.

    Raises `ImageError` for a file that cannot be read, `UsageError` for a value that is no picture.
    """
    if isinstance(value, str | PathLike):
        return _of_file(Path(value), str(Path(value)), values)
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_file(bytes(value), "bytes", values)
    if isinstance(value, Image.Image):
        try:
            return Given(from_pil(value, values), _image)
        except ImageError as error:
            raise UsageError(f"a PIL image of mode {value.mode} that {error}") from None
    if isinstance(value, np.ndarray):
        return _of_array(value, channels, values)
    if isinstance(value, Readable):
        name = str(getattr(value, "name", "") or type(value).__name__)
        data = value.read(DEFAULT_LIMITS.file_bytes + 1)
        if not isinstance(data, bytes):
            got = f"gives {type(data).__name__}"
            raise UsageError(f"{name}: {got}; expected a file opened in binary mode, such as 'rb'")
        return _of_file(data, name, values)
    raise UsageError(
        f"{type(value).__name__}: no picture; expected a path, a file, bytes, a PIL image, an array, a tensor, or "
        "a list of them"
    )


def is_tensor(value: object) -> "TypeIs[Tensor]":
    """Whether `value` is a tensor, without importing torch."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def is_several(value: object) -> TypeGuard[Iterable[object]]:
    """Whether `value` is a list, or another iterable, of pictures."""
    one = isinstance(value, str | PathLike | bytes | bytearray | memoryview | np.ndarray | Mapping) or is_tensor(value)
    return not one and not hasattr(value, "read") and hasattr(value, "__iter__")


def _of_file(file: Path | bytes, name: str, values: ValueRange | None) -> Given:
    try:
        picture = read(file, values=values) if isinstance(file, Path) else decode(file, values=values)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    return Given(picture, _image, name)


def _image(result: Picture) -> Any:
    """A PIL image; of values in units an array, (H, W) or (H, W, C), for no mode holds all of them."""
    stored = as_stored(result)
    return as_pil(stored) if result.units is None else _array(stored, grey=True)


def _array(result: Picture, grey: bool) -> Pixels:
    """(H, W, C) with extra channels and alpha, or (H, W) for one channel where it is `grey`."""
    found = result.stacked()
    return found[..., 0] if grey and found.shape[2] == 1 else found


def _of_array(array: np.ndarray[Any, Any], channels: int, values: ValueRange | None) -> Given:
    fits = array.dtype.newbyteorder("=") in (np.uint8, np.uint16) if values is None else array.dtype.kind in "uif"
    if not fits or array.ndim not in (2, 3) or array.size == 0:
        numbers = ", uint8 or uint16" if values is None else " of numbers"
        raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W){numbers}")
    pixels = native(array if array.ndim == 3 else array[..., None])
    if values is not None:
        picture = in_units(Picture(pixels), values)
    else:
        picture = Picture(pixels) if pixels.shape[2] == channels else split_alpha(pixels)
    return Given(picture, lambda result: _array(as_stored(result), grey=array.ndim == 2))


def mask_of(value: object) -> Mask | None:
    """Returns the mask that `value` gives: (H, W), or `alpha`; None for None.

    It is all that a picture may be, a tensor (H, W), or an array (H, W) of bool, or of floating point in [0, 1].
    Colours count by their luminance, on black. Raises `ImageError` and `UsageError` as `given`.
    """
    if value is None:
        return None
    if isinstance(value, str) and value == ALPHA:
        return ALPHA
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "bf":
        return _shares(value)
    if isinstance(value, np.ndarray) and value.ndim != 2:
        raise UsageError(f"a mask {value.shape} of {value.dtype}; expected (H, W)")
    one = given(value, 1)
    try:
        return checked_mask(one.picture)
    except ImageError as error:
        raise ImageError(f"mask {one.name}: {error}") if one.name else UsageError(f"the mask {error}") from None


def _shares(array: np.ndarray[Any, Any]) -> Pixels:
    shares = array.astype(np.float32)
    if array.ndim != 2 or not array.size or not (shares.min() >= 0 and shares.max() <= 1):  # so that NaN is refused
        values = f"from {shares.min():.4g} to {shares.max():.4g}" if array.size else "empty"
        raise UsageError(f"a mask {array.shape} of {array.dtype}, {values}; expected (H, W) in [0, 1]")
    return shares


_OVERSHOOT = 0.5
"""How far resampling may leave [-1, 1]; what is further out was never a picture in this range."""


def translate_tensor(translator: "Translator", tensor: "Tensor", size: Size | None, blend: Blend) -> "Tensor":
    """(C, H, W) or (N, C, H, W) in [-1, 1] translated: in its type, on its device.

    Raises `UsageError` for a mask of another size.
    """
    import torch

    batch = tensor.detach().float().reshape(-1, *tensor.shape[-3:])
    try:
        blend.check_mask(tensor.shape[-2:])
        made = _batch(translator, batch, size)
        if len(batch) and not blend.is_whole:
            both = zip(batch.cpu().numpy(), made.cpu().numpy(), strict=True)
            made = torch.from_numpy(np.stack([blend.of_planes(own, new) for own, new in both]))
    except ImageError as error:
        raise UsageError(f"the picture {error}") from None
    result = made.to(device=tensor.device, dtype=tensor.dtype)
    # copied here, outside of inference mode, so that the caller may use it in a graph
    return result.clone() if tensor.dim() == 4 else result[0].clone()


def _batch(translator: "Translator", batch: "Tensor", size: Size | None) -> "Tensor":
    import torch

    info, coding = translator.info, translator.coding
    own = batch.shape[-2], batch.shape[-1]
    shape = own if size is None else resized(*own, size)
    if len(batch) == 0:
        indices = coding.outputs is not None and coding.outputs.indexed
        channels = translator.model.spec.out_channels if info.plain else 1 if indices else 3
        return torch.empty(0, channels, *shape)
    if not info.plain or shape != own or translator.network_size(*own) != own:
        planes = [translator.translate_planes(one, size) for one in batch.cpu().numpy()]
        return torch.from_numpy(np.stack(planes))
    return translator.model.tensor(batch)


def check_channels(translator: "Translator", tensor: "Tensor") -> None:
    """Raises `UsageError` unless `tensor` is (C, H, W) or (N, C, H, W) of floating point, with the channels to take."""
    indices = translator.coding.inputs and tensor.dim() in (3, 4) and tensor.shape[-3] == 1
    channels = 1 if indices else translator.picture_channels  # class indices, as pixels
    if tensor.dim() not in (3, 4) or tensor.shape[-3] != channels or 0 in tensor.shape[-2:]:
        raise UsageError(f"a tensor {tuple(tensor.shape)}; expected ({channels}, H, W) or (N, {channels}, H, W)")
    if not tensor.is_floating_point():
        raise UsageError(f"a tensor of {tensor.dtype}; expected floating point in [-1, 1]")


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
        stacklevel=6,  # who called the translator
    )
