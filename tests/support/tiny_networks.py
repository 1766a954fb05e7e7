"""Small networks with drawn weights, to see with and to learn from, and files of them for the life of the process."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from i2i.algorithms.distill import Teacher
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import create_generator
from i2i.networks.blocks import init_weights
from i2i.networks.projected import FeatureNetwork

WIDTHS = (4, 6, 8, 10, 12)
"""Channels of the blocks of a VGG of 10 kB."""


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="i2i-tests-networks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def tensors(widths: tuple[int, ...] = WIDTHS) -> dict[str, torch.Tensor]:
    """One convolution in each of its five blocks, under torchvision's names."""
    random, found, channels = torch.Generator().manual_seed(0), {}, 3
    for number, width in zip(range(0, 15, 3), widths, strict=True):
        weight = torch.randn(width, channels, 3, 3, generator=random) * (2 / (9 * channels)) ** 0.5
        found |= {f"features.{number}.weight": weight, f"features.{number}.bias": torch.zeros(width)}
        channels = width
    return found


def vgg_layers(kind: Literal["D", "E"]) -> nn.Sequential:
    """The convolutional part of torchvision's VGG-16 (D) or VGG-19 (E), drawn as torchvision draws it.

    All of it would take seconds: its last layers have nine tenths of the weights.
    """
    layers: nn.Sequential = make_layers(cfgs[kind])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layers


def unfilled() -> FeatureNetwork:
    """A network of that form with weights as torch draws them, of no file."""
    stages = [[nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1)]]
    stages += [[nn.ReLU(), nn.Conv2d(inner, outer, 3, 2, 1)] for inner, outer in ((6, 8), (8, 10), (10, 12))]
    return FeatureNetwork([nn.Sequential(*stage) for stage in stages], [6, 8, 10, 12], [0.0] * 3, [1.0] * 3)


@functools.cache
def tiny_vgg() -> str:
    save_file(tensors(), _folder() / "vgg.safetensors")
    return str(_folder() / "vgg.safetensors")


def write_teacher(
    path: Path, name: str = "resnet_2blocks", width: int = 12, gain: float = 0.2, described: Any = None, **options: Any
) -> Path:
    """A model file of a network with drawn weights; `described` is for `describe`, `options` are the network's."""
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        network = init_weights(create_generator(name, width=width, **options), gain=gain)
    model_file.save(path, network, describe(network, **{"direction": "a2b", **(described or {})}))
    return path


def unfilled_teacher(name: str = "", download: bool = False) -> Teacher:
    """One to learn from, with weights as torch draws them, of no file."""
    network = create_generator("resnet_2blocks", width=12)
    return Teacher(network, describe(network, direction="a2b"), "")


@functools.cache
def tiny_teacher() -> str:
    return str(write_teacher(_folder() / "teacher.safetensors"))
