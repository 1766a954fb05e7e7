"""Which pictures of one domain are measured: a split that is asked for, never the training pictures in its place."""

from pathlib import Path

import pytest
import torch
from evaluation_tools import folder

from i2i.errors import InputError
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.options import EvaluationOptions
from i2i.evaluation.record import Evaluation
from i2i.evaluation.table import table
from i2i.networks.dcgan import DCGANConfig
from i2i.networks.init import init_weights
from i2i.networks.resnet import ResnetConfig
from i2i.translation import model_file
from i2i.translation.model_file import Training


@pytest.fixture
def colouring(tmp_path: Path) -> Path:
    """A model that colours."""
    torch.manual_seed(0)
    network = init_weights(ResnetConfig(in_channels=1, out_channels=2, width=2, blocks=0).build())
    info = model_file.describe(
        network, direction="a2b", encoding="lab", training=Training(algorithm="colorization", steps=1)
    )
    model_file.save(tmp_path / "colours.safetensors", network, info)
    return tmp_path / "colours.safetensors"


@pytest.fixture
def making(tmp_path: Path) -> Path:
    """A model that makes pictures of noise."""
    torch.manual_seed(0)
    network = DCGANConfig(in_channels=2, out_channels=3, width=2, size=16).build()
    info = model_file.describe(network, direction="a2b", training=Training(algorithm="gan", steps=1))
    model_file.save(tmp_path / "gan.safetensors", network, info)
    return tmp_path / "gan.safetensors"


def measured(model: Path, data: Path, metric: str, split: str | None = None) -> Evaluation:
    options = EvaluationOptions(metrics=(metric,), split=split, seeds=(0,), device="cpu")  # type: ignore[arg-type]
    return evaluate([str(model), str(data)], options)


def test_colouring_is_measured_on_the_split_asked_for(colouring: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder(data / "train", 3), folder(data / "test", 2, seed=1)
    for split, where, count in ((None, "test", 2), ("test", "test", 2), ("train", "train", 3)):
        (row,) = measured(colouring, data, "l1", split).rows
        assert (row.facts["data"], row.measures["l1"].pictures) == (str(data / where), count)
        assert "note" not in row.facts
    with pytest.raises(InputError, match="no pictures in val/; --split chooses another part"):
        measured(colouring, data, "l1", "val")


def test_training_pictures_are_coloured_only_where_it_is_said(colouring: Path, tmp_path: Path) -> None:
    folder(tmp_path / "data/train", 2)
    with pytest.raises(InputError, match="no pictures in val/ or test/; --split chooses another part"):
        measured(colouring, tmp_path / "data", "l1")
    flat = folder(tmp_path / "flat", 2)
    with pytest.raises(InputError, match="no pictures in test/"):
        measured(colouring, flat, "l1", "test")
    for split in (None, "train"):  # it is the training split, as for the training
        found = measured(colouring, flat, "l1", split)
        assert found.rows[0].measures["l1"].pictures == 2
        assert "these are its training pictures" in found.rows[0].facts["note"]
        assert "these are its training pictures" in table(found) and "training pictures" in found.to_json()
    (tmp_path / "two/trainA").mkdir(parents=True)
    with pytest.raises(InputError, match="two domains; give one of them"):
        measured(colouring, tmp_path / "two", "l1")


def test_what_is_made_of_noise_is_compared_with_the_split_asked_for(making: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder(data / "train", 3, size=(16, 16)), folder(data / "test", 2, seed=1, size=(16, 16))
    for split in (None, "test"):
        assert [row.name for row in measured(making, data, "swd", split).rows][1:] == ["held-out test"]
    with pytest.raises(InputError, match="no pictures in val/; --split chooses another part"):
        measured(making, data, "swd", "val")
