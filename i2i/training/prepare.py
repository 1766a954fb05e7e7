"""Networks made ready for training: where they lie, in which memory format, compiled or not."""

from collections.abc import Collection

import torch
from torch import nn

from i2i.acceleration.compiler import compile_in_place
from i2i.algorithms.algorithm import Algorithm
from i2i.networks.blocks import InstanceNorm, has_batch_norm
from i2i.networks.spectral import keep_out_of_graphs
from i2i.training.options import TrainingOptions


def prepare(algorithm: Algorithm, options: TrainingOptions, device: torch.device) -> torch.memory_format:
    """Move the networks to `device`, ready to be trained; returns the memory format that their images should have.

    Compiled networks stay the modules that they are: the same weights under the same names, and copies of them, as
    for samples and averages, are not compiled.
    """
    networks = algorithm.networks().values()
    memory_format = best_memory_format(device, options.precision, networks)
    if options.compile:
        keep_out_of_graphs()
    for network in networks:
        network.to(device).to(memory_format=memory_format).train()
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
