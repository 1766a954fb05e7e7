"""A frozen network to see with, of 10 kB: a VGG of few channels with drawn weights."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from i2i.networks.pretrained import FeatureNetwork

WIDTHS = (4, 6, 8, 10, 12)


def tensors(widths: tuple[int, ...] = WIDTHS) -> dict[str, torch.Tensor]:
    """One convolution in each of its five blocks, under torchvision's names."""
    random, found, channels = torch.Generator().manual_seed(0), {}, 3
    for number, width in zip(range(0, 15, 3), widths, strict=True):
        weight = torch.randn(width, channels, 3, 3, generator=random) * (2 / (9 * channels)) ** 0.5
        found |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(width)}
        channels = width
    return found


def unfilled() -> FeatureNetwork:
    """A network of that form with weights as torch draws them."""
    stages = [[nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1)]]
    stages += [[nn.ReLU(), nn.Conv2d(inner, outer, 3, 2, 1)] for inner, outer in ((6, 8), (8, 10), (10, 12))]
    return FeatureNetwork([nn.Sequential(*stage) for stage in stages], [6, 8, 10, 12], [0.0] * 3, [1.0] * 3)


@functools.cache
def tiny_vgg() -> str:
    """A file with it, which lasts as long as the process."""
    folder = tempfile.mkdtemp(prefix="i2i-tests-vgg-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    save_file(tensors(), Path(folder) / "tiny.safetensors")
    return str(Path(folder) / "tiny.safetensors")
