"""Convolutions with kernels in another layout are torch's convolutions."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from i2i.acceleration import accelerate
from i2i.acceleration.inference import PreparedColumnConv2d
from i2i.networks.blocks import for_translation
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
