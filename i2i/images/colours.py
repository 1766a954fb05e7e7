"""Colours of other kinds to RGB and back.

Arrays (h, w, samples) are the colours of a TIFF: a palette, CMYK, luminance with chroma, CIELAB. Tensors (…, C, H, W)
are sRGB, or its lightness and colours: CIE L*a*b* under D65, by kornia.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from i2i.errors import ImageError
from i2i.images.picture import Pixels, white

if TYPE_CHECKING:
    from torch import Tensor

LIGHTEST, AB_RANGE = 100.0, 110.0
"""L* goes from 0 to 100; a* and b* of sRGB from -108 to 98."""

# CIE 15:2004; the white point is D50, as the ICC has it
_D50 = np.array([0.9642, 1.0, 0.8249], np.float32)
# XYZ relative to D50 to linear sRGB (IEC 61966-2-1), adapted by Bradford's method
_TO_SRGB = np.array(
    [
        [3.1337826, -1.6168778, -0.4906235],
        [-0.9787618, 1.9161365, 0.0334412],
        [0.0719670, -0.2290271, 1.4057905],
    ],
    np.float32,
)
# linear sRGB to XYZ relative to its white D65 (IEC 61966-2-1), and back
_XYZ_D65 = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_TO_XYZ = (_XYZ_D65 / _XYZ_D65.sum(axis=1, keepdims=True)).astype(np.float32)
_FROM_XYZ = np.linalg.inv(_XYZ_D65 / _XYZ_D65.sum(axis=1, keepdims=True)).astype(np.float32)
_BT_601 = (0.299, 0.587, 0.114)
_SUM_TOLERANCE = 0.01


def from_palette(indices: Pixels, table: Sequence[float], bits: int) -> Pixels:
    """(h, w) indices as uint8 RGB; `table` has all reds, then greens, then blues, of 16 bits (TIFF 6.0, Sec. 5)."""
    if len(table) < 3 << bits:
        raise ImageError(f"damaged: a palette of {len(table) // 3} colours where {1 << bits} are expected")
    colours = np.array(table[: 3 << bits], np.uint16).reshape(3, -1)
    # some writers give 8 bits
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8).T[indices]


def from_cmyk(inks: Pixels) -> Pixels:
    """Inks and black in [0, 1] as RGB in [0, 1], without a profile."""
    return (1 - inks[..., :3]) * (1 - inks[..., 3:4])


def from_ycbcr(stored: Pixels, coefficients: Sequence[float], reference: Sequence[float]) -> Pixels:
    """RGB of luminance and chroma, uint8 or uint16, by the tags of the file (TIFF 6.0, Sec. 21).

    Coefficients that are not positive, or do not add up to 1, count as those of BT.601; a reference black that is equal
    to white counts as the full range.
    """
    is_usable = len(coefficients) == 3 and all(0 < weight < 1 for weight in coefficients)
    is_usable = is_usable and math.isclose(sum(coefficients), 1, abs_tol=_SUM_TOLERANCE)
    red, green, blue = coefficients if is_usable else _BT_601
    y, cb, cr = _unscaled(stored, reference)
    r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
    g = (y - red * r - blue * b) / green
    return np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, white(stored))).astype(stored.dtype)


def _unscaled(stored: Pixels, reference: Sequence[float]) -> list[Pixels]:
    full = white(stored)
    middle = (full + 1) / 2
    usual = (0, full, middle, full, middle, full)
    if len(reference) != 6 or not all(map(math.isfinite, reference)):
        reference = usual
    channels = []
    for i, span in enumerate((full, middle - 1, middle - 1)):
        black, bright = reference[2 * i : 2 * i + 2]
        if black == bright:
            black, bright = usual[2 * i : 2 * i + 2]
        channels.append((stored[..., i].astype(np.float32) - black) * (span / (bright - black)))
    return channels


def from_lab(lab: Pixels, icc: bool) -> Pixels:
    """CIELAB, uint8 or uint16, as sRGB of the same depth; colours that sRGB lacks are clamped.

    L* is the range of the type as 0 to 100, a* and b* are signed (TIFF 6.0, Sec. 23); with `icc` they are shifted by
    128, and of 16 bits all three have their whole steps in the upper byte (ICC.1:2001, Annex A).
    """
    step = 1 if lab.dtype == np.uint8 else 256
    stored = lab.astype(np.float32)
    lightness = stored[..., 0] * (100 / (255 * step if icc else white(lab)))
    if icc:
        a, b = (stored[..., i] / step - 128 for i in (1, 2))
    else:
        a, b = (lab[..., i].view(np.int8 if step == 1 else np.int16).astype(np.float32) / step for i in (1, 2))
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    linear = np.clip(_cubed(f) * _D50 @ _TO_SRGB.T, 0, 1)
    return np.rint(from_linear(linear) * white(lab)).astype(lab.dtype)


def to_linear(values: Pixels) -> Pixels:
    """sRGB, float32 in [0, 1], as linear light (IEC 61966-2-1). The straight part goes on below 0."""
    curve = ((np.maximum(values, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= 0.04045, values / np.float32(12.92), curve)


def from_linear(light: Pixels) -> Pixels:
    """The inverse of `to_linear`."""
    curve = np.float32(1.055) * np.maximum(light, 0) ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= 0.0031308, light * np.float32(12.92), curve)


def with_luminance(colours: Pixels, light: Pixels) -> Pixels:
    """The a* and b* of `colours` with the luminance of `light`, both linear sRGB (…, 3) in [0, 1].

    CIE 15:2004, L*a*b* under D65: L* is a function of the luminance Y alone, so Y is exactly that of `light`. A colour
    that sRGB lacks moves straight towards the grey of its own Y until it is there, as ClipColor does in "Compositing
    and Blending Level 1" (W3C), but in linear light.
    """
    y = light @ _TO_XYZ[1]
    f = _lab_curve(colours @ _TO_XYZ.T)
    f += (_lab_curve(y) - f[..., 1])[..., None]
    xyz = _cubed(f).astype(np.float32)
    xyz[..., 1] = y
    grey = y[..., None]
    chroma = xyz @ _FROM_XYZ.T - grey
    room = np.where(chroma > 0, 1 - grey, grey)
    share = np.divide(room, abs(chroma), out=np.ones_like(chroma), where=abs(chroma) > room).min(axis=-1, keepdims=True)
    return grey + np.clip(share, 0, 1) * chroma


def _lab_curve(xyz: Pixels) -> Pixels:
    return np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / np.float32(3 * (6 / 29) ** 2) + np.float32(4 / 29))


def _cubed(f: Pixels) -> Pixels:
    """The inverse of `_lab_curve`."""
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def split_lab(picture: "Tensor") -> tuple["Tensor", "Tensor"]:
    """sRGB (…, 3, H, W) in [-1, 1] → L* (…, 1, H, W) and a*, b* (…, 2, H, W), 0 to 100 and -110 to 110 as [-1, 1]."""
    from kornia.color import rgb_to_lab  # here, since `--help` imports the algorithms and waits for nothing more

    light, colours = rgb_to_lab((picture.float() + 1) / 2).split([1, 2], dim=-3)
    return light * (2 / LIGHTEST) - 1, colours / AB_RANGE


def join_lab(light: "Tensor", colours: "Tensor") -> "Tensor":
    """The inverse of `split_lab`; colours that sRGB has not are clamped. Float32 at least."""
    import torch
    from kornia.color import lab_to_rgb

    from i2i.device import precise

    lab = torch.cat([(precise(light) + 1) * (LIGHTEST / 2), precise(colours) * AB_RANGE], dim=-3)
    return lab_to_rgb(lab) * 2 - 1
