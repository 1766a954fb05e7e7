"""CIELAB of a TIFF to sRGB (CIE 15:2004; white point D50 as the ICC has it; IEC 61966-2-1 for sRGB)."""

import numpy as np

from i2i.images.picture import Pixels

_D50 = np.array([0.9642, 1.0, 0.8249], np.float32)
# XYZ relative to D50 to linear sRGB, adapted by Bradford's method
_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]],
    np.float32,
)
_ROWS = 256


def to_srgb(lab: Pixels) -> Pixels:
    """(H, W, 3) uint8, L* as 0 to 255 and a*, b* as signed bytes, as sRGB uint8; what sRGB lacks is clamped."""
    out = np.empty_like(lab)
    for top in range(0, len(lab), _ROWS):
        out[top : top + _ROWS] = _converted(lab[top : top + _ROWS])
    return out


def _converted(lab: Pixels) -> Pixels:
    lightness = lab[..., 0].astype(np.float32) * (100 / 255)
    a, b = (lab[..., i].view(np.int8).astype(np.float32) for i in (1, 2))
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    epsilon = 6 / 29
    xyz = np.where(f > epsilon, f**3, 3 * epsilon**2 * (f - 4 / 29)) * _D50
    linear = np.clip(xyz @ _TO_SRGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)
