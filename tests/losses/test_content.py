"""The content loss against its formula, and which pictures and weights a training takes it for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import tensors, tiny_vgg
from torch import Tensor

from i2i.algorithms import ALGORITHMS, CUT, CycleGAN
from i2i.algorithms.cut import CUTOptions
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.errors import UsageError
from i2i.losses import content
from i2i.losses.content import Content
from i2i.training.options import options_class


def picture(seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 48, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class _Seeing(torch.nn.Module):
    """Features that are known: those of a bright picture are orthogonal to those of a dark one at strides 8 and 16."""

    def forward(self, x: Tensor, count: int) -> list[Tensor]:
        bright = (x.mean(dim=(1, 2, 3)) > 0).float()
        seen = torch.stack([bright, 1 - bright], dim=1)[..., None, None]
        return [seen * 0 + 1, seen, seen, seen * 0 + 1][:count]


def test_a_picture_keeps_its_own_content() -> None:
    assert float(Content(tiny_vgg())(picture(), picture())) == pytest.approx(0, abs=1e-6)


def test_it_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
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
    coarse = torch.nn.functional.interpolate(picture()[..., :6, :8], size=(48, 64), mode="bicubic")
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
    with pytest.raises(UsageError, match=r": sees pictures, and a domain holds labels$"):
        ALGORITHMS[algorithm].channels(chosen)
