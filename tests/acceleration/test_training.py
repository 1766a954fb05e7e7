"""Layers that train faster are torch's: convolutions by columns, as products of matrices and with a stride; norms."""

import copy
import unittest.mock
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.acceleration import accelerate
from i2i.acceleration.training import (
    FEW_CHANNELS,
    MOST_PIXELS,
    ColumnConv2d,
    MatmulConv2d,
    MatmulConvTranspose2d,
    _Strided,
)
from i2i.networks.blocks import InstanceNorm, SpectralConv2d

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_thin_convolutions_are_convolutions(mode: Any, precision: torch.dtype) -> None:
    """Those of float64, within three roundings of bf16, of 8 bits, where it is computed in that."""
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 3, 7, padding=3, padding_mode=mode).to(precision)
    thin = accelerate(copy.deepcopy(plain), "training")
    assert isinstance(thin, ColumnConv2d)
    x = torch.randn(2, 5, 11, 9, dtype=precision, requires_grad=True)
    g = torch.randn(2, 3, 11, 9, dtype=precision)
    with torch.no_grad():
        assert torch.equal(thin(x), plain(x)), "in translation it is torch's own"
    made, exact_x = thin(x), x.detach().double().requires_grad_()
    exact = plain.double()(exact_x)
    of_thin = torch.autograd.grad(made, [x, *thin.parameters()], g.to(made.dtype))
    of_exact = torch.autograd.grad(exact, [exact_x, *plain.parameters()], g.double())
    least = 1e-12 if precision == torch.float64 else 3 * 2**-8
    for one, other in zip([made.detach(), *of_thin], [exact.detach(), *of_exact], strict=True):
        assert (one.double() - other).abs().max() < least * other.abs().max()


def as_product(deep: nn.Module, x: torch.Tensor) -> bool:
    """Whether the convolution of x leaves the trace of a product of matrices."""
    with (
        unittest.mock.patch.object(F, "fold", wraps=F.fold) as fold,
        unittest.mock.patch.object(F, "unfold", wraps=F.unfold) as unfold,
    ):
        deep(x)
    return bool(fold.called or unfold.called)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ours, torchs", [(MatmulConv2d, nn.Conv2d), (MatmulConvTranspose2d, nn.ConvTranspose2d)])
def test_deep_convolutions_are_convolutions(
    ours: Any, torchs: Any, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_PIXELS, torch.float64, 16)
    torch.manual_seed(0)
    plain = torchs(6, 5, 4, stride=2, padding=1, bias=bias).double()
    deep = accelerate(copy.deepcopy(plain), "training")
    assert isinstance(deep, ours)
    scale = 2 if ours is MatmulConv2d else 1
    for count, height, width, product in ((1, 1, 1, True), (2, 2, 3, True), (1, 4, 4, True), (2, 3, 3, False)):
        x = torch.randn(count, 6, scale * height, scale * width, dtype=torch.float64, requires_grad=True)
        assert as_product(deep, x) == product
        torch.testing.assert_close(deep(x), plain(x), rtol=1e-12, atol=1e-12)
        g = torch.randn_like(plain(x))
        made, expected = (torch.autograd.grad(c(x), [x, *c.parameters()], g) for c in (deep, plain))
        for one, other in zip(made, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            assert torch.equal(deep(x), plain(x)), "in translation it is torch's own"


@pytest.mark.parametrize("ours, torchs", [(MatmulConv2d, nn.Conv2d), (MatmulConvTranspose2d, nn.ConvTranspose2d)])
def test_deep_convolutions_in_bf16(ours: Any, torchs: Any) -> None:
    """Two roundings of bf16, of 8 bits, from float64 (0.0033 and 0.0042 of its deviation), where float32 would be left
    to torch; and only in the plain layout."""
    torch.manual_seed(0)
    deep = accelerate(torchs(64, 32, 4, stride=2, padding=1), "training")
    assert isinstance(deep, ours)
    exact = torchs(64, 32, 4, stride=2, padding=1).double()
    exact.load_state_dict(deep.state_dict())
    x = torch.randn(2, 64, 8, 8)
    assert not as_product(deep, x)
    expected = exact(x.double()).detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert as_product(deep, x)
        made = deep(x).detach()
        assert made.dtype == torch.bfloat16
        assert (made - expected).square().mean().sqrt() < 2 * 2**-8 * expected.std()
        assert not as_product(deep.to(memory_format=torch.channels_last), x)


@pytest.mark.parametrize(
    ("conv", "kind"),
    [
        (nn.Conv2d(8, FEW_CHANNELS, 7), ColumnConv2d),
        (nn.Conv2d(8, FEW_CHANNELS + 1, 7), nn.Conv2d),
        (nn.Conv2d(8, 2, 3), nn.Conv2d),
        (nn.Conv2d(2, 2, 7, groups=2), nn.Conv2d),
        (nn.Conv2d(8, 2, 7, dilation=2), nn.Conv2d),
        (nn.Conv2d(8, 8, 4, 2, 1), MatmulConv2d),
        (nn.ConvTranspose2d(8, 8, 4, 2, 1), MatmulConvTranspose2d),
        (nn.ConvTranspose2d(8, 8, 4, 1, 0), nn.ConvTranspose2d),
        (nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1), nn.ConvTranspose2d),
        (nn.Conv2d(8, 3, (1, 7), padding=(0, 3)), nn.Conv2d),
        (nn.Conv2d(8, 3, (3, 7), padding=(1, 3)), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, stride=(2, 1), padding=1), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, stride=2, padding=(1, 0)), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, stride=2, padding="valid"), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, stride=2, dilation=2), nn.Conv2d),
    ],
)
def test_which_convolutions_are_exchanged(conv: nn.Module, kind: type) -> None:
    assert type(accelerate(copy.deepcopy(conv), "training")) is kind


@pytest.mark.parametrize(
    ("kernel", "padding", "width"), [(4, 1, 2), (4, 1, 3), (3, 1, 1), (3, 1, 2), (5, 2, 2), (3, 0, 3)]
)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [nn.Conv2d, SpectralConv2d])
def test_a_strided_convolution_in_bfloat16_to_a_column_of_pixels(
    kernel: int, padding: int, width: int, kind: Any, autocast: bool
) -> None:
    """Within bfloat16's eight bits of the one in float64, also where oneDNN reads beyond the picture (with AMX)."""
    torch.manual_seed(0)
    conv: nn.Conv2d = kind(32, 24, kernel, stride=2, padding=padding)
    x = torch.randn(2, 32, 20, width)
    with torch.no_grad():
        expected = copy.deepcopy(conv).double()(x.double())
        assert isinstance(accelerate(conv, "training"), _Strided)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = conv(x) if autocast else conv.bfloat16()(x.bfloat16())
    assert found.shape == expected.shape and found.shape[3] == 1
    torch.testing.assert_close(found.double(), expected, rtol=2**-6, atol=2**-6)


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
