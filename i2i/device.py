"""Devices by name, and the precision of numbers on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from i2i.errors import UsageError


def choose_device(name: str, local_rank: int = 0, world_size: int = 1) -> torch.device:
    """The device of that name; `auto` is a CUDA device, else Apple's, else the CPU.

    Each of several processes on one machine has a CUDA device of its own, by its `local_rank`; Apple's is for one.
    Raises `UsageError` for a device that is not there, and for one that several processes would share.
    """
    kind = name
    if name == "auto":
        apple = world_size == 1 and torch.backends.mps.is_available()
        kind = "cuda" if torch.cuda.is_available() else "mps" if apple else "cpu"
    expected = UsageError(f"device = {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    try:
        device = torch.device(kind)
    except RuntimeError:
        raise expected from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index is not None):
        raise expected
    if device.type == "cuda":
        if device.index is not None and world_size > 1:
            raise UsageError(f"device = {name!r}: {world_size} processes need one each; give cuda")
        alone = torch.cuda.device_count() == 1  # a scheduler may show each process a device of its own
        device = torch.device("cuda", (0 if alone else local_rank) if device.index is None else device.index)
        if not device.index < torch.cuda.device_count():
            there = torch.cuda.device_count() or "no"
            raise UsageError(
                f"device = {name!r}: there are {there} CUDA devices here; give cpu or auto, or see i2i doctor"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device = {name!r}: this machine has none")
    if device.type == "mps" and world_size > 1:
        raise UsageError(f"device = {name!r}: {world_size} processes cannot share it; start one, or give cpu")
    return device


def precise(x: Tensor) -> Tensor:
    """Returns x in float32 or better: in 16 bits means and small differences are coarse, and tanh is 1 beyond 3.5."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, convolutions in float32 on CUDA have 24-bit mantissas; else torch rounds them to 11 (TF32)."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
