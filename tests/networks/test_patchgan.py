"""Discriminators of several scales, the losses of one, and weights with a spectral norm."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.algorithms.algorithm import forward_together, frozen
from i2i.algorithms.options import NetworkOptions
from i2i.errors import UsageError
from i2i.losses.adversarial import GANLoss
from i2i.networks import create_discriminator, discriminator_config
from i2i.networks.blocks import SpectralConv2d, init_weights
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


# Spectral normalisation


def spectral(seed: int = 0) -> SpectralConv2d:
    torch.manual_seed(seed)
    return SpectralConv2d(3, 8, 4, padding=1).double()


def largest_singular_value(layer: nn.Conv2d) -> float:
    return float(np.linalg.svd(layer.weight.detach().numpy().reshape(layer.out_channels, -1), compute_uv=False)[0])


def update(layer: nn.Conv2d, by: float = 0.1) -> None:
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight), alpha=by)


def test_weights_are_divided_by_their_largest_singular_value() -> None:
    layer, x = spectral(), images()
    for _ in range(100):
        layer.restart_power_iteration()
    plain = nn.Conv2d(3, 8, 4, padding=1).double()
    plain.load_state_dict({"weight": layer.weight / largest_singular_value(layer), "bias": layer.bias})
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-9, atol=1e-9)


def test_spectral_gradients_are_torch_s() -> None:
    """The weight of torch's own normalisation after as many iterations; its second vector follows from the first."""
    layer, x = spectral(), images()
    other = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 4, padding=1).double())
    norm = other.parametrizations.weight[0]  # type: ignore[index]
    with torch.no_grad():
        other.parametrizations.weight.original.copy_(layer.weight)  # type: ignore[union-attr,operator]
        other.bias.copy_(layer.bias)  # type: ignore[union-attr,operator]
        norm._u.copy_(layer.u)
        norm._v.copy_(nn.functional.normalize(layer.weight.flatten(1).t() @ layer.u, dim=0))
    other.eval()  # it would iterate by itself
    made = torch.autograd.grad(layer(x).square().sum(), [layer.weight, layer.bias])
    expected = torch.autograd.grad(other(x).square().sum(), [other.parametrizations.weight.original, other.bias])  # type: ignore[union-attr,list-item]
    for one, another in zip(made, expected, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-9, atol=1e-9)


def test_one_power_iteration_for_each_update() -> None:
    layer = spectral()
    layer.update_power_iteration()
    update(layer)
    u = layer.u.clone()
    matrix = layer.weight.detach().flatten(1).numpy()
    v = matrix.T @ u.numpy()
    expected = matrix @ (v / np.linalg.norm(v))
    for quiet in (torch.no_grad(), frozen(layer)):
        with quiet:
            layer.update_power_iteration()
    layer.eval().update_power_iteration()
    assert torch.equal(layer.u, u), "nobody is training it"
    for _ in range(3):
        layer.train().update_power_iteration()
    np.testing.assert_allclose(layer.u.numpy(), expected / np.linalg.norm(expected), rtol=1e-12)


def test_the_estimate_keeps_up_with_training() -> None:
    D = init_weights(create_discriminator("patchgan_16_spectral", width=8))
    optimizer = torch.optim.Adam(D.parameters(), lr=2e-3, fused=True)
    for i in range(40):
        loss = D(images(seed=i).float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for layer in D.modules():
        if isinstance(layer, SpectralConv2d):
            assert float(layer.sigma().detach()) == pytest.approx(largest_singular_value(layer), rel=0.02)


def test_a_graph_outlives_the_next_iteration() -> None:
    layer, x = spectral(), images()
    loss = layer(x).square().sum()
    (expected,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
    layer.u.copy_(torch.roll(layer.u, 1))
    assert torch.equal(torch.autograd.grad(loss, layer.weight)[0], expected)


def test_it_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        D = create_discriminator("patchgan_16_spectral", width=4)
        assert D(torch.empty(1, 3, 32, 32)).shape == (1, 1, 14, 14)


def test_a_copy_and_a_state_go_on_alike() -> None:
    D = create_discriminator("patchgan_16_spectral", width=4)
    again = create_discriminator("patchgan_16_spectral", width=4)
    twin = copy.deepcopy(D)
    again.load_state_dict(D.state_dict())
    x = images().float()
    assert torch.equal(D(x), again(x)) and torch.equal(D(x), twin(x))
    assert sum(name.endswith(".u") for name in D.state_dict()) == 3


def test_every_convolution_is_normalised_and_nothing_else() -> None:
    D = create_discriminator("patchgan_70_spectral", width=4)
    kinds = {type(module) for module in D.layers}  # type: ignore[union-attr]
    assert kinds == {SpectralConv2d, nn.LeakyReLU, nn.Identity}
    assert all(module.bias is not None for module in D.modules() if isinstance(module, SpectralConv2d))
    options = NetworkOptions(discriminator="patchgan_16_spectral", norm="instance")
    norms = options.discriminator_config(3).norm, options.generator_config(3, 3).norm  # type: ignore[union-attr]
    assert norms == ("spectral", "instance"), "its name says the norm of the discriminator, and of no other network"
