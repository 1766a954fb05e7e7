"""Colour spaces that only TIFF has, to RGB: CIELAB, and luminance with chroma by the coefficients of the file."""

import numpy as np
from PIL import Image

from i2i.images.picture import Pixels

# CIE 15:2004; the white point is D50, as the ICC has it
_D50 = np.array([0.9642, 1.0, 0.8249], np.float32)
# XYZ relative to D50 to linear sRGB, adapted by Bradford's method
_TO_SRGB = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]],
    np.float32,
)
_COEFFICIENTS, _REFERENCE = 529, 532
_ROWS = 256


def from_lab(lab: Pixels) -> Pixels:
    """(H, W, 3) uint8, L* as 0 to 255 and a*, b* as signed bytes, as sRGB uint8; what sRGB lacks is clamped."""
    out = np.empty_like(lab)
    for top in range(0, len(lab), _ROWS):
        out[top : top + _ROWS] = _lab_rows(lab[top : top + _ROWS])
    return out


def from_ycbcr(image: Image.Image) -> Pixels:
    """RGB uint8 of a TIFF (TIFF 6.0, Sec. 21), which Pillow would convert with the coefficients of JPEG."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    red, green, blue = (float(value) for value in tags.get(_COEFFICIENTS, (0.299, 0.587, 0.114)))
    reference = [float(value) for value in tags.get(_REFERENCE, (0, 255, 128, 255, 128, 255))]
    stored = np.array(image)
    out = np.empty_like(stored)
    for top in range(0, len(stored), _ROWS):
        y, cb, cr = _unscaled(stored[top : top + _ROWS], reference)
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - red * r - blue * b) / green
        out[top : top + _ROWS] = np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, 255))
    return out


def _unscaled(stored: Pixels, reference: list[float]) -> list[Pixels]:
    channels = []
    for i, full in enumerate((255, 127, 127)):
        black, white = reference[2 * i : 2 * i + 2]
        channels.append((stored[..., i].astype(np.float32) - black) * (full / (white - black)))
    return channels


def _lab_rows(lab: Pixels) -> Pixels:
    lightness = lab[..., 0].astype(np.float32) * (100 / 255)
    a, b = (lab[..., i].view(np.int8).astype(np.float32) for i in (1, 2))
    y = (lightness + 16) / 116
    f = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    epsilon = 6 / 29
    xyz = np.where(f > epsilon, f**3, 3 * epsilon**2 * (f - 4 / 29)) * _D50
    linear = np.clip(xyz @ _TO_SRGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)
