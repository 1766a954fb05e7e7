"""What a picture takes in a network, known before it is tried: a machine that runs out ends the whole work."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2i.errors import ImageError
from i2i.networks import GeneratorConfig

_SIDE = 256
_UNWATCHED = 1 << 28
# convolutions hold copies of what they take and give, in another layout: measured 1.31 to 1.56 (docs/lab-book.md)
_LAID_OUT_ANEW = 1.5
# the picture itself: 8 bits and 32, before and after, padded
_BESIDE = 60.0


class _Peak(TorchDispatchMode):
    """The most bytes that the results of operations hold at one time."""

    def __init__(self) -> None:
        super().__init__()
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


def bytes_per_pixel(config: GeneratorConfig) -> float:
    """About what a picture takes in that network, in bytes for each of its pixels. Nothing is computed for it."""
    with torch.device("meta"):
        network, picture = config.build().eval(), torch.empty(1, config.in_channels, _SIDE, _SIDE)
    with torch.inference_mode(), _Peak() as peak:
        network(picture)
    return _BESIDE + _LAID_OUT_ANEW * peak.most / _SIDE**2


def check_memory(per_pixel: float, height: int, width: int) -> None:
    """Raises `ImageError` if a picture of that size would need more memory than there is."""
    need = per_pixel * height * width
    if need < _UNWATCHED or (there := available()) is None or need <= there:
        return
    fits = int(min(height, width) * (there / need) ** 0.5) // 64 * 64
    hint = f"; --size {fits} would fit" if fits else ""
    raise ImageError(
        f"{width}x{height} pixels need about {need / 1e9:.1f} GB here, {there / 1e9:.1f} GB are free{hint}"
    )


def available() -> int | None:
    """The bytes of memory that this process can still have, where Linux tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:  # of a container
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, limit - used)
