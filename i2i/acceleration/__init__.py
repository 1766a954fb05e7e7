"""The same networks, faster.

`i2i.networks` writes a network once, plainly, with torch's layers. `accelerate` exchanges layers of a built network for
faster ones, in place: the parameters, the state-dict keys and (up to rounding) the results stay. `plain` takes that
back.
"""

from collections.abc import Collection
from typing import Literal

import torch
from torch import nn

from i2i.acceleration.exchange import Network, compile_in_place, plain, shared_copy
from i2i.acceleration.inference import Engine, accelerate_inference
from i2i.acceleration.training import accelerate_training, recompute
from i2i.errors import check_word
from i2i.machine import keep_freed_memory
from i2i.networks import OwnNetwork
from i2i.networks.blocks import InstanceNorm

__all__ = ["accelerate", "plain", "prepare", "recompute", "shared_copy"]

Purpose = Literal["training", "inference"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerate(
    network: Network,
    purpose: Purpose,
    *,
    engine: Engine = "eager",
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Exchanges the layers of `network` for faster ones, in place, and returns it.

    For inference, `network` is in its mode of translation (`for_translation`), and the layers follow from how it will
    run: the `engine`, the `device` and the `dtype`, by default those of its parameters. Layers for training choose
    their way when they are called; if a `dtype` is given, those that would never differ in it stay plain.
    """
    check_word("purpose", purpose, Purpose)
    check_word("engine", engine, Engine)
    if purpose == "training":
        return accelerate_training(network, dtype)
    return accelerate_inference(network, engine, device, dtype)


def prepare(
    networks: Collection[nn.Module], device: torch.device, precision: str = "fp32", compile: bool = False
) -> torch.memory_format:
    """Moves `networks` to `device`, ready to be trained. Returns the memory format that their images should have.

    The networks stay the same modules with the same weights and names. Copies of them, as for samples and averages,
    are not compiled.
    """
    memory_format = best_memory_format(device, precision, networks)
    for network in networks:
        accelerate(network.to(device).to(memory_format=memory_format).train(), "training", dtype=DTYPES[precision])
        if compile:
            compile_in_place(network, dynamic=False)
    return memory_format


def expect_one_size(device: torch.device, deterministic: bool) -> None:
    """Make steps on batches of one size faster: freed memory is kept, cuDNN's fastest algorithms are found once."""
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def best_memory_format(
    device: torch.device, precision: str = "fp32", networks: Collection[nn.Module] = ()
) -> torch.memory_format:
    """Channels last on CUDA, whose tensor cores want it, and on a CPU for bf16 with instance norm; else it gains
    nothing or costs there, as measured (docs/lab-book.md). Never for own networks."""
    if any(isinstance(network, OwnNetwork) for network in networks):  # whose code may use `view`
        return torch.contiguous_format
    if device.type == "cuda":
        return torch.channels_last
    modules = [module for network in networks for module in network.modules()]
    instance, batch = (any(isinstance(module, norm) for module in modules) for norm in (InstanceNorm, nn.BatchNorm2d))
    gains = device.type == "cpu" and precision == "bf16" and instance and not batch
    return torch.channels_last if gains else torch.contiguous_format
