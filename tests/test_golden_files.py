"""Files as the reference and CUT write them: known by their keys alone, they answer as recorded."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rule import assert_recorded, draw, drawn_as_recorded, rule, summary
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import ModelError
from i2i.models import junyanz
from i2i.models.model_file import open_model
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResnetConfig

pytestmark = pytest.mark.arithmetic

Row = dict[str, Any]
ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def written(path: Path, weights: dict[str, Tensor], zipped: bool) -> Path:
    """As the reference saves a network: its state dict with the versions of its modules."""
    state = OrderedDict(weights)
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.promise("R16")
@ZIPPED
def test_files_of_the_reference(network_row: Row, zipped: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "weights", draw(network_row["state_dict"], network_row["seed"]), zipped)
    if network_row["kind"] == "G":
        kind, dropout = network_row["name"].partition("_")[0], network_row["options"]["use_dropout"]
        network, info = open_model(path, dropout=None if kind == "resnet" else dropout)  # a U-Net's keys do not tell
        assert (info.network, info.config["dropout"], info.dropout) == (kind, dropout, dropout)
    else:
        network = junyanz.build(*junyanz.load(path))
        with pytest.raises(ModelError, match="discriminator"):
            open_model(path)
    x = rule(network_row["input"], network_row["seed"] + 999).clamp(-1, 1)
    with torch.no_grad():
        assert_recorded(summary(network(x)), network_row["eval"])


def drawn(row: Row, name: str) -> dict[str, Tensor]:
    seed = row["seed"] + 10000 * (row["networks"].index(name) + 1)
    return draw(row["state_dict"][name], seed, torch.float64)


def batches(row: Row) -> tuple[Tensor, Tensor]:
    options, size = row["options"], row["size"]
    channels = (options["input_nc"], options["output_nc"])
    a, b = (
        rule((options["batch_size"], c, size, size), row["seed"] + i).double().clamp(-1, 1)
        for i, c in enumerate(channels)
    )
    return (a, b) if options["direction"] == "AtoB" else (b, a)


def loaded(path: Path) -> nn.Module:
    config, weights = junyanz.load(path)
    network = config.build().double()
    network.load_state_dict(weights)
    return network


@ZIPPED
@drawn_as_recorded
def test_files_of_cut(cut_row: Row, zipped: bool, tmp_path: Path) -> None:
    options, expected = cut_row["options"], cut_row["generator"]["output"]
    paths = {name: written(tmp_path / name, drawn(cut_row, name), zipped) for name in cut_row["networks"]}
    generator, discriminator = loaded(paths["G"]), loaded(paths["D"])
    assert isinstance(generator.config, ResnetConfig) and isinstance(discriminator.config, PatchGANConfig)
    assert (generator.config.width, generator.config.norm) == (options["ngf"], options["normG"])
    layers = 3 if options["netD"] == "basic" else options["n_layers_D"]
    assert (discriminator.config.width, discriminator.config.layers) == (options["ndf"], layers)
    assert generator.config.downsampling == ("strided" if options["no_antialias"] else "antialiased")
    assert generator.config.upsampling == ("strided" if options["no_antialias_up"] else "antialiased")
    assert discriminator.config.downsampling == generator.config.downsampling
    real_a, real_b = batches(cut_row)
    with torch.no_grad():
        fake = generator(real_a)
        first = cut_row["losses"][0]
        assert float((discriminator(real_b) - 1).square().mean()) == pytest.approx(first["D_real"], rel=1e-12)
        assert float(discriminator(fake).square().mean()) == pytest.approx(first["D_fake"], rel=1e-12)
        single, _ = open_model(paths["G"])
        torch.testing.assert_close(single(real_a.float()), fake.float(), atol=1e-5, rtol=0)
    grid = summary(fake)["grid"]
    torch.testing.assert_close(grid, torch.tensor(expected["grid"], dtype=torch.float64), atol=1e-7, rtol=0)
    assert float(fake.mean()) == pytest.approx(expected["mean"], abs=1e-12)
    assert float(fake.std()) == pytest.approx(expected["std"], abs=1e-12)
    with pytest.raises(ModelError, match="patch embedding"):
        open_model(paths["F"])


@drawn_as_recorded
def test_features_of_cut(cut_row: Row) -> None:
    """After the layers that `nce_layers` numbers, the first of which pads the input."""
    config, weights = junyanz.convert(drawn(cut_row, "G"))
    network: Any = config.build().double()
    network.load_state_dict(weights)
    x = batches(cut_row)[0]
    features = {0: F.pad(x, (3, 3, 3, 3), mode="reflect")}
    numbers = [int(number) for number in cut_row["options"]["nce_layers"].split(",")]
    ours = {theirs: name for name, theirs in junyanz.modules(config).items()}
    for number in numbers[1:]:
        module = network.get_submodule(ours[f"model.{number}"])
        module.register_forward_hook(lambda _, __, y, number=number: features.update({number: y.clone()}))
    with torch.no_grad():
        network(x)
    for number, expected in zip(numbers, cut_row["generator"]["features"], strict=True):
        found = features[number]
        assert list(found.shape) == expected["shape"]
        assert float(found.mean()) == pytest.approx(expected["mean"], abs=1e-12)
        assert float(found.abs().mean()) == pytest.approx(expected["abs"], abs=1e-12)


@pytest.mark.parametrize("name", ["G", "D"])
def test_cut_s_layout_comes_back(cut_row: Row, name: str, tmp_path: Path) -> None:
    theirs = drawn(cut_row, name)
    junyanz.save(tmp_path / "again.pth", loaded(written(tmp_path / "net.pth", theirs, True)))
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert list(again) == list(theirs)
    assert all(torch.equal(again[key], tensor) for key, tensor in theirs.items())
