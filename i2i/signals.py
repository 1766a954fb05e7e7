"""SIGINT, SIGTERM and SIGUSR1 ask for an end in good order; a second SIGINT ends at once."""

import contextlib
import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

from i2i.errors import Interrupted

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Signals:
    """While entered, `received` is the number of the first such signal, else 0; `notice` is said on stderr then.

    A second one of `impatient` raises `KeyboardInterrupt` or, but for SIGINT, `Interrupted`; so does the first one
    unless `orderly`.
    """

    def __init__(
        self,
        numbers: Sequence[signal.Signals] = ALL,
        notice: str = "",
        orderly: bool = True,
        impatient: Sequence[signal.Signals] = (signal.SIGINT,),
    ) -> None:
        self.received = 0
        self.orderly = orderly
        self._numbers, self._notice, self._impatient = numbers, notice, impatient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in self._numbers:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: signals are its business
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.orderly:
            raise interrupted(number, "stopped before the work began", 143)
        if self.received and number in self._impatient:
            raise KeyboardInterrupt if number == signal.SIGINT else interrupted(number, "stopped at once", 143)
        if self._notice and not self.received:
            with contextlib.suppress(OSError):  # past the buffers, which the signal may have found half-filled
                os.write(2, f"{self._notice}\n".encode())
        self.received = self.received or number


def interrupted(number: int, message: str, terminated: int = 75) -> Interrupted:
    """The exception that ends the process: with 130 after SIGINT, else with `terminated`."""
    return Interrupted(message, 130 if number == signal.SIGINT else terminated)


def status_for(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else "preempted"
