"""Networks made ready for training: where they lie, in which memory format, compiled or not."""

from collections.abc import Collection

import torch
from torch import nn

from i2i.algorithms.algorithm import Algorithm
from i2i.errors import UsageError
from i2i.networks.blocks import InstanceNorm, has_batch_norm
from i2i.networks.spectral import keep_out_of_graphs
from i2i.training.options import TrainingOptions

BACKEND = "inductor"
# Each network is compiled once for every way in which it is called: with and without gradients of its weights and
# of its input, at each batch size. Torch counts them together for all networks, and gives up after 8.
_WAYS = 64


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
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _WAYS)
            # dropout draws the numbers that it draws when not compiled, in the same memory format
            choices = {"fallback_random": True} if BACKEND == "inductor" else None
            network.compile(backend=BACKEND, dynamic=False, options=choices)
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


def check_compiler(device: torch.device) -> None:
    """Raises `UsageError` if torch cannot compile for `device` here."""
    try:
        torch.compile(_trial, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch's compilers raise whatever their tools do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"compile = True: torch cannot compile for {device.type} here ({reason}); install what it asks for (on a "
            "CPU a C++ compiler such as g++), or leave out --compile"
        ) from None
    finally:
        torch._dynamo.reset()


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
