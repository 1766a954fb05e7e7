"""Pictures of any size for a network that takes only some: mirrored at their edges, and cropped back."""

from collections.abc import Callable
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


def fitted(batch: Any, multiple: int, least: int, run: Callable[[Any], Any]) -> Any:
    """`run(batch)`, arrays or tensors (N, C, H, W), with the batch padded for it and the result cropped back."""
    height, width = batch.shape[-2:]
    rows, top = mirrored(height, multiple, least)
    columns, left = mirrored(width, multiple, least)
    x = batch
    if len(rows) != height or len(columns) != width:
        x = batch[..., rows[:, None], columns]
    return run(x)[..., top : top + height, left : left + width]
