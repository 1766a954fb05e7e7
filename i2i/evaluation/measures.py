"""Numbers of pictures and of sets of them, each with what belongs beside it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from i2i.errors import InputError
from i2i.evaluation import content, metrics, sets
from i2i.evaluation.bootstrap import Estimate, linear, mean
from i2i.evaluation.features import Features
from i2i.evaluation.lpips import LEAST as LPIPS_LEAST
from i2i.evaluation.lpips import Lpips
from i2i.evaluation.sliced_wasserstein import swd

Pictures = Sequence[Tensor]
LEAST = {
    "ssim": metrics.WINDOW,
    "luminance_ssim": metrics.WINDOW,
    "ms_ssim": metrics.MS_SSIM_LEAST,
    "lpips": LPIPS_LEAST,
}


# between which a number lies; intervals end there too
_LEAST = {"psnr": 0.0, "ssim": -1.0, "luminance_ssim": -1.0, "kid": -math.inf, "is": 1.0}
_MOST = {"psnr": 100.0} | dict.fromkeys(("lpips", "swd", "fid", "kid", "is"), math.inf)
_DEPENDS_ON = ("reference", "patches", "network", "palette", "read_back_by")  # beside a number
_OF_ONE_SIZE = ("fid", "is", "precision", "recall")  # which the number of pictures changes


@dataclass(frozen=True)
class Measure:
    """A number, and of how many pictures; `beside` says how it varies, its parts, and what it depends on.

    `estimate` has its bootstrap draws, by which it is compared with others.
    """

    value: float
    pictures: int
    beside: dict[str, Any] = field(default_factory=dict)
    estimate: Estimate | None = field(default=None, repr=False, compare=False)


def measured(name: str, estimate: Estimate, pictures: int, beside: Mapping[str, Any] | None = None) -> Measure:
    """The number of a metric, with its 95 % interval beside it where there is one."""
    interval = estimate.interval()
    told = {"interval": list(within(name, interval))} if interval else {}
    return Measure(estimate.value, pictures, {**told, **(beside or {})}, estimate)


def way_to_the_floor(made: Measure, begin: Measure, floor: Measure) -> dict[str, Any]:
    """How far `made` came from `begin` (0) to `floor` (1), with its interval, as what stands beside a distance."""
    assert made.estimate and begin.estimate and floor.estimate
    way = begin.estimate.minus(made.estimate).over(begin.estimate.minus(floor.estimate))
    interval = way.interval()
    return {"way_to_the_floor": way.value, **({"way_interval": list(interval)} if interval else {})}


def difference(name: str, one: Measure, other: Measure) -> dict[str, Any] | None:
    """`one` less `other`: `value`, its 95 % `interval`, and whether they differ, which is that it does not hold 0.

    None where the numbers depend on different things: a biased number of sets of other sizes, another network.
    """
    if one.estimate is None or other.estimate is None:
        return None
    depends = [[measure.beside.get(key) for key in _DEPENDS_ON] for measure in (one, other)]
    if depends[0] != depends[1] or (name in _OF_ONE_SIZE and one.pictures != other.pictures):
        return None
    found = one.estimate.minus(other.estimate)
    interval = found.interval()
    differs = interval is not None and not interval[0] <= 0 <= interval[1]
    return {"value": found.value, "interval": list(interval) if interval else None, "differs": differs}


def within(name: str, interval: tuple[float, float]) -> tuple[float, float]:
    """The part of an interval in which the metric's numbers lie."""
    low, high = interval
    return max(low, _LEAST.get(name, 0.0)), min(high, _MOST.get(name, 1.0))


@dataclass(frozen=True)
class SetOptions:
    """How sets are compared: see the functions of `sets` and `sliced_wasserstein`. The first seed is also that of
    bootstrap draws."""

    seeds: tuple[int, ...] = (0, 1, 2)
    is_splits: int = 10


def of_pairs(
    made: Pictures,
    expected: Pictures,
    wanted: Sequence[str],
    lpips: Lpips | None = None,
    left_out: list[str] | None = None,
    seed: int = 0,
) -> dict[str, Measure]:
    """The paired metrics named in `wanted`: means over the pairs, with their intervals and standard deviations.

    `seed` is that of bootstrap draws.

    Raises `InputError` for sets of unequal length, pairs of unequal sizes, and pictures that are too small for a
    metric; with `left_out`, such a metric is left out instead, and why is appended there.
    """
    if len(made) != len(expected):
        raise InputError(f"{len(made)} pictures cannot be compared with {len(expected)} in pairs")
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "l1": metrics.l1,
        "psnr": metrics.psnr,
        "ssim": metrics.ssim,
        "ms_ssim": metrics.ms_ssim,
    }
    if lpips is not None:
        functions["lpips"] = lpips
    chosen = {name: functions[name] for name in wanted if name in functions}
    return _means(made, expected, chosen, left_out, seed)


def of_content(
    outputs: Pictures,
    inputs: Pictures,
    wanted: Sequence[str],
    returned: Pictures | None,
    left_out: list[str] | None = None,
    seed: int = 0,
) -> dict[str, Measure]:
    """What outputs keep of their inputs; the cycle error where `returned` is what came back.

    `left_out` and `seed` are those of `of_pairs`.
    """
    found: dict[str, Measure] = {}
    if "luminance_ssim" in wanted:
        found |= _means(outputs, inputs, {"luminance_ssim": content.luminance_ssim}, left_out, seed)
    if "cycle_error" in wanted and returned is not None:
        found |= _means(returned, inputs, {"cycle_error": content.cycle_error}, left_out, seed)
    return found


def _means(
    made: Pictures,
    expected: Pictures,
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]],
    left_out: list[str] | None,
    seed: int,
) -> dict[str, Measure]:
    values: dict[str, list[float]] = {name: [] for name in functions}
    with torch.inference_mode():
        for i in range(len(made) if functions else 0):
            a, b = made[i], expected[i]
            for name, reason in _undefined(_name(i, made, expected), a, b, values).items():
                if left_out is None:
                    raise InputError(f"{reason} (--metrics chooses others)")
                left_out.append(f"{name}: {reason}")
                del values[name]  # a mean over the others would be one of other pictures
            for name, found in values.items():
                found.append(float(functions[name](a[None], b[None])))
    return {name: _mean(name, found, seed) for name, found in values.items() if found}


def _name(index: int, *sets: Pictures) -> str:
    """The file of a pair, if one of the sets knows it."""
    known = [pictures.name(index) for pictures in sets if hasattr(pictures, "name")]
    return known[0] if known else f"pair {index + 1}"


def _undefined(name: str, a: Tensor, b: Tensor, wanted: Iterable[str]) -> dict[str, str]:
    """Why metrics cannot be computed of a pair. Raises `InputError` for one of unequal sizes."""
    made, expected = (f"{x.shape[-1]}x{x.shape[-2]} pixels" for x in (a, b))
    if made != expected:
        raise InputError(f"{name}: {made}, its partner has {expected}; --size brings both to one size")
    least = {metric: LEAST.get(metric, 1) for metric in wanted}
    side = min(a.shape[-2:])
    return {metric: f"{name}: {made}; {metric} needs {n} a side" for metric, n in least.items() if side < n}


def _mean(name: str, values: list[float], seed: int) -> Measure:
    numbers = torch.tensor(values, dtype=torch.float64)
    return measured(name, mean(numbers, seed), len(values), {"std": float(numbers.std(unbiased=False))})


def of_sets(
    made: Pictures,
    reference: Pictures,
    wanted: Sequence[str],
    options: SetOptions,
    seen: Mapping[str, tuple[Features, Features]] | None = None,
    left_out: list[str] | None = None,
    patches: int | None = None,
) -> dict[str, Measure]:
    """The metrics between sets named in `wanted`; those of features where `seen` has those of both sets by the metric.

    Raises `InputError` where a number is undefined for so few pictures; with `left_out`, it is left out instead,
    and why is appended there.
    """
    found: dict[str, Measure] = {}
    if "swd" in wanted:
        found["swd"] = _swd(made, reference, options, patches)
    for metric, measure in _OF_FEATURES.items():
        if metric in wanted and seen and metric in seen:
            found |= _tried(metric, partial(measure, *seen[metric], options), left_out)
    return found


def of_one_set(
    made: Pictures, wanted: Sequence[str], left_out: list[str] | None = None, seed: int = 0
) -> dict[str, Measure]:
    """The diversity, if it is `wanted`. `left_out`, and what is raised, as in `of_sets`; `seed` as in `of_pairs`."""

    def diversity() -> Measure:
        if len(made) < 2:
            raise InputError("diversity is undefined for a set of 1: at least 2 pictures are needed")
        return measured("diversity", content.diversity(made, seed), len(made))

    return _tried("diversity", diversity, left_out) if "diversity" in wanted else {}


def _tried(name: str, measure: Callable[[], Measure], left_out: list[str] | None) -> dict[str, Measure]:
    try:
        return {name: measure()}
    except InputError as error:
        if left_out is None:
            raise
        left_out.append(str(error))
        return {}


def _swd(made: Pictures, reference: Pictures, options: SetOptions, patches: int | None) -> Measure:
    result = swd(made, reference, options.seeds, patches, influences=True)
    assert result.influences is not None
    beside = {
        "std": result.std,
        "levels": {str(size): value for size, value in result.levels.items()},
        "patches": result.patches,
        "reference": len(reference),
    }
    return measured("swd", linear(result.mean, result.influences, options.seeds[0]), len(made), beside)


def _fid(made: Features, reference: Features, options: SetOptions) -> Measure:
    return _between("fid", sets.fid(made.pool, reference.pool, options.seeds[0]), made, reference)


def _kid(made: Features, reference: Features, options: SetOptions) -> Measure:
    return _between("kid", sets.kid(made.pool, reference.pool, options.seeds[0]), made, reference)


def _is(made: Features, reference: Features, options: SetOptions) -> Measure:
    score, deviation = sets.inception_score(made.logits, options.is_splits, options.seeds[0])
    return measured("is", score, len(made.pool), {"std": deviation})


def _precision(made: Features, reference: Features, options: SetOptions) -> Measure:
    return _between("precision", sets.precision(made.pool, reference.pool, seed=options.seeds[0]), made, reference)


def _recall(made: Features, reference: Features, options: SetOptions) -> Measure:
    return _between("recall", sets.recall(made.pool, reference.pool, seed=options.seeds[0]), made, reference)


def _between(name: str, estimate: Estimate, made: Features, reference: Features) -> Measure:
    network = {"network": made.network} if made.network else {}
    return measured(name, estimate, len(made.pool), {"reference": len(reference.pool), **network})


_OF_FEATURES = {"fid": _fid, "kid": _kid, "is": _is, "precision": _precision, "recall": _recall}
