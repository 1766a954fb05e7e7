"""An executor of processes that loses them: it does again what a lost one had begun, as clusters do."""

import queue
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from typing import Any

from fork_server import CONTEXT

from i2i.errors import ResourceError


class LosingExecutor(Executor):
    """`places` processes, in each of which the functions of `prepare` are called first. A call that `tries` processes
    were lost with has failed."""

    def __init__(self, places: int, prepare: Sequence[Callable[[], None]] = (), tries: int = 4) -> None:
        self.places, self.losses = places, 0
        self._prepare, self._tries = list(prepare), tries
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._busy: dict[int, Any] = {}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._serve, args=(number,)) for number in range(places)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        self._calls.put((future, function, arguments, options))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._over.set()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def kill_soon(self, longest: float = 0.1) -> None:
        """Kill one of the processes at a random moment: after a while the next that is at work."""

        def kill() -> None:
            self._over.wait(random.uniform(0, longest))
            while not self._over.wait(0.002):
                if busy := list(self._busy.values()):
                    self.losses += 1
                    random.choice(busy).kill()
                    return

        threading.Thread(target=kill, daemon=True).start()

    def _serve(self, number: int) -> None:
        process, connection = self._started()
        while (call := self._calls.get()) is not None:
            future, *work = call
            if not future.set_running_or_notify_cancel():
                continue
            for _ in range(self._tries):
                self._busy[number] = process
                try:
                    connection.send(work)
                    error, result = connection.recv()
                except (EOFError, OSError):
                    del self._busy[number]
                    process.join()
                    process, connection = self._started()
                    continue
                self._busy.pop(number, None)
                future.set_exception(error) if error is not None else future.set_result(result)
                break
            else:
                future.set_exception(ResourceError(f"{self._tries} workers were lost with it"))
        connection.close()
        process.join()

    def _started(self) -> "tuple[Any, Connection]":
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(there, self._prepare), daemon=True)
        process.start()
        there.close()
        return process, here


def _work(connection: Connection, prepare: list[Callable[[], None]]) -> None:
    for function in prepare:
        function()
    while True:
        try:
            function, arguments, options = connection.recv()
        except EOFError:
            return
        try:
            answer = None, function(*arguments, **options)
        except Exception as error:
            answer = error, None
        connection.send(answer)
