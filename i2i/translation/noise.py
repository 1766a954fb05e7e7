"""Random numbers that belong to a picture, and leave everyone else's alone."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor


def seed_of(picture: Tensor, seed: int = 0) -> int:
    """A number that follows from the content of `picture` and from `seed`."""
    content = picture.cpu().contiguous().numpy().tobytes()
    key = seed.to_bytes(8, "little") if seed else b""
    return int.from_bytes(hashlib.blake2b(content, digest_size=7, key=key).digest(), "little")


# the generators belong to the process
_ALONE = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers on the CPU and on `device` that follow from `seed`; the random states are restored."""
    with _ALONE, _restored(seed, device):
        yield


@contextlib.contextmanager
def _restored(seed: int, device: torch.device) -> Iterator[None]:
    apple = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
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
