"""Pixels and alpha of a picture whose header Pillow has read, whatever its mode: nothing clipped, no depth lost."""

import cv2
import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.images.picture import Pixels

_BLOCK_BYTES = 1 << 20


def pixels_of(image: Image.Image, data: bytes) -> tuple[Pixels, Pixels | None]:
    """Colours (H, W, 1 or 3) and alpha (H, W) or None, both of uint8, uint16 or float32."""
    deep = _is_deep(image, data)
    if deep or _opencv_agrees(image):
        pixels = _by_opencv(image, data)
        if pixels is not None:
            return _split_alpha(pixels, gray=_is_gray(image, data))
        if deep:
            raise ImageError("damaged: the pixels cannot be decoded")
    return _few_grays(image, data) if _has_few_grays(image, data) else of_image(image)


def _has_few_grays(image: Image.Image, data: bytes) -> bool:
    return image.format == "PNG" and data[25] == 0 and data[24] < 8 and "transparency" in image.info


def _few_grays(image: Image.Image, data: bytes) -> tuple[Pixels, Pixels | None]:
    """Grey of 1, 2 or 4 bits with a transparent value, which Pillow compares with the grey scaled to 8 bits."""
    step = 255 // (2 ** data[24] - 1)
    transparent = image.info.pop("transparency")
    pixels = np.array(image.convert("L"))[..., None]
    # of 1 bit Pillow has scaled it
    value = transparent if image.mode == "1" else transparent % 2 ** data[24] * step
    return pixels, np.where(pixels[..., 0] == value, 0, 255).astype(np.uint8)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether there are 16 bits per channel and several channels, which Pillow would reduce to 8."""
    return image.format == "PNG" and data[24] == 16 and data[25] != 0


def _is_gray(image: Image.Image, data: bytes) -> bool:
    # Pillow gives the mode RGBA for 16-bit grey with alpha
    return image.mode in ("L", "I;16") or (image.format == "PNG" and data[25] == 4)


def _opencv_agrees(image: Image.Image) -> bool:
    # not JPEG: some versions of OpenCV fill what a damaged file lacks with grey and say nothing
    if image.format not in ("PNG", "WEBP", "BMP") or image.mode not in ("L", "RGB", "RGBA"):
        return False
    return "transparency" not in image.info and not getattr(image, "is_animated", False)


def _by_opencv(image: Image.Image, data: bytes) -> Pixels | None:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    if pixels.shape[:2] != (image.height, image.width):
        return None
    if pixels.ndim == 2:
        return pixels[..., None]
    return _in_rgb(pixels)


def _in_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 3 or 4) in OpenCV's order of colours, turned round where they are, by rows: no second picture is made."""
    order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    each = max(1, _BLOCK_BYTES // pixels[0].nbytes)
    for top in range(0, len(pixels), each):
        pixels[top : top + each] = cv2.cvtColor(pixels[top : top + each], order)
    return pixels


def of_image(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Colours and alpha of any image of Pillow's whose mode has a range; a transparent colour becomes alpha."""
    image, transparent = _believed(image)
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, transparent)
    gray = image.mode in ("1", "L", "LA", "La")
    if gray and isinstance(transparent, int):  # Pillow's own conversion of these depends on its version
        pixels = np.array(image.convert("L"))[..., None]
        return pixels, np.where(pixels[..., 0] == transparent, 0, 255).astype(np.uint8)
    if image.mode == "La":  # which is converted to nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or transparent is not None:
        image = image.convert("RGBA")
    else:
        image = image.convert("L" if gray else "RGB")
    pixels = np.array(image)
    return _split_alpha(pixels if pixels.ndim == 3 else pixels[..., None], gray)


def _believed(image: Image.Image) -> tuple[Image.Image, object]:
    """The image, and its transparent colour if that is one of its mode; a text of that name is left out."""
    value = image.info.get("transparency")
    kinds = {"P": (int, bytes), "PA": (int, bytes), "RGB": (tuple,)}
    if value is None or isinstance(value, kinds.get(image.mode, (int,))):
        return image, value
    image = image.copy()
    del image.info["transparency"]
    return image, None


def _sixteen_bit(image: Image.Image, transparent: object) -> tuple[Pixels, Pixels | None]:
    pixels = np.asarray(image).astype(np.uint16)[..., None]
    if not isinstance(transparent, int):
        return pixels, None
    return pixels, np.where(pixels[..., 0] == transparent, 0, 65_535).astype(np.uint16)


def _split_alpha(pixels: Pixels, gray: bool) -> tuple[Pixels, Pixels | None]:
    alpha = pixels[..., -1].copy() if pixels.shape[2] in (2, 4) else None
    return np.ascontiguousarray(pixels[..., : 1 if gray else min(3, pixels.shape[2])]), alpha
