"""The loop: batches in, steps, states and samples out. Everything is a function of progress.

Batch and augmentation depend on (seed, images seen), a step's randomness on (seed, step): a run that was
killed and resumed gives the same numbers, bit for bit on a CPU.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from i2i.algorithms.algorithm import Algorithm
from i2i.data.datasets import Datasets
from i2i.data.loader import batches
from i2i.data.options import batch_size, classes, of_one_size
from i2i.data.pair import ImagePair
from i2i.errors import DivergedError, I2IError, Interrupted, ModelError, OutputError
from i2i.inference import failures
from i2i.machine import keep_freed_memory
from i2i.networks.blocks import finite
from i2i.signals import Signals, interrupted, status_for
from i2i.training.damaged import Damaged
from i2i.training.distributed import Processes
from i2i.training.ema import Averages
from i2i.training.logger import RunLog
from i2i.training.memory import Memory
from i2i.training.options import RunOptions
from i2i.training.outputs import ModelFiles, save_grid
from i2i.training.pictures_seen import PicturesSeen
from i2i.training.prepare import prepare
from i2i.training.progress import Progress
from i2i.training.run_folder import RunFolder
from i2i.training.samples import Observer, grid
from i2i.training.saver import Saver
from i2i.training.schedule import factor
from i2i.training.state import States, tensors
from i2i.training.step import TrainingStep, out_of_memory, seed_step
from i2i.training.validation import Validation
from i2i.training.watch import EARLY_LOOKS, Watch

FLUSH_SECONDS = 2.0


class Trainer:
    """Trains `algorithm` on `data` in the run folder `options.run`, from its latest state if it has one."""

    def __init__(self, algorithm: Algorithm, data: Datasets, options: RunOptions, processes: Processes) -> None:
        assert options.run is not None
        self.algorithm, self.data, self.options, self.processes = algorithm, data, options, processes
        self.progress = Progress(options, len(data.train), processes.world_size)
        self.memory_format = prepare(algorithm, options, processes.device)
        if of_one_size(options.preprocess):
            if processes.device.type == "cpu":
                keep_freed_memory()
            elif processes.device.type == "cuda" and not options.deterministic:
                torch.backends.cudnn.benchmark = True  # the fastest algorithms, found once for that size
        self.train_step = TrainingStep(algorithm, options, processes)
        self.averages = Averages(algorithm.translators(), options.ema) if options.ema else None
        self.signals = Signals()
        self.save_due = self.started = False
        self.folder = RunFolder(options.run)
        self.states = States(options.run, options.keep_last, options.keep_every)
        self.log = RunLog(options.run, self.progress.total_images, quiet=not processes.first)
        roots = {name: root for name in ("data", "paired_data") if (root := getattr(options, name))}
        self.damaged = Damaged(self.log, processes, data.count, roots)
        a, b = classes(options)
        self.observer = Observer(
            algorithm,
            data,
            processes,
            lambda names: self.damaged.tell(self.step, names),
            {"A": a, "B": b} if options.direction == "a2b" else {"A": b, "B": a},
        )
        self.validation = Validation(options, self.observer, processes, self.signals)
        self.watch = Watch(algorithm, self.train_step.turns, data.train, options, self.log, processes)
        self.memory = Memory(
            algorithm,
            options.direction,
            self.train_step,
            self.averages,
            self.validation,
            self.damaged,
            self.watch,
            PicturesSeen(data, options),
            of_one_size(options.preprocess),
            processes,
        )
        self.model_files = ModelFiles(algorithm, self.averages, options, self.validation)
        self.saver = Saver(self.states, self.model_files, self.validation, self.log, processes, options.save_minutes)

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def images_seen(self) -> int:
        return self.progress.images_seen

    def fit(self) -> None:
        """Train to the end. Raises `Interrupted` after a signal, and what the data raise, once a state is saved."""
        lock = self.folder.locked() if self.processes.first else contextlib.nullcontext()
        with lock, self._accounted(), self.signals:
            self._start()
            self._loop()
            self._finish()

    @contextlib.contextmanager
    def _accounted(self) -> Iterator[None]:
        """However the run ends, `status.json` tells; a run that never started leaves everything as it was."""
        try:
            yield
        except BaseException as error:
            if self.processes.first and self.started and not isinstance(error, Interrupted):
                known = {DivergedError: "diverged", KeyboardInterrupt: "interrupted"}
                with contextlib.suppress(OutputError):
                    reason = str(error) or type(error).__name__
                    self.folder.status(known.get(type(error), "failed"), self.step, reason=reason)
            raise
        finally:
            self.log.close()

    def _start(self) -> None:
        self.processes.barrier()  # nothing is read before the first process has locked the folder
        changes = self.folder.changes(self.options)
        found, told = self.states.latest(), []
        if found:
            told = self.memory.restore(*found, *(_before(changes, name) for name in ("data", "paired_data")))
            self.progress.resume(found[0], found[1]["images_seen"])
            self.saver.saved_step = self.step
            self.log.total = self.progress.total_images
        if len(steps := set(self.processes.gather_everywhere(self.step))) > 1:
            raise ModelError(f"{self.folder.path}: not all processes see the same state, but those of steps {steps}")
        for network in self.algorithm.networks().values():
            self.processes.broadcast_([*network.parameters(), *network.buffers()])
        if self.processes.first:
            self.log.open(self.step, self.validation.due)
            self.folder.describe(self.options, str(self.processes.device))
            self.folder.status("running", self.step)
            if found:
                self.log.event(self.step, f"resumed at step {self.step} from {self.states.path(found[0]).name}")
            for key, (before, now) in changes.items():
                self.log.event(self.step, f"{key} was {before}, is now {now}")
            for text in told:
                self.log.event(self.step, text)
        self.started = True

    def _loop(self) -> None:
        self.flushed_at = time.monotonic()
        self._validate_if_due()
        if self.validation.reached(self.step):
            return
        stream = self._batches()
        with contextlib.closing(cast(Any, stream)):  # workers end before the run's end is told
            for batch in stream:
                epoch = self.progress.epoch
                lr = self._learning_rate(epoch)
                self.train_step.set_learning_rate(lr)
                self.watch.crops(self.step + 1, batch, self.images_seen)
                losses = self._one_step(batch)
                self.progress.advance()
                facts = {"step": self.step, "images": self.images_seen, "epoch": epoch, "lr": lr}
                self.log.step(facts | ({"damaged": list(batch.skipped)} if batch.skipped else {}), losses)
                self.damaged.tell(self.step, batch.skipped)
                self._after_step()
                if self.validation.reached(self.step):
                    return

    def _batches(self) -> Iterator[ImagePair]:
        options = self.options
        stream = batches(
            self.data.train,
            self.images_seen,
            self.progress.total_images,
            batch_size(options),
            options.workers,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            pin_memory=self.processes.device.type == "cuda",
        )
        with self._steps_kept(), contextlib.closing(cast(Any, stream)):
            for batch in stream:
                if batch.skipped:
                    self.damaged.check(batch.skipped)
                yield batch

    @contextlib.contextmanager
    def _steps_kept(self) -> Iterator[None]:
        """What the data raise costs no step: a state is saved first. Not among several, for the others wait elsewhere.

        To be entered between two steps only, when the state is one to go on from.
        """
        try:
            yield
        except I2IError:
            moved = self.step != (self.saver.saved_step or 0)
            if moved and self.processes.world_size == 1 and not float(self.train_step.bad_in_a_row):
                with contextlib.suppress(I2IError):  # the first error is the one to tell
                    self._save()
            raise

    def play(self, batch: ImagePair, step: int) -> dict[str, Tensor]:
        """One step of all players, and their averages. What the losses wait for is not waited for."""
        seed_step(self.options.seed, step, self.processes.rank)
        batch = batch.to(self.processes.device, non_blocking=True).contiguous(self.memory_format)
        losses = self.train_step(batch, step)
        if self.averages:
            self.averages.update()
        return losses

    def _one_step(self, batch: ImagePair) -> dict[str, Tensor]:
        try:
            return self.play(batch, self.step)
        except (RuntimeError, MemoryError) as error:
            if failures.out_of_memory(error):
                raise out_of_memory(batch, self.options) from None
            raise

    def _after_step(self) -> None:
        """Everything that may come between two steps; all processes decide alike."""
        options, now = self.options, time.monotonic()
        flush = self.step % options.log_every == 0 or now - self.flushed_at > FLUSH_SECONDS
        stop, flush_now, save_now = self.processes.agree([self.signals.received, int(flush), int(self.saver.late())])
        if flush_now:
            self._flush()
        if self.progress.validation_due():
            self.validation.fall_due()
        if self.progress.finished:
            self.validation.run_ended()
        grid_due = self.step == 1 or self.step % options.sample_every == 0
        if self.processes.first and (grid_due or self.step in EARLY_LOOKS):
            self._look(grid_due)
        self._validate_if_due()
        self.save_due |= bool(save_now) or self.step % options.save_every == 0
        if stop:
            self._stop(stop)
        # While steps are being skipped the state before them is the better one to go back to.
        if self.save_due and not float(self.train_step.bad_in_a_row):
            self._save()

    def _learning_rate(self, epoch: int) -> float:
        o = self.options
        scheduled = factor(o.lr_policy, epoch, o.n_epochs, o.n_epochs_decay, o.lr_decay_epochs)
        return o.lr * self.validation.plateau_factor * scheduled

    def _flush(self) -> None:
        self.flushed_at = time.monotonic()
        values = self.log.fetch()
        if values is not None:
            self.processes.average_([values])
        if lines := self.log.flush(values):
            self.watch.steps(lines)
            self.log.show(lines[-1])
        if float(self.train_step.bad_in_a_row) >= self.options.max_bad_steps:
            raise self._diverged(f"{self.options.max_bad_steps} steps in a row were not finite{self.watch.blame()}")

    def _diverged(self, what: str) -> DivergedError:
        self.watch.summary(self.step)
        steps = self.states.steps()
        last = f"the last good state is {self.states.path(steps[-1])}" if steps else "no state was saved before"
        return DivergedError(
            f"training diverged at step {self.step}: {what}; {last}. A smaller --lr or --clip-grad 1 usually "
            "helps, or --precision bf16 in place of fp16."
        )

    def _look(self, grid_due: bool) -> None:
        with self._steps_kept():
            rows = self.observer.look(self.model_files.networks(), self.options.samples)
        self.watch.look(self.step, rows)
        if not grid_due:
            return
        picture = grid(rows)
        try:
            save_grid(self.folder.path / "samples" / f"step-{self.step:08d}.png", picture)
        except (OutputError, OSError) as error:
            self.log.event(self.step, f"no sample grid: {error}")
        self.log.grid(self.step, picture)

    def _validate_if_due(self) -> None:
        if not self.validation.due:
            return
        with self._steps_kept():
            numbers = self.validation.run(self.model_files.networks(), self.step)
        if numbers is None:  # not one step further: it is of these weights, first thing after the resume
            self._stop(self.signals.received)
        self.log.validation(self.step, self.progress.epoch, numbers, self.validation.verdict_at(self.step))
        self.saver.best(self.step, self.images_seen)
        if self.step == self.saver.saved_step:
            self.saver.measured(self.step)
        else:
            self.save_due |= self.validation.best_state_at(self.step)

    def _save(self) -> None:
        self.save_due = False
        self._flush()
        self.saver.best(self.step, self.images_seen)  # again, if the disk was full
        state = self.memory.collect(self.step, self.images_seen)
        (broken,) = self.processes.agree([int(not finite(list(tensors(state))))])
        if broken:
            raise self._diverged("weights are not finite")
        self.saver.save(self.step, self.images_seen, state)

    def _stop(self, number: int) -> NoReturn:
        self._account()
        if self.step != self.saver.saved_step:
            self._save()
        if self.saver.missed:
            raise OutputError(f"stopped after step {self.step}, but its state could not be saved")
        if self.processes.first:
            self.log.event(self.step, f"stopped after step {self.step}; its state is saved")
            self.folder.status(status_for(number), self.step)
        raise interrupted(number, "to go on, run the same command again" if self.processes.first else "")

    def _account(self) -> None:
        self._flush()
        self.damaged.count(self.step)
        self.watch.summary(self.step)

    def _finish(self) -> None:
        self._account()
        if self.step != self.saver.saved_step:
            self._save()
        elif self.processes.first:
            self.model_files.write(self.step, self.images_seen)  # a kill may have come between the state and them
        if self.saver.missed:
            raise OutputError(f"trained to the end, but the state of step {self.step} could not be saved")
        if self.processes.first:
            self._tell_end()

    def _tell_end(self) -> None:
        reason = self.validation.reached(self.step)
        if (missed := self.validation.never_above_floor()) and self.step > self.progress.began:
            self.log.event(self.step, missed)
        if self.progress.finished or not reason:
            self.folder.status("finished", self.step)
            nothing = (
                "" if self.step > self.progress.began else f"; nothing was left to do: {self.progress.why_finished()}"
            )
            self.log.say(f"finished after {self.step} steps: {self.folder.path}{nothing}")
            return
        self.folder.status("stopped", self.step, reason=reason)
        if self.step > self.progress.began:
            self.log.event(self.step, f"stopped after {self.step} steps: {reason}: {self.folder.path}")
        else:
            self.log.say(
                f"stopped already, after {self.step} steps: {reason}: {self.folder.path}. To go on, change "
                "--stop-when or --stop-patience"
            )


def _before(changes: dict[str, tuple[Any, Any]], name: str) -> Path | None:
    """The path that an option had, if it had another one."""
    was, _ = changes.get(name, (None, None))
    return Path(was) if was else None
