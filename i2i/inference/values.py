"""Every kind of value that a translator takes for a picture, and the way back: what is returned is of the same kind."""

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from i2i.errors import ImageError, UsageError
from i2i.images import Picture, Pixels, decode, read
from i2i.images.picture import DEFAULT_LIMITS, split_alpha
from i2i.images.pil import as_pil, from_pil, native

if TYPE_CHECKING:
    from torch import Tensor

_OVERSHOOT = 0.5
"""How far resampling may leave [-1, 1]; what is further out was never a picture in this range."""


class Given(NamedTuple):
    """A picture, how its translation is returned, and what an error calls it."""

    picture: Picture
    returned: Callable[[Picture], Any]
    name: str = ""

    def explained(self, error: ImageError) -> Exception:
        """Returns the error to raise: a file cannot be used, or the caller has passed a picture that does not fit."""
        return ImageError(f"{self.name}: {error}") if self.name else UsageError(f"the picture {error}")


def given(value: Any, channels: int) -> Given:
    """Returns `value` as a picture for a network whose pictures have that many channels.

    Raises `ImageError` for a file that cannot be read, `UsageError` for a value that is no picture.
    """
    if isinstance(value, str | PathLike):
        path = Path(value)
        return Given(_read(lambda: read(path), str(path)), as_pil, str(path))
    if isinstance(value, bytes | bytearray | memoryview):
        return Given(_read(lambda: decode(bytes(value)), "bytes"), as_pil, "bytes")
    if isinstance(value, Image.Image):
        return Given(from_pil(value), as_pil)
    if isinstance(value, np.ndarray):
        return _of_array(value, channels)
    if callable(getattr(value, "read", None)):
        return _of_file(value)
    raise UsageError(
        f"a {type(value).__name__} is no picture; expected a path, a file, bytes, a PIL image, an array, a tensor, or "
        "a list of them"
    )


def is_tensor(value: Any) -> bool:
    """Returns whether `value` is a tensor, without importing torch."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def is_several(value: Any) -> bool:
    """Returns whether `value` is a list, or another iterable, of pictures."""
    one = isinstance(value, str | PathLike | bytes | bytearray | memoryview | np.ndarray | Mapping)
    return not one and not hasattr(value, "read") and hasattr(value, "__iter__")


def _read(picture: Callable[[], Picture], name: str) -> Picture:
    try:
        return picture()
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def _of_file(file: Any) -> Given:
    name = str(getattr(file, "name", "") or type(file).__name__)
    data = file.read(DEFAULT_LIMITS.file_bytes + 1)
    if not isinstance(data, bytes):
        raise UsageError(f"{name}: gives {type(data).__name__}; expected a file opened in binary mode, such as 'rb'")
    return Given(_read(lambda: decode(data), name), as_pil, name)


def _of_array(array: np.ndarray[Any, Any], channels: int) -> Given:
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.size == 0:
        raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W), uint8 or uint16")
    pixels = native(array if array.ndim == 3 else array[..., None])
    picture = Picture(pixels) if pixels.shape[2] == channels else split_alpha(pixels)

    def returned(result: Picture) -> Pixels:
        if result.alpha is not None:
            return np.dstack([result.pixels, result.alpha])
        return result.pixels[..., 0] if array.ndim == 2 and result.pixels.shape[2] == 1 else result.pixels

    return Given(picture, returned)


def check_tensor(tensor: "Tensor", channels: int) -> None:
    """Raises `UsageError` unless `tensor` is (C, H, W) or (N, C, H, W) of floating point."""
    if tensor.dim() not in (3, 4) or tensor.shape[-3] != channels or 0 in tensor.shape[-2:]:
        raise UsageError(f"a tensor {tuple(tensor.shape)}; expected ({channels}, H, W) or (N, {channels}, H, W)")
    if not tensor.is_floating_point():
        raise UsageError(f"a tensor of {tensor.dtype}; expected floating point in [-1, 1]")


def check_range(tensor: "Tensor") -> None:
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
