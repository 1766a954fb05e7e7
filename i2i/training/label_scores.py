"""How well labels are found, while training: from counts of all held-out pictures, as an evaluation has it."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from i2i.evaluation.segmentation import confusion, scores
from i2i.images import Pixels
from i2i.images.palettes import VOID

METRICS = ("pixel_accuracy", "mean_iou")
Counts = dict[str, Pixels]


def counts(name: str, made: Tensor, expected: Tensor, classes: int) -> Counts:
    """`name` → confusion matrix of labels (1, K, H, W): the largest of the K first channels is a pixel's class; where
    none of `expected` is above 0, a pixel has none."""
    right = expected[0, :classes]
    known = (right > 0).any(dim=0)
    found, wanted = (x.argmax(dim=0).cpu() for x in (made[0, :classes], right))
    return {name: confusion(found.numpy(), wanted.masked_fill(~known.cpu(), VOID).numpy(), classes)}


def measured(pictures: Mapping[int, Counts]) -> dict[str, float]:
    """`<name>/<metric>` → value, of the counts of each held-out picture; nothing where no pixel has a label."""
    found: dict[str, float] = {}
    for name in sorted({name for each in pictures.values() for name in each}):
        total = np.sum([each[name] for each in pictures.values()], axis=0)
        if total.sum():
            made = scores(total)
            found |= {f"{name}/{metric}": getattr(made, metric) for metric in METRICS}
    return found
