"""Running a network with torch, on a CPU or any other device that torch knows.

Dropout that stays on draws from a seed of the picture and leaves torch's global random numbers alone.
"""

import contextlib
import copy
import hashlib
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from i2i.acceleration import accelerate, shared_copy
from i2i.acceleration.exchange import check_compiler, compile_in_place, refused
from i2i.acceleration.inference import Engine
from i2i.device import exact_float32
from i2i.inference.runtimes import Planes
from i2i.machine import keep_freed_memory
from i2i.networks import OwnNetwork


def seed_of(picture: Tensor, seed: int = 0) -> int:
    """A number that follows from the content of `picture` and from `seed`."""
    content = picture.cpu().contiguous().numpy().tobytes()
    key = seed.to_bytes(8, "little") if seed else b""
    return int.from_bytes(hashlib.blake2b(content, digest_size=7, key=key).digest(), "little")


_ALONE = threading.Lock()  # the generators belong to the process


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and on `device` that follow from `seed`; the random states are restored."""
    with _ALONE, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        apple = torch.mps.get_rng_state() if device.type == "mps" else None
        # `torch.manual_seed` would reseed every GPU, beyond what is restored
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        if apple is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)


_KEPT_MEMORY = 128 << 20
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchRuntime:
    """`network`, which is in its mode of translation, in `precision` on `device`, `compiled` or not.

    Raises `UsageError` if it is to be compiled and torch cannot do so, also at the first picture.
    """

    name = "torch"

    def __init__(self, network: nn.Module, device: torch.device, precision: str, compiled: bool = False) -> None:
        if compiled:
            check_compiler(device)
        if device.type == "cpu":
            keep_freed_memory(_KEPT_MEMORY)
        self.device, self.precision, self._compiled = device, precision, compiled
        self._dtype = _DTYPES[precision]
        self._exactly = exact_float32 if device.type == "cuda" and precision == "fp32" else nullcontext
        plain = device.type == "mps" or isinstance(network, OwnNetwork)
        self._format = torch.contiguous_format if plain else torch.channels_last
        engine: Engine = "compiled" if compiled else "eager"
        fast = accelerate(shared_copy(network), "inference", engine=engine, device=device, dtype=self._dtype)
        if self._dtype != torch.float32:
            fast = copy.deepcopy(fast)  # what `network` holds stays float32
        self.network = fast.to(device, self._dtype).to(memory_format=self._format)
        if compiled:
            compile_in_place(self.network)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._compiled:  # what torch has compiled stays behind
            compile_in_place(self.network)

    def run(self, batch: Planes, seed: int | None = None) -> Planes:
        x = torch.from_numpy(batch)
        if self.device.type == "cuda":
            x = x.pin_memory()
        y = self.tensor(x, seed)
        if self.device.type == "cuda":  # both ways through page-locked memory
            y = torch.empty(y.shape, pin_memory=True).copy_(y)
        result: Any = y.cpu().numpy()
        return result

    def tensor(self, x: Tensor, seed: int | None = None) -> Tensor:
        """As `run`, from a tensor on any device to one on this runtime's."""
        with torch.inference_mode():
            # of another type only there: on the way to it what is pinned would be copied to what is not
            x = x.to(self.device, non_blocking=True).to(self._dtype, memory_format=self._format)
            with nullcontext() if seed is None else seeded(seed, self.device):
                return self._of(x).float().contiguous()

    def _of(self, x: Tensor) -> Tensor:
        try:
            with self._exactly():
                y: Tensor = self.network(x)
        except RuntimeError as error:
            if not self._compiled or (reason := refused(error)) is None:
                raise
            raise reason from None
        return y
