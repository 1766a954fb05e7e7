"""SIGINT, SIGTERM and SIGUSR1 ask for an end in good order; a second SIGINT ends at once.

Windows has no SIGUSR1. Ctrl-Break, by which one program there asks another to end, is SIGBREAK.

Python runs a handler between two of its own instructions of the main thread, and a decoder or a network can run for
minutes without any. So a thread listens for signals, and ends the process at the second one.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Literal, NoReturn

from i2i import files
from i2i.errors import Interrupted

BOTH = (signal.SIGINT, signal.SIGTERM)
ALL = (*BOTH, *(getattr(signal, name) for name in ("SIGUSR1", "SIGBREAK") if hasattr(signal, name)))
STOPPING = "stopping after the picture at hand; the same again stops at once"
"""Commands on many pictures say this at a first signal."""
GRACE = 1.0
"""Seconds in which the main thread may end by itself after a second signal."""

_entered: "list[Signals]" = []
"""The contexts that are entered at present, the innermost last."""


class Signals:
    """While entered, `received` is the number of the first signal of `numbers`, else 0. That signal prints `notice`.

    A second signal of `impatient` raises `KeyboardInterrupt` (SIGINT) or `Interrupted` (others). Unless `orderly`, the
    first signal raises `Interrupted`.
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
        self._heard = False
        self._numbers, self._notice, self._impatient = numbers, notice, impatient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        for number in self._numbers:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread may handle signals
                break
        if self._before:
            _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _entered:
            _entered.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.orderly:
            raise interrupted(number, "stopped before the work began", 143)
        if self.received and number in self._impatient:
            raise KeyboardInterrupt if number == signal.SIGINT else interrupted(number, "stopped at once", 143)
        if self._notice and not self.received:
            with contextlib.suppress(
                OSError
            ):  # not through Python's buffers: the signal may have come in the middle of a write
                os.write(2, f"{self._notice}\n".encode())
        self.received = self.received or number

    def insists(self, number: int) -> bool:
        """Whether this signal asks for an end at once. Call it once for each signal."""
        again, self._heard = self._heard, True
        return again and number in self._impatient


class _Base(Signals):
    """The outermost context, in which the listener ends the process."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        super()._note(number, frame)
        if _entered[-1:] == [self]:
            time.sleep(GRACE)  # so that nothing more is begun until then


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While entered, a demand to end at once is met within `GRACE` seconds, whatever the main thread is doing.

    Outside of `Signals`, SIGTERM and a second SIGINT are such demands.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _Base((signal.SIGTERM,), impatient=(signal.SIGINT,)) as base, _Listener(base):
        yield


class _Listener:
    """A thread that hears of signals. Forked processes have no such thread, and handle signals themselves."""

    def __init__(self, base: Signals) -> None:
        self._base, self._left = base, threading.Event()

    def __enter__(self) -> None:
        reader, self._writer = os.pipe()
        if hasattr(os, "set_blocking"):  # on Windows from Python 3.12 on, and there it may block
            os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reader,), name="i2i-signals", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._left.set()
        signal.set_wakeup_fd(self._before)
        os.write(self._writer, b"\0")
        os.close(self._writer)

    def _listen(self, reader: int) -> None:
        while (number := os.read(reader, 1)[0]) != 0:
            if self._ends(number) and not self._left.wait(0 if _entered[-1:] == [self._base] else GRACE):
                _end(number)
        os.close(reader)

    def _ends(self, number: int) -> bool:
        innermost = next(reversed(_entered), None)  # none if the main thread was faster
        return innermost is not None and (
            innermost.insists(number) or (innermost is self._base and number == signal.SIGTERM)
        )


def _end(number: int) -> NoReturn:
    """End this process now. Half-written files, child processes and a hidden cursor do not stay."""
    import psutil  # here: only this needs it

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    files.abandon()
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\r\n")
    os._exit(130 if number == signal.SIGINT else 143)


def _forked() -> None:
    _entered.clear()
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def interrupted(number: int, message: str, terminated: int = 75) -> Interrupted:
    """The exception that ends the process: with 130 after SIGINT, else with `terminated`."""
    return Interrupted(message, 130 if number == signal.SIGINT else terminated)


def status_for(number: int) -> Literal["interrupted", "preempted"]:
    return "interrupted" if number == signal.SIGINT else "preempted"
