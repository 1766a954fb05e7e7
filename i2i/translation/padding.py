"""Pictures of any size for a network that takes only some: mirrored at their edges, and cropped back."""

from typing import Any

import numpy as np

Indices = np.ndarray[Any, np.dtype[np.int64]]


def mirrored(length: int, multiple: int, least: int) -> tuple[Indices, int]:
    """Indices that pad `length` pixels to a multiple, at least `least`, mirrored as often as need be; and how many
    of them come before the first pixel."""
    padded = -(-max(length, least) // multiple) * multiple
    before = (padded - length) // 2
    period = max(1, 2 * (length - 1))
    index = (np.arange(padded) - before) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index), before
