"""Fidelity of the networks: the recorded answers of the reference for drawn weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rule import GOLDEN, assert_recorded, check_rows, draw, rows, rule, summary

from i2i.models import junyanz
from i2i.networks.patchgan import PatchGANConfig, PixelGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

pytestmark = pytest.mark.arithmetic

Row = dict[str, Any]


@pytest.mark.parametrize("name", GOLDEN.values())
def test_there_are_golden_numbers(name: str) -> None:
    assert rows(Path(__file__).parents[1] / "golden", name)


def test_another_folder_without_rows_is_refused(tmp_path: Path) -> None:
    for folder, said in ((tmp_path, "no rows"), (tmp_path / "none", "not a folder")):
        with pytest.raises(pytest.UsageError, match=f"--golden {folder}: {said}"):
            check_rows(folder)


def _converted(row: Row) -> tuple[Any, torch.nn.Module]:
    config, weights = junyanz.convert(draw(row["state_dict"], row["seed"]), dropout=row["options"].get("use_dropout"))
    network = config.build()
    network.load_state_dict(weights)
    return config, network


def _options(row: Row) -> dict[str, Any]:
    """Our options for the reference's, by its names."""
    theirs, name = row["options"], row["name"]
    ours = {"in_channels": theirs["input_nc"], "norm": theirs["norm"]}
    ours["width"] = theirs["ngf" if row["kind"] == "G" else "ndf"]
    if row["kind"] == "G":
        ours |= {"out_channels": theirs["output_nc"], "dropout": theirs["use_dropout"]}
    if name.startswith("resnet"):
        ours["blocks"] = int(name.removeprefix("resnet_").removesuffix("blocks"))
    elif name.startswith("unet"):
        ours["depth"] = int(name.removeprefix("unet_")).bit_length() - 1
    elif name != "pixel":
        ours["layers"] = 3 if name == "basic" else theirs["n_layers_D"]
    return ours


def test_recognised_by_keys_and_shapes(network_row: Row) -> None:
    config, network = _converted(network_row)
    patchgan = dict.fromkeys("bn", PatchGANConfig)
    kinds = {"r": ResnetConfig, "u": UNetConfig, "p": PixelGANConfig, **patchgan}
    assert type(config) is kinds[network_row["name"][0]]
    expected = _options(network_row)
    assert {key: getattr(config, key) for key in expected} == expected
    assert sum(p.numel() for p in network.parameters()) == network_row["parameters"]
    back = junyanz.to_reference(config, network.state_dict())
    assert [[name, list(t.shape)] for name, t in back.items()] == network_row["state_dict"]
    drawn = draw(network_row["state_dict"], network_row["seed"])
    assert all(torch.equal(back[name], drawn[name]) for name in drawn)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_same_output(network_row: Row, mode: str) -> None:
    if mode not in network_row:
        pytest.skip("the reference recorded no train mode where there is dropout")
    _, network = _converted(network_row)
    network.train(mode == "train")
    x = rule(network_row["input"], network_row["seed"] + 999).clamp(-1, 1)
    with torch.no_grad():
        found = summary(network(x))
    assert_recorded(found, network_row[mode])
