"""One training in several processes, started by torchrun: gradients are averaged between backward and update.

Decisions (stop, save) are agreed on over a gloo group on the CPU, so that no accelerator is waited for.
"""

from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from i2i.device import choose_device
from i2i.machine import end_with_torchrun, meet, place, together

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)


class ProcessGroup:
    """This process among `world_size`; alone unless torchrun started it."""

    def __init__(self, device: str = "auto") -> None:
        here = place()
        end_with_torchrun()
        self.rank, self.world_size = here.rank, here.world_size
        self.device = choose_device(device, here.local_rank, self.world_size)
        if self.device.type == "cuda":  # what names no device, such as NCCL, takes this one
            torch.cuda.set_device(self.device)
        if self.world_size > 1 and not dist.is_initialized():
            meet("nccl" if self.device.type == "cuda" else "gloo", TIMEOUT)
        with together():
            self._control: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if self.world_size > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one flat all-reduce."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with together():
            dist.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([t.numel() for t in tensors])
        torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def agree(self, flags: list[int]) -> list[int]:
        """The maximum of each flag over the processes."""
        if self.world_size == 1:
            return flags
        shared = torch.tensor(flags)
        with together():
            dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._control)
        return shared.tolist()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the first one; elsewhere an empty list."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size if self.first else []
        with together():
            dist.gather_object(value, values if self.first else None, dst=0, group=self._control)
        return values

    def gather_everywhere(self, value: T) -> list[T]:
        """The values of all processes, in rank order, in each of them."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        with together():
            dist.all_gather_object(values, value, group=self._control)
        return values

    def broadcast_(self, tensors: list[Tensor]) -> None:
        """Give every process the first one's numbers."""
        if self.world_size == 1:
            return
        with together():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        if self.world_size > 1:
            with together():
                dist.barrier(group=self._control)

    def close(self) -> None:
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
