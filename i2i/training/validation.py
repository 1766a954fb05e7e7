"""When to measure on the held-out split, what came out, which was best, and whether that is enough."""

import math
from typing import Any

from torch import nn

from i2i.errors import UsageError
from i2i.evaluation.metrics.pairs import WINDOW
from i2i.signals import Signals
from i2i.training import goal, label_scores, set_distance
from i2i.training.distributed import Processes
from i2i.training.options import RunOptions
from i2i.training.samples import Observer
from i2i.training.schedule import Plateau

PLATEAU_METRIC = "l1"  # what the learning rate follows, where it is measured
LEAST_SIDE = {"ssim": WINDOW, set_distance.METRIC: set_distance.LEAST}
_OF_PICTURES = ("psnr", "ssim")
METRIC_OF_SETS = "swd_to_held_out"


class Validation:
    """Metrics are means over the reconstructions of a validation, and over the sets of what is made; they belong to the
    weights of that very step.

    A score is the best metric's value, turned so that lower is better. The best model files and the best state are
    two things: one of them may be on the disk without the other.
    """

    def __init__(self, options: RunOptions, observer: Observer, processes: Processes, signals: Signals) -> None:
        self.options, self.observer, self.processes, self.signals = options, observer, processes, signals
        self.conditions, self.floor = goal.parse(options.stop_when), goal.parse_floor(options.best_floor)
        self.wanted = {options.best_metric, *(condition.metric for condition in (*self.conditions, *self.floor))}
        self._check_noise()
        self._check_labels()
        self.plateau = Plateau(options.patience)
        self.due = False
        self.extra = False  # due for the run's end alone
        self._measured: tuple[int, dict[str, float]] | None = None
        self._measured_extra = False  # for a run's end alone
        self._above_floor = True  # the weights that were measured
        self._best = math.inf  # of the saved states
        self._written = math.inf  # of the best model files
        self._record, self._stalled = math.inf, 0  # of all validations, and how many came since

    def _asked(self) -> list[tuple[str, str]]:
        """Each metric that something follows from, after the option with its value that asks for it."""
        asked: list[tuple[str, list[str]]] = [("best_metric", [self.options.best_metric])]
        asked += [("best_floor", [condition.metric for condition in self.floor])]
        asked += [("stop_when", [condition.metric for condition in self.conditions])]
        return [(f"{name} = {getattr(self.options, name)!r}", metric) for name, metrics in asked for metric in metrics]

    def _check_noise(self) -> None:
        """Raises `UsageError` for a metric that compares a picture with another, where pictures are made of noise."""
        algorithm = self.observer.algorithm
        for value, metric in self._asked():
            if algorithm.from_noise and metric != set_distance.METRIC:
                raise UsageError(
                    f"{value}: {metric} compares a picture with the one that it should be, and {algorithm.name} makes "
                    f"none in particular; use {set_distance.METRIC}"
                )

    def _check_labels(self) -> None:
        """Raises `UsageError` for a metric of labels where there are none, of pictures where there are only labels."""
        palettes, paired = self.observer.palettes, self.observer.algorithm.paired
        labels = {domain: palettes.get(domain) is not None for domain in "AB"}
        kinds = {labels[domain] for domain in (("B",) if paired else ("A", "B"))}
        for value, metric in self._asked():
            if metric == goal.CONTENT and any(labels.values()):
                raise UsageError(
                    f"{value}: {metric} compares pictures with what they are made of, and these are labels"
                )
            if metric in label_scores.METRICS and True not in kinds:
                raise UsageError(f"{value}: {metric} is of labels, and these are pictures")
            if metric in _OF_PICTURES and False not in kinds:
                raise UsageError(f"{value}: {metric} is of pictures, and these are labels; use mean_iou")

    def metrics_at(self, step: int) -> dict[str, float]:
        """Metric → mean of the weights of `step`, those that are finite; empty if they were not validated."""
        return self._measured[1] if self._measured and self._measured[0] == step else {}

    def score_at(self, step: int) -> float | None:
        """The score of the weights of `step`, if they were validated, it is finite, and the floor holds."""
        score = goal.score(self.options.best_metric, self.metrics_at(step))
        return score if math.isfinite(score) and self._above_floor else None

    def verdict_at(self, step: int) -> str:
        """The remark after the numbers of a validation in the log."""
        if self.best_at(step):
            return f" (the best {self.options.best_metric} so far)"
        metrics = self.metrics_at(step)
        below = [c for c in self.floor if not c.holds(metrics)]
        values = ", ".join(
            f"{c.metric} is {metrics.get(c.metric, math.nan):.4g}, not {str(c).removeprefix(c.metric)}" for c in below
        )
        return f" (not taken for the best: {values})" if metrics and below else ""

    def never_above_floor(self) -> str:
        """Why a run ends without a best model, if the floor is the reason; else empty."""
        if not self.floor or self._measured is None or math.isfinite(self._written):
            return ""
        conditions = ", ".join(map(str, self.floor))
        return f"no validation came to {conditions} (--best-floor), so there is no best model file"

    def best_at(self, step: int) -> bool:
        """Whether the weights of `step` are better than those in the best model files."""
        score = self.score_at(step)
        return score is not None and score < self._written

    def best_state_at(self, step: int) -> bool:
        """Whether the weights of `step` are better than every saved state's."""
        score = self.score_at(step)
        return score is not None and score < self._best

    def reached(self, step: int) -> str:
        """Why the training may end at `step`; empty if it may not."""
        # a longer run would not have been measured there, and goes on as if it had not been
        metrics = {} if self._measured_extra else self.metrics_at(step)
        if self.conditions and all(condition.holds(metrics) for condition in self.conditions):
            values = ", ".join(f"{c.metric} is {metrics[c.metric]:.4g}" for c in self.conditions)
            what = self.measures(*(condition.metric for condition in self.conditions))
            return f"{', '.join(map(str, self.conditions))} is reached: {values} ({what})"
        if self.options.stop_patience and self._stalled >= self.options.stop_patience:
            name = self.options.best_metric
            if self.floor and not math.isfinite(self._record):
                return f"{', '.join(map(str, self.floor))} was not reached in {self._stalled} validations"
            best = goal.value(name, self._record)
            return f"{name} has not got better than {best:.4g} for {self._stalled} validations ({self.measures(name)})"
        return ""

    def measures(self, *metrics: str) -> str:
        """What those metrics are of."""
        kinds = {metric: self._kind(metric) for metric in metrics}
        if len(set(kinds.values())) == 1:
            return kinds[metrics[0]]
        return "; ".join(f"{metric}: {kind}" for metric, kind in kinds.items())

    def _kind(self, metric: str) -> str:
        if metric == set_distance.METRIC:
            return "outputs against held-out pictures, as sets"
        if metric == goal.CONTENT:
            return "outputs against their inputs"
        if self.observer.algorithm.paired:
            return "outputs against their targets"
        return f"{self.observer.algorithm.reconstructed}; how good translations look, it cannot tell"

    def named_at(self, step: int) -> dict[str, float]:
        """As `metrics_at`, under names that say what they are of, for a model file that lies elsewhere one day."""
        algorithm = self.observer.algorithm
        of_sets = METRIC_OF_SETS if len(algorithm.translators()) == 1 else f"mean_{METRIC_OF_SETS}"
        of_pictures = "" if algorithm.paired else f"{algorithm.measured}_"
        names = {set_distance.METRIC: of_sets, goal.CONTENT: goal.CONTENT}
        return {names.get(name, f"{of_pictures}{name}"): value for name, value in self.metrics_at(step).items()}

    @property
    def possible(self) -> bool:
        """Whether this run measures anything."""
        return bool(self.options.validate_every) and self.observer.data.validation is not None

    @property
    def plateau_factor(self) -> float:
        """By which the learning rate is multiplied; 1 for every policy but `plateau`."""
        return self.plateau.factor if self.options.lr_policy == "plateau" else 1.0

    def fall_due(self) -> None:
        """To be called when the epochs after which there is a validation are done."""
        self.due |= self.possible

    def run_ended(self) -> None:
        """To be called after the last step: its weights are measured too, and may be the best.

        A longer run would not have been measured here, so that nothing but the best follows from it.
        """
        if self.possible and not self.due:
            self.due = self.extra = True

    def run(self, networks: dict[str, nn.Module], step: int) -> dict[str, float] | None:
        """The numbers of `Observer.validate` at `step`; None if a signal came, and it is still due."""
        # A process that stopped alone would leave the others waiting; alone, it may stop at once.
        alone = self.processes.world_size == 1
        numbers = self.observer.validate(
            networks,
            self.options.validate_images,
            lambda: alone and self.signals.received,
            self._sets(),
            goal.CONTENT in self.wanted,
        )
        if numbers is None:
            return None
        self._judge(goal.means(numbers), step)
        self.due = self.extra = False
        return numbers

    def _sets(self) -> bool:
        """Whether sets are compared: it takes a while, so only where something follows from it."""
        return set_distance.METRIC in self.wanted or self.observer.algorithm.from_noise

    def _judge(self, means: dict[str, float], step: int) -> None:
        if missing := sorted(self.wanted - means.keys()):
            raise UsageError(self._missing(missing[0]))
        self._measured = (step, {name: value for name, value in means.items() if math.isfinite(value)})
        self._measured_extra = self.extra
        self._above_floor = all(condition.holds(means) for condition in self.floor)
        if self.extra:
            return
        if self.options.lr_policy == "plateau":  # to every other policy its factor is nothing
            follows = PLATEAU_METRIC if PLATEAU_METRIC in means else self.options.best_metric
            self.plateau.update(goal.score(follows, means))
        score = goal.score(self.options.best_metric, means)
        better = self._above_floor and score < self._record  # NaN is no progress
        self._stalled = 0 if better else self._stalled + 1
        self._record = score if self._stalled == 0 else self._record

    def _missing(self, metric: str) -> str:
        if metric == goal.CONTENT:
            return f"{metric}: outputs and inputs have other sizes, or fewer than {WINDOW} pixels a side"
        if metric in LEAST_SIDE and (metric == set_distance.METRIC or not self.observer.algorithm.from_noise):
            return f"{metric}: the held-out pictures are too small for it ({LEAST_SIDE[metric]} pixels a side)"
        return f"{metric}: nothing that {self.observer.algorithm.name} makes can be measured by it; use swd"

    def written(self, step: int) -> None:
        """To be called when the best model files are those of `step`."""
        score = self.score_at(step)
        if score is not None:
            self._written = score

    def saved(self, step: int) -> None:
        """To be called when the state of `step` is on the disk with its score: only then is it the one to beat."""
        score = self.score_at(step)
        if score is not None:
            self._best = min(self._best, score)

    def state(self) -> dict[str, Any]:
        return {
            "plateau": self.plateau.state() | {"lr": self.options.lr},
            "validation_due": self.due,
            "validation_extra": self.extra,
            "measured": list(self._measured) if self._measured else None,
            "measured_extra": self._measured_extra,
            "best_by": self.options.best_metric,
            "best_floor": self._floor_text(),
            "above_floor": self._above_floor,
            "best_metric": self._best,
            "best_written": self._written,
            "record": self._record,
            "stalled": self._stalled,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises `UsageError` if the best was chosen by another metric, or with another floor, so far."""
        if self._same_plateau(state["plateau"]):
            self.plateau.load_state(state["plateau"])
        self.due = self.possible and state["validation_due"]
        self.extra = self.due and state.get("validation_extra", False)
        if measured := state.get("measured"):
            step, metrics = measured  # before there was a choice, the mean L1 alone
            self._measured = (step, metrics if isinstance(metrics, dict) else {"l1": metrics})
        self._measured_extra = state.get("measured_extra", False)
        self._above_floor = state.get("above_floor", True)
        self._best = state.get("best_metric", math.inf)
        self._record, self._stalled = state.get("record", self._best), state.get("stalled", 0)
        self._written = state.get("best_written", math.inf)
        self._keep_to(state.get("best_by", "l1"))
        self._keep_to_floor(state.get("best_floor", ""))
        self.saved(state["step"])
        if "best_written" not in state:  # once, the one came with the other
            self._written = self._best

    def _same_plateau(self, state: dict[str, Any]) -> bool:
        """Whether it is the one that the state speaks of; another learning rate, or another policy, begins anew."""
        return self.options.lr_policy == "plateau" and state.get("lr", self.options.lr) == self.options.lr

    def _keep_to(self, metric: str) -> None:
        measured = goal.score(metric, self._measured[1]) if self._measured else math.nan
        if metric != self.options.best_metric and any(map(math.isfinite, (*self._scores(), measured))):
            raise UsageError(
                f"best_metric = {self.options.best_metric!r}: this run has chosen its best by {metric!r} so far, and "
                f"a run keeps to one: give --best-metric {metric}, or another --run"
            )

    def _keep_to_floor(self, floor: str) -> None:
        if floor != self._floor_text() and any(map(math.isfinite, self._scores())):
            before = f"--best-floor {floor}" if floor else "no --best-floor"
            raise UsageError(
                f"best_floor = {self.options.best_floor!r}: cannot change once a run has a best model (so far: "
                f"{before}); use the same, or a new --run folder"
            )

    def _scores(self) -> tuple[float, ...]:
        """Of the best so far; all infinite if nothing is the best yet."""
        return self._best, self._written, self._record

    def _floor_text(self) -> str:
        """The same for all ways to type one, and for no other."""
        return ",".join(sorted(set(map(str, self.floor))))
