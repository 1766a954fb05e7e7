"""Losses that compare pictures, and those against another structure, spots, flicker and grids: each against its
formula, what a training learns from it, and which pictures and weights it is taken for."""

import math
from pathlib import Path
from typing import Any

import kornia
import numpy as np
import pytest
import torch
from run_options import Pix2PixRun
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter1d
from tiny_networks import tensors, tiny_vgg
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms import ALGORITHMS, CUT, GAN, CycleGAN, Pix2Pix, Segmentation
from i2i.algorithms.cut import CUTOptions
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.gan import GANOptions
from i2i.algorithms.pix2pix import SegmentationOptions
from i2i.errors import UsageError
from i2i.losses import content
from i2i.losses.content import Content, grid_loss, luminance, spot_loss, stability_loss, structure_loss
from i2i.training.launch import train
from i2i.training.options import options_class

pytestmark = pytest.mark.arithmetic


# Content


def picture(seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 48, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class _Seeing(nn.Module):
    """Features that are known: those of a bright picture are orthogonal to those of a dark one at strides 8 and 16."""

    def forward(self, x: Tensor, count: int) -> list[Tensor]:
        bright = (x.mean(dim=(1, 2, 3)) > 0).float()
        seen = torch.stack([bright, 1 - bright], dim=1)[..., None, None]
        return [seen * 0 + 1, seen, seen, seen * 0 + 1][:count]


def test_a_picture_keeps_its_own_content() -> None:
    assert float(Content(tiny_vgg())(picture(), picture())) == pytest.approx(0, abs=1e-6)


def test_content_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthogonal features are 1 apart at each of two strides; a quarter of what light and dark differ is added."""
    monkeypatch.setattr(content, "feature_network", lambda features: _Seeing())
    made, source = (picture(seed) * 0.4 + shift for seed, shift in ((1, 0.5), (2, -0.5)))
    lights = []
    for images in (made, source):
        y = np.tensordot(images.double().numpy(), [0.299, 0.587, 0.114], axes=(1, 0))
        y = y.reshape(2, 12, 4, 16, 4).mean(axis=(2, 4))
        lights.append((y - y.mean((1, 2), keepdims=True)) / (y.std((1, 2), ddof=1, keepdims=True) + 0.1))
    expected = 2 + np.abs(lights[0] - lights[1]).mean() / 4
    assert float(Content("")(made, source)) == pytest.approx(expected, rel=1e-5)


def test_brightness_and_contrast_are_no_content_but_places_are() -> None:
    """As far as light and dark go: a picture of half its contrast, brighter, is nearer than one moved by 8 pixels."""
    coarse = F.interpolate(picture()[..., :6, :8], size=(48, 64), mode="bicubic")
    content = Content(tiny_vgg())
    brighter, moved = content(0.5 * coarse + 0.2, coarse), content(coarse.roll(8, dims=3), coarse)
    assert float(brighter) < 0.5 * float(moved)


def test_only_the_translation_learns_from_it() -> None:
    made, source = picture(1).requires_grad_(), picture(2).requires_grad_()
    Content(tiny_vgg())(made, source).backward()
    assert bool(made.grad.abs().sum() > 0) and source.grad is None  # type: ignore[union-attr]


def test_grey_pictures_are_seen_as_colour() -> None:
    grey, other, content = picture(1, 1), picture(2, 1), Content(tiny_vgg())
    assert float(content(grey, other)) == pytest.approx(float(content(*(x.repeat(1, 3, 1, 1) for x in (grey, other)))))


def test_other_channels_and_features_without_use_are_refused() -> None:
    with pytest.raises(UsageError, match=r"lambda_content = 1\.0: pictures of 4 and 4 channels have no luminance"):
        CUT(CUTOptions(lambda_content=1.0, features=tiny_vgg()), 4, 4)
    with pytest.raises(
        UsageError, match=r"features = .*: changes nothing without discriminator projected or a content"
    ):
        CycleGAN(CycleGANOptions(features=tiny_vgg()))


def test_a_state_agrees_with_the_weights_that_were_compared(tmp_path: Path) -> None:
    """Wherever their file lies, and no other weights under its name."""
    found = []
    for name, widths in (("one", (4, 6, 8, 10, 12)), ("two", (4, 6, 8, 10, 12)), ("other", (4, 6, 8, 10, 13))):
        save_file(tensors(widths), tmp_path / name)
        options = CUTOptions(lambda_content=1.0, features=str(tmp_path / name), ngf=2, ndf=2)
        found.append(CUT(options).architecture())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("cyclegan", {"lambda_content": 1.0, "lambda_identity": 0.0}),
        ("cyclegan", {"lambda_structure": 1.0, "lambda_identity": 0.0}),
        ("cut", {"lambda_content": 1.0}),
        ("pix2pix", {"discriminator": "projected"}),
    ],
)
def test_labels_of_three_classes_are_no_colours(algorithm: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("#000000\n#808080\n#ffffff\n")
    labels: dict[str, Any] = {"classes_a": str(tmp_path / "three.txt"), "classes_b": str(tmp_path / "three.txt")}
    chosen = options_class(ALGORITHMS[algorithm])(run=tmp_path / "run", data=Path("toy"), **labels, **options)
    with pytest.raises(UsageError, match=r": takes pictures, and a domain holds labels$"):
        ALGORITHMS[algorithm].channels(chosen)


# Structure


def pictures(seed: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, 24, 31, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_structure_is_its_formula() -> None:
    """Against NumPy and SciPy: a truncated Gaussian window, where it lies within the picture."""
    made, source = pictures(0), pictures(1) * 0.4

    def smooth(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = gaussian_filter1d(x, 1.5, axis=axis, radius=5)
        return x[:, 5:-5, 5:-5]

    x, y = (
        (np.tensordot(images.double().numpy(), [0.299, 0.587, 0.114], axes=([1], [0])) + 1) / 2
        for images in (made, source)
    )
    mean_x, mean_y = smooth(x), smooth(y)
    covariance = smooth(x * y) - mean_x * mean_y
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    expected = 1 - ((2 * covariance + 0.0009) / (variances + 0.0009)).mean()
    assert structure_loss(made, source).item() == pytest.approx(expected, rel=1e-5)


def test_structure_against_kornia_where_brightness_is_equal() -> None:
    """SSIM's comparison of brightness is near 1 for pictures of one mean; contrast and structure are left."""
    source = kornia.filters.gaussian_blur2d(pictures(2, 1), (5, 5), (1.0, 1.0))
    made = source + 0.02 * pictures(3, 1)
    ssim = kornia.metrics.ssim((made + 1) / 2, (source + 1) / 2, 11)[..., 5:-5, 5:-5].mean()
    assert structure_loss(made, source).item() == pytest.approx(1 - ssim.item(), abs=2e-3)


def test_structure_leaves_brightness_and_colour_free() -> None:
    source = pictures(4) * 0.3
    grey = luminance(source).expand_as(source)
    assert structure_loss(source, source).item() == pytest.approx(0, abs=1e-6)
    assert structure_loss(source + 0.5, source).item() == pytest.approx(0, abs=1e-4)
    assert structure_loss(grey, source).item() == pytest.approx(0, abs=1e-5)
    assert structure_loss(source * 0.2, source).item() > 0.3
    assert structure_loss(-source, source).item() > 1.5


def test_the_gradient_of_structure_is_finite_also_for_flat_pictures_under_autocast() -> None:
    made = torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = structure_loss(made, pictures(5)[:1, :, :16, :16])
    loss.backward()
    assert loss.dtype == torch.float32
    assert made.grad is not None and bool(torch.isfinite(made.grad).all()) and bool(made.grad.any())


def test_the_least_picture_of_structure() -> None:
    """Generators without halvings take smaller ones, the window does not."""
    for weight in (0.0, 1.0):
        options = CycleGANOptions(lambda_structure=weight, generator="resnet_1blocks", discriminator="pixelgan")
        _, minimum = options.size_limits(3, 3)
        assert (minimum == 11) == bool(weight) and minimum <= 11
    small, least = pictures(0)[..., :10, :], pictures(0)[..., :11, :]
    assert bool(structure_loss(least, least).isfinite())
    with pytest.raises(RuntimeError):
        structure_loss(small, small)


def test_structure_takes_only_pictures_with_a_luminance() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        structure_loss(pictures(0, 2), pictures(1, 2))
    with pytest.raises(UsageError, match="lambda_structure = 1"):
        CycleGAN(CycleGANOptions(lambda_structure=1.0, lambda_identity=0.0, ngf=2, ndf=2), 3, 5)


# Stability


def smooth(count: int = 4, height: int = 40, width: int = 56) -> Tensor:
    """Pictures without detail, so that interpolation loses nothing that counts."""
    coarse = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(-0.9, 0.9)


@pytest.fixture(autouse=True)
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_NOISE", 0.0)
    torch.manual_seed(0)


def test_what_does_the_same_to_each_pixel_is_stable() -> None:
    x = smooth()
    assert stability_loss(lambda y: 0.5 * y + 0.1, x, 0.5 * x + 0.1) < 1e-10


def test_what_goes_by_the_place_is_not() -> None:
    """G(x) = x · ramp across the picture: the loss is the mean square of x · ramp's change by the shift alone."""
    x = smooth()
    ramp = torch.linspace(-1, 1, x.shape[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "_ANGLE", 0.0)
        patch.setattr(content, "_ZOOM", 0.0)
        patch.setattr(torch, "rand", lambda *size: torch.tensor([1.0, 0.5, 0.5, 0.5])[:, None].expand(size))  # 2 right
        found = stability_loss(lambda y: y * ramp, x, x * ramp)
    shifted = x[..., 2:]  # each pixel but the last two comes from two further right
    change = shifted * (ramp[:-2] - ramp[2:])
    torch.testing.assert_close(found, change.square().mean(), rtol=2e-3, atol=0)


def test_pictures_are_moved_as_far_as_stated() -> None:
    """By at most 2 pixels, 1 degree and 3 % each way, and not by less than half of it in many draws."""
    height, width = 64, 96
    grid = content._moves(500, height, width)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
    apart = (grid - still) * torch.tensor([width / 2, height / 2])
    farthest = apart.norm(dim=-1).amax(dim=(1, 2))
    corner = (height**2 + width**2) ** 0.5 / 2
    assert float(farthest.max()) <= 2 * 2**0.5 + corner * ((torch.pi / 180) * 1.03 + 0.03)
    middle = apart[:, height // 2, width // 2]
    assert float(middle.abs().max()) == pytest.approx(2.0, abs=0.1)
    assert float(middle.mean(dim=0).abs().max()) < 0.2


def test_only_the_generator_of_what_is_moved_learns_from_it() -> None:
    """The translation that it is compared with is a constant."""
    x, weight = smooth(), torch.tensor(1.5, requires_grad=True)
    made = (weight * x).requires_grad_()
    ramp = torch.linspace(-1, 1, x.shape[3])
    loss = stability_loss(lambda y: weight * y * ramp, x, made * ramp)
    (gradient,) = torch.autograd.grad(loss, made, allow_unused=True, retain_graph=True)
    assert gradient is None
    assert torch.autograd.grad(loss, weight)[0] != 0


def test_a_gan_has_nothing_to_move() -> None:
    with pytest.raises(UsageError, match=r"lambda_stability = 1\.0: changes nothing without a picture to translate"):
        GAN(GANOptions(lambda_stability=1.0))


# Grid


def noise(count: int = 8, size: int = 128, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 0.1


def stripes(period: float, size: int = 128) -> Tensor:
    """Upright, of amplitude 1."""
    return torch.cos(2 * torch.pi * torch.arange(size) / period).expand(1, 3, size, size)


@pytest.mark.parametrize(("size", "side"), [(128, 64), (48, 32)])
@pytest.mark.parametrize("period", [2, 4])
def test_stripes_in_step_with_the_grid_are_seen(period: int, size: int, side: int) -> None:
    """Stripes of amplitude a have the power (a/2)² (Σw)² / Σw² in one bin, and a² in place of (a/2)² for period 2.

    w is Hann's window in both directions: Σw = (side/2)², Σw² = (3 side/8)². Each neighbour of a bin has a quarter of
    its power.
    """
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


def test_a_grid_is_seen_in_a_corner() -> None:
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
    small: dict[str, Any] = {"discriminator": "patchgan_16", "ngf": 8, "ndf": 8, "crop_size": 16, "load_size": 16}
    options = Pix2PixRun(run=tmp_path / "r", data=Path("toy"), generator="resnet_1blocks", lambda_grid=1.0, **small)
    with pytest.raises(UsageError, match="at least 32"):
        train(Pix2Pix, options)


def test_a_network_of_transposed_convolutions_learns_not_to_show_its_grid() -> None:
    """Two of 3×3, whose kernels overlap unevenly (Odena et al. 2016); else its pictures stay as they were."""
    torch.manual_seed(0)
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


# Spots


def scene(size: int = 64) -> Tensor:
    """Grey with a ramp of light, and a blue patch of 12 pixels at the upper left."""
    picture = torch.linspace(-0.8, 0.4, size).expand(1, 3, size, size).clone()
    picture[:, 2, 8:20, 8:20] += 0.5
    return picture


def with_spot(picture: Tensor, top: int, left: int, blue: float = 0.6, side: int = 4) -> Tensor:
    spotted = picture.clone()
    spotted[:, 2, top : top + side, left : left + side] += blue
    return spotted


def test_a_spot_of_colour_that_the_picture_lacks_is_seen() -> None:
    """C_B of 0.564 · (1 - 0.114) · 0.6 = 0.2998, C_R of -0.713 · 0.114 · 0.6 = -0.0488; the surroundings hold
    16 of 289 pixels of it."""
    x = torch.zeros(1, 3, 64, 64)
    chroma = math.hypot(0.564 * 0.886 * 0.6, 0.713 * 0.114 * 0.6)
    expected = 16 * (chroma * (1 - 16 / 289) - 0.001 - 0.05) / 0.05 / 64**2
    assert float(spot_loss(with_spot(x, 40, 40), x)) == pytest.approx(expected, rel=1e-4)


def test_the_pictures_own_colours_are_none() -> None:
    x = scene()
    assert float(spot_loss(x, x)) == 0
    assert float(spot_loss(x + 0.3, x)) == 0  # lighter
    assert float(spot_loss(torch.cat([x[:, :1], x[:, 1:2], x[:, 2:] + 0.6], dim=1), x)) == 0  # bluer everywhere
    assert float(spot_loss(with_spot(x, 4, 4, blue=0.3), x)) == 0  # within reach of the patch
    assert float(spot_loss(with_spot(x, 40, 40), x)) > 0
    assert float(spot_loss(with_spot(x, 40, 40, blue=0.09), x)) == 0  # a stroke


def test_the_gradient_fades_the_spot_alone() -> None:
    x = scene()
    made = with_spot(x, 40, 40).requires_grad_()
    (gradient,) = torch.autograd.grad(spot_loss(made, x), made)
    assert bool((gradient[:, 2, 40:44, 40:44] > 0).all())
    outside = gradient.abs().sum(dim=1)
    outside[:, 40 - 8 : 44 + 8, 40 - 8 : 44 + 8] = 0
    assert float(outside.sum()) == 0


def test_spots_are_measured_in_float32() -> None:
    x = scene().bfloat16()
    made = with_spot(x, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spot_loss(made, x), spot_loss(made.float(), x.float()))


@pytest.mark.parametrize("channels", [(1, 3), (3, 1), (1, 1)])
def test_grey_has_no_spots(channels: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"lambda_spots = 5\.0: changes nothing without pictures in colour"):
        CUTOptions(lambda_spots=5.0).create_content(*channels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_learns_to_leave_spots_out(seed: int) -> None:
    """One of random weights, which colours grey; what it draws is to stay."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    pictures = 0.2 * torch.randn(4, 1, 32, 32).expand(-1, 3, -1, -1)
    with torch.no_grad():
        network[2].weight.mul_(4)
        before = network(pictures)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(100):
        made = network(pictures)
        optimizer.zero_grad()
        (spot_loss(made, pictures) + 10 * (luminance(made) - luminance(before)).square().mean()).backward()
        optimizer.step()
    after = network(pictures).detach()
    assert float(spot_loss(before, pictures)) > 0.2
    assert float(spot_loss(after, pictures)) < 0.1 * float(spot_loss(before, pictures))
    assert float(luminance(after).std()) > 0.5 * float(luminance(before).std())
