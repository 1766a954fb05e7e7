"""Training with values in units: the ranges reach the network, the cache, the model file and the state."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import OPTIONS

import i2i
from i2i.algorithms import ALGORITHMS
from i2i.config import from_mapping
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions, ranges
from i2i.errors import ModelError, UsageError
from i2i.models.info import read_info

TINY: dict[str, Any] = {
    "generator": "unet_32", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "crop_size": 32, "load_size": 32,
    "workers": 0, "samples": 1, "validate_every": 0, "device": "cpu", "channels_a": 1, "channels_b": 1,
    "range_a": "0:10000", "range_b": (200, 330),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reflectance in int16 TIFF, and Kelvin in .npy, by 0 to 1 through their ranges the same."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for side in "AB":
            (folder / split / side).mkdir(parents=True)
        for number in range(2):
            values = draw.random((32, 32))
            values[0, 0] = 0
            tifffile.imwrite(folder / split / "A" / f"{number}.tif", np.rint(values * 10_000).astype(np.int16))
            np.save(folder / split / "B" / f"{number}.npy", 200 + values * 130)
    return folder


def options(**given: Any) -> DataOptions:
    known = {name: value for name, value in TINY.items() if hasattr(DataOptions, name)}
    return from_mapping(DataOptions, {**known, "preprocess": "none", "flip": False, **given})


def test_the_model_file_has_the_ranges_and_translates_by_them(data: Path, tmp_path: Path) -> None:
    i2i.train("pix2pix", data, run=tmp_path / "run", steps=2, **TINY)
    info = read_info(tmp_path / "run" / "a2b.safetensors")
    assert (info.input_range, info.output_range) == ((0, 10_000), (200, 330))
    made = i2i.load_translator(tmp_path / "run")(data / "val" / "A" / "0.tif")
    assert made.dtype == np.float32 and made.shape == (32, 32) and 200 <= made.min() < made.max() <= 330


def test_the_ranges_follow_the_direction(data: Path, tmp_path: Path) -> None:
    i2i.train("pix2pix", data, run=tmp_path / "run", steps=1, **TINY, direction="b2a")
    info = read_info(tmp_path / "run" / "b2a.safetensors")
    assert (info.input_range, info.output_range) == ((200, 330), (0, 10_000))


@pytest.mark.parametrize("cached", [False, True])
def test_samples_are_the_values_by_their_range(data: Path, tmp_path: Path, cached: bool) -> None:
    given = options(data=data, cache=tmp_path if cached else None)
    for _ in range(1 + cached):
        pair = open_datasets(given, paired=True).train[0]
        assert pair.a.min() == pair.b.min() == -1
        assert float((pair.a - pair.b).abs().max()) < 2e-4  # of int16, and of 16 bits


def test_another_range_has_other_entries_in_a_cache(data: Path, tmp_path: Path) -> None:
    for limits, highest in (("0:10000", 1.0), ("0:100000", -0.79)):
        sample = open_datasets(options(data=data, cache=tmp_path, range_a=limits), paired=True).train[0]
        assert highest - 0.05 < float(sample.a.max()) <= highest


def test_a_run_goes_on_with_its_own_ranges_alone(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    i2i.train("pix2pix", data, run=run, steps=1, **TINY)
    with pytest.raises(ModelError, match="range_b was 200:330, is now 100:330"):
        i2i.train("pix2pix", data, run=run, steps=2, **{**TINY, "range_b": "100:330"})
    i2i.train("pix2pix", data, run=run, steps=2, **TINY)
    assert read_info(run / "a2b.safetensors").training.steps == 2


def test_values_far_outside_are_told(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_datasets(options(data=data, range_a="0:5000"), paired=True)
    assert "domain A: " in (said := capfd.readouterr().err) and "outside of the given range" in said
    assert "domain B" not in said


def test_wide_side_by_side_pictures_have_a_range_for_each_half(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    both = np.hstack([np.full((32, 32), 2500.0), np.full((32, 32), 265.0)])
    np.save(tmp_path / "train" / "a.npy", both)
    pair = open_datasets(options(data=tmp_path), paired=True).train[0]
    assert np.allclose(pair.a, -0.5, atol=1e-4) and np.allclose(pair.b, 0, atol=1e-4)


@pytest.mark.parametrize("wrong", ["0", "1:0", "0:0", "a:b", "0:inf", "nan:1", "0:1:2", ":", (1, 2, 3), 5])
def test_what_is_no_range(wrong: Any) -> None:
    with pytest.raises(UsageError, match="range_a"):
        from_mapping(DataOptions, {"range_a": wrong})


def test_ranges_that_are_taken() -> None:
    for given, expected in (("-1000:3000", (-1000, 3000)), ((0, 1e4), (0, 10_000)), ("-1e-3:.5", (-0.001, 0.5))):
        assert ranges(from_mapping(DataOptions, {"range_b": given})) == (None, expected)


@pytest.mark.parametrize(
    ("algorithm", "given", "reason"),
    [
        ("pix2pix", {"data": "toy"}, "toy"),
        ("pix2pix", {"classes_a": "facades"}, "holds labels"),
        ("colorization", {}, "without labels or ranges"),
        ("gan", {}, "without labels or ranges"),
    ],
)
def test_where_a_range_means_nothing(data: Path, tmp_path: Path, algorithm: str, given: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        i2i.train(
            algorithm,
            given.get("data", data),
            run=tmp_path / "run",
            steps=1,
            range_a="0:1",
            **{name: value for name, value in given.items() if name != "data"},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "given", "ends"),
    [
        (
            "cyclegan",
            {"range_a": "0:10000", "range_b": "200:330"},
            "values from 0 to 10000 and B values from 200 to 330",
        ),
        ("cyclegan", {"range_a": "0:10000"}, "A holds values from 0 to 10000 and B pictures; use lambda_identity=0"),
        ("cut", {"range_b": "0:80", "lambda_identity": 1.0}, "A holds pictures and B values from 0 to 80"),
        ("cyclegan", {"range_a": "0:10000", "range_b": "200:330", "lambda_identity": 0.0}, ""),
        ("cyclegan", {"range_a": "0:10000", "range_b": "0:1e4"}, ""),
        ("cut", {"range_a": "0:10000", "range_b": "200:330"}, ""),
    ],
)
def test_an_identity_loss_needs_one_unit(name: str, given: dict[str, Any], ends: str) -> None:
    options = from_mapping(OPTIONS[name], {"data": "data", **given})
    if not ends:
        assert ALGORITHMS[name].channels(options) == (3, 3)
    else:
        with pytest.raises(UsageError, match=ends):
            ALGORITHMS[name].channels(options)
