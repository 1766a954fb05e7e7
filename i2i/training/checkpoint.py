"""Everything that a run saves, and which of it is best: training states, the last and the best model files.

All processes call a `Checkpointer` alike; the first one writes. A full disk is survived for a while.
"""

import contextlib
import math
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.data.options import classes, of_one_size, ranges
from i2i.errors import DivergedError, OutputError, UsageError, as_typed
from i2i.models import model_file
from i2i.models.info import Training, describe
from i2i.networks.blocks import finite
from i2i.training import training_state
from i2i.training.data_identity import DataIdentity
from i2i.training.monitor import Monitor
from i2i.training.options import RunOptions
from i2i.training.run_folder import Changes, RunFolder
from i2i.training.schedule import Condition, score
from i2i.training.state_store import StateStore, tensors
from i2i.training.step import Progress, TrainingStep
from i2i.training.validation import Validation

ATTEMPTS = 3  # saves that may fail in a row


class BestScores:
    """The scores of the best weights: of those in the best model files, and of those in a saved state.

    The two differ while one of them could not be written. Lower is better.
    """

    def __init__(self, options: RunOptions, floor: tuple[Condition, ...]) -> None:
        self.metric, self.floor = options.best_metric, ",".join(sorted(set(map(str, floor))))
        self.of_files = self.of_states = math.inf

    def state(self) -> dict[str, Any]:
        return {
            "best_by": self.metric,
            "best_floor": self.floor,
            "best_metric": self.of_states,
            "best_written": self.of_files,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises `UsageError` if the best was chosen by another metric, or with another floor, so far."""
        best = any(map(math.isfinite, (state["best_metric"], state["best_written"], state["record"])))
        by, floor = state["best_by"], state["best_floor"]
        measured = score(by, state["measured"][1]) if state["measured"] else math.nan
        if by != self.metric and (best or math.isfinite(measured)):
            raise UsageError(
                f"{as_typed('best_metric')} cannot change within a run (so far: {by}). Use "
                f"{as_typed('best_metric', by)} or a new {as_typed('run')} folder"
            )
        if floor != self.floor and best:
            raise UsageError(
                f"{as_typed('best_floor')} cannot change once a run has a best model (so far: "
                f"{as_typed('best_floor', floor)}). Use the same, or a new {as_typed('run')} folder"
            )
        self.of_states, self.of_files = state["best_metric"], state["best_written"]


class Checkpointer:
    """Saves and restores a run, and knows what is best.

    The best model files are written before the state that remembers them. After a kill in between, the steps up to
    them are made again, and they are written again.

    `saved_step` is the step of the newest state that is known to be whole; `missed` counts the saves that failed
    since. At the time `save_before` (`--save-minutes` after the last one) a save is due.
    """

    def __init__(
        self, train_step: TrainingStep, validation: Validation, monitor: Monitor, pictures: DataIdentity
    ) -> None:
        self.train_step, self.validation, self.monitor, self.pictures = train_step, validation, monitor, pictures
        self.options = options = monitor.options
        self.progress, self.log = monitor.progress, monitor.log
        self.algorithm, self.ema, self.group = train_step.algorithm, train_step.ema, train_step.group
        self.states = StateStore(monitor.folder.path, options.keep_last, options.keep_every)
        self.best = BestScores(options, validation.floor)
        self.saved_step: int | None = None
        self.missed = 0
        self.save_before = time.monotonic() + self.options.save_minutes * 60

    def networks(self) -> dict[str, nn.Module]:
        """Direction, as the algorithm sees it → the generator to keep: its average if EMA is on."""
        return self.ema.networks if self.ema else self.algorithm.translators()

    def restore(self, changes: Changes) -> list[str]:
        """Go on from the newest state that is whole, if there is one. Returns what to report, a sentence each.

        Raises `ModelError` or `UsageError` for a state that this run cannot go on from.
        """
        found = self.states.latest()
        if not found:
            return []
        step, state = found
        moved = {name: Path(changes[name][0]) for name in ("data", "paired_data") if changes.get(name, (None,))[0]}
        training_state.check(step, state, self.train_step, self.options.direction, changes)
        self.best.load_state(state)
        notes = self.load_state(state, moved)
        self.progress.resume(step, state["images_seen"])
        self.saved_step = step
        self._note_state()
        if (before := len(state["pools"])) != (now := self.group.world_size):
            images = self.progress.images_per_step
            notes.append(
                f"processes: {before} so far, now {now}. A step sees {images} images now, and the run will not end "
                "bit for bit as an uninterrupted one"
            )
        return [f"resumed at step {step} from {self.states.path(step).name}", *notes]

    def state(self) -> dict[str, Any]:
        """Everything that changes while an algorithm trains; in the first process, with every process's pools."""
        algorithm = self.algorithm
        return {
            "algorithm": algorithm.name,
            "direction": self.options.direction,
            "architecture": algorithm.architecture(),
            "networks": {name: network.state_dict() for name, network in algorithm.networks().items()},
            "training": self.train_step.state(),
            "ema": self.ema.state() if self.ema else {},
            "pools": self.group.gather({name: pool.state() for name, pool in algorithm.pools().items()}),
            "adapted": dict(algorithm.adapted()),
            "skipped_images": self.monitor.skipped.state(),
            "health": self.monitor.health.state(),
            "pictures": self.pictures.state(),
            "step": self.progress.step,
            "images_seen": self.progress.images_seen,
            **self.validation.state(),
            **self.best.state(),
        }

    def load_state(self, state: dict[str, Any], moved: Mapping[str, Path]) -> list[str]:
        """Go on from a checked `state`. Returns how the pictures differ now, a sentence each.

        `moved`: option → where its data were, if they were elsewhere. Raises `ModelError` for another data set; nothing
        has changed then.
        """
        places = moved.get("data"), moved.get("paired_data")
        notes = self.pictures.compare(state["pictures"], state["images_seen"], *places)
        for name, network in self.algorithm.networks().items():
            network.load_state_dict(state["networks"][name])
        self.train_step.load_state(state["training"])
        if self.ema:
            self.ema.load_state(state["ema"])
        rank, processes, one_size = self.group.rank, self.group.world_size, of_one_size(self.options.preprocess)
        for name, pool in self.algorithm.pools().items():
            saved = [pools[name] for pools in state["pools"]]
            # among more or fewer processes, each gets its share of all images
            mine = saved[rank] if len(saved) == processes else [image for of in saved for image in of][rank::processes]
            pool.load_state(mine, self.group.device, one_size)
        for name, value in self.algorithm.adapted().items():
            if name in state["adapted"]:
                value.copy_(state["adapted"][name])
        self.validation.load_state(state)
        self.monitor.skipped.load_state(state["skipped_images"])
        self.monitor.health.load_state(state["health"])
        return notes

    def save(self) -> None:
        """Save a state and the last model files, or log why not.

        Raises `OutputError` when `ATTEMPTS` saves in a row failed, `DivergedError` for weights that are not finite.
        """
        self._save_best()  # again, if the disk was full
        state = self.state()
        if any(self.group.agree([int(not finite(list(tensors(state))))])):
            raise self.diverged("weights are not finite")
        failure = self._write_state(state) if self.group.first else None
        (self.missed,) = self.group.agree([0 if failure is None else self.missed + 1])
        self.save_before = time.monotonic() + self.options.save_minutes * 60
        if self.missed >= ATTEMPTS:
            raise failure or OutputError("the first process could not save the state")
        if not self.missed:
            self.saved_step = self.progress.step
            self._note_state()

    def validated(self) -> bool:
        """Write the best model files if the weights that were just validated are the best, or log why not.

        Returns whether their state should be saved too. The metric of a state that is saved already is noted beside it:
        to write it again would put it at risk.
        """
        self._save_best()
        score = self.validation.score_at(self.progress.step)
        if self.progress.step == self.saved_step:
            if self._written(lambda: self.states.add_metric(self.progress.step, score), "its validation is not noted"):
                self._note_state()
            return False
        return score is not None and score < self.best.of_states

    def verdict(self) -> str:
        """The remark after the numbers of a validation in the log."""
        found = self.validation.score_at(self.progress.step)
        if found is not None and found < self.best.of_files:
            return f" (the best {self.best.metric} so far)"
        below = self.validation.below_floor(self.progress.step)
        return f" (not taken for the best: {below})" if below else ""

    def finish(self) -> None:
        """Save the end of a run. Raises `OutputError` if that fails."""
        if self.progress.step != self.saved_step:
            self.save()
        elif self.group.first:
            self._write_models()  # a kill may have come between the state and them
        if self.missed:
            raise OutputError(f"trained to the end, but the state of step {self.progress.step} could not be saved")

    def diverged(self, reason: str) -> DivergedError:
        """The error for a training that diverged, with the state to go back to."""
        steps = self.states.steps()
        last = f"the last good state is {self.states.path(steps[-1])}" if steps else "no state was saved before"
        return DivergedError(
            f"training diverged at step {self.progress.step}: {reason}; {last}. A smaller {as_typed('lr')} or "
            f"{as_typed('clip_grad', 1)} usually helps, or {as_typed('precision', 'bf16')} in place of fp16."
        )

    def never_above_floor(self) -> str:
        """Why a run ends without a best model, if the floor is the reason; else empty."""
        if not self.validation.floor or not self.validation.kept.measured or math.isfinite(self.best.of_files):
            return ""
        conditions = ", ".join(map(str, self.validation.floor))
        return f"no validation came to {conditions} ({as_typed('best_floor')}), so there is no best model file"

    def _note_state(self) -> None:
        """The state of this step is on the disk with its score: only now is it the one to beat."""
        if (found := self.validation.score_at(self.progress.step)) is not None:
            self.best.of_states = min(self.best.of_states, found)

    def _save_best(self) -> None:
        found = self.validation.score_at(self.progress.step)
        if found is None or found >= self.best.of_files:
            return
        if self._written(lambda: self._write_models(best=True), "the best model is not written"):
            self.best.of_files = found

    def _written(self, write: Callable[[], None], failure: str) -> bool:
        """Whether the first process could `write`; all get its answer, and the log says why not."""
        failed = False
        try:
            if self.group.first:
                write()
        except OutputError as error:
            self.log.event(self.progress.step, f"{failure}: {error}")
            failed = True
        return not any(self.group.agree([int(failed)]))

    def _write_state(self, state: dict[str, Any]) -> OutputError | None:
        step = self.progress.step
        try:
            self.log.sync()
            self.states.save(step, state, self.validation.score_at(step))
            self._write_models()
        except OutputError as error:
            self.log.event(step, f"not saved: {error}")
            return error
        return None

    def _write_models(self, best: bool = False) -> None:
        """Write the model files as of this step, with the metrics of its validation if it had one."""
        metrics = self.validation.named_at(self.progress.step)
        save_model_files(self.algorithm, self.networks(), self.options, self.progress, metrics, best)


def save_model_files(
    algorithm: AnyAlgorithm,
    networks: Mapping[str, nn.Module],
    options: RunOptions,
    progress: Progress,
    metrics: Mapping[str, float],
    best: bool = False,
) -> None:
    """Write `<direction>.safetensors`, or `<direction>-best.safetensors`, for each of the generators to be kept.

    Raises `OutputError`.
    """
    assert options.run is not None
    training = Training(
        algorithm=algorithm.name,
        dataset=dataset_name(options.data) if options.data else "",
        steps=progress.step,
        images_seen=progress.images_seen,
        commit=COMMIT,
        teacher=algorithm.teacher,
        columns=RunFolder(options.run).columns(),
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
    )
    known = algorithm.domains if options.direction == "a2b" else algorithm.domains[::-1]
    domains = {"a": options.domain_a or known[0], "b": options.domain_b or known[1]}
    palettes = dict(zip("ab", classes(options), strict=True))
    units = dict(zip("ab", ranges(options), strict=True))
    for name, network in networks.items():
        direction: Any = name if options.direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[name]
        info = describe(
            network,
            direction=direction,
            input_domain=domains[direction[0]],
            output_domain=domains[direction[2]],
            licence=options.licence,
            statistics=algorithm.test_statistics,
            dropout=algorithm.test_dropout,
            training=training,
            input_palette=palettes[direction[0]],
            output_palette=palettes[direction[2]],
            instance_edges=options.instance_edges,
            encoding=algorithm.encoding,
            paint_size=algorithm.paint_size,
            input_range=units[direction[0]],
            output_range=units[direction[2]],
        )
        model_file.save(options.run / f"{direction}{'-best' if best else ''}.safetensors", network, info)


def dataset_name(data: Path) -> str:
    """The name of a data set in a model file: its folder's or table's name, without what would make it a path."""
    name = data.stem if data.suffix.lower() == ".csv" else data.name
    return name.replace("/", "_").replace("\\", "_")


def source_commit(root: Path) -> str:
    """The commit that is checked out at `root`; empty if `root` is no git checkout, or git does not say."""
    if not (root / ".git").exists():  # git would look further up
        return ""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


# on import, as the code is then: by the time a model file is written, something else may be checked out
COMMIT = source_commit(Path(__file__).resolve().parents[2])
