"""Convolutions by Winograd's filtering are the usual ones: results, gradients, where they are taken and where not."""

import copy
import os
import platform
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.acceleration import accelerate, winograd
from i2i.acceleration.training import FEWEST_TILES, WinogradConv2d, is_channels_last
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResidualBlock, ResnetConfig

pytestmark = pytest.mark.arithmetic

sizes = pytest.mark.parametrize("r", winograd.FEWEST_CHANNELS)
SIZES = [(1, 8, 4, 4), (2, 5, 21, 30), (1, 8, 18, 7), (3, 4, 1, 2)]


def off(found: Tensor, exact: Tensor) -> float:
    """The largest error, in standard deviations of what is exact."""
    return float(((found.double() - exact).abs().max() / exact.std()).detach())


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_torch_computes_with_what_it_was_given() -> None:
    """The threads and, on x86, the instruction set of the environment: what `make test-arithmetic` goes through."""
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    wanted = os.environ.get("ATEN_CPU_CAPABILITY")
    if wanted and platform.machine() in ("x86_64", "AMD64"):
        assert torch.backends.cpu.get_cpu_capability() == wanted.upper()


@sizes
def test_the_transforms_are_exact(r: int) -> None:
    """Eq. 8 of Lavin & Gray in float64, for one tile."""
    data, kernel, result = winograd.transforms(r, torch.float64)
    tile, weight = drawn(6, 6).double(), drawn(r, r, seed=1).double()
    made = result @ ((kernel @ weight.flatten()).view(6, 6) * (data @ tile @ data.T)) @ result.T
    assert torch.allclose(made, F.conv2d(tile[None, None], weight[None, None])[0, 0], rtol=0, atol=1e-12)


@sizes
@pytest.mark.parametrize("tiles", [1, 7, 256])
@pytest.mark.parametrize("size", SIZES)
def test_results_and_gradients(size: tuple[int, ...], tiles: int, r: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of torch in float64, for sizes that are no multiples of a tile, and however many tiles go together."""
    monkeypatch.setattr(winograd, "CHUNK_TILES", tiles)
    n, c, h, w = size
    x, weight, bias = drawn(n, c, h + r - 1, w + r - 1), drawn(6, c, r, r, seed=1), drawn(6, seed=2)
    exact_x, exact_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    exact = F.conv2d(exact_x, exact_weight, bias.double())
    made = winograd.correlate(x, winograd.transformed(weight), r, bias)
    assert made.shape == exact.shape and off(made, exact.detach()) < 1e-5
    gradient = drawn(*exact.shape, seed=3)
    expected = torch.autograd.grad(exact, (exact_x, exact_weight), gradient.double())
    for found, one in zip(winograd.gradients(x, weight, gradient), expected, strict=True):
        assert found.shape == one.shape and off(found, one) < 1e-5


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("size", SIZES[:3])
def test_edges(size: tuple[int, ...], mode: Any) -> None:
    """Filled in place, over whatever an earlier convolution left there."""
    x, weight = drawn(*size), drawn(6, size[1], 3, 3, seed=1)
    winograd.correlate(torch.full((3, 8, 40, 40), torch.inf), winograd.transformed(drawn(2, 8, 3, 3)), 3, padding=mode)
    made = winograd.correlate(x, winograd.transformed(weight), 3, padding=mode)
    padded = F.pad(x.double(), (1, 1, 1, 1), mode="constant" if mode == "zeros" else mode)
    assert off(made, F.conv2d(padded, weight.double())) < 1e-5


def test_what_cannot_be_padded() -> None:
    with pytest.raises(ValueError, match="1×4: there is nothing to reflect"):
        winograd.correlate(drawn(1, 2, 1, 4), winograd.transformed(drawn(2, 2, 3, 3)), 3, padding="reflect")
    with pytest.raises(ValueError, match="kernels of 4×4: padding is for those of 3×3"):
        winograd.correlate(drawn(1, 2, 9, 9), winograd.transformed(drawn(2, 2, 4, 4)), 4, padding="zeros")


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place keeps at most so much; the results are the same with nothing kept."""
    x, weight = drawn(1, 4, 42, 42), drawn(4, 4, 3, 3, seed=1)
    expected = winograd.correlate(x, winograd.transformed(weight), 3)
    monkeypatch.setattr(winograd, "MOST_KEPT", 100)
    monkeypatch.setattr(winograd._Buffers, "_kept", threading.local())
    assert torch.equal(winograd.correlate(x, winograd.transformed(weight), 3), expected)
    assert all(len(kept) <= 100 for kept in vars(winograd._Buffers._kept).values())


@sizes
def test_how_near_to_the_truth_it_is(r: int) -> None:
    """Root mean square over a layer of a residual block, in deviations of the result: 1.0 to 1.45e-6, by how the
    processor's library sums up 256 products, of which nearly all of it comes; with the points of Lavin & Gray 2.3 to
    3.2e-6."""
    x, weight = drawn(1, 256, 34, 34), 0.02 * drawn(256, 256, r, r, seed=1)
    exact = F.conv2d(x.double(), weight.double())
    ours = winograd.correlate(x, winograd.transformed(weight), r)
    assert (ours.double() - exact).square().mean().sqrt() < 2e-6 * exact.std()


@sizes
def test_gradients_can_be_differentiated(r: int) -> None:
    """As a gradient penalty does."""

    def penalty(conv: Any, dtype: torch.dtype) -> Tensor:
        x, weight = drawn(1, 3, 8, 8).to(dtype).requires_grad_(), drawn(2, 3, r, r, seed=1).to(dtype).requires_grad_()
        (slope,) = torch.autograd.grad(conv(x, weight).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    assert off(penalty(winograd.Correlation.apply, torch.float32), penalty(F.conv2d, torch.float64)) < 1e-5


@sizes
@pytest.mark.parametrize("penalty", [False, True])
@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_weights_and_given_pictures(frozen: int, penalty: bool, r: int) -> None:
    sides = [drawn(1, 3, 8, 8), drawn(2, 3, r, r, seed=1)]
    learnt = sides[1 - frozen].requires_grad_()
    made = winograd.Correlation.apply(*sides)
    (slope,) = torch.autograd.grad(made.square().sum(), learnt, create_graph=penalty)
    exact_sides = [side.detach().double().requires_grad_(side.requires_grad) for side in sides]
    (exact,) = torch.autograd.grad(F.conv2d(*exact_sides).square().sum(), exact_sides[1 - frozen])
    assert off(slope.detach(), exact) < 1e-5
    found = winograd.gradients(sides[0], sides[1].detach(), drawn(1, 2, 9 - r, 9 - r), (frozen == 1, frozen == 0))
    assert found[frozen] is None and found[1 - frozen] is not None


def test_threads_do_not_share_their_memory() -> None:
    inputs = [(drawn(1, 4, 42, 42, seed=i), drawn(4, 4, 3, 3, seed=i)) for i in range(6)]
    expected = [winograd.correlate(x, winograd.transformed(weight), 3) for x, weight in inputs]
    same = [False] * len(inputs)

    def work(i: int) -> None:
        x, weight = inputs[i]
        made = [winograd.correlate(x, winograd.transformed(weight), 3) for _ in range(20)]
        same[i] = all(torch.equal(one, expected[i]) for one in made)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same)


def test_translating_first_and_training_then() -> None:
    """The memory in between serves both modes; that of inference mode alone could not be written in training."""
    x, weight = drawn(1, 3, 70, 70), drawn(2, 3, 3, 3, seed=1)

    def work() -> None:
        with torch.inference_mode():
            first = winograd.correlate(x, winograd.transformed(weight), 3)
        found.append(torch.equal(first, winograd.Correlation.apply(x, weight.requires_grad_())))

    found: list[bool] = []
    thread = threading.Thread(target=work)  # which begins without any
    thread.start()
    thread.join()
    assert found == [True]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The inputs that came to be computed by `winograd`."""
    found: list[Tensor] = []
    correlate = winograd.correlate
    monkeypatch.setattr(winograd, "correlate", lambda x, *a, **b: (found.append(x), correlate(x, *a, **b))[1])
    return found


@sizes
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_wide_convolutions_are_convolutions(mode: Any, layout: Any, r: int, calls: list[Tensor]) -> None:
    torch.manual_seed(0)
    channels = winograd.FEWEST_CHANNELS[r]
    ours = nn.Conv2d(channels, 144, r, padding=1, padding_mode=mode).to(memory_format=layout)
    torchs = copy.deepcopy(ours).double()
    assert isinstance(accelerate(ours, "training"), WinogradConv2d)
    x = drawn(2, channels, 30, 33).contiguous(memory_format=layout).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    made, exact = ours(x), torchs(exact_x)
    assert len(calls) == 1 and off(made, exact.detach()) < 3e-5
    assert is_channels_last(made) == (layout == torch.channels_last)
    made.square().mean().backward()
    exact.square().mean().backward()
    pairs = [(x, exact_x), *zip(ours.parameters(), torchs.parameters(), strict=True)]
    for found, one in pairs:
        assert found.grad is not None and one.grad is not None and off(found.grad, one.grad) < 3e-5


def test_where_it_does_not_pay(calls: list[Tensor]) -> None:
    """Few channels or very many, few pixels, 16 bits, no training: torch's own."""

    def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
        return accelerate(nn.Conv2d(in_channels, out_channels, size, padding=1), "training")

    wide, side = conv(64, 64), 4 * int(FEWEST_TILES**0.5)
    whole = drawn(1, 64, side, side)
    conv(32, 64)(whole[:, :32])
    conv(64, 128, 4)(whole)
    conv(64, 513)(whole)
    wide(whole[:, :, 1:])
    with torch.autocast("cpu", torch.bfloat16):
        wide(whole)
    conv(64, 64).double()(whole.double())
    with torch.no_grad():
        wide(whole)
    assert not calls
    wide(whole)
    assert len(calls) == 1


@pytest.mark.parametrize("size", [(2, 64, 31, 34), (2, 64, 32, 36), (1, 64, 38, 36)])
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_a_block_without_biases(norm: Any, size: tuple[int, ...], calls: list[Tensor]) -> None:
    """Whose ReLU works in place, be it on the result of the convolution itself."""
    torch.manual_seed(0)
    block = accelerate(ResidualBlock(64, ResnetConfig(width=16, norm=norm, bias=False)), "training")
    x = drawn(*size)
    block(x).square().sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        assert off(block(x), block.double()(x.double())) < 1e-4
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("layer", [9, 10, 11, 12])
def test_features_and_translation_are_those_of_the_network(layer: int, calls: list[Tensor]) -> None:
    """CUT plays the layers one by one: in the same memory formats."""
    network, x = accelerate(ResnetConfig(width=16, blocks=2).build(), "training"), drawn(1, 3, 128, 128)
    expected = network(x)
    made, (one,) = network.translate(x, [layer])
    assert calls and torch.equal(made, expected)
    assert torch.equal(network.encode(x, [layer])[0], one)


def test_a_generator_trains_as_it_would(calls: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Result and gradients of a generator whose blocks have 64 channels, against float64; memory formats inside.

    With tanh in place of ReLU, whose kink turns a rounding into another gradient now and then.
    """
    torch.manual_seed(0)
    network, x = accelerate(ResnetConfig(width=16, blocks=2).build(), "training"), drawn(1, 3, 128, 128)
    monkeypatch.setattr(torch, "relu_", torch.tanh)
    seen: list[bool] = []
    for stage in (network.stem, *network.down, *network.up):
        stage.relu = nn.Tanh()
    for block in network.blocks:
        block.register_forward_hook(lambda module, given, made: seen.append(is_channels_last(made)))

    def trained(dtype: torch.dtype) -> list[Tensor]:
        network.to(dtype).zero_grad()
        made = network(x.to(dtype))
        made.square().mean().backward()
        return [made.detach(), *(p.grad.clone() for name, p in network.named_parameters() if p.ndim > 1)]

    ours = trained(torch.float32)
    assert len(calls) >= 4 and seen == [True, False], "the last block hands on torch's own format"
    for mine, true in zip(ours, trained(torch.float64), strict=True):
        assert (mine.double() - true).norm() < 1e-5 * true.norm(), "some layers of 1.4e-6 each"


@pytest.mark.parametrize("penalty", [False, True])
def test_a_discriminator_trains_as_it_would(
    penalty: bool, calls: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PatchGAN whose last layer but one has 128 channels, with tanh in place of the leaky ReLU, against float64."""
    torch.manual_seed(0)
    network, x = PatchGANConfig(width=64, layers=1).build(), drawn(2, 3, 64, 64)
    network.layers = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.LeakyReLU) else m for m in network.layers))

    def trained(dtype: torch.dtype) -> list[Tensor]:
        network.to(dtype).zero_grad()
        given = x.to(dtype).requires_grad_()
        made = network(given)
        loss = made.square().mean()
        if penalty:
            loss = torch.autograd.grad(made.sum(), given, create_graph=True)[0].square().sum()
        loss.backward()
        return [made.detach(), *(p.grad.clone() for p in network.parameters() if p.ndim > 1)]

    monkeypatch.setitem(winograd.FEWEST_CHANNELS, 4, 64)
    accelerate(network, "training")
    ours = trained(torch.float32)
    assert len(calls) == 1
    for mine, true in zip(ours, trained(torch.float64), strict=True):
        assert (mine.double() - true).norm() < 1e-5 * true.norm(), "some layers of 1.4e-6 each"
