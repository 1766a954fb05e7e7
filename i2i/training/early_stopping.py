"""When a training is good enough, or no longer gets better: `--stop-when`, `--best-metric`, `--best-floor`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from i2i.config import nearest
from i2i.errors import UsageError

Metric = Literal["l1", "psnr", "ssim", "swd", "pixel_accuracy", "mean_iou"]
# what translations keep of their inputs: a floor or a goal, and never the best metric, as most is kept by doing nothing
CONTENT = "luminance_ssim"
METRICS: tuple[str, ...] = (*get_args(Metric), CONTENT)
LOWER_IS_BETTER = ("l1", "swd")

_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|=)\s*([^\s=]+)\s*")


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


def parse(text: str) -> tuple[Condition, ...]:
    """`ssim>=0.62, l1<=0.1` as conditions; none of an empty text. Raises `UsageError`."""
    return _conditions(text, "stop_when", "one like ssim>=0.62 or l1<=0.1", equals=False)


def parse_floor(text: str) -> tuple[Condition, ...]:
    """`luminance_ssim=0.5` (at least, for a metric that is better when lower at most) as conditions, see `parse`."""
    return _conditions(text, "best_floor", "one like luminance_ssim=0.5", equals=True)


def _conditions(text: str, option: str, example: str, *, equals: bool) -> tuple[Condition, ...]:
    where = f"{option} = {text!r}"
    return tuple(_condition(part, where, example, equals) for part in text.split(",")) if text.strip() else ()


def _condition(part: str, where: str, example: str, equals: bool) -> Condition:
    match = _CONDITION.fullmatch(part)
    if not match or (match[2] == "=" and not equals):
        raise UsageError(f"{where}: {part.strip()!r} is no condition; expected {example}")
    metric, sign, number = match.groups()
    if metric not in METRICS:
        raise UsageError(f"{where}: unknown metric {metric!r}.{nearest(metric, METRICS)} Known: {', '.join(METRICS)}.")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold):
        raise UsageError(f"{where}: {number!r} is no number")
    condition = Condition(metric, threshold)
    if sign not in str(condition):
        better = "lower" if metric in LOWER_IS_BETTER else "higher"
        raise UsageError(f"{where}: {metric} is better when {better}: write {condition}")
    return condition


def score(metric: str, means: Mapping[str, float]) -> float:
    """The metric's value turned so that lower is better; NaN if it was not measured."""
    value = means.get(metric, math.nan)
    return value if metric in LOWER_IS_BETTER else -value


def value(metric: str, score: float) -> float:
    """The metric's value again."""
    return score if metric in LOWER_IS_BETTER else -score


def means(numbers: Mapping[str, float]) -> dict[str, float]:
    """Metric → its mean over what was measured, from `<what>/<metric>` → number."""
    found: dict[str, list[float]] = {}
    for name, value in numbers.items():
        found.setdefault(name.rpartition("/")[2], []).append(value)
    return {metric: sum(values) / len(values) for metric, values in found.items()}
