import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2i.algorithms.pix2pix import class_cross_entropy
from i2i.losses.adversarial import GANLoss, gradient_penalty, input_gradient_penalty
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


class Linear(nn.Module):
    """D(x) = ⟨w, x⟩: the gradient with respect to the input is w everywhere."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).sum(dim=(1, 2, 3))[:, None]


def test_penalties_on_a_linear_discriminator_are_exact() -> None:
    w = torch.randn(3, 4, 4, dtype=torch.float64)
    d, x, y = Linear(w), torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    norm = w.norm().item()
    assert gradient_penalty(d, x, y).item() == pytest.approx((norm - 1) ** 2)
    assert input_gradient_penalty(d, x).item() == pytest.approx(norm**2 / 2)


def test_the_gradient_penalty_reaches_the_weights_and_pulls_the_slope_to_one() -> None:
    torch.manual_seed(0)
    d = Linear(torch.randn(3, 4, 4))
    optimizer = torch.optim.Adam(d.parameters(), lr=0.05)
    assert d.w.norm().item() > 2
    for _ in range(300):
        optimizer.zero_grad()
        gradient_penalty(d, torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4)).backward()
        optimizer.step()
    assert d.w.norm().item() == pytest.approx(1, abs=0.01)


def test_the_gradient_is_taken_between_real_and_fake() -> None:
    seen: list[Tensor] = []

    class Recording(Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    real, fake = torch.zeros(8, 1, 2, 2), torch.ones(8, 1, 2, 2)
    gradient_penalty(Recording(torch.ones(1, 2, 2)), real, fake)
    shares = seen[0].flatten(1)
    assert torch.equal(shares.min(dim=1).values, shares.max(dim=1).values)  # one share per sample
    assert len(shares[:, 0].unique()) == 8


@pytest.mark.parametrize(("mode", "weight"), [("wgangp", 10.0), ("nonsaturating", 10.0)])
def test_a_mode_applies_its_penalty_halved(mode: Any, weight: float) -> None:
    d, x = Linear(torch.full((3, 2, 2), 0.5)), torch.randn(4, 3, 2, 2)
    (name, value), *rest = GANLoss(mode).penalty("P", d, x, x).items()
    norm = math.sqrt(12 * 0.25)
    expected = (norm - 1) ** 2 if mode == "wgangp" else norm**2 / 2
    assert (name, rest) == ("P", [])
    assert value.item() == pytest.approx(0.5 * weight * expected, rel=1e-5)


@pytest.mark.parametrize("mode", ["vanilla", "minimax", "lsgan", "hinge", "relativistic"])
def test_the_other_modes_have_no_penalty(mode: Any) -> None:
    assert GANLoss(mode).penalty("P", Linear(torch.ones(1, 1, 1)), torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)) == {}
