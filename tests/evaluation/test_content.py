import numpy as np
import pytest
import torch

from i2i.evaluation.content import cycle_error, diversity, luminance, luminance_ssim
from i2i.evaluation.resizer import resized, squared

pytestmark = pytest.mark.arithmetic


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


def test_diversity_is_the_mean_over_all_pairs() -> None:
    pictures = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    pairs = [(pictures[i] - pictures[j]).abs().mean() / 2 for i in range(5) for j in range(i)]
    assert diversity(pictures).value == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-6)
    assert diversity([pictures[0]] * 3).value == 0
    with pytest.raises(ValueError, match="one picture"):
        diversity(pictures[:1])


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
