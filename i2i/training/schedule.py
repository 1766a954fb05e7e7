"""How far a training is, its learning rate, when it is good enough, and whether its options fit each other.

All of it is a function of progress, of options, or of measured numbers. Nothing here needs torch, so the command line
answers at once.

The policies of the learning rate have the names and numbers of the reference. `linear` is constant for `n_epochs`, then
falls in equal steps of 1 / (n_epochs_decay + 1); `cosine` has its half period at `n_epochs` (Loshchilov & Hutter 2017,
Eq. 5, without restarts); `step` multiplies by 0.1 every `lr_decay_epochs`; `plateau` follows a validation metric.

Images decide which sample comes next, and its epoch; steps decide where `--max-steps` ends. The two go apart when a run
is resumed with another batch size or number of processes, so neither is ever computed from the other.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from i2i.config import nearest
from i2i.data.options import TOY, batch_size, check_crop
from i2i.data.walking import exists
from i2i.errors import InputError, UsageError
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions, TrainingOptions

Policy = Literal["linear", "step", "cosine", "plateau", "constant"]
Metric = Literal["l1", "psnr", "ssim", "swd", "pixel_accuracy", "mean_iou"]
# what translations keep of their inputs: a floor or a goal, and never the best metric, as most is kept by doing nothing
CONTENT = "luminance_ssim"
METRICS: tuple[str, ...] = (*get_args(Metric), CONTENT)
LOWER_IS_BETTER = ("l1", "swd")
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|=)\s*([^\s=]+)\s*")


def check(options: "RunOptions", *, needs_data: bool = True) -> None:
    """Checks the options without opening the data or building a network.

    Raises `UsageError` for options that are missing or contradict each other, `InputError` for data that are not there.
    """
    if needs_data and options.data is None:
        raise UsageError("data: missing; give --data a folder, a CSV file of pairs, or `toy`")
    if not isinstance(options.data, StorePath) and options.data not in (None, TOY) and not exists(options.data):
        from i2i.data.folders import near_to

        raise InputError(f"{options.data}: no such folder.{near_to(options.data)}")
    if options.n_epochs + options.n_epochs_decay == 0:
        raise UsageError("n_epochs = 0, n_epochs_decay = 0: nothing to train")
    if options.batch_size != "auto":
        if options.batch_size % options.micro_batches:
            raise UsageError(f"micro_batches = {options.micro_batches}: must divide batch_size = {options.batch_size}")
        check_crop(options)
    stop_conditions(options.stop_when)
    floor_conditions(options.best_floor)
    if (name := follows_validation(options)) and not options.validate_every:
        value = getattr(options, name)
        raise UsageError(f"{name} = {value!r}: follows the validation, but validate_every = 0 turns it off")


def follows_validation(options: "TrainingOptions") -> str:
    """The first option that needs validations; empty if there is none."""
    following = {
        "lr_policy": options.lr_policy == "plateau",
        "stop_when": bool(options.stop_when.strip()),
        "stop_patience": options.stop_patience > 0,
        "best_floor": bool(options.best_floor.strip()),
    }
    return next((name for name, follows in following.items() if follows), "")


@dataclass(frozen=True)
class Condition:
    """`metric` has come to `threshold` or better."""

    metric: str
    threshold: float

    def holds(self, means: Mapping[str, float]) -> bool:
        """Whether it holds for the means of a validation; not if the metric is missing or not finite."""
        return score(self.metric, means) <= score(self.metric, {self.metric: self.threshold})

    def __str__(self) -> str:
        """As it is written on a command line; every threshold has its own text."""
        sign = "<=" if self.metric in LOWER_IS_BETTER else ">="
        return f"{self.metric}{sign}{str(self.threshold).removesuffix('.0')}"


def stop_conditions(text: str) -> tuple[Condition, ...]:
    """`ssim>=0.62, l1<=0.1` as conditions; none of an empty text. Raises `UsageError`."""
    return _conditions(text, "stop_when", "one like ssim>=0.62 or l1<=0.1", equals=False)


def floor_conditions(text: str) -> tuple[Condition, ...]:
    """`luminance_ssim=0.5` (at least, for a metric that is better when lower at most), else as `stop_conditions`."""
    return _conditions(text, "best_floor", "one like luminance_ssim=0.5", equals=True)


def _conditions(text: str, option: str, example: str, *, equals: bool) -> tuple[Condition, ...]:
    where, found = f"{option} = {text!r}", []
    for part in text.split(",") if text.strip() else ():
        match = _CONDITION.fullmatch(part)
        if not match or (match[2] == "=" and not equals):
            raise UsageError(f"{where}: {part.strip()!r} is no condition; expected {example}")
        metric, sign, number = match.groups()
        if metric not in METRICS:
            known = ", ".join(METRICS)
            raise UsageError(f"{where}: unknown metric {metric!r}.{nearest(metric, METRICS)} Known: {known}.")
        try:
            threshold = float(number)
        except ValueError:
            threshold = math.nan
        if not math.isfinite(threshold):
            raise UsageError(f"{where}: {number!r} is no number")
        found.append(Condition(metric, threshold))
        if sign not in str(found[-1]):
            better = "lower" if metric in LOWER_IS_BETTER else "higher"
            raise UsageError(f"{where}: {metric} is better when {better}: write {found[-1]}")
    return tuple(found)


def score(metric: str, means: Mapping[str, float]) -> float:
    """The metric's value turned so that lower is better, which turns it back too; NaN if it was not measured."""
    value = means.get(metric, math.nan)
    return value if metric in LOWER_IS_BETTER else -value


def means(numbers: Mapping[str, float]) -> dict[str, float]:
    """Metric → its mean over what was measured, from `<what>/<metric>` → number."""
    found: dict[str, list[float]] = {}
    for name, value in numbers.items():
        found.setdefault(name.rpartition("/")[2], []).append(value)
    return {metric: sum(values) / len(values) for metric, values in found.items()}


def lr_factor(policy: Policy, epoch: int, n_epochs: int, n_epochs_decay: int, lr_decay_epochs: int = 50) -> float:
    """The factor during `epoch` (from 0). 1 for `constant` and `plateau`."""
    if policy == "linear":
        return 1.0 - max(0, epoch + 1 - n_epochs) / (n_epochs_decay + 1)
    if policy == "step":
        return 0.1 ** (epoch // lr_decay_epochs)
    if policy == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / max(n_epochs, 1)))
    return 1.0


class Plateau:
    """Multiplies the factor by 0.2 when the metric (lower is better) has not fallen by 1 % for `patience` checks."""

    def __init__(self, patience: int = 5) -> None:
        self.patience = patience
        self.factor, self.best, self.waited = 1.0, math.inf, 0

    def update(self, metric: float) -> None:
        if metric < self.best * 0.99:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * 0.2, 0

    def state(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]


class Progress:
    """How far a run is, from its first step through all resumes. `began` is the step at which this process came in."""

    def __init__(self, options: "RunOptions", epoch_length: int, world_size: int = 1) -> None:
        self.options, self.epoch_length, self.max_steps = options, epoch_length, options.max_steps
        self.images_per_step = batch_size(options) * world_size
        self.images_of_all_epochs = (options.n_epochs + options.n_epochs_decay) * epoch_length
        self.step = self.images_seen = self.began = 0

    def resume(self, step: int, images_seen: int) -> None:
        """Go on after `step`."""
        self.step, self.images_seen, self.began = step, images_seen, step

    def advance(self) -> None:
        """One step more."""
        self.step += 1
        self.images_seen += self.images_per_step

    @property
    def epoch(self) -> int:
        """The epoch of the next sample, from 0."""
        return self.images_seen // self.epoch_length

    @property
    def lr_factor(self) -> float:
        """The factor on the learning rate in this epoch, by the policy of the options."""
        o = self.options
        return lr_factor(o.lr_policy, self.epoch, o.n_epochs, o.n_epochs_decay, o.lr_decay_epochs)

    @property
    def total_images(self) -> int:
        """The images that will have been seen at the end, if every further step sees as many as one does now."""
        if self.max_steps is None:
            return self.images_of_all_epochs
        left = max(0, self.max_steps - self.step) * self.images_per_step
        return min(self.images_of_all_epochs, self.images_seen + left)

    @property
    def steps_left(self) -> int:
        """How many steps are still to be made."""
        return math.ceil(max(0, self.total_images - self.images_seen) / self.images_per_step)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.steps_left == 0

    def why_finished(self) -> str:
        """The option that says that no step is left, and what to type to go on."""
        if self.images_seen >= self.images_of_all_epochs:
            epochs = self.images_of_all_epochs // self.epoch_length
            return f"n_epochs + n_epochs_decay = {epochs} are done; to go on, give more --n-epochs or --n-epochs-decay"
        return f"max_steps = {self.max_steps}; to go on, give more --max-steps, or None for all epochs"

    def validation_due(self) -> bool:
        """Whether the last step ended an epoch after which there is a validation; a long step may end several."""
        period = self.options.validate_every * self.epoch_length
        return period > 0 and self.images_seen // period > (self.images_seen - self.images_per_step) // period
