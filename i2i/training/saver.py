"""Saving while training goes on: best model files, state, last model files. A full disk is survived for a while."""

import time
from typing import Any

from i2i.errors import OutputError
from i2i.training.distributed import Processes
from i2i.training.logger import RunLog
from i2i.training.outputs import ModelFiles
from i2i.training.state import States
from i2i.training.validation import Validation

ATTEMPTS = 3


class Saver:
    """Saves for all processes, which call it alike; the first one writes.

    The best model files are written as soon as they are known to be the best, and before the state that remembers
    it: after a kill in between, the steps up to it are made again, and they are written again.

    `saved_step` is the step of the newest state that is known to be whole; `missed` counts the saves that
    failed since.
    """

    def __init__(
        self,
        states: States,
        model_files: ModelFiles,
        validation: Validation,
        log: RunLog,
        processes: Processes,
        minutes: float,
    ) -> None:
        self.states, self.model_files, self.validation = states, model_files, validation
        self.log, self.processes, self.minutes = log, processes, minutes
        self.saved_step: int | None = None
        self.missed = 0
        self._last = time.monotonic()

    def late(self) -> bool:
        """Whether it is `minutes` since the last save, or since the start."""
        return time.monotonic() - self._last > self.minutes * 60

    def save(self, step: int, images_seen: int, state: dict[str, Any]) -> None:
        """Save, or log why not. Raises `OutputError` when `ATTEMPTS` saves in a row were missed."""
        failure = self._write(step, images_seen, state) if self.processes.first else None
        missed = 0 if failure is None else self.missed + 1
        (self.missed,) = self.processes.agree([missed])
        self._last = time.monotonic()
        if self.missed >= ATTEMPTS:
            raise failure or OutputError("the first process could not save the state")
        if not self.missed:
            self.saved_step = step
            self.validation.saved(step)

    def _write(self, step: int, images_seen: int, state: dict[str, Any]) -> OutputError | None:
        try:
            self.log.sync()
            self.states.save(step, state, self.validation.score_at(step))
            self.model_files.write(step, images_seen)
        except OutputError as error:
            self.log.event(step, f"not saved: {error}")
            return error
        return None

    def best(self, step: int, images_seen: int) -> None:
        """Write the best model files if the weights of `step` are better than those in them, or log why not."""
        if not self.validation.best_at(step):
            return
        failed = self.processes.first and not self._write_best(step, images_seen)
        if not any(self.processes.agree([int(failed)])):
            self.validation.written(step)

    def _write_best(self, step: int, images_seen: int) -> bool:
        try:
            self.model_files.write(step, images_seen, best=True)
        except OutputError as error:
            self.log.event(step, f"the best model is not written: {error}")
            return False
        return True

    def measured(self, step: int) -> None:
        """Note a validation of the saved state itself: to write that again would put it at risk."""
        failed = self.processes.first and not self._note(step)
        if not any(self.processes.agree([int(failed)])):
            self.validation.saved(step)

    def _note(self, step: int) -> bool:
        try:
            self.states.measured(step, self.validation.score_at(step))
        except OutputError as error:
            self.log.event(step, f"its validation is not noted: {error}")
            return False
        return True
