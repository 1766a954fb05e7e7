"""Numbers of pictures and of sets of them, each with what belongs beside it."""

from collections.abc import Callable, Sequence
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
LEAST = {"ssim": metrics.WINDOW, "ms_ssim": metrics.MS_SSIM_LEAST, "lpips": LPIPS_LEAST}


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
    made: Pictures, expected: Pictures, wanted: Sequence[str], lpips: Lpips | None = None
) -> dict[str, Measure]:
    """The paired metrics named in `wanted`: means over the pairs, with their standard deviations.

    Raises `InputError` for sets of unequal length, pairs of unequal sizes, and pictures that are too small.
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
    return _means(made, expected, chosen)


def of_content(
    outputs: Pictures, inputs: Pictures, wanted: Sequence[str], returned: Pictures | None
) -> dict[str, Measure]:
    """What outputs keep of their inputs; the cycle error where `returned` is what came back."""
    found: dict[str, Measure] = {}
    if "luminance_ssim" in wanted:
        found |= _means(outputs, inputs, {"luminance_ssim": content.luminance_ssim})
    if "cycle_error" in wanted and returned is not None:
        found |= _means(returned, inputs, {"cycle_error": content.cycle_error})
    return found


def _means(
    made: Pictures, expected: Pictures, functions: dict[str, Callable[[Tensor, Tensor], Tensor]]
) -> dict[str, Measure]:
    values: dict[str, list[float]] = {name: [] for name in functions}
    with torch.inference_mode():
        for i in range(len(made) if functions else 0):
            a, b = made[i], expected[i]
            _comparable(_name(i, made, expected), a, b, functions)
            for name, function in functions.items():
                values[name].append(float(function(a[None], b[None])))
    return {name: _mean(found) for name, found in values.items() if found}


def _name(index: int, *sets: Pictures) -> str:
    """The file of a pair, if one of the sets knows it."""
    known = [pictures.name(index) for pictures in sets if hasattr(pictures, "name")]
    return known[0] if known else f"pair {index + 1}"


def _comparable(name: str, a: Tensor, b: Tensor, functions: dict[str, Any]) -> None:
    made, expected = (f"{x.shape[-1]}x{x.shape[-2]} pixels" for x in (a, b))
    if made != expected:
        raise InputError(f"{name}: {made}, its partner has {expected}; --size brings both to one size")
    for metric in functions:
        least = LEAST.get("ssim" if metric == "luminance_ssim" else metric, 1)
        if min(a.shape[-2:]) < least:
            raise InputError(f"{name}: {made}; {metric} needs {least} a side (--metrics chooses others)")


def _mean(values: list[float]) -> Measure:
    numbers = torch.tensor(values, dtype=torch.float64)
    return Measure(float(numbers.mean()), len(values), {"std": float(numbers.std(unbiased=False))})


def of_sets(
    made: Pictures,
    reference: Pictures,
    wanted: Sequence[str],
    options: SetOptions,
    features: tuple[Features, Features] | None = None,
) -> dict[str, Measure]:
    """The metrics between sets named in `wanted`; those of features where `features` of both are given.

    Raises `InputError` where a number is undefined for so few pictures.
    """
    found: dict[str, Measure] = {}
    if "swd" in wanted:
        found["swd"] = _swd(made, reference, options)
    if "diversity" in wanted and len(made) > 1:
        found["diversity"] = Measure(content.diversity(made), len(made))
    if features is not None:
        found |= of_features(*features, wanted, options)
    return found


def _swd(made: Pictures, reference: Pictures, options: SetOptions) -> Measure:
    result = swd(made, reference, options.seeds)
    beside = {
        "std": result.std,
        "levels": {str(size): value for size, value in result.levels.items()},
        "patches": result.patches,
        "reference": len(reference),
    }
    return Measure(result.mean, len(made), beside)


def of_features(made: Features, reference: Features, wanted: Sequence[str], options: SetOptions) -> dict[str, Measure]:
    """FID, KID, IS, precision and recall, as far as `wanted`. Raises `InputError` for too few pictures."""
    a, b, count = made.pool, reference.pool, len(made.pool)
    beside = {"reference": len(b)}
    found: dict[str, Measure] = {}
    if "fid" in wanted:
        found["fid"] = Measure(sets.fid(a, b), count, beside)
    if "kid" in wanted:
        size = options.subset_size(len(a), len(b))
        kid = sets.kid(a, b, options.kid_subsets, size, options.seeds[0])
        found["kid"] = Measure(kid.mean, count, _beside(kid) | {"subset_size": size} | beside)
    if "is" in wanted:
        score = sets.inception_score(made.logits, options.is_splits, options.seeds[0])
        found["is"] = Measure(score.mean, count, _beside(score))
    if "precision" in wanted or "recall" in wanted:
        values = dict(zip(("precision", "recall"), sets.precision_recall(a, b), strict=True))
        found |= {name: Measure(value, count, beside) for name, value in values.items() if name in wanted}
    return found


def _beside(spread: sets.Spread) -> dict[str, Any]:
    return {"std": spread.std, "interval": [spread.low, spread.high]}
