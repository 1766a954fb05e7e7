"""A plain state dict of one of our generators, and a generator of the user's own, are styles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import i2i
from i2i.errors import ModelError
from i2i.models import model_file
from i2i.models.pretrained import open_model
from i2i.networks import GENERATORS, generator_config
from i2i.networks.coarse_to_fine import CoarseToFineConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

SMALL: dict[str, Any] = {
    name: generator_config(name, width=2, norm="instance" if config.kind == "resnet" else config.norm)
    for name, config in GENERATORS.items()
    if config.kind != "dcgan"
}
SMALL |= {
    "batch": ResnetConfig(width=3, blocks=1, norm="batch", in_channels=1, out_channels=4),
    "batch with biases": ResnetConfig(width=2, blocks=0, norm="batch", bias=True),
    "smooth": ResnetConfig(width=2, blocks=2, downsampling="antialiased", upsampling="smooth"),
    "separable antialiased": ResnetConfig(width=2, blocks=1, separable=True, upsampling="antialiased"),
    "unet of instance norm": UNetConfig(width=2, depth=6, norm="instance", dropout=False),
    "attention": UNetConfig(width=2, depth=5, attention=2),
    "attention by name": generator_config("unet_512_attention", width=2),
    "two enhancers": CoarseToFineConfig(width=2, enhancers=2, halvings=2, blocks=1, fine_blocks=2, norm="batch"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_state_dict_tells_its_configuration(tmp_path: Path, name: str) -> None:
    config = SMALL[name]
    weights = config.build().state_dict()
    torch.save(weights, tmp_path / "mine.pth")
    network, info = open_model(tmp_path / "mine.pth", direction="b2a")
    assert info.network_config() == config
    assert (info.direction, info.statistics, info.dropout) == ("b2a", "batch", config.dropout)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "netG.", "_orig_mod.module."])
def test_wrappers_and_safetensors(tmp_path: Path, prefix: str) -> None:
    config = SMALL["batch"]
    weights = {prefix + name: value for name, value in config.build().state_dict().items()}
    save_file(weights, tmp_path / "mine.safetensors")
    torch.save({"epoch": 3, "generator": weights, "optimizer": {"state": {}}}, tmp_path / "mine.pth")
    for file in ("mine.safetensors", "mine.pth"):
        assert open_model(tmp_path / file)[1].network_config() == config


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (ResnetConfig(width=2, blocks=1, norm="none", bias=False), "norm='none', bias=False"),
        (ResnetConfig(width=2, blocks=1, separable=True), "upsampling='resize'"),
        (UNetConfig(width=2, depth=7, attention=5), r"\[4, 5, 6\].*attention="),
    ],
)
def test_what_the_keys_do_not_tell_the_module_says(tmp_path: Path, config: Any, hint: str) -> None:
    torch.manual_seed(0)
    trained = config.build()
    torch.save(trained.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ModelError, match=rf"mine\.pth: .*{hint}"):
        open_model(tmp_path / "mine.pth")
    network, info = open_model(tmp_path / "mine.pth", generator=config.build())
    assert info.network_config() == config
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())


def test_damaged_keys_are_named(tmp_path: Path) -> None:
    for change, message in (
        (lambda s: s.pop("up.0.conv.weight"), "'up.0.conv.weight' is missing"),
        (lambda s: s.pop("blocks.0.conv2.weight"), r"blocks\.0\.conv2\.weight is missing"),
        (lambda s: s.update({"head.weight": torch.zeros(3)}), r"head\.weight has the shape \(3,\)"),
        (lambda s: s.update({"more": torch.zeros(3)}), "more has no place"),
        (lambda s: s.update({"stem.conv.weight": torch.zeros(600, 3, 7, 7)}), "width = 600"),
    ):
        state = ResnetConfig(width=2, blocks=1).build().state_dict()
        change(state)
        torch.save(state, tmp_path / "mine.pth")
        with pytest.raises(ModelError, match=rf"mine\.pth: .*{message}"):
            open_model(tmp_path / "mine.pth")


class Brighter(nn.Module):
    """A generator that i2i does not know, with tied weights and a buffer that is no number of a network."""

    size_multiple = 8

    def __init__(self, gain: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.again = self.first
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("on", torch.tensor([True]))
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 8 == x.shape[-2] % 8 == 0
        return torch.tanh(x + self.gain)


def test_an_own_generator(tmp_path: Path) -> None:
    trained, x = Brighter(0.5), torch.zeros(3, 9, 13)
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "mine.pth")
    given = Brighter()
    translate = i2i.load_translator(tmp_path / "mine.pth", generator=given, device="cpu", precision="fp32")
    assert translate.runtime == "torch" and translate.info.statistics == "running" and float(given.gain.detach()) == 0
    torch.testing.assert_close(translate(x), torch.full_like(x, 0.5).tanh())

    translate.save_pretrained(tmp_path / "folder")
    model_file.save(tmp_path / "a2b.safetensors", translate.network, translate.info)
    for name in ("folder", "a2b.safetensors"):
        again = i2i.load_translator(tmp_path / name, generator=Brighter(), device="cpu", precision="fp32")
        assert torch.equal(again(x), translate(x)), "tied weights and buffers of booleans are kept"
        with pytest.raises(ModelError, match="no file brings code"):
            i2i.load_translator(tmp_path / name)
    with pytest.raises(ModelError, match=r"mine\.pth: weight is missing"):
        i2i.load_translator(tmp_path / "mine.pth", generator=nn.Conv2d(3, 3, 1))
