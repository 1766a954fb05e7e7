"""Preparation of networks for training: device, memory format, faster layers, compiler."""

from collections.abc import Collection

import torch
from torch import nn

from i2i.acceleration import accelerate
from i2i.acceleration.compiler import compile_in_place
from i2i.algorithms.algorithm import Algorithm
from i2i.networks.blocks import InstanceNorm, has_batch_norm
from i2i.training.options import TrainingOptions


def prepare(algorithm: Algorithm, options: TrainingOptions, device: torch.device) -> torch.memory_format:
    """Moves the networks to `device`, ready for training; returns the memory format that their images should have.

    The networks stay the same modules with the same weights under the same names. Copies of them, as for samples and
    averages, are not compiled.
    """
    networks = algorithm.networks().values()
    memory_format = best_memory_format(device, options.precision, networks)
    for network in networks:
        accelerate(network.to(device).to(memory_format=memory_format).train(), "training")
        if options.compile:
            compile_in_place(network, dynamic=False)
    return memory_format


def best_memory_format(
    device: torch.device, precision: str = "fp32", networks: Collection[nn.Module] = ()
) -> torch.memory_format:
    """Channels last on CUDA, whose tensor cores want it, and on a CPU for bf16 with instance norm; else it gains
    nothing or costs there, as measured (docs/lab-book.md)."""
    if device.type == "cuda":
        return torch.channels_last
    normalised = any(isinstance(module, InstanceNorm) for network in networks for module in network.modules())
    if device.type == "cpu" and precision == "bf16" and normalised and not any(map(has_batch_norm, networks)):
        return torch.channels_last
    return torch.contiguous_format
