"""Any file of weights opens by its content; a folder holds what a model file holds."""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import i2i
from i2i.errors import ModelError, OutputError, UsageError
from i2i.models import junyanz, model_file
from i2i.models.info import ModelInfo, Training, describe, read_info
from i2i.models.model_file import load, save_pretrained
from i2i.models.pretrained import open_model
from i2i.networks import GENERATORS, generator_config
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig
from i2i.networks.unet import UNetConfig

RESNET = ResnetConfig(width=2, blocks=1)
UNET = UNetConfig(width=1, depth=5)


def network(config: Any = RESNET) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config.build()


def info(config: Any = RESNET) -> ModelInfo:
    training = Training(algorithm="cyclegan", dataset="monet2photo", steps=7, images_seen=9, metrics={"l1": 0.5})
    return describe(
        config, direction="b2a", input_domain="photo", output_domain="monet", training=training, licence="MIT"
    )


def checkpoint(path: Path, config: Any) -> Path:
    junyanz.save(path, network(config))
    return path


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save_pretrained(tmp_path / "new" / "folder", network(), info())
    for read in (load, open_model):
        again, found = read(tmp_path / "new" / "folder")
        assert found == info() and not again.training
        assert_equal(again, network())
    assert read_info(tmp_path / "new" / "folder") == info()
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["config.json", "model.safetensors"]


def test_a_folder_says_what_a_model_file_says(tmp_path: Path) -> None:
    save_pretrained(tmp_path, network(), info())
    model_file.save(tmp_path / "b2a.safetensors", network(), info())
    with safe_open(tmp_path / "b2a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["i2i"]) == json.loads((tmp_path / "config.json").read_text())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.promise("H7")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_the_modes_of_its_files_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    old = os.umask(mask)
    try:
        save_pretrained(tmp_path / "folder", network(), info())
        model_file.save(tmp_path / "m.safetensors", network(), info())
    finally:
        os.umask(old)
    for name in ("folder/config.json", "folder/model.safetensors", "m.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        save_pretrained(tmp_path / "file", network(), info())
    with pytest.raises(ModelError, match="not written"):
        save_pretrained(tmp_path / "new", network(), replace(info(), network="unet"))
    assert not (tmp_path / "new").exists()


def _changed(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
    "too long": (lambda f: (f / "config.json").write_bytes(b" " * (1 << 20) + b"{}"), "config.json: .* at most"),
    "endless": (lambda f: _pipe(f / "config.json"), "config.json: not a regular file"),
    "much too deep": (lambda f: (f / "config.json").write_text("[" * (1 << 20)), "not valid JSON"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), "not valid JSON"),
    "unbounded": (lambda f: _changed(f, config={"width": 10**9}), "config.json: .*width = 1000000000"),
    "of another size": (lambda f: _changed(f, config={"width": 512, "blocks": 64}), "model.safetensors: stem"),
    "another's weights": (lambda f: _changed(f, sha256="0" * 64), "do not match their SHA-256"),
    "code": (lambda f: _changed(f, auto_map={"AutoModel": "evil.Model"}), "unknown option 'auto_map'"),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.promise("R47")
@pytest.mark.parametrize("kind", list(HOSTILE))
def test_damaged_or_hostile_pretrained_folders_are_refused(tmp_path: Path, kind: str) -> None:
    change, message = HOSTILE[kind]
    save_pretrained(tmp_path, network(), info())
    change(tmp_path)
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path)


def test_file_content_decides_the_format(tmp_path: Path) -> None:
    model_file.save(tmp_path / "model.pth", network(), info())
    assert open_model(tmp_path / "model.pth")[1] == info()
    again, found = open_model(checkpoint(tmp_path / "latest_net_G_B", RESNET))
    assert_equal(again, network())
    assert (found.direction, found.input_domain, found.output_domain) == ("a2b", "A", "B")
    assert found.training == Training() and found.licence == ""
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    for name, message in (("text.safetensors", "not a model file"), ("text.pth", "not written by torch.save")):
        with pytest.raises(ModelError, match=f"{name}: .*{message}"):
            open_model(tmp_path / name)
    save_pretrained(tmp_path / "folder", network(), info())
    with pytest.raises(ModelError, match=r"if it belongs to a config\.json, give their folder"):
        open_model(tmp_path / "folder" / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "dropout"),
    [
        (UNET, True),
        (UNetConfig(width=1, depth=5, norm="instance", dropout=False), False),
        (ResnetConfig(width=2, blocks=1, norm="batch"), False),
        (ResnetConfig(width=2, blocks=1, norm="batch", dropout=True), True),
        (RESNET, False),
    ],
)
def test_a_checkpoint_translates_as_published_by_default(tmp_path: Path, config: Any, dropout: bool) -> None:
    path = checkpoint(tmp_path / "net.pth", config)
    _, found = open_model(path)
    assert (found.dropout, found.statistics) == (dropout, "batch")
    assert found.network_config() == config
    _, found = open_model(path, dropout=False, statistics="running", direction="b2a")
    assert (found.dropout, found.statistics, found.direction) == (False, "running", "b2a")
    assert (found.input_domain, found.output_domain) == ("B", "A")


def test_options_replace_what_a_model_file_says(tmp_path: Path) -> None:
    said = replace(info(UNET), dropout=True)
    model_file.save(tmp_path / "m.safetensors", network(UNET), said)
    assert open_model(tmp_path / "m.safetensors")[1] == said
    _, found = open_model(tmp_path / "m.safetensors", dropout=False, statistics="running", direction="b2a")
    assert found == replace(said, dropout=False, statistics="running")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    model_file.save(tmp_path / "m.safetensors", network(), info())
    with pytest.raises(UsageError, match=r"translates b2a \(photo → monet\), not a2b"):
        open_model(tmp_path / "m.safetensors", direction="a2b")
    with pytest.raises(UsageError, match="direction 'ab': expected a2b or b2a"):
        open_model(tmp_path / "m.safetensors", direction="ab")
    for path in (tmp_path / "m.safetensors", checkpoint(tmp_path / "net.pth", RESNET)):
        with pytest.raises(UsageError, match="has no dropout"):
            open_model(path, dropout=True)


def test_opening_leaves_the_random_state_alone(tmp_path: Path) -> None:
    model_file.save(tmp_path / "m.safetensors", network(), info())
    before = torch.get_rng_state()
    for path in (checkpoint(tmp_path / "net.pth", UNET), tmp_path / "m.safetensors"):
        open_model(path)
        assert torch.equal(torch.get_rng_state(), before)


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
def test_generator_module_supplies_what_keys_do_not_tell(tmp_path: Path, config: Any, hint: str) -> None:
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
