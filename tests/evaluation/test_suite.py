"""Options that contradict each other or what is evaluated, metrics that do not apply, files that are not replaced."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import FAST, flat, folder, model, picture, script
from PIL import Image

from i2i import images
from i2i.errors import InputError, ModelError, UsageError
from i2i.evaluation.data import GeneratedImages, Item, PictureFiles
from i2i.evaluation.data import pictures_in as items
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.options import LABELS, EvaluationOptions
from i2i.evaluation.suite import MetricSuite
from i2i.evaluation.translators import translate
from i2i.images import Picture
from i2i.images.palettes import Palette, indexed


@pytest.fixture
def there(tmp_path: Path) -> dict[str, Path]:
    """Folders of pictures, a data set in pairs, a run with two directions, and models."""
    (tmp_path / "palette.txt").write_text("0 0 0\n255 255 255\n")
    (tmp_path / "empty").mkdir()
    for side, seed in (("A", 1), ("B", 2)):
        folder(tmp_path / "pairs" / side, 2, seed=seed)
    for direction in ("a2b", "b2a"):
        model(tmp_path / "run" / f"{direction}.safetensors", direction)
    (tmp_path / "run/config.yaml").write_text(f"data: {tmp_path / 'pairs'}\n")
    folder(tmp_path / "made", 2), folder(tmp_path / "other", 2, seed=3), folder(tmp_path / "one", 1)
    return {path.name: path for path in [*tmp_path.iterdir(), *(tmp_path / "run").iterdir()]}


def refused(code: int, reason: str, *arguments: object) -> None:
    result = script(*arguments)
    assert (result.code, reason in result.err, result.out) == (code, True, ""), (arguments, result)
    assert "translating" not in result.err, "said before the work"


def test_options_that_say_nothing_of_two_folders(there: dict[str, Path]) -> None:
    two, style = (there["made"], there["other"]), there["a2b.safetensors"]
    palette = ("--palette", there["palette.txt"])
    for option, value in (
        ("data", there["other"]), ("reference", there["other"]), ("back", style), ("split", "val"),
        ("direction", "a2b"),
    ):  # fmt: skip
        refused(2, f"{option} = ", *two, f"--{option}", value)
    refused(2, "label_model = ", *two, "--label-model", style, *palette)
    refused(2, "labels_out = ", *two, "--labels-out", there["empty"], *palette)
    refused(2, "nothing is translated", *two, "--precision", "bf16")
    refused(2, "leave out --unpaired or --palette", *two, "--unpaired", *palette)


def test_options_that_contradict_models(there: dict[str, Path]) -> None:
    a2b, b2a, pairs, made = (there[name] for name in ("a2b.safetensors", "b2a.safetensors", "pairs", "made"))
    train = ("--split", "train")
    refused(2, "translates a2b", a2b, made, "--direction", "b2a")
    refused(2, "which has no splits", a2b, made, *train)
    refused(2, "choose one with --direction", there["run"], *train, "--back", b2a)
    refused(2, "choose one with --direction", there["run"], *train, "--reference", made)
    refused(2, "it cannot go back", a2b, pairs, *train, "--back", a2b)
    refused(2, "no such", a2b, pairs, *train, "--back", "nosuch")
    labels = (*train, "--palette", there["palette.txt"], "--direction", "a2b")
    flat(there["pairs"] / "B/0.png", np.zeros((32, 32, 3), np.uint8))
    flat(there["pairs"] / "B/1.png", np.zeros((32, 32, 3), np.uint8))
    refused(6, "no such folder", a2b, pairs, *labels, "--labels-out", there["made"] / "none")
    refused(2, "0.png exists", a2b, pairs, *labels, "--labels-out", there["made"])


def test_metrics_asked_for_by_name_are_measured_or_refused(there: dict[str, Path]) -> None:
    two, alone = (there["made"], there["other"]), (there["a2b.safetensors"], there["other"])
    refused(2, "cycle_error compares outputs with what a model", *two, "--metrics", "l1", "cycle_error")
    refused(2, "l1 compares pairs", *two, "--unpaired", "--metrics", "swd", "l1", *FAST)
    refused(2, "l1 needs pairs", *alone, "--metrics", "luminance_ssim", "l1")
    refused(2, "swd needs the set", *alone, "--metrics", "luminance_ssim", "swd")
    refused(2, "cycle_error needs the model that goes back", *alone, "--metrics", "luminance_ssim", "cycle_error")
    refused(2, "has no pairs", *alone, "--palette", there["palette.txt"])


def test_diversity_needs_no_reference(there: dict[str, Path]) -> None:
    arguments = (there["a2b.safetensors"], there["other"], "--metrics", "diversity", "--json")
    found = json.loads(script(*arguments).out)["table"]
    assert set(found) == {str(there["a2b.safetensors"]), "untranslated other"}
    assert all(0 < row["diversity"] < 1 for row in found.values())
    result = script(there["a2b.safetensors"], there["one"], "--metrics", "diversity")
    assert result.code == 4 and "diversity is undefined for a set of 1" in result.err
    result = script(there["one"], there["other"], "--unpaired", "--metrics", "diversity")
    assert result.code == 4 and "diversity is undefined for a set of 1" in result.err


def test_inputs_that_are_none(there: dict[str, Path]) -> None:
    made, missing = there["made"], there["made"].parent / "missing"
    refused(4, f"{missing}: no such", missing, made)
    refused(4, f"{missing}: no such", made, missing)
    refused(4, f"{missing}: no such", there["a2b.safetensors"], missing)
    refused(4, f"{missing}: no such", there["run"], missing)
    refused(2, "give a second folder to compare it with", made)
    refused(4, "no pictures in this folder", there["empty"])
    refused(2, "0.png: a picture; expected a folder", made / "0.png", made / "1.png")
    refused(2, "0.png: a file; expected two folders", made, made / "0.png")
    refused(2, "0.png: a picture; expected a folder", there["a2b.safetensors"], made / "0.png")


def test_the_folder_where_one_is_has_a_name(there: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there["made"])
    assert set(json.loads(script(".", ".", "--json").out)["table"]) == {"made"}


def test_the_protocol_of_files_says_nothing_of_translations(there: dict[str, Path]) -> None:
    found = json.loads(script(there["made"], there["other"], "--unpaired", *FAST, "--size", 32, "--json").out)
    assert "outputs" not in found["protocol"] and "translation" not in found["protocol"]["precision"]
    assert "at most 65,536" in found["protocol"]["sliced Wasserstein"]
    found = json.loads(script(there["a2b.safetensors"], there["other"], "--json").out)
    assert "8 bits" in found["protocol"]["outputs"] and "translation fp32" in found["protocol"]["precision"]


def test_only_an_evaluation_is_replaced(there: dict[str, Path]) -> None:
    report, mine = there["made"].parent / "evaluation", there["made"].parent / "mine"
    arguments = (there["made"], there["other"], "--metrics", "l1", "--report")
    for _ in range(2):
        assert script(*arguments, report).code == 0
    assert json.loads(report.read_text())["table"]["made"]["l1"] > 0
    mine.write_text('{"i2i": "mine"}')
    refused(2, "is no evaluation of i2i", *arguments, mine)
    assert mine.read_text() == '{"i2i": "mine"}'
    os.mkfifo(there["made"].parent / "pipe")
    refused(2, "is no evaluation of i2i", *arguments, there["made"].parent / "pipe")


class Broken:
    """A translator whose outputs overflow."""

    picture_channels = 3
    coding = SimpleNamespace(inputs=None)

    class info:
        network = "resnet"

    precision = "fp16"

    def translate_tensor(self, x: torch.Tensor) -> torch.Tensor:
        return x / 0


def test_outputs_that_are_not_finite_are_not_measured_as_black(there: dict[str, Path]) -> None:
    broken: Any = Broken()
    with pytest.raises(ModelError, match=r"0\.png: resnet makes values that are not finite of it in fp16; prec"):
        translate(broken, PictureFiles(items(there["made"])))

    class Nan(GeneratedImages):
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.full((3, 4, 4), torch.nan)

    with pytest.raises(InputError, match="picture 1: holds values that are not finite"):
        translate(broken, Nan([np.zeros((4, 4, 3), np.uint8)]))


def test_how_sets_were_drawn_is_said(there: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from i2i.evaluation import features

    class Tiny(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.mean(dim=(2, 3)), x.mean(dim=(2, 3))

    monkeypatch.setattr(features, "load_inception", lambda path: (Tiny(), "f" * 64))
    picture(tmp_path / "x.png")
    weights = ("--inception", tmp_path / "x.png", "--is-splits", 2)
    a, b = folder(tmp_path / "a", 4), folder(tmp_path / "b", 5, seed=2)
    found = json.loads(script(a, b, "--unpaired", "--size", 32, *FAST, *weights, "--json").out)["protocol"]
    assert found["KID"].startswith("of all pictures") and found["Inception Score"].startswith("2 parts")
    assert found["precision and recall"] == "k = 3 neighbours"


def _numbered(path: Path) -> Path:
    """A PNG with a palette, whose numbers are two classes."""
    image = Image.new("P", (8, 6))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 4, 6))
    image.save(path)
    return path


def test_numbers_of_a_palette_are_class_indices(tmp_path: Path) -> None:
    files, greys = PictureFiles([Item(_numbered(tmp_path / "a.png"))]), tmp_path / "mask.png"
    images.write(greys, Picture(np.array([[[0], [255]]], np.uint8)))
    masks = PictureFiles([Item(greys)])
    for palette, pictures, hold in (
        (indexed(2), files, True),
        (Palette("two", ((255, 0, 0), (0, 255, 0))), files, False),  # colours of classes
        (indexed(255), masks, True),
        (Palette("mask", ((0,) * 3, (255,) * 3)), masks, False),
    ):
        suite = MetricSuite(EvaluationOptions(metrics=("l1",)))
        suite.add_palette(palette)
        assert suite.hold_indices(pictures) == hold


def test_folders_of_such_files_are_scored_as_labels(tmp_path: Path) -> None:
    for side in "ab":
        (tmp_path / side).mkdir()
        _numbered(tmp_path / side / "0.png")
    found = evaluate([str(tmp_path / "a"), str(tmp_path / "b")], EvaluationOptions(palette="2"))
    (row,) = found.rows
    assert set(row.measures) == set(LABELS) and row.measures["mean_iou"].value == 1


def test_metrics_that_do_not_apply_are_refused_before_weights_are_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _numbered(tmp_path / name / "1.png")
    with pytest.raises(UsageError, match="cycle_error compares outputs with what a model was given"):
        evaluate([str(tmp_path / "a"), str(tmp_path / "b")], EvaluationOptions(metrics=("fid", "cycle_error")))
