"""The loop: batches in, steps, states and samples out. Everything is a function of progress.

Batch and augmentation depend on (seed, images seen), a step's randomness on (seed, step): a run that was
killed and resumed gives the same numbers, bit for bit on a CPU.
"""

import contextlib
import time
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from i2i.algorithms.algorithm import Algorithm
from i2i.data.datasets import Datasets
from i2i.data.loader import batches
from i2i.data.pair import ImagePair
from i2i.errors import DivergedError, I2IError, OutputError
from i2i.networks.blocks import finite
from i2i.training.distributed import Processes
from i2i.training.ema import Averages
from i2i.training.logger import RunLog
from i2i.training.options import RunOptions
from i2i.training.resume import check_same, deal_pools
from i2i.training.run_folder import RunFolder
from i2i.training.samples import Observer, save_grid
from i2i.training.schedule import Plateau, factor
from i2i.training.signals import Signals, interrupted, status_for
from i2i.training.state import States
from i2i.training.step import TrainingStep, seed_step
from i2i.translation import model_file

SAVE_ATTEMPTS = 3
FLUSH_SECONDS = 2.0


class Trainer:
    """Trains `algorithm` on `data` in the run folder `options.run`, from its latest state if it has one."""

    def __init__(
        self, algorithm: Algorithm, data: Datasets, options: RunOptions, processes: Processes
    ) -> None:
        assert options.run is not None
        self.algorithm, self.data, self.options, self.processes = algorithm, data, options, processes
        self.images_per_step = options.batch_size * processes.world_size
        self.epoch_length = len(data.train)
        self.total_images = (options.n_epochs + options.n_epochs_decay) * self.epoch_length
        if options.max_steps:
            self.total_images = min(self.total_images, options.max_steps * self.images_per_step)
        self.memory_format = best_memory_format(processes.device, options.precision)
        for network in algorithm.networks().values():
            network.to(processes.device).to(memory_format=self.memory_format).train()
        self.train_step = TrainingStep(algorithm, options, processes)
        self.averages = Averages(algorithm.translators(), options.ema) if options.ema else None
        self.plateau = Plateau(options.patience)
        self.step = self.images_seen = self.missed_saves = 0
        self.validation_due = False
        self.metric: float | None = None
        self.observer = Observer(algorithm, data, processes)
        self.folder = RunFolder(options.run)
        self.states = States(options.run, options.keep_last, options.keep_every)
        self.signals = Signals()

    def fit(self) -> None:
        """Train to the end. Raises `Interrupted` after a signal, once a state is saved."""
        first = self.processes.first
        with self.folder.locked() if first else contextlib.nullcontext(), self.signals:
            self.log = RunLog(self.folder.path, self.total_images, quiet=not first)
            try:
                self._start()
                self._loop()
                self._finish()
            except I2IError as error:
                self._failed(error)
                raise
            finally:
                self.log.close()

    def _loop(self) -> None:
        options = self.options
        self.saved_at = self.flushed_at = time.monotonic()
        self._validate_if_due()
        stream = batches(
            self.data.train,
            self.images_seen,
            self.total_images,
            options.batch_size,
            options.workers,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            pin_memory=self.processes.device.type == "cuda",
        )
        for batch in stream:
            epoch = self.images_seen // self.epoch_length
            lr = self._learning_rate(epoch)
            self.train_step.set_learning_rate(lr)
            losses = self._one_step(batch)
            self.step += 1
            self.images_seen += self.images_per_step
            facts = {"step": self.step, "images": self.images_seen, "epoch": epoch, "lr": lr}
            self.log.step(facts | ({"damaged": list(batch.skipped)} if batch.skipped else {}), losses)
            self._after_step(epoch)

    def _one_step(self, batch: ImagePair) -> dict[str, Tensor]:
        seed_step(self.options.seed, self.step, self.processes.rank)
        batch = batch.to(self.processes.device, non_blocking=True)
        a, b = (x.contiguous(memory_format=self.memory_format) for x in (batch.a, batch.b))
        try:
            losses = self.train_step(ImagePair(a, b), self.step)
        except torch.OutOfMemoryError:
            raise I2IError(
                f"out of memory with batches of {len(batch)} at {a.shape[-1]}x{a.shape[-2]}: try a smaller "
                "--crop-size or --batch-size, more --micro-batches, or --precision bf16"
            ) from None
        if self.averages:
            self.averages.update()
        return losses

    def _after_step(self, epoch: int) -> None:
        """Everything that may come between two steps; all processes decide alike."""
        options, now = self.options, time.monotonic()
        flush = self.step % options.log_every == 0 or now - self.flushed_at > FLUSH_SECONDS
        late = now - self.saved_at > options.save_minutes * 60
        self.signals.received, flush_now, save_now = self.processes.agree(
            [self.signals.received, int(flush), int(late)]
        )
        if flush_now:
            self._flush()
        if self.processes.first and (self.step == 1 or self.step % options.sample_every == 0):
            self._sample()
        if options.validate_every and self.data.validation is not None:
            next_epoch = self.images_seen // self.epoch_length
            self.validation_due |= next_epoch > epoch and next_epoch % options.validate_every == 0
        self._validate_if_due()
        if self.signals.received:
            self._stop()
        if save_now or self.step % options.save_every == 0:
            self._save()

    def _learning_rate(self, epoch: int) -> float:
        o = self.options
        scheduled = factor(o.lr_policy, epoch, o.n_epochs, o.n_epochs_decay, o.lr_decay_epochs)
        return o.lr * self.plateau.factor * scheduled

    def _flush(self) -> None:
        self.flushed_at = time.monotonic()
        values = self.log.fetch()
        if values is not None:
            self.processes.average_([values])
        self.log.flush(values)
        if float(self.train_step.bad_in_a_row) >= self.options.max_bad_steps:
            raise self._diverged(f"{self.options.max_bad_steps} steps in a row were not finite")

    def _diverged(self, what: str) -> DivergedError:
        steps = self.states.steps()
        last = (
            f"the last good state is {self.states.path(steps[-1])}" if steps else "no state was saved before"
        )
        return DivergedError(
            f"training diverged at step {self.step}: {what}; {last}. A smaller --lr or --clip-grad 1 usually "
            "helps, or --precision bf16 in place of fp16."
        )

    def _kept(self) -> dict[str, nn.Module]:
        """The generators to keep: the averaged ones if EMA is on."""
        return self.averages.networks() if self.averages else self.algorithm.translators()

    def _sample(self) -> None:
        picture = self.observer.grid(self._kept(), self.options.samples)
        try:
            save_grid(self.folder.path / "samples" / f"step-{self.step:08d}.png", picture)
        except (OutputError, OSError) as error:
            self.log.event(self.step, f"no sample grid: {error}")
        self.log.grid(self.step, picture)

    def _validate_if_due(self) -> None:
        if not self.validation_due or self.data.validation is None:
            return
        # A process that stopped alone would leave the others waiting; alone, it may stop at once.
        alone = self.processes.world_size == 1
        numbers = self.observer.validate(
            self._kept(), self.options.validate_images, lambda: alone and self.signals.received
        )
        if numbers is None:  # a signal came: this is done first thing after the resume
            return
        self.validation_due = False
        distances = [value for name, value in numbers.items() if name.endswith("/l1")]
        self.metric = sum(distances) / len(distances)
        self.plateau.update(self.metric)
        self.log.validation(self.step, self.images_seen // self.epoch_length, numbers)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs; in the first process, with every process's pools."""
        pools = self.processes.gather({name: pool.state() for name, pool in self.algorithm.pools().items()})
        return {
            "algorithm": self.algorithm.name,
            "architecture": self.algorithm.architecture(),
            "networks": {name: net.state_dict() for name, net in self.algorithm.networks().items()},
            "training": self.train_step.state(),
            "ema": self.averages.state() if self.averages else {},
            "pools": pools,
            "plateau": self.plateau.state(),
            "step": self.step,
            "images_seen": self.images_seen,
            "validation_due": self.validation_due,
            "metric": self.metric,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises `ModelError` if it belongs to another algorithm or architecture."""
        check_same(state, self.algorithm)
        for name, network in self.algorithm.networks().items():
            network.load_state_dict(state["networks"][name])
        self.train_step.load_state(state["training"])
        if self.averages:
            if state["ema"]:
                self.averages.load_state(state["ema"])
            else:
                self.averages = Averages(self.algorithm.translators(), self.options.ema)
        deal_pools(self.algorithm, state["pools"], self.processes)
        self.plateau.load_state(state["plateau"])
        self.step, self.images_seen = state["step"], state["images_seen"]
        self.validation_due, self.metric = state["validation_due"], state["metric"]

    def _start(self) -> None:
        found = self.states.latest()
        if found:
            self.load_state(found[1])
        self.processes.barrier()
        for network in self.algorithm.networks().values():
            self.processes.broadcast_([*network.parameters(), *network.buffers()])
        if self.processes.first:
            changes = self.folder.changes(self.options)
            self.folder.describe(self.options, str(self.processes.device))
            self.folder.status("running", self.step)
            self.log.open(self.step)
            if found:
                self.log.event(
                    self.step, f"resumed at step {self.step} from {self.states.path(found[0]).name}"
                )
            for key, (before, now) in changes.items():
                self.log.event(self.step, f"{key} was {before}, is now {now}")

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        self._flush()
        self.log.sync()
        if not finite([t for net in self.algorithm.networks().values() for t in net.state_dict().values()]):
            raise self._diverged("weights are not finite")
        state = self.state()
        if not self.processes.first:
            return
        try:
            self.states.save(self.step, state, self.metric)
            self._write_model_files()
            self.missed_saves = 0
        except OutputError as error:
            self.missed_saves += 1
            self.log.event(self.step, f"no state saved: {error}")
            if self.missed_saves >= SAVE_ATTEMPTS:
                raise

    def _write_model_files(self) -> None:
        training = model_file.Training(
            algorithm=self.algorithm.name,
            dataset=self.options.data.stem if self.options.data else "",
            steps=self.step,
            images_seen=self.images_seen,
            metrics={} if self.metric is None else {"l1": self.metric},
        )
        for name, network in self._kept().items():
            direction: Any = name if self.options.direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[name]
            info = model_file.describe(
                network,
                direction=direction,
                statistics=self.algorithm.test_statistics,
                dropout=self.algorithm.test_dropout,
                training=training,
            )
            model_file.save(self.folder.path / f"{direction}.safetensors", network, info)

    def _stop(self) -> NoReturn:
        number = self.signals.received
        self._save()
        if self.missed_saves:
            raise OutputError(f"stopped after step {self.step}, but its state could not be saved")
        if self.processes.first:
            self.log.event(self.step, f"stopped after step {self.step}; its state is saved")
            self.folder.status(status_for(number), self.step)
        raise interrupted(number, "to go on, run the same command again")

    def _finish(self) -> None:
        if self.step not in self.states.steps():
            self._save()
        if self.processes.first:
            self.folder.status("finished", self.step)
            self.log.say(f"finished after {self.step} steps: {self.folder.path}")

    def _failed(self, error: I2IError) -> None:
        if self.processes.first and error.exit_code not in (75, 130):
            status = "diverged" if isinstance(error, DivergedError) else "failed"
            with contextlib.suppress(OutputError):
                self.folder.status(status, self.step, reason=str(error))


def best_memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Channels last, measured up to five times as fast; but on a CPU in bf16, where it is slower."""
    if device.type == "cpu" and precision == "bf16":
        return torch.contiguous_format
    return torch.channels_last
