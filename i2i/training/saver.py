"""Saving while training goes on: the state, then the model files. A full disk is survived for a while."""

import time
from collections.abc import Callable
from typing import Any

from i2i.errors import OutputError
from i2i.training.distributed import Processes
from i2i.training.logger import RunLog
from i2i.training.state import States

ATTEMPTS = 3


class Saver:
    """Saves for all processes, which call it alike; the first one writes.

    `saved_step` is the step of the newest state that is known to be whole; `missed` counts the saves that
    failed since.
    """

    def __init__(self, states: States, log: RunLog, processes: Processes, minutes: float) -> None:
        self.states, self.log, self.processes, self.minutes = states, log, processes, minutes
        self.saved_step: int | None = None
        self.missed = 0
        self._last = time.monotonic()

    def late(self) -> bool:
        """Whether it is `minutes` since the last save, or since the start."""
        return time.monotonic() - self._last > self.minutes * 60

    def save(
        self, step: int, state: dict[str, Any], metric: float | None, write_model_files: Callable[[], None]
    ) -> None:
        """Save, or log why not. Raises `OutputError` when `ATTEMPTS` saves in a row were missed."""
        failure = self._write(step, state, metric, write_model_files) if self.processes.first else None
        missed = 0 if failure is None else self.missed + 1
        (self.missed,) = self.processes.agree([missed])
        self._last = time.monotonic()
        if self.missed >= ATTEMPTS:
            raise failure or OutputError("the first process could not save the state")
        if not self.missed:
            self.saved_step = step

    def _write(
        self, step: int, state: dict[str, Any], metric: float | None, write_model_files: Callable[[], None]
    ) -> OutputError | None:
        try:
            self.log.sync()
            self.states.save(step, state, metric)
            write_model_files()
        except OutputError as error:
            self.log.event(step, f"not saved: {error}")
            return error
        return None
