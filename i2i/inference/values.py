"""Every kind of value that a translator takes for a picture, and the way back: what is returned is of the same kind."""

import sys
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from i2i.errors import ImageError, UsageError
from i2i.images import Picture, Pixels, decode, read, with_channels
from i2i.images.decoding import from_pil
from i2i.images.encoding import as_pil
from i2i.images.picture import DEFAULT_LIMITS, native, split_alpha
from i2i.images.units import ValueRange, as_stored, in_units
from i2i.inference.blend import Mask
from i2i.inference.options import ALPHA


class Given(NamedTuple):
    """A picture, how its translation is returned, and what an error calls it."""

    picture: Picture
    returned: Callable[[Picture], Any]
    name: str = ""

    def explained(self, error: ImageError) -> Exception:
        """Returns the error to raise: a file cannot be used, or the caller has passed a picture that does not fit."""
        return ImageError(f"{self.name}: {error}") if self.name else UsageError(f"the picture {error}")


def given(value: Any, channels: int, values: ValueRange | None = None) -> Given:
    """Returns `value` as a picture for a network whose pictures have that many channels, with `values` in units.

    Raises `ImageError` for a file that cannot be read, `UsageError` for a value that is no picture.
    """
    if isinstance(value, str | PathLike):
        path = Path(value)
        return Given(_read(lambda: read(path, values=values), str(path)), _image, str(path))
    if isinstance(value, bytes | bytearray | memoryview):
        return Given(_read(lambda: decode(bytes(value), values=values), "bytes"), _image, "bytes")
    if isinstance(value, Image.Image):
        return Given(_from_pil(value, values), _image)
    if isinstance(value, np.ndarray):
        return _of_array(value, channels, values)
    if callable(getattr(value, "read", None)):
        return _of_file(value, values)
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


def _image(result: Picture) -> Any:
    """A PIL image; of values in units an array, (H, W) or (H, W, C), for no mode holds all of them."""
    stored = as_stored(result)
    return as_pil(stored) if result.units is None else _array(stored, grey=True)


def _array(result: Picture, grey: bool) -> Pixels:
    """(H, W, C) with extra channels and alpha, or (H, W) for one channel where it is `grey`."""
    planes = [result.pixels, result.extra, None if result.alpha is None else result.alpha[..., None]]
    found = np.dstack([plane for plane in planes if plane is not None])
    return found[..., 0] if grey and found.shape[2] == 1 else found


def _from_pil(image: Image.Image, values: ValueRange | None) -> Picture:
    try:
        return from_pil(image, values)
    except ImageError as error:
        raise UsageError(f"a PIL image of mode {image.mode} that {error}") from None


def _of_file(file: Any, values: ValueRange | None) -> Given:
    name = str(getattr(file, "name", "") or type(file).__name__)
    data = file.read(DEFAULT_LIMITS.file_bytes + 1)
    if not isinstance(data, bytes):
        raise UsageError(f"{name}: gives {type(data).__name__}; expected a file opened in binary mode, such as 'rb'")
    return Given(_read(lambda: decode(data, values=values), name), _image, name)


def _of_array(array: np.ndarray[Any, Any], channels: int, values: ValueRange | None) -> Given:
    if values is not None:
        return Given(_in_units(array, values), lambda result: _array(as_stored(result), grey=array.ndim == 2))
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.size == 0:
        raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W), uint8 or uint16")
    pixels = native(array if array.ndim == 3 else array[..., None])
    picture = Picture(pixels) if pixels.shape[2] == channels else split_alpha(pixels)

    def returned(result: Picture) -> Pixels:
        if result.units is not None:
            return _array(as_stored(result), grey=array.ndim == 2)
        if result.alpha is not None:
            return np.dstack([result.pixels, result.alpha])
        return result.pixels[..., 0] if array.ndim == 2 and result.pixels.shape[2] == 1 else result.pixels

    return Given(picture, returned)


def _in_units(array: np.ndarray[Any, Any], values: ValueRange) -> Picture:
    if array.dtype.kind not in "uif" or array.ndim not in (2, 3) or array.size == 0:
        raise UsageError(f"an array {array.shape} of {array.dtype}; expected (H, W, C) or (H, W) of numbers")
    return in_units(Picture(native(array if array.ndim == 3 else array[..., None])), values)


def mask_of(value: Any) -> Mask | None:
    """Returns the mask that `value` gives: (H, W), or `alpha`; None for None.

    It is all that a picture may be, a tensor (H, W), or an array (H, W) of bool, or of floating point in [0, 1].
    Colours count by their luminance, on black. Raises `ImageError` and `UsageError` as `given`.
    """
    if value is None or (isinstance(value, str) and value == ALPHA):
        return value
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


def as_mask(picture: Picture) -> Pixels:
    """The luminance of a picture on black: (H, W) of its type. Raises `ImageError` for channels of data."""
    return with_channels(picture.composited_on("black").pixels, 1)[..., 0]


def checked_mask(picture: Picture) -> Pixels:
    """As `as_mask`. Raises `ImageError` also for integers 0 and 1 alone, which would hide nearly all."""
    mask = as_mask(picture)
    if mask.dtype != np.float32 and mask.max() == 1:
        raise ImageError(
            f"holds only the values 0 and 1; expected 0 to {np.iinfo(mask.dtype).max}, or an array of bool"
        )
    return mask
