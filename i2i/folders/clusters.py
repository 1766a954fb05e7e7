"""Clusters as executors: `ray_cluster.py` knows Ray, `dask_cluster.py` knows Dask, and each is read when it is named.

`open_cluster` gives a `concurrent.futures.Executor` for the parts of a folder's translation. Both kinds keep one
promise: a call whose worker dies is made again elsewhere, `TRIES` times in all. So a call must bear to be made twice.
A cluster that was started here ends with the work. One that was there before stays, with whatever else runs on it.
"""

import re
import socket
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import NamedTuple

from i2i import __version__
from i2i.errors import I2IError, ResourceError, UsageError
from i2i.terminal import printable, say_plain

Say = Callable[[str], object]

TRIES = 4
"""How often a call is made whose workers die: as often as Dask's scheduler makes it by default."""
ANSWER, START, RETURN = 10.0, 60.0, 300.0
"""Seconds in which an address has to answer, a first worker has to be there, and a new one after all were lost."""
ALL_GONE = f"all workers of the cluster are gone, and none came back in {RETURN:g} s."
_EXPECTED = "expected ray, ray:HOST:6379, ray://HOST:10001 or dask://HOST:8786"
_PACKAGES = {"ray": ("Ray", "ray"), "dask": ("Dask", "distributed")}


class Address(NamedTuple):
    """The value of `--cluster`: its library, and the address by which the library knows it, empty for an own one."""

    text: str
    library: str
    place: str

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port, where the address has them."""
        match = re.fullmatch(r"(?:\w+://)?\[?([^/\[\]]+)\]?:(\d+)/?", self.place)
        return (match[1], int(match[2])) if match else None

    def unusable(self, reason: object) -> ResourceError:
        """The error for a cluster that cannot be used. It has the first line of an exception."""
        first = str(reason).strip().partition("\n")[0] or type(reason).__name__
        return ResourceError(f"cluster {printable(self.text)}: {first}")


def parse_address(text: str) -> Address:
    """Reads the value of `--cluster`. Raises `UsageError` for a wrong one, and where its library is not installed."""
    library, colon, place = text.partition(":")
    if place.startswith("//"):
        place = f"{'ray' if library == 'ray' else 'tcp'}:{place}"
    address = Address(text, library, place)
    local = library == "ray" and place in ("", "auto") and (not colon or place)
    if library not in _PACKAGES or not (local or address.endpoint):
        raise UsageError(f"cluster = {printable(text)!r}: {_EXPECTED}")
    name, module = _PACKAGES[library]
    if find_spec(module) is None:
        raise UsageError(f"cluster = {printable(text)!r}: needs {name}: pip install 'i2i[{library}]'")
    return address


@contextmanager
def open_cluster(text: str, *, gpu_share: float | None = None, say: Say = say_plain) -> Iterator["Cluster"]:
    """Connects to the cluster that `text` names, or starts one. `say` gets a line for each worker that is lost.

    `gpu_share` is the part of a GPU that each worker takes (Ray). Default: a whole one where the cluster has GPUs.

    Raises `UsageError` for a wrong address, a missing library, or GPUs that are not there; `ResourceError` if nothing
    answers there, or no worker comes.
    """
    address = parse_address(text)
    if address.library == "dask" and gpu_share is not None:
        raise UsageError("gpu_share is for Ray; with Dask, start a worker for each share of a GPU")
    if address.endpoint:
        _check_answer(address, *address.endpoint)
    if address.library == "ray":
        from i2i.folders.ray_cluster import ray_cluster

        connected: AbstractContextManager[Cluster] = ray_cluster(address, gpu_share, say)
    else:
        from i2i.folders.dask_cluster import dask_cluster

        connected = dask_cluster(address, say)
    with connected as cluster:
        yield cluster
        cluster.shutdown()


def _check_answer(address: Address, host: str, port: int) -> None:
    """The libraries themselves wait for minutes, and Ray may end the process."""
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise address.unusable(f"nothing answers at {host}:{port} ({reason}); is it started there?") from None


class Cluster(Executor):
    """An executor whose workers are on other machines."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._lost: Counter[str] = Counter()

    @property
    @abstractmethod
    def places(self) -> int:
        """How many calls can run at once."""

    @abstractmethod
    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls `function` once on every machine or worker, also on busy ones. Raises the first error.

        Raises `UsageError` for a machine where `function` cannot be imported.
        """

    @property
    def notices(self) -> list[str]:
        """Lines for the report: the workers that were lost."""
        if not self._lost:
            return []
        names = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in self._lost.items())
        return [f"workers lost: {names}; others made the results that they had not finished"]

    def tell_lost(self, worker: str) -> None:
        self._lost[worker] += 1
        self._say(f"lost a worker on {worker}; others take over its pictures")


def explained(worker: str, error: BaseException) -> BaseException:
    """The error to raise for one that a worker gave to a check."""
    if isinstance(error, I2IError):
        return error
    if isinstance(error, ImportError | AttributeError):
        return UsageError(
            f"{worker} cannot run this i2i ({type(error).__name__}: {error}); install i2i {__version__} and the same "
            "Python there"
        )
    return ResourceError(f"{worker} cannot be used: {type(error).__name__}: {error}")


def killer(worker: str) -> ResourceError:
    """The error of a call that no worker survives."""
    return ResourceError(f"{TRIES} workers ended while they had it, the last on {worker}; is there too little memory?")
