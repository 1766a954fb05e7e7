"""The formulas against torchmetrics, torch-fidelity and plain NumPy, on the same pictures and features."""

import math

import numpy as np
import pytest
import torch
from evaluation_tools import drawn, half_width
from scipy.special import stdtrit
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import InputError
from i2i.evaluation import metrics
from i2i.evaluation.metrics import (
    RESAMPLES,
    Estimate,
    cycle_error,
    draws,
    l1,
    luminance_ssim,
    mean,
    mean_of_pairs,
    ms_ssim,
    psnr,
    resized,
    squared,
    ssim,
    student,
)
from i2i.losses.content import luminance

pytestmark = pytest.mark.arithmetic


def pictures(seed: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(2, channels, 9, 9, generator=generator) * 2 - 1
    return F.interpolate(rough, (40, 48), mode="bilinear").clamp(-1, 1)


def test_l1_and_psnr_are_their_formulas() -> None:
    a, b = pictures(0), pictures(1)
    for n in range(2):
        x, y = ((p[n].double().numpy() + 1) / 2 for p in (a, b))
        assert l1(a, b)[n].item() == pytest.approx(abs(x - y).mean(), rel=1e-6)
        assert psnr(a, b)[n].item() == pytest.approx(-10 * math.log10(((x - y) ** 2).mean()), rel=1e-6)
    assert psnr(a, a).tolist() == [100.0, 100.0]


def test_ssim_agrees_with_a_direct_computation() -> None:
    a, b = pictures(0).double(), (0.7 * pictures(0) + 0.3 * pictures(1)).double()
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(taps, taps) / taps.sum() ** 2

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x.flatten(0, 1)[:, None], (5, 5, 5, 5), mode="reflect"), window[None, None])

    x, y = (a + 1) / 2, (b + 1) / 2
    mx, my = blurred(x), blurred(y)
    vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    expected = expected.reshape(2, -1).mean(dim=1)
    assert ssim(a.float(), b.float()).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert ssim(a.float(), a.float()).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_ms_ssim_agrees_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    generator = torch.Generator().manual_seed(5)
    rough = torch.rand(3, 3, 40, 50, generator=generator) * 2 - 1
    a = F.interpolate(rough, (180, 200), mode="bilinear")
    b = (0.7 * a + 0.3 * a.flip(-1) + 0.1 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)
    expected = image.multiscale_structural_similarity_index_measure(
        (a + 1) / 2, (b + 1) / 2, data_range=1.0, reduction="none", normalize="relu"
    )
    assert ms_ssim(a, b).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert 0 <= ms_ssim(a, -a).max() < 0.1


def test_luminance_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = np.asarray(image.fromarray(pixels).convert("L"), np.float32)
    found = luminance(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)
    assert np.abs((found[0, 0].numpy() + 1) * 127.5 - expected).max() <= 0.51


def test_colours_do_not_count_and_structure_does() -> None:
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = luminance(x).expand(-1, 3, -1, -1)
    torch.testing.assert_close(luminance_ssim(grey, x), torch.ones(2))
    assert luminance_ssim(-x, x).max() < 0
    assert cycle_error(x, x).tolist() == [0, 0]
    assert cycle_error(torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 4, 4)).tolist() == [1]
    with pytest.raises(ValueError, match="no luminance"):
        luminance(x[:, :2])


def test_scores_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 4, (3, 40, 40)).astype(np.uint8)
    expected[expected == 3] = 255  # class 2 is the last; some pixels have no label
    made = np.where(draw.random(expected.shape) < 0.6, expected, draw.integers(0, 3, expected.shape)).astype(np.uint8)
    counts = sum(metrics.confusion(m, e, 3) for m, e in zip(made, expected, strict=True))
    found = metrics.scores(counts)
    known = expected != 255
    right = [(made[known & (expected == k)] == k).mean() for k in range(3)]
    unions = [(known & ((made == k) | (expected == k))).sum() for k in range(3)]
    ious = [(known & (made == k) & (expected == k)).sum() / union for k, union in enumerate(unions)]
    assert found.pixel_accuracy == pytest.approx((made == expected)[known].mean())
    assert found.class_accuracy == pytest.approx(np.mean(right))
    assert found.mean_iou == pytest.approx(np.mean(ious))
    assert found.per_class == pytest.approx(dict(enumerate(ious)))


def test_a_made_pixel_without_label_is_wrong() -> None:
    made, expected = np.array([[0, 255]], np.uint8), np.array([[0, 1]], np.uint8)
    found = metrics.scores(metrics.confusion(made, expected, 2))
    assert (found.pixel_accuracy, found.mean_iou) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no pixel has a label"):
        metrics.scores(metrics.confusion(made, np.full((1, 2), 255, np.uint8), 2))


def test_diversity_is_the_mean_over_all_pairs() -> None:
    pictures = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    pairs = [(pictures[i] - pictures[j]).abs().mean() / 2 for i in range(5) for j in range(i)]
    assert metrics.diversity(pictures).value == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-6)
    assert metrics.diversity([pictures[0]] * 3).value == 0
    with pytest.raises(InputError, match="a set of 1"):
        metrics.diversity(pictures[:1])


def test_the_resizer_is_pillows_bicubic() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).random((40, 60), np.float32) * 2 - 1
    # not the rows and columns at the edge, where Pillow's values outside [-1, 1] would differ from clamped ones
    for height, width in ((13, 20), (80, 90)):
        expected = np.asarray(image.fromarray(pixels).resize((width, height), image.Resampling.BICUBIC)).clip(-1, 1)
        np.testing.assert_allclose(resized(torch.from_numpy(pixels)[None], height, width)[0], expected, atol=1e-5)


def test_squared_takes_the_middle() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 32, 64)
    middle = squared(ramp, 16)
    assert middle.shape == (1, 16, 16)
    assert middle.mean().abs() < 1e-3 and middle.max() < 0.55
    assert squared(ramp[..., :32], 32) is not None and torch.equal(squared(ramp[..., :32], 32), ramp[..., :32])


def test_draws_follow_from_the_seed_and_the_number_of_pictures() -> None:
    assert draws(5, 0)[:3].tolist() == [[1, 1, 0, 2, 1], [2, 0, 0, 1, 2], [1, 2, 2, 0, 0]]
    assert torch.equal(draws(7, 3).sum(dim=1), torch.full((RESAMPLES,), 7.0, dtype=torch.float64))
    assert not torch.equal(draws(5, 0), draws(5, 1))
    assert draws(40, 0).mean() == 1 and draws(40, 0).var() == pytest.approx(1 - 1 / 40, rel=0.02)


def test_students_quantiles_are_scipys() -> None:
    for degrees in (1, 2, 3, 4, 9, 29, 99, 9999):
        assert student(degrees) == pytest.approx(stdtrit(degrees, 0.975), rel=0.002 if degrees > 2 else 1e-9)


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
    expected = stdtrit(count - 1, 0.975) * float(values.std()) / count**0.5
    found = mean(values, 0)
    assert found.value == pytest.approx(float(values.mean())) and half_width(found) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_pairs_of_a_picture_with_itself_do_not_count(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows of the matrix of all pairs are computed at once."""
    monkeypatch.setattr(metrics, "ROWS", at_once)
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
    across = mean_of_pairs(pictures, between, rows[:2], pictures[:2], torch.tensor([[1.0, 1], [0, 2]]).double())
    assert across.tolist() == pytest.approx([(9 + 1 + 1 + 9 + 2 + 3) / 6, (2 * 1 + 9) / 3])


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
