"""Running a network with torch: on a CPU, and on whatever else torch knows."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from i2i.translation.noise import seeded
from i2i.translation.runtime.fast_form import fast_form
from i2i.translation.runtime.protocol import Planes

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchRuntime:
    """`network`, which is in its mode of translation, in `precision` on `device`. On a CPU its channels come last."""

    name = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        self._dtype = _DTYPES[precision]
        self._format = torch.contiguous_format if device.type == "mps" else torch.channels_last
        cpu = device.type == "cpu"
        exact = cpu and self._dtype == torch.float32
        fast = fast_form(network, "exact" if cpu else "group", split_head=cpu, by_winograd=exact)
        if self._dtype != torch.float32:
            fast = copy.deepcopy(fast)  # what `network` holds stays float32
        self.network = fast.to(device, self._dtype).to(memory_format=self._format)

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        x = torch.from_numpy(batch)
        if self.device.type == "cuda":
            x = x.pin_memory()
        result: Any = self.tensor(x, seed).cpu().numpy()
        return result

    def tensor(self, x: Tensor, seed: int | None = None) -> Tensor:
        """As `run`, from a tensor on any device to one on this runtime's."""
        with torch.inference_mode():
            x = x.to(self.device, self._dtype, non_blocking=True).contiguous(memory_format=self._format)
            if seed is None:
                y: Tensor = self.network(x)
            else:
                with seeded(seed, self.device):
                    y = self.network(x)
            return y.float().contiguous()
