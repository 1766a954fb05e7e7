import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.algorithms.options import NetworkOptions
from i2i.algorithms.pix2pix import class_cross_entropy
from i2i.errors import UsageError
from i2i.losses.adversarial import GANLoss
from i2i.networks import create_generator

pytestmark = pytest.mark.arithmetic

REAL = torch.tensor([[2.0, -1.0], [0.3, 40.0]], dtype=torch.float64)
FAKE = torch.tensor([[-3.0, 0.5], [1.5, -40.0]], dtype=torch.float64)


def bce(logits: Tensor, target: float) -> float:
    return nn.BCEWithLogitsLoss()(logits, torch.full_like(logits, target)).item()


def mse(logits: Tensor, target: float) -> float:
    return nn.MSELoss()(logits, torch.full_like(logits, target)).item()


def hinge(margins: Tensor) -> float:
    return sum(max(0.0, float(m)) for m in margins.flatten()) / margins.numel()


@pytest.mark.parametrize(
    ("mode", "generator", "real", "fake"),
    [
        ("vanilla", bce(FAKE, 1), bce(REAL, 1), bce(FAKE, 0)),
        ("nonsaturating", bce(FAKE, 1), bce(REAL, 1), bce(FAKE, 0)),
        ("minimax", -bce(FAKE, 0), bce(REAL, 1), bce(FAKE, 0)),
        ("lsgan", mse(FAKE, 1), mse(REAL, 1), mse(FAKE, 0)),
        ("hinge", -FAKE.mean().item(), hinge(1 - REAL), hinge(1 + FAKE)),
        ("wgangp", -FAKE.mean().item(), -REAL.mean().item(), FAKE.mean().item()),
    ],
)
def test_gan_losses_are_their_formulas(mode: Any, generator: float, real: float, fake: float) -> None:
    gan = GANLoss(mode)
    assert gan.generator(FAKE).item() == pytest.approx(generator, rel=1e-12)
    assert gan.real(REAL).item() == pytest.approx(real, rel=1e-12)
    assert gan.fake(FAKE).item() == pytest.approx(fake, rel=1e-12)
    assert gan.discriminator(REAL, FAKE).item() == pytest.approx((real + fake) / 2, rel=1e-12)


def test_sixteen_bit_logits_are_averaged_in_float32() -> None:
    logits = torch.full((64, 64), 1.0, dtype=torch.bfloat16)
    logits[0, 0] = 3.0
    assert GANLoss("wgangp").fake(logits).item() == pytest.approx(1 + 2 / 4096, rel=1e-6)


@pytest.mark.parametrize("logit", [3.0, 6.0, 8.0])
@pytest.mark.parametrize("name", ["resnet_1blocks", "unet_32"])
def test_sure_mistakes_have_their_gradient_in_16_bits(name: str, logit: float) -> None:
    """Softmax less labels, (p, -p) of two classes: by a bias alone, so that all pixels are sure of the wrong one."""
    net = create_generator(name, out_channels=2, width=2)
    head = net.up[-1].conv if name.startswith("unet") else net.head
    with torch.no_grad():
        head.weight.zero_(), head.bias.copy_(torch.tensor([logit, -logit]))
    labels = torch.tensor([-1.0, 1.0])[None, :, None, None].expand(1, 2, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = class_cross_entropy(net(torch.zeros(1, 3, 32, 32)), labels)
    loss.backward()
    p = 1 / (1 + math.exp(-2 * logit))
    # at 8 the tanh is 4 steps of float32 from 1
    assert loss.item() == pytest.approx(-math.log(1 - p), rel=0.02)
    assert head.bias.grad.tolist() == pytest.approx([p, -p], rel=0.02)


class Quadratic(nn.Module):
    """D(x) = ½ w Σ x², so that ∇D = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.w * (x * x).sum(dim=(1, 2, 3))[:, None]


def pictures(seed: int, *size: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize(
    ("mode", "options", "gp", "r1", "r2"),
    [
        *((mode, {}, 0, 0, 0) for mode in ("vanilla", "minimax", "lsgan", "hinge", "relativistic")),
        *((mode, {"r1_gamma": 5.0, "r2_gamma": 7.0}, 0, 5, 7) for mode in ("lsgan", "relativistic", "nonsaturating")),
        ("nonsaturating", {}, 0, 10, 0),
        ("nonsaturating", {"r1_gamma": 0.0}, 0, 0, 0),
        ("wgangp", {}, 10, 0, 0),
        ("wgangp", {"lambda_gp": 4.0, "r1_gamma": 5.0}, 4, 5, 0),
        ("wgangp", {"lambda_gp": 0.0, "r2_gamma": 7.0}, 0, 0, 7),
    ],
)
def test_penalties_are_their_formulas(mode: Any, options: dict[str, Any], gp: float, r1: float, r2: float) -> None:
    """Half of λ E[(‖∇D(x̂)‖ - 1)²], one place for each sample, and of γ/2 E[‖∇D‖²] of real images (R1) and of fakes
    (R2); and what D learns of them."""
    D, real, fake = Quadratic(), pictures(1, 5, 3, 4, 4), pictures(2, 5, 3, 4, 4)
    torch.manual_seed(0)
    between = real + torch.rand(5, 1, 1, 1, dtype=torch.float64) * (fake - real)
    norms = [(D.w * x).flatten(1).norm(dim=1) for x in (between, real, fake)]
    expected = (gp * (norms[0] - 1).square() + r1 / 2 * norms[1].square() + r2 / 2 * norms[2].square()).mean() / 2
    torch.manual_seed(0)
    found = NetworkOptions(gan_mode=mode, **options).gan_loss().penalty("P", D, real, fake)
    if not (gp or r1 or r2):
        assert found == {}
        return
    assert found.keys() == {"P"}
    for one, other in zip(
        (found["P"], *torch.autograd.grad(found["P"], D.w)),
        (expected, *torch.autograd.grad(expected, D.w)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


def test_the_relativistic_loss_compares_row_by_row() -> None:
    gan = NetworkOptions(gan_mode="relativistic").gan_loss()
    real, fake = pictures(1, 4, 1, 3, 3), pictures(2, 4, 1, 3, 3)
    for made, better, worse in (
        (gan.generator(fake, real), fake, real),
        (2 * gan.discriminator(real, fake), real, fake),
        (2 * gan.named_losses("D", real, fake)["D_pair"], real, fake),
    ):
        assert made.item() == pytest.approx(np.log1p(np.exp((worse - better).numpy())).mean(), rel=1e-12)
    with pytest.raises(UsageError, match="these have 3x4 and 3x3 patches; crop all to one size"):
        gan.generator(pictures(1, 1, 1, 3, 4), pictures(1, 1, 1, 3, 3))


def test_real_logits_are_computed_for_the_relativistic_loss_alone() -> None:
    D, x = Quadratic(), pictures(1, 4, 3, 4, 4)
    assert GANLoss("lsgan").real_logits(D, x) is None
    found = GANLoss("relativistic").real_logits(D, x)
    assert isinstance(found, Tensor) and torch.equal(found, D(x)) and not found.requires_grad


@pytest.mark.parametrize("mode", ["vanilla", "minimax", "nonsaturating", "lsgan"])
def test_the_label_of_real_images_is_smoothed_and_no_other(mode: Any) -> None:
    plain, gan = (NetworkOptions(gan_mode=mode, label_smoothing=label).gan_loss() for label in (0, 0.1))
    logits = pictures(1, 5, 3, 4, 4) * 5
    assert gan.real(logits).item() == pytest.approx((mse if mode == "lsgan" else bce)(logits, 0.9), rel=1e-12)
    assert torch.equal(gan.fake(logits), plain.fake(logits)) and torch.equal(
        gan.generator(logits), plain.generator(logits)
    )
