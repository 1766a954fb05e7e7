"""Patterns in step with a network's grid: the loss against numbers that follow from its formula, and in a training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from run_options import Pix2PixRun
from torch import Tensor, nn

from i2i.algorithms import Pix2Pix, Segmentation
from i2i.algorithms.segmentation import SegmentationOptions
from i2i.errors import UsageError
from i2i.losses.grid import grid_loss
from i2i.training.launch import train

pytestmark = pytest.mark.arithmetic

TOY: dict[str, Any] = {
    "data": Path("toy"), "discriminator": "patchgan_16", "ngf": 8, "ndf": 8, "crop_size": 32, "load_size": 32,
}  # fmt: skip


def noise(count: int = 8, size: int = 128, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 0.1


def stripes(period: float, size: int = 128) -> Tensor:
    """Upright, of amplitude 1."""
    return torch.cos(2 * torch.pi * torch.arange(size) / period).expand(1, 3, size, size)


@pytest.mark.parametrize(("size", "side"), [(128, 64), (48, 32)])
@pytest.mark.parametrize("period", [2, 4])
def test_stripes_in_step_with_the_grid_are_seen(period: int, size: int, side: int) -> None:
    """Of amplitude a they have a power of (a/2)² (Σw)² / Σw² (for period 2 of a² times that) in one bin, w Hann's
    window in both directions: Σw = (side/2)², Σw² = (3 side/8)². Each neighbour of a bin has a quarter of its power."""
    power = (0.01 / (1 if period == 2 else 2)) ** 2 * (side / 2) ** 4 / (3 * side / 8) ** 2
    lines = 1 if period == 2 else 2  # and its mirror image
    fine = sum(max(min(i, side - i), min(j, side - j)) >= side / 6.4 for i in range(side) for j in range(side))
    texture = lines * power * (1 + 4 * 0.25 + 4 * 0.0625) / fine + 1e-3
    assert float(grid_loss(0.01 * stripes(period, size))) == pytest.approx(lines * power / texture, rel=0.02)


@pytest.mark.parametrize("period", [3, 6, 8, 16])
def test_other_stripes_are_not(period: int) -> None:
    assert float(grid_loss(0.3 * stripes(period))) < 0.02


def test_texture_is_left_alone() -> None:
    """White noise has no line; chance leaves less the more windows there are. The pattern has half its power."""
    assert float(grid_loss(noise(count=32))) < 2.5
    assert float(grid_loss(noise(count=4, size=512))) < 0.8
    assert float(grid_loss(noise(count=32) + 0.05 * stripes(4))) > 100


def test_it_is_seen_in_a_corner() -> None:
    pictures = noise(count=2)
    pictures[:, :, :48, :48] += 0.1 * stripes(4)[..., :48, :48]
    assert float(grid_loss(pictures)) > 1


def test_the_gradient_lowers_the_pattern_and_not_the_texture() -> None:
    """All of it is at the lines, within what Hann's window smears; most of it at the pattern's."""
    pattern = 0.05 * stripes(4)
    pictures = (noise(count=4) + pattern).requires_grad_()
    (gradient,) = torch.autograd.grad(grid_loss(pictures), pictures)
    assert float((gradient * pattern).sum()) > 0
    power = torch.fft.fft2(gradient.mean(dim=1)).abs().square()
    off = (torch.arange(128) + 8) % 32  # 8 at a multiple of 32 bins
    near = (off >= 2) & (off <= 14)
    assert float(power[:, near][:, :, near].sum() / power.sum()) > 0.99
    row = torch.zeros_like(power)
    row[:, :7, 26:39], row[:, -6:, 26:39] = 1, 1
    assert float((power * (row + row.flip(2).roll(1, 2))).sum() / power.sum()) > 0.9


def test_sixteen_bits_are_read_in_float32() -> None:
    coarse = (noise() + 0.05 * stripes(4)).bfloat16()
    assert torch.equal(grid_loss(coarse), grid_loss(coarse.float()))


def test_labels_have_no_texture() -> None:
    with pytest.raises(UsageError, match=r"lambda_grid = 1\.0: changes nothing without pictures that are made"):
        Segmentation(SegmentationOptions(lambda_grid=1.0), 3, 4)


def test_a_crop_holds_a_window(tmp_path: Path) -> None:
    options = Pix2PixRun(
        run=tmp_path / "r", generator="resnet_1blocks", lambda_grid=1.0, **{**TOY, "crop_size": 16, "load_size": 16}
    )
    with pytest.raises(UsageError, match="at least 32"):
        train(Pix2Pix, options)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_of_transposed_convolutions_learns_not_to_show_its_grid(seed: int) -> None:
    """Two of 3×3, whose kernels overlap unevenly (Odena et al. 2016); else its pictures stay as they were."""
    torch.manual_seed(seed)
    doubling: dict[str, Any] = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 16, **doubling), nn.ReLU(),
        nn.ConvTranspose2d(16, 3, **doubling), nn.Tanh(),
    )  # fmt: skip
    z = torch.randn(8, 3, 16, 16)
    before = network(z).detach()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(100):
        made = network(z)
        optimizer.zero_grad()
        (0.1 * grid_loss(made) + 10 * (made - before).square().mean()).backward()
        optimizer.step()
    after = network(torch.randn(8, 3, 16, 16)).detach()
    assert float(grid_loss(before)) > 25
    assert float(grid_loss(after)) < 0.02 * float(grid_loss(before))
    assert float(after.std()) > 0.5 * float(before.std())
