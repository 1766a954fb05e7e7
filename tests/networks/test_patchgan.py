"""The multi-scale discriminator, and the losses of one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from i2i.algorithms.algorithm import forward_together
from i2i.errors import UsageError
from i2i.losses.adversarial import GANLoss
from i2i.networks import create_discriminator, discriminator_config
from i2i.networks.patchgan import MultiScaleConfig, MultiScalePatchGAN

pytestmark = pytest.mark.arithmetic


def images(count: int = 2, height: int = 32, width: int = 32, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def small(scales: int = 3, **options: Any) -> MultiScalePatchGAN:
    torch.manual_seed(0)
    return MultiScaleConfig(width=4, layers=1, scales=scales, **options).build().double()


def halved(picture: np.ndarray) -> np.ndarray:
    """The mean of the pixels about every second one, of those that there are."""
    channels, height, width = picture.shape
    made = np.zeros((channels, -(-height // 2), -(-width // 2)))
    for y in range(made.shape[1]):
        for x in range(made.shape[2]):
            there = picture[:, max(0, 2 * y - 1) : 2 * y + 2, max(0, 2 * x - 1) : 2 * x + 2]
            made[:, y, x] = there.mean(axis=(1, 2))
    return made


@pytest.mark.parametrize(("height", "width"), [(32, 32), (31, 46)])
def test_each_scale_is_half_the_one_before(height: int, width: int) -> None:
    x = images(1, height, width)
    expected = [x[0].numpy()]
    for made in small().pyramid(x):
        np.testing.assert_allclose(made[0].numpy(), expected[-1], atol=1e-12)
        expected.append(halved(expected[-1]))


def test_each_scale_is_judged_by_a_patchgan_of_its_own() -> None:
    D, x = small(), images()
    weights = [judge.layers[0].weight for judge in D.scales]  # type: ignore[union-attr,index]
    assert not torch.equal(weights[0], weights[1])  # type: ignore[arg-type]
    made = D(x)
    assert [tuple(logits.shape) for logits in made] == [(2, 1, 14, 14), (2, 1, 6, 6), (2, 1, 2, 2)]
    for judge, part, logits in zip(D.scales, D.pyramid(x), made, strict=True):
        assert torch.equal(judge(part), logits)


@pytest.mark.parametrize("norm", ["instance", "spectral"])
def test_features_are_those_of_every_layer_of_every_scale(norm: Any) -> None:
    """For feature matching: after the activation, the logits last; the layers work in place."""
    D, x = small(norm=norm), images()
    found = D.features(x)
    assert [[part.shape[1] for part in scale] for scale in found] == [[4, 8, 1]] * 3
    for scale, logits in zip(found, D(x), strict=True):
        assert torch.equal(scale[-1], logits)
    for judge, part, scale in zip(D.scales, D.pyramid(x), found, strict=True):
        y = part
        for layer in judge.layers[:2]:  # type: ignore[index]
            y = layer(y)
        assert torch.equal(scale[0], y)
        assert len(judge.features(part)) == 1, "a PatchGAN has one scale"  # type: ignore[operator]


@pytest.mark.parametrize("mode", ["lsgan", "vanilla", "hinge", "wgangp", "relativistic"])
def test_losses_are_the_mean_over_scales(mode: Any) -> None:
    D, gan = small(), GANLoss(mode)
    real, fake = D(images()), D(images(seed=2))
    generator = [float(gan.generator(f, r).detach()) for f, r in zip(fake, real, strict=True)]
    assert float(gan.generator(fake, real).detach()) == pytest.approx(np.mean(generator), rel=1e-12)
    discriminator = [float(gan.discriminator(r, f).detach()) for f, r in zip(fake, real, strict=True)]
    assert float(gan.discriminator(real, fake).detach()) == pytest.approx(np.mean(discriminator), rel=1e-12)


def test_a_penalty_is_of_the_mean_over_scales() -> None:
    D, x = small(norm="none"), images().requires_grad_()
    value = sum(logits.mean(dim=(1, 2, 3)) for logits in D(x)) / 3
    (gradient,) = torch.autograd.grad(value.sum(), x)
    expected = 0.5 * 10 * 0.5 * float(gradient.square().sum(dim=(1, 2, 3)).mean())
    made = GANLoss("lsgan", r1_gamma=10).penalty("P", D, x, x)["P"]
    assert float(made.detach()) == pytest.approx(expected, rel=1e-12)


def test_two_batches_are_judged_as_each_alone() -> None:
    D = small()
    for made, batch in zip(
        forward_together(D, images(), images(3, seed=2)), (images(), images(3, seed=2)), strict=True
    ):
        assert all(map(torch.equal, made, D(batch)))


def test_names() -> None:
    assert discriminator_config("patchgan_70_multiscale") == MultiScaleConfig(layers=3, scales=3)
    assert discriminator_config("patchgan_34_spectral_multiscale2") == MultiScaleConfig(
        layers=2, scales=2, norm="spectral"
    )
    assert create_discriminator("patchgan_16_antialiased_multiscale4", width=2).config.scales == 4
    with pytest.raises(UsageError, match="scales = 5"):
        discriminator_config("patchgan_70_multiscale", scales=5)


def test_one_scale_is_a_patchgan() -> None:
    D = small(scales=1)
    (logits,) = D(images())
    assert torch.equal(logits, D.scales[0](images()))
    assert D.config.minimum_size == D.config.each.minimum_size
