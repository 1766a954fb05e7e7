"""This process and the machine that it runs on: forks, processors, memory, ranks. Importing it does not import torch.

* `prepare` runs when i2i is imported. It turns off what libraries report to their makers (docs/reliability.md). It
  makes forks safe: GNU's OpenMP keeps its threads between computations, they do not survive a fork, and the child would
  wait for them for ever. It sets `MKL_CBWR`: MKL may divide a product of matrices among its threads in another way at
  each run, which changes the last digits; with it the same number of threads gives the same bytes (oneMKL,
  "Conditional Numerical Reproducibility").
* `keep_freed_memory`: the GNU C library gives large freed blocks back to the system, which clears their pages when the
  next step asks for as much. For pix2pix's U-Net on a CPU that is a quarter of the time (docs/lab-book.md). Blocks
  of varying size are better given back: they would leave gaps that fit nothing.
* `place` is the rank of this process among those that torchrun has started. Only this file reads torchrun's variables:
  a shell, a container or a cluster may have left some of them behind.
"""

import contextlib
import ctypes
import math
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from i2i.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from torch.distributed import Store

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_MAPS = Path("/proc/self/maps")
_PAUSE_HARD = 2  # from omp.h
_PR_SET_PDEATHSIG = 1  # from sys/prctl.h

_threads_ended = True


def prepare() -> None:
    """Prepare the process; `i2i` calls this once, when it is imported."""
    os.environ.update(SILENT)
    os.environ.setdefault("MKL_CBWR", "AUTO")
    # OpenVINO works without this package, and has no other switch
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_threads, after_in_child=_after_fork)


def _end_threads() -> None:
    """End the threads that OpenMP keeps for this thread. Parent and child start others when they need them."""
    global _threads_ended
    ended = [_end_openmp(path) for path in (_openmp() if "torch" in sys.modules else ())]
    _threads_ended = all(ended)


def _openmp() -> set[str]:
    """GNU's OpenMP libraries in this process, of which there can be several. Other OpenMP libraries handle forks.

    psutil reads these names from `smaps`, for which the system walks through all pages.
    """
    try:
        fields = [line.split(maxsplit=5) for line in os.fsdecode(_MAPS.read_bytes()).splitlines()]
    except OSError:
        return set()
    paths = {found[5] for found in fields if len(found) > 5}
    return {path for path in paths if os.path.basename(path).startswith("libgomp")}  # noqa: PTH119 (as text)


def _end_openmp(path: str) -> bool:
    try:
        return int(ctypes.CDLL(path).omp_pause_resource_all(_PAUSE_HARD)) == 0
    except (OSError, AttributeError):  # older than OpenMP 5
        return False


def _after_fork() -> None:
    if not _threads_ended:
        sys.modules["torch"].set_num_threads(1)
    for session in list(_sessions):
        session.leave()


class Session:
    """Holds an object of a library that computes with threads of its own, `held`. They do not survive a fork.

    A forked child makes another one by `start` when it computes. It never ends its parent's: that would wait for those
    threads, or abort.
    """

    def __init__(self) -> None:
        self._made: Any = None
        self.alone = Lock()
        _sessions.add(self)

    def start(self) -> Any:
        raise NotImplementedError

    @property
    def held(self) -> Any:
        if self._made is None:
            self._made = self.start()
        return self._made

    def leave(self) -> None:
        """Forget the parent's object, in a child. Another thread of the parent may have held the lock."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._made))
        self._made, self.alone = None, Lock()


_sessions: "WeakSet[Session]" = WeakSet()


def end_with_parent(number: signal.Signals | None = None) -> None:
    """Ask Linux to send this process a signal, SIGKILL by default, when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if number is None else number)


def end_with_torchrun() -> None:
    """Ask Linux to send SIGTERM to this process when torchrun, if it started it, ends.

    A training would else go on alone when torchrun is killed, and hold its run folder.
    """
    if os.environ.get("TORCHELASTIC_RUN_ID"):
        end_with_parent(signal.SIGTERM)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux's names for it: two on x86, the last on Arm."""
CPUINFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")


@cache
def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself, so that it is faster than float32. False where that is unknown."""
    return not _BF16.isdisjoint(cpu_info("flags", "Features").split())


def cpu_info(*names: str) -> str:
    """Linux's entry for the first processor under one of these names, such as "model name"; empty elsewhere."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def threads() -> int:
    """The number of threads that compute: `OMP_NUM_THREADS`, which `torchrun` sets, or `cores()`."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return cores()


def may_have_gpu() -> bool:
    """Whether there may be a GPU; only torch knows, and its import takes a while."""
    driver = Path(os.environ.get("SYSTEMROOT", "/"), "System32", "nvcuda.dll")  # CUDA's on Windows
    devices = map(Path, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
    return sys.platform == "darwin" or any(path.exists() for path in (*devices, driver))


def available_memory() -> int:
    """The bytes of memory that this process can still have, on this machine and within the limit of its container."""
    import psutil  # here: its import takes 40 ms

    free: int = psutil.virtual_memory().available
    try:
        limit, used = int(_cgroup("memory.max")), int(_cgroup("memory.current"))
        facts = dict(line.split() for line in _cgroup("memory.stat").splitlines())
    except (OSError, ValueError):
        return free
    # cached files count as used; the system drops them when memory is needed
    cached = sum(int(facts.get(name, 0)) for name in ("inactive_file", "active_file"))
    return min(free, limit - max(0, used - cached))


def memory_limit() -> int:
    """The bytes of memory that this process could ever have: the machine's, or the limit of its container."""
    import psutil

    total: int = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        return min(total, int(_cgroup("memory.max")))
    return total


def _cgroup(name: str) -> str:
    return (CGROUP / name).read_text(encoding="ascii")


def peak_memory() -> int:
    """The most bytes of memory that this process has had.

    `getrusage` gives the parent's peak where that was higher when it started this process; Linux knows better.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_WHO = VARIABLES[:4]
_MEETING = VARIABLES[4:6]
_DIGITS = 9
FIRST = timedelta(hours=1)
"""Processes wait for each other so long at the start."""
_PAUSE = 0.02
"""Seconds between two looks at the others, while they start."""
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
    """The place of this process: the only one unless `WORLD_SIZE` says otherwise. An empty variable counts as unset.

    Without `LOCAL_RANK`, ranks fill the machines one after the other, `LOCAL_WORLD_SIZE` on each. Raises `UsageError`
    that names the variables if some are missing, are no numbers, or contradict each other.
    """
    numbers = {name: _number(name, environment[name]) for name in _WHO if environment.get(name)}
    world = numbers.get("WORLD_SIZE", 1)
    needed = ("WORLD_SIZE",) if world == 1 else ("RANK", *_MEETING)
    if numbers and (missing := [name for name in needed if not environment.get(name)]):
        raise UsageError(f"{_list(numbers)}, but not {' or '.join(missing)}: {_ADVICE}")
    if world > 1:
        _number("MASTER_PORT", environment["MASTER_PORT"])
    rank, here = numbers.get("RANK", 0), numbers.get("LOCAL_WORLD_SIZE", world)
    found = Place(rank, world, numbers.get("LOCAL_RANK", rank % max(1, here)), here)
    if not (found.rank < found.world_size and found.local_rank < found.local_world_size <= found.world_size):
        raise UsageError(f"{_list(numbers)}: a rank counts from 0 and is below its size; {_ADVICE}")
    return found


def meet(backend: Literal["nccl", "gloo"], timeout: timedelta) -> None:
    """Join the other processes for torch's collective operations, each of which waits for `timeout` at most.

    The first meeting waits for up to `FIRST`: before it, the first process looks at all pictures of a data set.
    Raises `ResourceError` with the address if the processes do not meet.
    """
    from torch.distributed.distributed_c10d import init_process_group
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, world_size = next(rendezvous("env://", timeout=FIRST))
        store = _namespace(store, rank, world_size)
        store.set_timeout(timeout)
        init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    except (RuntimeError, OSError, ValueError) as error:
        where = ":".join(os.environ.get(name, "") for name in _MEETING)
        first = str(error).partition("\n")[0]
        raise ResourceError(
            f"cannot meet at {where}: {first}; start all processes, and give another MASTER_ADDR or MASTER_PORT if "
            "that one is wrong or taken"
        ) from None


def _namespace(store: "Store", rank: int, world_size: int) -> "Store":
    """The part of `store` that belongs to these processes alone. Returns when all of them are there.

    torchrun's store outlives a restart, with the addresses of processes that are gone, and the machines of a training
    count their restarts separately. So each process calls with a number that it draws. The first process lists the
    calls again and again, and its own number names the part in which those meet who find theirs in the list.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    own, deadline = secrets.token_hex(8), time.monotonic() + FIRST.total_seconds()
    store.set(f"call-{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            calls = store.multi_get([f"call-{other}" for other in range(world_size)])
            store.set("calls", b" ".join(calls).decode())
        heard = store.get("calls").decode().split()
        if heard[rank : rank + 1] == [own]:
            space = PrefixStore(heard[0], store)  # another one, once the first process has started again
            space.set(f"here-{rank}", "")
            if space.check([f"here-{other}" for other in range(world_size)]):
                return space
        time.sleep(_PAUSE)
    raise TimeoutError(f"not all of {world_size} processes came within {FIRST}")


@contextlib.contextmanager
def together(work: str = "training") -> Iterator[None]:
    """Turns the loss of another process, inside, into `ResourceError`. The process that ended tells why."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise ResourceError(f"lost the other processes of this {work}; the one that ended says why ({first})") from None


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise UsageError(f"{name} = {text[:80]!r}: expected a whole number, 0 or more; {_ADVICE}")
    return int(text)


def _list(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} = {number}" for name, number in numbers.items())


# from malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MOST_BLOCKS = 65_536  # that malloc maps by default
_LARGEST_BLOCK = 32 << 20  # the largest that malloc takes from its heap unless it may map none at all
_kept = 0.0


def keep_freed_memory(most: int | None = None) -> None:
    """From now on the process keeps the memory that it frees, and uses it again: all, or about `most` bytes.

    With `most`, blocks above 32 MiB still go back at once. It never keeps less than an earlier call asked for.
    """
    global _kept
    wanted = math.inf if most is None else most
    if sys.platform != "linux" or wanted <= _kept:
        return
    _kept = wanted
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_TRIM_THRESHOLD, -1 if most is None else most)
        library.mallopt(*((_M_MMAP_MAX, 0) if most is None else (_M_MMAP_THRESHOLD, _LARGEST_BLOCK)))


def give_freed_memory_back() -> None:
    """Undo `keep_freed_memory`, for example in a forked process."""
    global _kept
    _kept = 0.0
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, _MOST_BLOCKS)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
