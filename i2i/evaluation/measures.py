"""Numbers of pictures and of sets of them, each with what belongs beside it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from i2i.errors import InputError
from i2i.evaluation import content, metrics, sets
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


@dataclass(frozen=True)
class Measure:
    """A number, and of how many pictures; `beside` says how it varies, its parts, and what it depends on."""

    value: float
    pictures: int
    beside: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SetOptions:
    """How sets are compared: see the functions of `sets` and `sliced_wasserstein`."""

    seeds: tuple[int, ...] = (0, 1, 2)
    kid_subsets: int = 100
    kid_subset_size: int | None = None
    is_splits: int = 10

    def subset_size(self, a: int, b: int) -> int:
        return self.kid_subset_size or max(2, min(1000, min(a, b) // 2))


def of_pairs(
    made: Pictures,
    expected: Pictures,
    wanted: Sequence[str],
    lpips: Lpips | None = None,
    left_out: list[str] | None = None,
) -> dict[str, Measure]:
    """The paired metrics named in `wanted`: means over the pairs, with their standard deviations.

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
    return _means(made, expected, chosen, left_out)


def of_content(
    outputs: Pictures,
    inputs: Pictures,
    wanted: Sequence[str],
    returned: Pictures | None,
    left_out: list[str] | None = None,
) -> dict[str, Measure]:
    """What outputs keep of their inputs; the cycle error where `returned` is what came back.

    `left_out` is that of `of_pairs`.
    """
    found: dict[str, Measure] = {}
    if "luminance_ssim" in wanted:
        found |= _means(outputs, inputs, {"luminance_ssim": content.luminance_ssim}, left_out)
    if "cycle_error" in wanted and returned is not None:
        found |= _means(returned, inputs, {"cycle_error": content.cycle_error}, left_out)
    return found


def _means(
    made: Pictures,
    expected: Pictures,
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]],
    left_out: list[str] | None,
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
    return {name: _mean(found) for name, found in values.items() if found}


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


def _mean(values: list[float]) -> Measure:
    numbers = torch.tensor(values, dtype=torch.float64)
    return Measure(float(numbers.mean()), len(values), {"std": float(numbers.std(unbiased=False))})


def of_sets(
    made: Pictures,
    reference: Pictures,
    wanted: Sequence[str],
    options: SetOptions,
    features: tuple[Features, Features] | None = None,
    left_out: list[str] | None = None,
    patches: int | None = None,
) -> dict[str, Measure]:
    """The metrics between sets named in `wanted`; those of features where `features` of both are given.

    Raises `InputError` where a number is undefined for so few pictures; with `left_out`, it is left out instead,
    and why is appended there.
    """
    found: dict[str, Measure] = {}
    if "swd" in wanted:
        found["swd"] = _swd(made, reference, options, patches)
    if features is not None:
        found |= of_features(*features, wanted, options, left_out)
    return found


def of_one_set(made: Pictures, wanted: Sequence[str], left_out: list[str] | None = None) -> dict[str, Measure]:
    """The diversity, if it is `wanted`. `left_out`, and what is raised, as in `of_sets`."""
    if "diversity" not in wanted:
        return {}
    if len(made) > 1:
        return {"diversity": Measure(content.diversity(made), len(made))}
    reason = "diversity is undefined for a set of 1: at least 2 pictures are needed"
    if left_out is None:
        raise InputError(reason)
    left_out.append(reason)
    return {}


def _swd(made: Pictures, reference: Pictures, options: SetOptions, patches: int | None) -> Measure:
    result = swd(made, reference, options.seeds, patches)
    beside = {
        "std": result.std,
        "levels": {str(size): value for size, value in result.levels.items()},
        "patches": result.patches,
        "reference": len(reference),
    }
    return Measure(result.mean, len(made), beside)


def of_features(
    made: Features,
    reference: Features,
    wanted: Sequence[str],
    options: SetOptions,
    left_out: list[str] | None = None,
) -> dict[str, Measure]:
    """FID, KID, IS, precision and recall, as far as `wanted`. `left_out`, and what is raised, as in `of_sets`."""
    a, b, count = made.pool, reference.pool, len(made.pool)
    beside = {"reference": len(b)}

    def fid() -> dict[str, Measure]:
        return {"fid": Measure(sets.fid(a, b), count, beside)}

    def kid() -> dict[str, Measure]:
        size = options.subset_size(len(a), len(b))
        found = sets.kid(a, b, options.kid_subsets, size, options.seeds[0])
        return {"kid": Measure(found.mean, count, _beside(found) | {"subset_size": size} | beside)}

    def inception_score() -> dict[str, Measure]:
        score = sets.inception_score(made.logits, options.is_splits, options.seeds[0])
        return {"is": Measure(score.mean, count, _beside(score))}

    def precision_recall() -> dict[str, Measure]:
        values = zip(("precision", "recall"), sets.precision_recall(a, b), strict=True)
        return {name: Measure(value, count, beside) for name, value in values if name in wanted}

    found: dict[str, Measure] = {}
    for names, measured in (
        (("fid",), fid),
        (("kid",), kid),
        (("is",), inception_score),
        (("precision", "recall"), precision_recall),
    ):
        if not set(names) & set(wanted):
            continue
        try:
            found |= measured()
        except InputError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found


def _beside(spread: sets.Spread) -> dict[str, Any]:
    return {"std": spread.std, "interval": [spread.low, spread.high]}
