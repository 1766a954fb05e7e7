"""Train a network that labels photos, from pairs of photos and label pictures.

python scripts/train_segmentation.py --data datasets/facades --classes-b facades --run runs/labels
python scripts/train_segmentation.py --config configs/segmentation_facades.yaml
"""

from dataclasses import dataclass

from i2i.algorithms.segmentation import Segmentation, SegmentationOptions
from i2i.cli import run
from i2i.training.launch import train
from i2i.training.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Options(SegmentationOptions, RunOptions):
    pass


if __name__ == "__main__":
    run(
        lambda options: train(Segmentation, options),
        Options,
        "Train a segmentation network: photos to labels, from pairs.",
    )
