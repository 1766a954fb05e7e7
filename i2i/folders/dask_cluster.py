"""Dask as an executor: its scheduler makes the calls of lost workers again."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, InvalidStateError, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from i2i.folders.clusters import ALL_GONE, ANSWER, RETURN, START, Address, Cluster, Say, explained, killer

T = TypeVar("T")
_POLL = 1.0


@contextmanager
def dask_cluster(address: Address, say: Say) -> Iterator["DaskCluster"]:
    """As `open_cluster`."""
    from distributed import Client

    with _quiet():
        try:
            with ThreadPoolExecutor(1) as thread:  # this one may have a loop of its own
                thread.submit(asyncio.run, _greet(address.place)).result()
            client = Client(address.place, timeout=START / 2, set_as_default=False, name="i2i")
        except (OSError, ValueError, TypeError) as error:
            reason = str(error) or f"no answer in {ANSWER:g} s; is it another service?"
            raise address.unusable(f"no scheduler of Dask answers there: {reason}") from None
        try:
            yield from _on_client(client, address, say)
        finally:
            with suppress(Exception):
                client.close(timeout=2)


def _on_client(client: Any, address: Address, say: Say) -> Iterator["DaskCluster"]:
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=START)
    if not client.nthreads():
        raise address.unusable(
            f"it has no workers, and none came in {START:g} s; start them on your machines: dask worker "
            f"{address.place.removeprefix('tcp://')}"
        )
    cluster = DaskCluster(client, say)
    try:
        yield cluster
    finally:
        cluster.shutdown(wait=False, cancel_futures=True)


async def _greet(place: str) -> None:
    """Raises `TimeoutError` where something else listens, for which the client would wait without end."""
    from distributed import Security, comm

    options = Security().get_connection_args("client")
    (await asyncio.wait_for(comm.connect(place, timeout=ANSWER, **options), ANSWER)).abort()


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs each lost worker at length, on the standard error."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class DaskCluster(Cluster):
    """Calls by Dask's scheduler. A thread counts the workers."""

    def __init__(self, client: Any, say: Say) -> None:
        super().__init__(say)
        self._client = client
        self._places = sum(client.nthreads().values())
        self._tasks: dict[Future[Any], Any] = {}
        self._closed = threading.Event()
        self._broken = ""
        client.subscribe_topic("all", self._heard)
        threading.Thread(target=self._watch, name="i2i-dask", daemon=True).start()

    @property
    def places(self) -> int:
        return max(1, self._places)

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> "Future[T]":
        if self._broken:
            raise BrokenExecutor(self._broken)
        if self._closed.is_set():
            raise RuntimeError("cannot submit after shutdown")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # Dask does not say when, and a call that runs cannot be taken back
        self._tasks[future] = self._client.submit(*_packed(partial(function, *arguments, **named)), pure=False)
        self._tasks[future].add_done_callback(partial(self._finished, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed.set()
        left = dict(self._tasks)
        if cancel_futures and left:
            with suppress(Exception):
                self._client.cancel(list(left.values()), asynchronous=False)
        if wait:
            wait_for(left)

    def run_everywhere(self, function: Callable[..., object], *arguments: object) -> None:
        answers = self._client.run(*_packed(partial(function, *arguments)), on_error="return")
        for worker, answer in answers.items():
            if isinstance(answer, BaseException):
                raise explained(_host(worker), answer)

    def _finished(self, future: "Future[Any]", task: Any) -> None:
        with suppress(InvalidStateError):  # `_watch` may have given it up
            try:
                future.set_result(task.result())  # if its worker is gone, this waits for another to make the result
            except Exception as error:
                future.set_exception(self._reason(task, error))
        self._tasks.pop(future, None)

    def _reason(self, task: Any, error: Exception) -> Exception:
        if task.status != "error":
            self._broken = self._broken or "the scheduler of Dask is gone, or has let go of the work."
            return BrokenExecutor(self._broken)
        if type(error).__name__ == "KilledWorker":
            last = getattr(error, "last_worker", None)
            return killer(_host(str(getattr(last, "address", last))))
        return error

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """The scheduler tells of a lost worker before it makes the calls again."""
        if event[1].get("action") == "remove-worker" and not self._closed.is_set():
            self.tell_lost(_host(event[1]["worker"]))

    def _watch(self) -> None:
        alone_since = 0.0
        while not self._closed.wait(_POLL):
            try:
                self._places = sum(self._client.nthreads().values())
            except Exception:  # the scheduler is gone
                self._places = 0
            alone_since = 0.0 if self._places else alone_since or time.monotonic()
            if alone_since and time.monotonic() - alone_since > RETURN:
                self._broken = ALL_GONE
                for future in list(self._tasks):
                    with suppress(InvalidStateError):
                        future.set_exception(BrokenExecutor(self._broken))
                return


def _packed(call: Callable[[], Any]) -> tuple[Callable[[bytes], Any], bytes]:
    """A call as a function and bytes for it, which only a worker reads: a scheduler needs no i2i then, and a worker
    without it says so. That function travels whole, as it has no name that can be imported."""

    def run(data: bytes) -> Any:
        from multiprocessing.reduction import ForkingPickler

        return ForkingPickler.loads(data)()

    return run, bytes(ForkingPickler.dumps(call))


def _host(worker: str) -> str:
    """`tcp://10.0.0.5:41234` as people say it."""
    return worker.partition("://")[2] or worker
