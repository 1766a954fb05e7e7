"""Runs with two directions: what each model's outputs are compared with, and whose labels are scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import FAST, evaluated, flat, folder, model, picture, script
from run_options import Pix2PixRun

from i2i import images
from i2i.config import run_yaml
from i2i.evaluation.data import PictureFiles
from i2i.evaluation.data import pictures_in as items
from i2i.evaluation.options import data_of_run, is_toy
from i2i.evaluation.sliced_wasserstein import swd
from i2i.images import palettes
from i2i.inference.translator import load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

COLOURS = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of CycleGAN on pictures with A and B side by side."""
    for split in ("train", "val"):
        for i in range(3):
            a, b = (images.read(picture(tmp_path / f"{i}{j}.png", seed=50 * j + i)).pixels for j in range(2))
            flat(tmp_path / "data" / split / f"{i}.png", np.hstack([a, 255 - b // 4]))
    for direction in ("a2b", "b2a"):
        model(tmp_path / "run" / f"{direction}.safetensors", direction)
    (tmp_path / "run/config.yaml").write_text(f"data: {tmp_path / 'data'}\n")
    return tmp_path / "run"


def test_each_direction_is_compared_with_its_own_side(run: Path) -> None:
    options = ("--metrics", "swd", "--size", 32, *FAST)
    both = evaluated(run, *options)
    for direction, side in (("a2b", "B"), ("b2a", "A")):
        alone = evaluated(run, *options, "--direction", direction)
        name = f"{direction} (last)"
        assert both["table"][name] == alone["table"][name]
        row = next(row for row in both["results"] if row["name"] == name)
        assert row["reference"].startswith(f"side {side} of ")


def test_one_patch_count_for_outputs_inputs_and_floor(tmp_path: Path) -> None:
    """The fewest pictures are held out: with more patches the distance of the outputs would be smaller."""
    data, size = tmp_path / "data", 32
    folder(data / "trainA", 9, seed=1)
    folder(data / "trainB", 2, seed=2)
    folder(data / "testA", 3, seed=3)
    for i in range(5):
        flat(data / "testB" / f"{i}.png", images.read(picture(tmp_path / "x.png", seed=i)).pixels // 8 + i)
    path = model(tmp_path / "m.safetensors", "b2a")
    found = evaluated(path, data, "--metrics", "swd", "--size", size, *FAST)
    inputs, held_out, reference = (
        list(PictureFiles(items(data / name), size=size)) for name in ("testB", "testA", "trainA")
    )
    translator = load_translator(path, precision="fp32", runtime="torch")
    outputs = [images.to_tensor(images.to_pixels(translator(x))) for x in inputs]
    made, begin, floor = (swd(x, reference, (0,), 3 * 128).mean for x in (outputs, inputs, held_out))
    names = (str(path), "untranslated testB", "held-out testA")
    assert tuple(found["table"][name]["swd"] for name in names) == (made, begin, floor)
    assert {row["measures"]["swd"]["patches"] for row in found["results"]} == {384}
    assert begin > floor, "else there is no way"
    detail = found["results"][0]["measures"]["swd"]
    assert detail["gap_closed"] == pytest.approx((begin - made) / (begin - floor))


def test_pictures_that_were_trained_on_are_not_held_out(tmp_path: Path) -> None:
    for i, name in enumerate(("trainA", "trainB")):
        folder(tmp_path / "data" / name, 2, seed=i)
    path = model(tmp_path / "m.safetensors", "b2a")
    options = ("--metrics", "swd", "--size", 32, "--split", "train", *FAST)
    assert set(evaluated(path, tmp_path / "data", *options)["table"]) == {str(path), "untranslated trainB"}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A: photos; B: labels in two colours."""
    (tmp_path / "palette.txt").write_text("0 0 0\n255 255 255\n")
    draw = np.random.default_rng(0)
    for i in range(2):
        picture(tmp_path / "labelled/A" / f"{i}.png", seed=i)
        flat(tmp_path / "labelled/B" / f"{i}.png", COLOURS[draw.integers(0, 2, (32, 32))])
    return tmp_path / "labelled"


def accuracy(made: list[np.ndarray[Any, Any]], right: list[Path]) -> float:
    """The share of right pixels in outputs (H, W, 3), each pixel taken for the nearer of black and white."""
    expected = [images.read(path).pixels[..., 0] > 127 for path in right]
    classes = [x.astype(int).sum(axis=2) * 2 > 3 * 255 for x in made]
    return float(np.mean([a == b for a, b in zip(classes, expected, strict=True)]))


def test_labels_are_read_back_only_from_pictures_made_of_labels(run: Path, labelled: Path, tmp_path: Path) -> None:
    translate = load_translator(run / "a2b.safetensors", precision="fp32", runtime="torch")
    back = load_translator(run / "b2a.safetensors", precision="fp32", runtime="torch")
    photos, labels = (sorted((labelled / side).iterdir()) for side in "AB")

    def through(translator: Any, pixels: Any) -> Any:
        return images.to_pixels(translator(images.to_tensor(pixels)))

    of_labels = [through(back, images.read(path).pixels) for path in labels]
    expected = {
        "a2b (last)": accuracy([through(translate, images.read(path).pixels) for path in photos], labels),
        "b2a (last)": accuracy([through(translate, pixels) for pixels in of_labels], labels),
    }
    arguments = (run, labelled, "--split", "train", "--palette", tmp_path / "palette.txt")
    options = ("--metrics", "pixel_accuracy")
    found = evaluated(*arguments, *options, "--label-model", run / "a2b.safetensors")
    beside = {row["name"]: row["measures"]["pixel_accuracy"] for row in found["results"]}
    for name, value in expected.items():
        assert beside[name]["value"] == pytest.approx(value), name
    real = "real pictures, labels read back (a2b)"
    assert beside[real]["value"] == pytest.approx(expected["a2b (last)"]), "those are the same pictures"
    assert {name for name, row in beside.items() if "read_back_by" in row} == {"b2a (last)", real}

    found = evaluated(*arguments, *options)  # nothing reads what b2a makes, which is no labels
    assert [row["name"] for row in found["results"] if row["measures"]] == ["a2b (last)"]
    assert "b2a (last): pixel_accuracy: compares labels" in found["protocol"]["left out"][0]

    for alone, reader, reason in (
        ("b2a", None, "given looks more like those of the palette"),
        ("a2b", "a2b", "label_model: it translates a2b"),
    ):
        label_model = () if reader is None else ("--label-model", run / f"{reader}.safetensors")
        result = script(*arguments, "--direction", alone, *label_model)
        assert result.code == 2 and reason in result.err


def test_class_indices_are_no_intensities(labelled: Path, tmp_path: Path) -> None:
    for path in sorted((labelled / "B").iterdir()):
        flat(tmp_path / "indices" / path.name, images.read(path).pixels[..., :1] // 255)
    palette = ("--palette", tmp_path / "palette.txt")
    found = evaluated(tmp_path / "indices", labelled / "B", *palette)
    assert found["table"]["indices"] == {"pixel_accuracy": 1, "class_accuracy": 1, "mean_iou": 1}
    assert "class indices" in found["protocol"]["left out"][0] and "l1, psnr" in found["protocol"]["left out"][0]
    result = script(tmp_path / "indices", labelled / "B", *palette, "--metrics", "l1", "mean_iou")
    assert result.code == 2 and "l1 class indices" in result.err


def classifying(path: Path, palette: palettes.Palette) -> Any:
    """A network that makes two classes, also in a file."""
    torch.manual_seed(0)
    network = init_weights(ResnetConfig(in_channels=3, out_channels=2, width=4, blocks=1).build(), "normal", 0.2)
    model_file.save(path, network, describe(network, direction="a2b", output_palette=palette))
    return network


@pytest.mark.parametrize("indexed", [False, True])
def test_labels_are_not_scored_at_another_size_and_that_is_said(labelled: Path, tmp_path: Path, indexed: bool) -> None:
    path = tmp_path / "m.safetensors"
    classifying(path, palettes.find("2" if indexed else str(tmp_path / "palette.txt")))
    for file in (labelled / "B").iterdir() if indexed else ():
        flat(file, images.read(file).pixels[..., :1] // 255)
    arguments = (path, labelled, "--split", "train", "--size", 16, *FAST)
    found = evaluated(*arguments)
    reason = "pixel_accuracy, class_accuracy, mean_iou: is for labels at their own size: leave out --size"
    assert found["protocol"]["left out"][0] == f"{path}: {reason}"
    assert ("l1" in found["table"][str(path)]) == (not indexed), "indices are no intensities, at any size"
    assert not any(name in row for row in found["table"].values() for name in ("pixel_accuracy", "mean_iou"))
    given = ("--palette", tmp_path / "palette.txt")
    for more, said in (
        (("--metrics", "mean_iou"), "metrics: mean_iou is for labels at their own size: leave out --size"),
        (("--labels-out", tmp_path), "labels_out: is for labels at their own size: leave out --size"),
        (("--metrics", "mean_iou", *given), "leave out --size or --palette"),
    ):
        result = script(*arguments, *more)
        assert result.code == 2 and said in result.err and "needs --palette" not in result.err

    unknown = (model(tmp_path / "unknown.safetensors"), *arguments[1:], "--metrics", "mean_iou")
    for two in (unknown, (labelled / "A", labelled / "B", "--size", 16, "--metrics", "mean_iou")):
        err = " ".join(script(*two).err.split())
        assert "needs --palette, the colours of the classes, and is for labels at their own size" in err


@pytest.mark.parametrize("classes", ["palette.txt", "2"])
def test_a_model_whose_outputs_are_classes(labelled: Path, tmp_path: Path, classes: str) -> None:
    palette = palettes.find(str(tmp_path / classes) if classes.endswith("txt") else classes)
    network = classifying(tmp_path / "m.safetensors", palette)
    photos, labels = (sorted((labelled / side).iterdir()) for side in "AB")
    network.eval()
    with torch.no_grad():
        made = [network(images.to_tensor(images.read(path).pixels)[None])[0].argmax(dim=0).numpy() for path in photos]
    right = [(images.read(path).pixels[..., 0] > 127).astype(int) for path in labels]
    if classes == "2":  # then the labels hold indices too
        for path, pixels in zip(labels, right, strict=True):
            flat(path, pixels.astype(np.uint8)[..., None])
    option = tmp_path / classes if classes.endswith("txt") else classes
    arguments = (tmp_path / "m.safetensors", labelled, "--split", "train", "--precision", "fp32")
    scores = []
    for asked in (("--palette", option, "--metrics", "pixel_accuracy"), ("--metrics", "pixel_accuracy"), ()):
        found = evaluated(*arguments, *asked)  # the model knows its classes
        (row,) = (row for row in found["results"] if "pixel_accuracy" in row["measures"])
        assert ("mean_iou" in row["measures"], "l1" in row["measures"]) == (not asked, not asked and classes != "2")
        scores.append(row["measures"]["pixel_accuracy"]["value"])
    assert 0.2 < scores[0] < 0.8 and len(set(scores)) == 1
    assert scores[0] == pytest.approx(np.mean(np.stack(made) == np.stack(right)))


def test_the_data_of_a_run_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are seen from the folder in which the run was started; `toy` is no folder there either."""
    for path in ("start/data", "start/runs/one", "start/runs/toys", "elsewhere/data"):
        (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "start")
    for name, data in (("one", "data"), ("toys", "toy")):
        text = run_yaml(Pix2PixRun(run=Path("runs", name), data=Path(data)))
        Path("runs", name, "config.yaml").write_text(text)
    assert data_of_run(Path("runs/one")) == Path("data")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert data_of_run(Path("../start/runs/one")).resolve() == tmp_path / "start" / "data"
    assert is_toy(Path("../start/runs/toys"))
