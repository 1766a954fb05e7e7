"""Peak memory and multiplications of a network, counted on the device `meta` without computing anything."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from i2i.acceleration import accelerate
from i2i.networks import GeneratorConfig
from i2i.networks.blocks import for_translation


def peak_bytes(config: GeneratorConfig, side: int, by_torch: bool = True) -> int:
    """Returns the most bytes that results of operations hold at one time for an image of `side` × `side`, with the
    layers for torch on a CPU or with those for other runtimes."""
    with torch.device("meta"):
        network, picture = for_translation(config.build()), torch.empty(1, config.in_channels, side, side)
        accelerate(network, "inference", engine="eager" if by_torch else "exported", device=torch.device("cpu"))
    with torch.inference_mode(), _Peak() as peak:
        network(picture)
    return peak.most


@cache
def multiplications(config: GeneratorConfig, least: int = 256) -> float:
    """Returns the multiply-adds for each pixel of a square image with at least `least` pixels a side."""
    multiple = config.size_multiple
    side = max(-(-least // multiple) * multiple, config.minimum_size)
    with torch.device("meta"):
        network, picture = config.build(), torch.empty(1, config.in_channels, side, side)
    with torch.inference_mode(), FlopCounterMode(display=False) as counted:
        for_translation(network)(picture)
    return counted.get_total_flops() / 2 / side**2


class _Peak(TorchDispatchMode):
    """Records the most bytes that results of operations hold at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return result
