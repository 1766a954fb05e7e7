"""How well labels are found, while training: from counts of all held-out pictures, as an evaluation has it."""

from torch import Tensor

from i2i.evaluation.metrics.labels import confusion, scores
from i2i.images import Pixels
from i2i.images.palettes import VOID

METRICS = ("pixel_accuracy", "mean_iou")
Counts = dict[str, Pixels]
"""What is measured → its confusion matrix."""


def counts(made: Tensor, expected: Tensor, classes: int) -> Pixels:
    """The confusion matrix of labels (1, K, H, W): the largest of the K first channels is a pixel's class; where none
    of `expected` is above 0, a pixel has none."""
    right = expected[0, :classes]
    known = (right > 0).any(dim=0)
    found, wanted = (x.argmax(dim=0).cpu() for x in (made[0, :classes], right))
    return confusion(found.numpy(), wanted.masked_fill(~known.cpu(), VOID).numpy(), classes)


def add(total: Counts, more: Counts) -> None:
    """Add the counts of further pictures to `total`."""
    for name, matrix in more.items():
        total[name] = total[name] + matrix if name in total else matrix


def measured(total: Counts) -> dict[str, float]:
    """`<name>/<metric>` → value, of the counts of all pictures; nothing where no pixel has a label."""
    found = {name: scores(matrix) for name, matrix in total.items() if matrix.any()}
    return {f"{name}/{metric}": getattr(made, metric) for name, made in found.items() for metric in METRICS}
