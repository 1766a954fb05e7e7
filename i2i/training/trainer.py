"""The loop: batches in, steps, states and samples out. Everything is a function of progress.

Batch and augmentation depend on (seed, images seen), a step's randomness on (seed, step): a run that was killed and
resumed gives the same numbers, bit for bit on a CPU.
"""

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import NoReturn

from torch import Tensor

from i2i.acceleration import expect_one_size, prepare
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.options import batch_size, of_one_size
from i2i.data.pair import Datasets, ImagePair, batches
from i2i.errors import DivergedError, I2IError, Interrupted, LockedError, ModelError, OutputError, out_of_memory
from i2i.signals import Signals, interrupted, status_for
from i2i.training.checkpoint import Checkpointer
from i2i.training.data_identity import DataIdentity
from i2i.training.health import EARLY_LOOKS
from i2i.training.monitor import Monitor, Waiting
from i2i.training.options import RunOptions, batch_too_large
from i2i.training.run_folder import RunFolder, put_run
from i2i.training.step import ProcessGroup, Progress, TrainingStep, seed_step
from i2i.training.validation import HeldOut, Validation

FLUSH_SECONDS = 2.0  # that losses stay on the device for at most


class Trainer:
    """Trains `algorithm` on `data` in the run folder `options.run`, from its latest state if it has one."""

    def __init__(self, algorithm: AnyAlgorithm, data: Datasets, options: RunOptions, group: ProcessGroup) -> None:
        assert options.run is not None
        self.algorithm, self.data, self.options, self.group = algorithm, data, options, group
        self.progress = Progress(options, len(data.train), group.world_size)
        self.memory_format = prepare(algorithm.networks().values(), group.device, options.precision, options.compile)
        if of_one_size(options.preprocess):
            expect_one_size(group.device, options.deterministic)
        self.train_step = step = TrainingStep(algorithm, options, group)
        self.signals, self.folder = Signals(), RunFolder(options.run)
        self.monitor = Monitor(step, data, options, self.folder, self.progress)
        self.log = self.monitor.log
        held_out = HeldOut(algorithm, data, group, self.monitor.palettes, self.monitor.report_skipped)
        self.validation = Validation(options, held_out, group, self.signals)
        self.checkpointer = Checkpointer(step, self.validation, self.monitor, DataIdentity(data, options))
        self.save_due = self.started = False
        self.flushed = time.monotonic()
        self.waiting: Waiting = []
        self.stop_reason = ""

    def fit(self) -> None:
        """Train to the end. Raises `Interrupted` after a signal, and errors of the data, once a state is saved."""
        lock = self.folder.locked() if self.group.first else contextlib.nullcontext()
        with lock, self._outcome_recorded(), self.signals:
            self._start()
            with contextlib.closing(self._batches()) as stream:  # workers end before the end of the run is reported
                while not self.stop_reason and (batch := next(stream, None)):
                    lr = self.options.lr * (self.validation.kept.plateau.factor * self.progress.lr_factor)
                    self.train_step.set_learning_rate(lr)
                    try:
                        losses = self.train_step(self.prepared(batch), self.progress.step)
                    except (RuntimeError, MemoryError) as error:
                        if out_of_memory(error):
                            raise batch_too_large(batch, self.options) from None
                        raise
                    self.progress.advance()
                    self._note(batch, losses, lr)
                    self._between_steps()
            self._finish()

    @contextlib.contextmanager
    def _outcome_recorded(self) -> Iterator[None]:
        """However the run ends, `status.json` says so; a run that never started leaves everything as it was."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, DivergedError):
                self.monitor.health.summary(self.progress.step)
            if self.group.first and self.started and not isinstance(error, Interrupted):
                with contextlib.suppress(OutputError, LockedError):
                    self.folder.failed(error, self.progress.step)
                    put_run(self.folder.path)
            raise
        finally:
            self.log.close()

    def _start(self) -> None:
        self.group.barrier()  # nothing is read before the first process has locked the folder
        changes = self.folder.changes(self.options)
        notes, step = self.checkpointer.restore(changes), self.progress.step
        self.log.total, self.log.epochs = self.progress.total_images, self.progress.epochs
        if len(steps := set(self.group.gather_everywhere(step))) > 1:
            raise ModelError(f"{self.folder.path}: not all processes see the same state, but those of steps {steps}")
        for network in self.algorithm.networks().values():
            self.group.broadcast_([*network.parameters(), *network.buffers()])
        if self.group.first:
            self.monitor.started(self.validation.kept.validation_due, notes, changes)
        self.started = True
        self._validate_if_due()
        self.stop_reason = self.validation.stop_reason(step)

    def _batches(self) -> Generator[ImagePair]:
        """The batches that are left."""
        seen, total, of_each = self.progress.images_seen, self.progress.total_images, batch_size(self.options)
        place, pin_memory = (self.group.rank, self.group.world_size), self.group.device.type == "cuda"
        stream = batches(self.data.train, seen, total, of_each, self.options.workers, *place, pin_memory)
        with self._saved_before_errors(), contextlib.closing(stream):
            for batch in stream:
                if batch.skipped:
                    self.monitor.skipped.check(batch.skipped)
                yield batch

    def prepared(self, batch: ImagePair) -> ImagePair:
        """The batch on the device, for the next step, and torch's generators seeded for it."""
        seed_step(self.options.seed, self.progress.step, self.group.rank)
        return batch.to(self.group.device, non_blocking=True).contiguous(self.memory_format)

    def _note(self, batch: ImagePair, losses: dict[str, Tensor], lr: float) -> None:
        """Keeps the step that was just made for `_flush`, and names pictures that could not be read."""
        progress = self.progress
        facts = {"step": progress.step, "images": progress.images_seen, "epoch": progress.epochs_begun, "lr": lr}
        self.waiting.append((facts | ({"damaged": list(batch.skipped)} if batch.skipped else {}), losses))
        if batch.skipped:
            self.monitor.report_skipped(batch.skipped)

    @contextlib.contextmanager
    def _saved_before_errors(self) -> Iterator[None]:
        """Saves a state before an error of the data. Several processes do not, as the others wait elsewhere."""
        try:
            yield
        except I2IError:
            moved = self.progress.step != (self.checkpointer.saved_step or 0)
            if moved and self.group.world_size == 1 and not float(self.train_step.bad_in_a_row):
                with contextlib.suppress(I2IError):  # the first error is the one to report
                    self._save()
            raise

    def _between_steps(self) -> None:
        """Everything that may come between two steps; all processes decide alike."""
        step, now = self.progress.step, time.monotonic()
        flush_due = step % self.options.log_every == 0 or now > self.flushed + FLUSH_SECONDS
        stop, flush, save = self.group.agree([self.signals.received, flush_due, now > self.checkpointer.save_before])
        if flush:
            self._flush()
        if self.progress.validation_due():
            self.validation.schedule()
        with_grid = step == 1 or step % self.options.sample_every == 0 or self.validation.kept.validation_due
        in_longer_run = with_grid or step in EARLY_LOOKS or not self.progress.finished
        if self.progress.finished:
            self.validation.schedule_last()
            with_grid = True
        if self.group.first and (with_grid or step in EARLY_LOOKS):
            with self._saved_before_errors():
                rows = self.monitor.rows(self.checkpointer.networks())
            self.monitor.look(rows, with_grid, in_longer_run)
        self._validate_if_due()
        self.save_due |= bool(save) or step % self.options.save_every == 0
        if stop:
            self._stop(stop)
        # While steps are being skipped the state before them is the better one to go back to.
        if self.save_due and not float(self.train_step.bad_in_a_row):
            self._save()

    def _flush(self) -> None:
        self.flushed = time.monotonic()
        self.monitor.flush(self.waiting)
        self.waiting.clear()
        if float(self.train_step.bad_in_a_row) >= (most := self.options.max_bad_steps):
            raise self.checkpointer.diverged(f"{most} steps in a row were not finite{self.monitor.health.cause()}")

    def _validate_if_due(self) -> None:
        if not self.validation.kept.validation_due:
            return
        with self._saved_before_errors():
            numbers = self.validation.run(self.checkpointer.networks(), self.progress.step)
        if numbers is None:  # not one step further: it is of these weights, first thing after the resume
            self._stop(self.signals.received)
        self.log.validation(self.progress.step, self.progress.epochs_begun, numbers, self.checkpointer.verdict())
        self.save_due |= self.checkpointer.validated()
        self.stop_reason = self.validation.stop_reason(self.progress.step)

    def _save(self) -> None:
        self.save_due = False
        self._flush()
        self.checkpointer.save()
        if self.group.first and not self.checkpointer.missed:
            try:
                self.folder.status("running", self.progress.step, None)
                put_run(self.folder.path)
            except OutputError as error:  # the state is here, and the next save tries again
                self.log.event(self.progress.step, f"saved here alone: {error}")

    def _finish(self) -> None:
        self._flush()
        self.monitor.summary()
        self.checkpointer.finish()
        if self.group.first:
            reason = "" if self.progress.finished else self.stop_reason
            self.monitor.ended(reason, self.checkpointer.never_above_floor())
            put_run(self.folder.path)

    def _stop(self, number: int) -> NoReturn:
        self._flush()
        self.monitor.summary()
        step = self.progress.step
        if step != self.checkpointer.saved_step:
            self._save()
        if self.checkpointer.missed:
            raise OutputError(f"stopped after step {step}, but its state could not be saved")
        error = interrupted(number, "to go on, run the same command again" if self.group.first else "")
        if self.group.first:
            self.log.event(step, f"stopped after step {step}; its state is saved")
            self.folder.status(status_for(number), step, error.exit_code)
            put_run(self.folder.path)
        raise error
