"""Which pictures of one domain are measured: a split that is asked for, never the training pictures in its place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_tools import folder, model

from i2i import images
from i2i.errors import InputError, UsageError
from i2i.evaluation.data import Item, PictureFiles, open_data
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.options import EvaluationOptions
from i2i.evaluation.result import Evaluation, as_text
from i2i.images import Picture, write
from i2i.models import model_file
from i2i.models.info import Training, describe
from i2i.networks.blocks import init_weights
from i2i.networks.dcgan import DCGANConfig
from i2i.networks.resnet import ResnetConfig


@pytest.fixture
def colouring(tmp_path: Path) -> Path:
    """A model that colours."""
    torch.manual_seed(0)
    network = init_weights(ResnetConfig(in_channels=1, out_channels=2, width=2, blocks=0).build())
    info = describe(network, direction="a2b", encoding="lab", training=Training(algorithm="colorization", steps=1))
    model_file.save(tmp_path / "colours.safetensors", network, info)
    return tmp_path / "colours.safetensors"


@pytest.fixture
def making(tmp_path: Path) -> Path:
    """A model that makes pictures of noise."""
    torch.manual_seed(0)
    network = DCGANConfig(in_channels=2, out_channels=3, width=2, size=16).build()
    info = describe(network, direction="a2b", training=Training(algorithm="gan", steps=1))
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
        assert (
            "these are its training pictures" in as_text(found.to_mapping()) and "training pictures" in found.to_json()
        )
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


def test_a_student_of_one_folder_takes_its_pictures_whole(tmp_path: Path) -> None:
    """Where its run had two domains, side by side, as any other algorithm does."""
    data, options = tmp_path / "data", EvaluationOptions()
    folder(data / "train", 3), folder(data / "test", 2, seed=1)
    for config in (None, {}, {"lambda_gan": 0}, {"lambda_gan": "much"}):
        found = open_data(data, "b2a", "distill", options, config)
        assert (found.where, [item.half for item in found.inputs]) == (str(data / "test"), [None, None])
        assert found.targets is None and found.reference is None
    assert len(open_data(data, "a2b", "distill", EvaluationOptions(split="train")).inputs) == 3
    with pytest.raises(InputError, match="no pictures in val/; --split chooses another part"):
        open_data(data, "a2b", "distill", EvaluationOptions(split="val"))
    for algorithm, config in (("distill", {"lambda_gan": 1.0}), ("cyclegan", {}), ("", {})):
        assert [item.half for item in open_data(data, "a2b", algorithm, options, config).inputs] == ["left", "left"]


def test_a_student_is_evaluated_on_pairs_or_on_sets(tmp_path: Path) -> None:
    pairs, sets = tmp_path / "pairs", tmp_path / "sets"
    for side in "AB":
        folder(pairs / side, 2), folder(sets / f"train{side}", 2), folder(sets / f"test{side}", 1)
    assert open_data(pairs, "a2b", "distill", EvaluationOptions(split="train")).targets is not None
    assert open_data(sets, "b2a", "distill", EvaluationOptions()).where == str(sets / "testB")


def test_the_configuration_beside_a_student_says_how_many_domains_it_had(tmp_path: Path) -> None:
    folder(tmp_path / "data/train", 1, size=(32, 64)), folder(tmp_path / "data/test", 1, size=(32, 64))
    student = model(tmp_path / "run/a2b.safetensors", algorithm="distill")
    for config in ("lambda_gan: 0.0\n", "{", None):
        (tmp_path / "run/config.yaml").unlink() if config is None else (tmp_path / "run/config.yaml").write_text(config)
        with pytest.raises(UsageError, match="needs pairs"):
            measured(student, tmp_path / "data", "l1")
    (tmp_path / "run/config.yaml").write_text("algorithm: distill\nlambda_gan: 1.0\n")
    assert measured(student, tmp_path / "data", "l1").rows[0].measures["l1"].pictures == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_bands_of_data_are_measured_as_they_are_translated(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (6, 8, 5), np.uint8)
    images.write(tmp_path / "a.tif", Picture(values[..., :3].copy(), extra=values[..., 3:].copy()))
    files, picture = PictureFiles([Item(tmp_path / "a.tif")], channels), images.read(tmp_path / "a.tif")
    if channels in (1, 3, 5):
        assert torch.equal(files[0], images.to_tensor(picture.channels(channels)))
    else:
        with pytest.raises(InputError, match="has 5 channels"):
            files[0]


def test_transparency_is_measured_as_it_is_seen_over_white(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[:, :8] = 0
    other = pixels.copy()
    other[:, :8] = 0
    pictures = {"a": Picture(pixels, alpha), "hidden": Picture(other, alpha), "lost": Picture(pixels)}
    for name, picture in pictures.items():
        write(tmp_path / f"{name}.png", picture)
    seen, hidden, lost = (PictureFiles([Item(tmp_path / f"{name}.png")])[0] for name in pictures)
    assert torch.equal(seen, hidden) and not torch.equal(seen, lost)
    assert (seen[:, :, :8] == 1).all() and torch.equal(seen[:, :, 8:], lost[:, :, 8:])
