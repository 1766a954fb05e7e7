"""The loss that keeps the structure of a picture."""

import kornia
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from i2i.algorithms.cyclegan import CycleGAN, CycleGANOptions
from i2i.errors import UsageError
from i2i.losses.structure import luminance, structure_loss

pytestmark = pytest.mark.arithmetic


def pictures(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, 24, 31, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_is_its_formula() -> None:
    """Against NumPy and SciPy: a truncated Gaussian window, where it lies within the picture."""
    made, source = pictures(0), pictures(1) * 0.4

    def smooth(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = gaussian_filter1d(x, 1.5, axis=axis, radius=5)
        return x[:, 5:-5, 5:-5]

    x, y = (
        (np.tensordot(images.double().numpy(), [0.299, 0.587, 0.114], axes=([1], [0])) + 1) / 2
        for images in (made, source)
    )
    mean_x, mean_y = smooth(x), smooth(y)
    covariance = smooth(x * y) - mean_x * mean_y
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    expected = 1 - ((2 * covariance + 0.0009) / (variances + 0.0009)).mean()
    assert structure_loss(made, source).item() == pytest.approx(expected, rel=1e-5)


def test_against_kornia_where_brightness_is_equal() -> None:
    """SSIM's comparison of brightness is near 1 for pictures of one mean; contrast and structure are left."""
    source = kornia.filters.gaussian_blur2d(pictures(2, 1), (5, 5), (1.0, 1.0))
    made = source + 0.02 * pictures(3, 1)
    ssim = kornia.metrics.ssim((made + 1) / 2, (source + 1) / 2, 11)[..., 5:-5, 5:-5].mean()
    assert structure_loss(made, source).item() == pytest.approx(1 - ssim.item(), abs=2e-3)


def test_brightness_and_colour_are_free_contrast_is_not() -> None:
    source = pictures(4) * 0.3
    grey = luminance(source).expand_as(source)
    assert structure_loss(source, source).item() == pytest.approx(0, abs=1e-6)
    assert structure_loss(source + 0.5, source).item() == pytest.approx(0, abs=1e-4)
    assert structure_loss(grey, source).item() == pytest.approx(0, abs=1e-5)
    assert structure_loss(source * 0.2, source).item() > 0.3
    assert structure_loss(-source, source).item() > 1.5


def test_its_gradient_is_finite_also_for_flat_pictures_under_autocast() -> None:
    made = torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = structure_loss(made, pictures(5)[:1, :, :16, :16])
    loss.backward()
    assert loss.dtype == torch.float32
    assert made.grad is not None and bool(torch.isfinite(made.grad).all()) and bool(made.grad.any())


def test_the_least_picture() -> None:
    """Generators without halvings take smaller ones, the window does not."""
    for weight in (0.0, 1.0):
        options = CycleGANOptions(lambda_structure=weight, generator="resnet_1blocks", discriminator="pixelgan")
        _, minimum = options.size_limits(3, 3)
        assert (minimum == 11) == bool(weight) and minimum <= 11
    small, least = pictures(0)[..., :10, :], pictures(0)[..., :11, :]
    assert bool(structure_loss(least, least).isfinite())
    with pytest.raises(RuntimeError):
        structure_loss(small, small)


def test_only_pictures_with_a_luminance() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        structure_loss(pictures(0, 2), pictures(1, 2))
    with pytest.raises(UsageError, match="lambda_structure = 1"):
        CycleGAN(CycleGANOptions(lambda_structure=1.0, lambda_identity=0.0, ngf=2, ndf=2), 3, 5)
