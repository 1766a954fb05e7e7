import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from i2i.evaluation.metrics.pairs import cycle_error, l1, luminance_ssim, ms_ssim, psnr, ssim
from i2i.losses.structure import luminance

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


def test_images_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shapes"):
        l1(pictures(0), pictures(0)[..., :20])


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
    with pytest.raises(ValueError, match="176"):
        ms_ssim(a[..., :175], a[..., :175])


def test_ssim_and_psnr_agree_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    a, b = pictures(0), pictures(1)
    x, y = (a + 1) / 2, (b + 1) / 2
    for n in range(2):
        expected = image.peak_signal_noise_ratio(x[n : n + 1], y[n : n + 1], data_range=1.0)
        assert psnr(a, b)[n].item() == pytest.approx(expected.item(), rel=1e-5)


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
