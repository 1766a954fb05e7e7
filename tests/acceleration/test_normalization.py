"""Normalisations are those of the formula: gradients in training, statistics of large images in inference."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.acceleration import accelerate
from i2i.acceleration.normalization import ExactBatchNorm, ExactInstanceNorm
from i2i.networks.blocks import InstanceNorm, for_translation, init_weights
from i2i.networks.resnet import ResnetConfig

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_instance_norm(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    norm = accelerate(InstanceNorm(3), "training")
    name = type(norm(x).grad_fn).__name__
    assert ("_InstanceNorm" in name) == (layout == torch.channels_last), name
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradgradcheck(norm, (x,)), "for gradient penalties"
    torch.testing.assert_close(norm(x), F.instance_norm(x))


def test_gradients_of_instance_norm_in_16_bits() -> None:
    """Two roundings of bf16, of 8 bits, from those of float64 (0.0032 of them; torch's own 0.0026); and the activation
    after it may overwrite its result."""
    torch.manual_seed(0)
    x = (torch.randn(1, 8, 32, 32) + 1).to(torch.bfloat16)
    g = torch.randn_like(x)

    given = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    (made,) = torch.autograd.grad(torch.relu_(accelerate(InstanceNorm(8), "training")(given)), given, g)
    exact = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(torch.relu(F.instance_norm(exact)), exact, g.double())
    assert (made - expected).norm() < 2 * 2**-8 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [False, True])
def test_norms_of_large_pictures_are_exact(dtype: torch.dtype, affine: bool) -> None:
    """Statistics of 1040×1040 pixels, far from 0, as float64 has them: some roundings of 24 or of 8 bits from them."""
    torch.manual_seed(0)
    x = (torch.randn(1, 3, 1040, 1040) * 0.3 + 2).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(3, track_running_stats=False, dtype=dtype) if affine else InstanceNorm(3)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    exact = F.batch_norm(x.double(), None, None, None, None, True, eps=1e-5)
    if isinstance(norm, nn.BatchNorm2d):
        exact = exact * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    with torch.inference_mode():
        made = accelerate(norm, "inference", device=torch.device("cpu"))(x.clone()).double()
    assert (made - exact).abs().max() < (1e-5 if dtype == torch.float32 else 0.02)


class _Before(nn.Module):
    """A normalisation before its convolution, whose input goes around both."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.conv = norm, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv(self.norm(x))
        return y


@pytest.mark.parametrize("norm", [InstanceNorm(3), nn.BatchNorm2d(3, track_running_stats=False)])
def test_the_input_of_a_norm_stays_as_it_is(norm: nn.Module) -> None:
    torch.manual_seed(0)
    network, x = _Before(norm).requires_grad_(False), torch.randn(1, 3, 256, 260) + 3
    given, fast = x.clone(), accelerate(copy.deepcopy(network), "inference", device=torch.device("cpu"))
    torch.testing.assert_close(fast(x), network(given), atol=1e-4, rtol=0)
    assert torch.equal(x, given)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_network_with_exact_norms_is_the_network_in_float64(norm: Any) -> None:
    """From 65,536 pixels on; a hundredth of an 8-bit level."""
    torch.manual_seed(0)
    network = for_translation(init_weights(ResnetConfig(width=4, blocks=1, norm=norm).build(), gain=0.3))
    x = torch.rand(1, 3, 260, 260) * 2 - 1
    exact = copy.deepcopy(network).double()(x.double())
    fast = accelerate(network, "inference", device=torch.device("cpu"))
    assert any(isinstance(module, ExactInstanceNorm | ExactBatchNorm) for module in fast.modules())
    with torch.inference_mode():
        assert (fast(x.contiguous(memory_format=torch.channels_last)) - exact).abs().max() < 8e-5
