"""SIGINT, SIGTERM and SIGUSR1 ask for an end after the step; a second SIGINT ends at once."""

import signal
from types import FrameType
from typing import Any

from i2i.errors import Interrupted

_EXIT = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}


class Signals:
    """While entered, `received` is the number of the first such signal, else 0."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in _EXIT:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: signals are its business
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def interrupted(number: int, message: str) -> Interrupted:
    """The exception that ends the process with the code for that signal."""
    return Interrupted(message, _EXIT[signal.Signals(number)])


def status_for(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else "preempted"
