"""What torchrun tells each process that it starts, and how they meet. Only meeting needs torch.

This is the one place that reads those variables: a shell, a container or a cluster may have left some of them behind.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from i2i.errors import ResourceError, UsageError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_WHO = VARIABLES[:4]
_MEETING = VARIABLES[4:6]
_DIGITS = 9
FIRST = timedelta(hours=1)
"""So long processes wait for each other at the start."""
_ADVICE = (
    f"torchrun sets {', '.join(VARIABLES[:6])} for each process that it starts; to run a single one, "
    f"type: unset {' '.join(_WHO)}"
)


@dataclass(frozen=True)
class Place:
    """This process among all, and among those on its machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place: the only one unless `WORLD_SIZE` says otherwise. An empty variable is as good as none.

    Raises `UsageError` that names the variables if some are missing, no numbers, or contradict each other. Without
    `LOCAL_RANK` the machines are taken to be filled one after the other, each with `LOCAL_WORLD_SIZE` processes.
    """
    numbers = {name: _number(name, environment[name]) for name in _WHO if environment.get(name)}
    world = numbers.get("WORLD_SIZE", 1)
    needed = ("WORLD_SIZE",) if world == 1 else ("RANK", *_MEETING)
    if numbers and (missing := [name for name in needed if not environment.get(name)]):
        raise UsageError(f"{_told(numbers)}, but not {' or '.join(missing)}: {_ADVICE}")
    if world > 1:
        _number("MASTER_PORT", environment["MASTER_PORT"])
    rank, here = numbers.get("RANK", 0), numbers.get("LOCAL_WORLD_SIZE", world)
    found = Place(rank, world, numbers.get("LOCAL_RANK", rank % max(1, here)), here)
    if not (found.rank < found.world_size and found.local_rank < found.local_world_size <= found.world_size):
        raise UsageError(f"{_told(numbers)}: a rank counts from 0 and is below its size; {_ADVICE}")
    return found


def meet(backend: Literal["nccl", "gloo"], timeout: timedelta) -> None:
    """Join the other processes for collective operations of torch, each of which waits for `timeout` at most.

    The first meeting waits longer, for up to `FIRST`: the first process looks at all pictures of a data set before.
    Raises `ResourceError` that names the place if they do not meet.
    """
    from torch.distributed.distributed_c10d import PrefixStore, init_process_group
    from torch.distributed.rendezvous import rendezvous

    # torchrun's own store outlives a restart, and would hand out the addresses of the processes before it
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=FIRST))
        store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        store.set(f"here-{rank}", "")
        store.wait([f"here-{other}" for other in range(world_size)], FIRST)
        store.set_timeout(timeout)
        init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    except (RuntimeError, OSError, ValueError) as error:
        where = ":".join(os.environ.get(name, "") for name in _MEETING)
        first = str(error).partition("\n")[0]
        raise ResourceError(
            f"cannot meet at {where}: {first}; start all processes, and give another MASTER_ADDR or MASTER_PORT if "
            "that one is wrong or taken"
        ) from None


@contextlib.contextmanager
def together(work: str = "training") -> Iterator[None]:
    """Around what is done with the others: one that ends takes them along, and its reason is its own to tell.

    Raises `ResourceError`.
    """
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise ResourceError(f"lost the other processes of this {work}; the one that ended says why ({first})") from None


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise UsageError(f"{name} = {text[:80]!r}: expected a whole number, 0 or more; {_ADVICE}")
    return int(text)


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {number}" for name, number in numbers.items())
