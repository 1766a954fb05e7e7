"""The model files of the benchmarks: as published in shape, with weights as a training begins with them."""

import argparse
import shutil
from pathlib import Path

import torch
from measuring import positive
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import create_generator
from i2i.networks.blocks import init_weights

GENERATORS = ("resnet_9blocks", "unet_256")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument("--network", choices=GENERATORS, default="resnet_9blocks")
    parser.add_argument("--width", type=positive, default=64, help="channels at full resolution")
    parser.add_argument("--model", type=Path, help="a trained model file (.safetensors) in place of drawn weights")


def model_of(options: argparse.Namespace, path: Path) -> Path:
    """The model file that `options` choose, at `path`."""
    if options.model is None:
        return write_model(path, options.network, options.width)
    return Path(shutil.copy(options.model, path))


def named(options: argparse.Namespace) -> str:
    """Its name in tables."""
    if options.model is not None:
        return str(options.model.stem)
    return f"{options.network} with {options.width} channels"


def write_model(path: Path, name: str, width: int = 64) -> Path:
    """A model file of the generator of that name, always the same.

    Its dropout, which a U-Net has as published, is off: no two ways would draw the same noise.
    """
    torch.manual_seed(0)
    network = init_weights(create_generator(name, width=width))
    model_file.save(path, network, describe(network, direction="a2b", dropout=False))
    return path


def gflop(network: nn.Module, size: int) -> float:
    """The operations of the convolutions of `network` for a picture of `size` px; a multiply-add counts two.

    The network is on the meta device afterwards.
    """
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        network.to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return counted.get_total_flops() / 1e9


def weights_gb(network: nn.Module, precision: str) -> float:
    """The gigabytes of its weights in that precision."""
    return sum(p.numel() for p in network.parameters()) * (4 if precision == "fp32" else 2) / 1e9
