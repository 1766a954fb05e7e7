"""pix2pixHD's networks and losses against formulas written out, and torchvision's VGG-19."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import vgg_layers
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.algorithms.pix2pixhd import Pix2PixHD, Pix2PixHDOptions
from i2i.data.pair import ImagePair
from i2i.errors import ModelError, UsageError
from i2i.images.palettes import boundaries
from i2i.losses.content import Perceptual, feature_matching
from i2i.networks import create_generator, list_generators
from i2i.networks.resnet import CoarseToFineConfig

pytestmark = pytest.mark.arithmetic


def residual(channels: int) -> list[nn.Module]:
    conv = [nn.Conv2d(channels, channels, 3), nn.Conv2d(channels, channels, 3)]
    return [nn.Sequential(nn.ReflectionPad2d(1), conv[0], nn.InstanceNorm2d(channels), nn.ReLU(),
                          nn.ReflectionPad2d(1), conv[1], nn.InstanceNorm2d(channels))]  # fmt: skip


def stem(inputs: int, channels: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(3), nn.Conv2d(inputs, channels, 7), nn.InstanceNorm2d(channels), nn.ReLU()]


def down(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.InstanceNorm2d(2 * channels), nn.ReLU()]


def up(channels: int) -> list[nn.Module]:
    transposed = nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, 1)
    return [transposed, nn.InstanceNorm2d(channels // 2), nn.ReLU()]


class Written(nn.Module):
    """App. A of the paper, line by line, for `width` in place of its 32 and two residual blocks in place of nine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = 2 * width
        sizes = [w, 2 * w, 4 * w, 8 * w]
        self.g1 = nn.ModuleList([
            *stem(5, w), *(layer for c in sizes for layer in down(c)), *residual(16 * w), *residual(16 * w),
            *(layer for c in (16 * w, 8 * w, 4 * w, 2 * w) for layer in up(c)),
        ])  # fmt: skip
        self.front = nn.ModuleList([*stem(5, width), *down(width)])
        self.back = nn.ModuleList([*residual(w), *residual(w), *residual(w), *up(w)])
        self.head = nn.Conv2d(width, 3, 7)

    @staticmethod
    def through(layers: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in layers:
            x = x + layer(x) if isinstance(layer, nn.Sequential) else layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        half = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        y = self.through(self.back, self.through(self.front, x) + self.through(self.g1, half))
        return torch.tanh(self.head(F.pad(y, (3, 3, 3, 3), mode="reflect")))


def test_the_generator_is_the_papers() -> None:
    torch.manual_seed(0)
    ours = create_generator("pix2pixhd", in_channels=5, width=2, blocks=2)
    written = Written(2)
    weights, expected = list(ours.parameters()), list(written.parameters())
    assert [w.shape for w in weights] == [w.shape for w in expected]
    with torch.no_grad():
        for one, other in zip(expected, weights, strict=True):
            one.copy_(other)
        x = torch.randn(1, 5, 64, 96)
        torch.testing.assert_close(ours(x), written(x), rtol=0, atol=2e-5)


def test_sizes_and_names() -> None:
    assert {"pix2pixhd", "pix2pixhd_global"} <= set(list_generators())
    for enhancers in (0, 1, 2):
        config = CoarseToFineConfig(enhancers=enhancers, width=1, blocks=1, fine_blocks=1)
        assert config.size_multiple == 2 ** (4 + enhancers)
        least = config.minimum_size
        with torch.no_grad():
            assert config.build()(torch.randn(1, 3, least, least + config.size_multiple)).shape[2:] == (
                least,
                least + config.size_multiple,
            )
            with pytest.raises((RuntimeError, ValueError)):
                config.build()(torch.randn(1, 3, least // 2, least // 2))


def test_feature_matching_is_its_formula() -> None:
    torch.manual_seed(0)
    made, real = ([[torch.randn(2, c, 5, 4) for c in (3, 6, 1)] for _ in range(2)] for _ in range(2))
    expected = 0.0
    for scale in range(2):
        for layer in range(2):  # not the logits
            x, y = made[scale][layer].numpy(), real[scale][layer].numpy()
            expected += float(np.abs(x - y).sum() / x.size) / 2
    assert float(feature_matching(made, real)) == pytest.approx(expected, rel=1e-6)


def test_the_perceptual_loss_is_that_of_torchvisions_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, file = vgg_layers("E")[:30], tmp_path / "vgg19.safetensors"
    save_file({f"features.{name}": value for name, value in network.state_dict().items()}, file)
    made, real = (torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1).unbind()
    made.requires_grad_(True)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = torch.zeros(())
    x, y = (((z.detach() + 1) / 2 - mean[:, None, None]) / deviation[:, None, None] for z in (made, real))
    with torch.no_grad():
        for number, layer in enumerate(network):
            x, y = layer(x.clone()), layer(y.clone())
            if number in (1, 6, 11, 20, 29):
                expected = expected + (x - y).abs().mean() / 2 ** {1: 5, 6: 4, 11: 3, 20: 2, 29: 0}[number]
    loss = Perceptual(file)(made, real)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    loss.backward()
    assert made.grad is not None and float(made.grad.abs().sum()) > 0
    hd = algorithm(lambda_VGG=10.0, vgg=file)
    turns = dict(hd.losses(ImagePair(real, made.detach()), 0))
    assert float(turns["generator"]["G_VGG"].detach()) > 0
    assert set(hd.networks()) == {"G", "D"}  # it is no part of the training state


def algorithm(**options: Any) -> Pix2PixHD:
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "generator": "resnet_1blocks",
        "discriminator": "patchgan_16_multiscale2",
        "ngf": 4,
        "ndf": 4,
    }
    return Pix2PixHD(Pix2PixHDOptions(**(small | options)))


def test_files_that_are_no_vgg(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, first in (("part", "features.0.weight"), ("bare", "0.weight")):  # of the network, of its features alone
        save_file({first: torch.zeros(64, 3, 3, 3)}, tmp_path / f"{name}.safetensors")
    for name, kind, said in (
        ("none.safetensors", UsageError, "no such file"),
        ("text.safetensors", ModelError, "not a safetensors file"),
        ("part.safetensors", ModelError, r"features\.0\.bias is missing"),
        ("bare.safetensors", ModelError, r"features\.0\.bias is missing"),
    ):
        with pytest.raises(kind, match=said):
            algorithm(lambda_VGG=1.0, vgg=tmp_path / name)
    for alone in ({"lambda_VGG": 1.0}, {"vgg": tmp_path / "none"}):
        with pytest.raises(UsageError, match="give both or neither"):
            algorithm(**alone)
    with pytest.raises(UsageError, match="its layers are compared; use a patchgan or projected"):
        algorithm(discriminator="pixelgan")


def test_features_are_matched_where_they_are() -> None:
    """With augmentation a fake is moved otherwise than the picture beside it: features are of both as they are."""
    a, b = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    found = []
    for diffaugment in ("", "translation"):
        torch.manual_seed(0)
        _, (_, losses) = algorithm(diffaugment=diffaugment).losses(ImagePair(a, b), 0)
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert found[0]["G_FM"] == pytest.approx(found[1]["G_FM"], rel=1e-6)
    assert found[0]["G_gan"] != found[1]["G_gan"]


def test_boundaries_are_where_a_neighbour_differs() -> None:
    draw = np.random.default_rng(0)
    classes, instances = draw.integers(0, 3, (9, 8), np.uint8), draw.integers(0, 2, (9, 8), np.uint8)
    for plane in (None, instances):
        pairs = classes.astype(int) if plane is None else classes * 10 + plane
        found = boundaries(classes, plane)
        for y in range(9):
            for x in range(8):
                near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                near = [(i, j) for i, j in near if 0 <= i < 9 and 0 <= j < 8]
                assert found[y, x] == any(pairs[i, j] != pairs[y, x] for i, j in near)
