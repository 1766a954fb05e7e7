"""The picture in the files of `tests/images/heic`, which `make.py` there wrote once."""

from pathlib import Path

import numpy as np

from i2i.images import Pixels

HERE = Path(__file__).parents[1] / "images" / "heic"


def ramp() -> Pixels:
    """Its colours, (32, 48, 3)."""
    y, x = np.mgrid[:32, :48]
    return np.dstack([x * 5, y * 7, (x + y) * 3]).astype(np.uint8)


def alpha() -> Pixels:
    """Its alpha, (32, 48), where a file has that."""
    return np.tile(np.where(np.arange(48) < 24, 255, 40), (32, 1)).astype(np.uint8)
