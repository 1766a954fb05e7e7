"""Intervals against Student's t, closed forms, finite differences, and numbers computed by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from i2i.evaluation import bootstrap, metrics, sliced_wasserstein
from i2i.evaluation.bootstrap import RESAMPLES, Estimate, draws, linear, mean, mean_across, mean_of_pairs, student
from i2i.evaluation.result import Measure, difference, gap_closed, measured
from i2i.evaluation.sliced_wasserstein import normalised, swd, with_influences

pytestmark = pytest.mark.arithmetic


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def half_width(estimate: Estimate) -> float:
    interval = estimate.interval()
    assert interval is not None
    return (interval[1] - interval[0]) / 2


def test_draws_follow_from_the_seed_and_the_number_of_pictures() -> None:
    assert draws(5, 0)[:3].tolist() == [[1, 1, 0, 2, 1], [2, 0, 0, 1, 2], [1, 2, 2, 0, 0]]
    assert torch.equal(draws(7, 3).sum(dim=1), torch.full((RESAMPLES,), 7.0, dtype=torch.float64))
    assert not torch.equal(draws(5, 0), draws(5, 1))
    assert draws(40, 0).mean() == 1 and draws(40, 0).var() == pytest.approx(1 - 1 / 40, rel=0.02)


def test_students_quantiles() -> None:
    for degrees, expected in ((3, 3.182446), (9, 2.262157), (29, 2.045230), (99, 1.984217)):
        assert student(degrees) == pytest.approx(expected, rel=0.01)


def test_an_interval_by_hand() -> None:
    """The 2.5 % and 97.5 % of -1 … 1 are -0.95 and 0.95; of 10 pictures widened by √(10 / 9) · 2.262157 / 1.959964."""
    uniform = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    low, high = Estimate(2.0, 2 + uniform, 10).interval() or (0, 0)
    assert (low, high) == pytest.approx((2 - 0.95 * 1.216616, 2 + 0.95 * 1.216616), abs=1e-3)
    some = torch.cat([2 + uniform, torch.full((50,), torch.nan, dtype=torch.float64)])
    assert Estimate(2.0, some, 10).interval() == (low, high)
    for nothing in (Estimate(2.0, uniform, 1), Estimate(2.0, None, 10), Estimate(float("nan"), uniform, 10)):
        assert nothing.interval() is None


@pytest.mark.parametrize("count", [8, 30, 200])
def test_the_interval_of_a_mean_is_students(count: int) -> None:
    values = drawn(count)
    expected = student(count - 1) * float(values.std()) / count**0.5
    found = mean(values, 0)
    assert found.value == pytest.approx(float(values.mean())) and half_width(found) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_pairs_of_a_picture_with_itself_do_not_count(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows of the matrix of all pairs are computed at once."""
    monkeypatch.setattr(bootstrap, "ROWS", at_once)
    kernel = torch.tensor([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]], dtype=torch.float64)
    computed: list[int] = []

    def between(some: Tensor, others: Tensor) -> Tensor:
        computed.append(len(some))
        return kernel[some[:, 0]][:, others[:, 0]]

    pictures = torch.arange(3)[:, None]
    rows = torch.tensor([[1.0, 1, 1], [2, 1, 0], [0, 1, 2], [3, 0, 0]], dtype=torch.float64)
    found = mean_of_pairs(pictures, between, rows)
    assert found[:3].tolist() == [2, 1, 3] and bool(found[3].isnan())
    assert sum(computed) == 3 and max(computed) == at_once
    across = mean_across(pictures, pictures[:2], between, rows[:2], torch.tensor([[1.0, 1], [0, 2]]).double())
    assert across.tolist() == pytest.approx([(9 + 1 + 1 + 9 + 2 + 3) / 6, (2 * 1 + 9) / 3])


def test_draws_of_kid_are_those_of_the_pictures_drawn() -> None:
    a, b = 1 + drawn(9, 4), drawn(7, 4, seed=1)
    found = metrics.kid(a, b, seed=2)
    assert found.resampled is not None
    for k in (0, 17):
        of_a, of_b = (torch.repeat_interleave(torch.arange(len(x)), draws(len(x), 2)[k].long()) for x in (a, b))

        def within(x: Tensor, chosen: Tensor) -> float:
            pairs = [(i, j) for i in chosen.tolist() for j in chosen.tolist() if i != j]
            return float(np.mean([(float(x[i] @ x[j]) / 4 + 1) ** 3 for i, j in pairs]))

        across = np.mean([(float(a[i] @ b[j]) / 4 + 1) ** 3 for i in of_a for j in of_b])
        assert float(found.resampled[k]) == pytest.approx(within(a, of_a) + within(b, of_b) - 2 * across)


def test_kid_of_points_and_of_few_pictures() -> None:
    """Two sets without any spread, x and y everywhere: (x² + 1)³ + (y² + 1)³ - 2 (x y + 1)³."""
    a, b = torch.full((4, 1), 0.5), torch.full((3, 1), -1.0)
    assert metrics.kid(a, b).value == pytest.approx(1.25**3 + 2**3 - 2 * 0.5**3)
    assert metrics.kid(a, b).interval() == pytest.approx((metrics.kid(a, b).value,) * 2)
    assert metrics.kid(drawn(2, 3), drawn(5, 3, seed=1)).interval() is None, "two pictures are one pair"
    assert metrics.kid(drawn(3, 3), drawn(3, 3, seed=1)).interval() is not None
    many = drawn(300, 3), drawn(270, 3, seed=1)  # in more than one block
    assert metrics.kid(*many).value == pytest.approx(kid_by_matrix(*many))


def kid_by_matrix(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).trace()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(within[0] + within[1] - 2 * kernel(a, b).mean())


def test_the_interval_of_kid_is_that_of_its_influences() -> None:
    """Far from 0, Var = 4 Var(h(x)) / n + 4 Var(g(y)) / m, h and g the means of the kernel (Sutherland 2019)."""
    a, b = 0.7 + drawn(150, 6), drawn(120, 6, seed=1)

    def means(x: Tensor, y: Tensor) -> Tensor:
        own = (x @ x.T / 6 + 1) ** 3
        return (own.sum(dim=1) - own.diagonal()) / (len(x) - 1) - ((x @ y.T / 6 + 1) ** 3).mean(dim=1)

    deviation = float((4 * means(a, b).var() / 150 + 4 * means(b, a).var() / 120) ** 0.5)
    assert half_width(metrics.kid(a, b)) == pytest.approx(student(119) * deviation, rel=0.08)


def changes(function: Callable[[Tensor], Tensor], count: int, size: float = 1e-5) -> Tensor:
    """dF / dw of each weight at 1, by central differences."""
    found = []
    for i in range(count):
        step = torch.zeros(count, dtype=torch.float64)
        step[i] = size
        found.append(float(function(1 + step) - function(1 - step)) / (2 * size))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(("count", "dimensions"), [(20, 4), (6, 9)])
def test_the_draws_of_fid_follow_each_pictures_weight(count: int, dimensions: int) -> None:
    """Also where there are fewer pictures than features."""
    a, b = 0.4 + drawn(count, dimensions), 1.5 * drawn(count + 2, dimensions, seed=1)

    def fid(w: Tensor, v: Tensor) -> Tensor:
        means, covariances = [], []
        for x, some in ((a, w), (b, v)):
            p = some / some.sum()
            means.append(p @ x)
            covariances.append(((x - means[-1]) * p[:, None]).T @ (x - means[-1]) * len(x) / (len(x) - 1))
        root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt().sum()
        trace = covariances[0].trace() + covariances[1].trace()
        return (means[0] - means[1]).square().sum() + trace - 2 * root

    ones = torch.ones(count, dtype=torch.float64), torch.ones(count + 2, dtype=torch.float64)
    influences = changes(lambda w: fid(w, ones[1]), count, 1e-3), changes(lambda v: fid(ones[0], v), count + 2, 1e-3)
    found, expected = metrics.fid(a, b, seed=4), linear(float(fid(*ones)), influences, 4)
    assert found.value == pytest.approx(expected.value) and found.resampled is not None
    torch.testing.assert_close(found.resampled, expected.resampled, rtol=1e-3, atol=1e-3)


def test_the_draws_of_the_inception_score_follow_each_pictures_weight() -> None:
    logits = 2 * drawn(30, 5)
    order = np.random.RandomState(1).permutation(30)

    def score(w: Tensor) -> Tensor:
        parts = []
        for part in (order[:15], order[15:]):
            p, some = logits[part].softmax(dim=1), w[part] / w[part].sum()
            parts.append((some @ (p * (p.log() - (some @ p).log())).sum(dim=1)).exp())
        return torch.stack(parts).mean()

    found, _ = metrics.inception_score(logits, splits=2, seed=1)
    expected = linear(float(score(torch.ones(30).double())), [changes(score, 30)], 1)
    assert found.value == pytest.approx(expected.value) and found.resampled is not None
    torch.testing.assert_close(found.resampled, expected.resampled, rtol=1e-5, atol=1e-5)


def test_how_a_patchs_weight_moves_the_sliced_wasserstein_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scipy's distance of weighted values, each set normalised by weighted means and deviations of its channels."""
    stats, count = pytest.importorskip("scipy.stats"), 64
    monkeypatch.setattr(sliced_wasserstein, "PROJECTIONS", count)
    a, b = drawn(25, 6), drawn(25, 6, seed=1) ** 3
    directions = torch.randn(count, 6, generator=torch.Generator().manual_seed(5)).double()
    directions /= directions.norm(dim=1, keepdim=True)

    def weighted(x: Tensor, w: Tensor) -> Tensor:
        x, p = x.reshape(25, 2, 3), (w / w.sum())[:, None, None]
        middle = (p * x).sum(dim=0, keepdim=True).mean(dim=2, keepdim=True)
        variance = (p * (x - middle).square()).sum(dim=0, keepdim=True).mean(dim=2, keepdim=True)
        return ((x - middle) / variance.sqrt()).reshape(25, 6)

    def distance(w: Tensor, v: Tensor) -> Tensor:
        x, y = weighted(a, w) @ directions.T, weighted(b, v) @ directions.T
        each = [stats.wasserstein_distance(x[:, k], y[:, k], w, v) for k in range(count)]
        return torch.tensor(np.mean(each))

    ones = torch.ones(25, dtype=torch.float64)
    x, y = normalised(a, 2), normalised(b, 2)
    assert float(distance(ones, ones)) == pytest.approx(sliced_wasserstein.sliced_wasserstein(x, y, count, seed=5))
    moves: list[Callable[[Tensor], Tensor]] = [lambda w: distance(w, ones), lambda w: distance(ones, w)]
    value, both = with_influences(x, y, 2, 5)
    assert value == sliced_wasserstein.sliced_wasserstein(x, y, count, seed=5)
    for found, moved in zip(both, moves, strict=True):
        assert float(found.sum()) == pytest.approx(0, abs=1e-9)
        expected = changes(lambda w: moved(torch.cat([w, ones[2:]])), 2)  # noqa: B023 (called at once)
        torch.testing.assert_close(found[:2], expected, rtol=1e-3, atol=1e-6)


def test_influences_of_pictures_are_those_of_their_patches() -> None:
    """A picture that is unlike the others moves the distance most, and without it the distance is what they say."""
    pictures = [0.3 * drawn(3, 16, 16, seed=i).float() for i in range(12)]
    others = [0.3 * drawn(3, 16, 16, seed=100 + i).float() for i in range(9)]
    pictures[4] = pictures[4].cumsum(dim=1)
    found = swd(pictures, others, (0, 1), influences=True)
    assert found.influences is not None and [len(u) for u in found.influences] == [12, 9]
    assert int(found.influences[0].abs().argmax()) == 4 and float(found.influences[0][4]) > 0
    assert float(found.influences[0].sum()) == pytest.approx(0, abs=1e-6)
    assert swd(pictures, others, (0, 1)).influences is None


def test_shares_vary_as_a_binomial_does() -> None:
    made, real = drawn(80, 2), 0.5 * drawn(80, 2, seed=1)
    found = metrics.precision(made, real)
    expected = student(79) * (found.value * (1 - found.value) / 79) ** 0.5
    assert 0.3 < found.value < 0.9 and half_width(found) == pytest.approx(expected, rel=0.1)


def test_diversity_of_three_pictures_by_hand() -> None:
    flat = [torch.full((3, 32, 32), value) for value in (-1.0, 0.0, 1.0)]
    found = metrics.diversity(flat)
    assert found.value == pytest.approx((0.5 + 1 + 0.5) / 3)
    one, two = (int((draws(3, 0) == torch.tensor(row)).all(dim=1).nonzero()[0]) for row in ([1, 2, 0], [1, 0, 2]))
    assert found.resampled is not None
    assert (float(found.resampled[one]), float(found.resampled[two])) == pytest.approx((0.5, 1.0))


def test_scores_of_labels_vary_as_those_of_the_pictures_drawn() -> None:
    random = np.random.RandomState(0)
    counts = [metrics.confusion(random.randint(3, size=50), random.randint(3, size=50), 4) for _ in range(6)]
    found = metrics.resampled(counts, 3)
    for k in (0, 99):
        expected = metrics.scores(sum(int(w) * c for w, c in zip(draws(6, 3)[k], counts, strict=True)))  # type: ignore[arg-type]
        for name, estimate in found.items():
            assert estimate.resampled is not None
            assert float(estimate.resampled[k]) == pytest.approx(getattr(expected, name))


def test_what_differs_on_the_same_pictures() -> None:
    """Each picture is a little better, though they vary far more among each other."""
    values = drawn(60)
    better = measured("psnr", mean(20 + values + 0.2 + 0.1 * drawn(60, seed=1), 0), 60)
    worse = measured("psnr", mean(20 + values, 0), 60)
    assert better.details["interval"][0] < worse.details["interval"][1]
    found = difference("psnr", better, worse)
    assert found is not None and found["differs"] and found["interval"][0] > 0.15
    other = measured("psnr", mean(20 + values[torch.randperm(60, generator=torch.Generator().manual_seed(0))], 0), 60)
    chance = difference("psnr", other, worse)
    assert chance is not None and not chance["differs"] and chance["interval"][0] < 0 < chance["interval"][1]


def test_numbers_that_depend_on_other_things_are_not_compared() -> None:
    def of(pictures: int, **details: Any) -> Measure:
        return measured("fid", mean(drawn(pictures), 0), pictures, details)

    assert difference("fid", of(9, reference=5), of(9, reference=5)) is not None
    assert difference("fid", of(9), of(8)) is None and difference("kid", of(9), of(8)) is not None
    for key in ("reference", "network", "patches", "read_back_by"):
        assert difference("kid", of(9, **{key: 1}), of(9, **{key: 2})) is None


def test_the_gap_closed_has_an_interval() -> None:
    values = drawn(40)
    begin, made, floor = (measured("swd", mean(v + 0.1 * values, 0), 40) for v in (90.0, 60.0, 30.0))
    way = gap_closed(made, begin, floor)
    assert way["gap_closed"] == pytest.approx(0.5) and way["gap_closed_interval"] == pytest.approx([0.5, 0.5])
    noisy = measured("swd", mean(60 + 3 * drawn(40, seed=1), 0), 40)
    low, high = gap_closed(noisy, begin, floor)["gap_closed_interval"]
    assert (high - low) / 2 == pytest.approx(student(39) * 3 / 40**0.5 / 60, rel=0.2)


def test_intervals_end_where_numbers_do() -> None:
    assert measured("l1", mean(torch.tensor([0.0, 0.02, 0.3]), 0), 3).details["interval"][0] == 0
    assert measured("ssim", mean(torch.tensor([1.0, 1.0, 0.4]), 0), 3).details["interval"][1] == 1
    assert measured("kid", mean(torch.tensor([-1.0, 2.0, 0.4]), 0), 3).details["interval"][0] < -1
    assert "interval" not in measured("l1", mean(torch.tensor([0.5]), 0), 1).details


def shifted(shift: float, count: int, random: np.random.RandomState) -> Tensor:
    return torch.from_numpy(shift + random.standard_normal((count, 6)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "most"), [("mean", 0.9, 0.985), ("kid", 0.9, 0.985), ("fid", 0.88, 0.985), ("floor", 0.94, 1.0)]
)
def test_coverage(name: str, least: float, most: float) -> None:
    """About 95 % of 400 intervals hold the number that is right; at the floor, where two sets are of one distribution,
    more, as the draws vary more than the number."""
    random, found = np.random.RandomState(0), []
    for _ in range(400):
        if name == "mean":
            found.append(mean((shifted(0, 20, random)[:, 0] / 2).exp(), 0))
        elif name == "fid":
            found.append(metrics.fid(shifted(0.8, 60, random), shifted(0, 80, random)))
        else:
            found.append(metrics.kid(shifted(0.8 if name == "kid" else 0, 60, random), shifted(0, 80, random)))
    right = {"mean": np.exp(0.125), "floor": 0.0}.get(name, np.mean([estimate.value for estimate in found]))
    intervals = [estimate.interval() or (0.0, 0.0) for estimate in found]
    share = np.mean([low <= right <= high for low, high in intervals])
    assert least <= share <= most


@pytest.mark.slow
def test_coverage_of_the_sliced_wasserstein_distance() -> None:
    """Its intervals are of the number for sets of this size, and rather too wide."""

    def pictures(count: int, noise: float, seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rough = torch.randn(count, 3, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(rough, (16, 16), mode="bicubic")
        return list(0.3 * smooth + noise * torch.randn(count, 3, 16, 16, generator=generator))

    found = []
    for k in range(60):
        result = swd(pictures(16, 0.1, 2 * k), pictures(20, 0.5, 2 * k + 1), (0,), influences=True)
        assert result.influences is not None
        found.append(linear(result.mean, result.influences, 0))
    right = np.mean([estimate.value for estimate in found])
    intervals = [estimate.interval() or (0.0, 0.0) for estimate in found]
    assert np.mean([low <= right <= high for low, high in intervals]) >= 0.9
    widths = np.mean([half_width(estimate) for estimate in found]) / (student(15) * np.std([e.value for e in found]))
    assert 0.8 <= widths <= 2.5
