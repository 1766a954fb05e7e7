"""Layers that translate faster are torch's: kernels in another layout, and statistics of large images."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.acceleration import accelerate
from i2i.acceleration.inference import ExactBatchNorm, ExactInstanceNorm, PreparedColumnConv2d
from i2i.networks.blocks import InstanceNorm, for_translation, init_weights
from i2i.networks.resnet import ResnetConfig

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
def test_a_head_by_columns_is_the_head(padding: Any) -> None:
    head = ResnetConfig(width=5, blocks=0, padding=padding).build().head
    x = torch.randn(2, 5, 9, 11)
    by_columns = accelerate(copy.deepcopy(head), "inference")
    assert isinstance(by_columns, PreparedColumnConv2d)
    with torch.no_grad():
        torch.testing.assert_close(by_columns(x), head(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "width"), [(6, 4), (3, 2), (5, 1)])
def test_no_layer_but_the_head_answers_in_float32(channels: int, width: int) -> None:
    """The first layer of a narrow network has few output channels too, and the next one computes in bfloat16."""
    network = ResnetConfig(in_channels=channels, out_channels=channels, width=width, blocks=1).build().bfloat16()
    accelerate(for_translation(network, "batch", False), "inference")
    with torch.no_grad():
        assert network(torch.zeros(1, channels, 16, 16, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "device", "engine", "count"),
    [
        (torch.float32, "cpu", "eager", 1),
        (torch.bfloat16, "cpu", "eager", 0),
        (torch.float32, "cpu", "compiled", 0),
        (torch.float32, "cpu", "exported", 0),
        (torch.float32, "cuda", "eager", 0),
    ],
)
def test_winograd_is_for_float32_with_torch_on_a_cpu(dtype: Any, device: str, engine: Any, count: int) -> None:
    network = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1))
    accelerate(network, "inference", engine=engine, device=torch.device(device), dtype=dtype)
    assert sum(hasattr(module, "kernels") for module in network.modules()) == count


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
