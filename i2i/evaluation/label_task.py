"""Which labels a model's outputs are scored against: those it makes, or those read back from pictures it makes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from i2i.evaluation.pictures import Item, PictureFiles
from i2i.evaluation.tasks import Task
from i2i.images.palettes import Palette, distance, label_pixels

_LOOKED_AT = 4


@dataclass(frozen=True)
class LabelTask:
    """`right` are the labels that should come out: of the outputs themselves or, with `read_back`, of what another
    model makes of them.
    """

    right: Sequence[Item]
    read_back: bool


def label_task(task: Task, direction: str, reader: str | None, palette: Palette) -> LabelTask | str:
    """What is scored of a model of `direction`, with a model of direction `reader` that makes labels of pictures.

    A model of the other direction makes pictures of labels, and they are read back. One of the same direction, or
    any model without a reader, makes labels itself. If nothing can be scored, the reason why, after `mean_iou`.
    Raises `InputError` for pictures that cannot be read.
    """
    if reader is not None and reader != direction:
        return LabelTask(task.inputs, read_back=True)
    if task.expected is None:
        return (
            f"needs labels to compare with, and {task.where} has no pairs"
            if reader is None
            else f"is read back from pictures made of labels, and the label model makes labels too ({reader})"
        )
    if reader is None and _distance(task.inputs, palette) < _distance(task.expected, palette):
        return (
            f"compares labels, and what this model ({direction}) is given looks more like those of the palette than "
            "what it should make: --label-model reads labels back from pictures"
        )
    return LabelTask(task.expected, read_back=False)


def _distance(items: Sequence[Item], palette: Palette) -> float:
    """How far, on average, the pixels of the first pictures are from the palette; 0 for class indices."""
    files = PictureFiles(items[:_LOOKED_AT])
    return float(np.mean([distance(label_pixels(files.picture(i), palette), palette) for i in range(len(files))]))
