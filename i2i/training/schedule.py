"""Whether the options of a training fit each other, and when a training is good enough.

Nothing here needs torch, so the command line answers at once.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from i2i.config import nearest
from i2i.data.options import TOY, check_crop
from i2i.data.walking import exists
from i2i.errors import InputError, UsageError
from i2i.urls import StorePath

if TYPE_CHECKING:
    from i2i.training.options import RunOptions, TrainingOptions

Metric = Literal["l1", "psnr", "ssim", "swd", "pixel_accuracy", "mean_iou"]
# how much translations keep of their inputs: a floor or a goal, never the best metric, since doing nothing keeps most
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

        raise InputError(f"data = {options.data}: no such folder.{near_to(options.data)}")
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
