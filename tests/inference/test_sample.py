"""scripts/sample.py: pictures made of noise, as files, as a grid, as a walk."""

import math
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import exit_code

from i2i import images
from i2i.errors import ModelError, OutputError, UsageError
from i2i.inference.sample import SampleOptions, Sampler, load_sampler, make_samples
from i2i.models import model_file
from i2i.models.info import DIRECTIONS, describe
from i2i.models.styles import BUNDLED
from i2i.networks.blocks import init_weights
from i2i.networks.dcgan import DCGANConfig, between, noise

SIZE = 16
script = partial(exit_code, "sample")


def write_model(path: Path, channels: int = 3, seed: int = 0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = DCGANConfig(in_channels=8, out_channels=channels, width=2, size=SIZE)
        network = init_weights(config.build(), gain=0.3)
    info = describe(network, direction="a2b", output_domain="Monet", statistics="running")
    model_file.save(path, network, info)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("run") / "a2b.safetensors")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() if path.exists() else b"" for path in folder.iterdir()}


def test_files_are_named_after_the_seed_that_makes_them_again(model: Path, tmp_path: Path) -> None:
    """Whatever else is made with them, from the run folder or the file."""
    assert script("--style", model.parent, "--count", 5, "--seed", 3, "-o", tmp_path / "five", "--device", "cpu") == 0
    five = tree(tmp_path / "five")
    assert sorted(five) == [f"seed-{seed:06}.png" for seed in range(3, 8)]
    assert len(set(five.values())) == 5, "each another picture"
    assert script("--style", model, "--count", 1, "--seed", 6, "-o", tmp_path / "one") == 0
    assert tree(tmp_path / "one") == {"seed-000006.png": five["seed-000006.png"]}


def test_a_picture_is_the_network_s_of_that_noise(model: Path, tmp_path: Path) -> None:
    sampler = load_sampler(model, "cpu")
    make_samples(sampler, SampleOptions(out=tmp_path, count=1, seed=4))
    network = model_file.load(model)[0].eval()
    with torch.no_grad():
        expected = images.to_pixels(network(noise(8, 4)[None])[0])
    assert np.array_equal(images.read(tmp_path / "seed-000004.png").pixels, expected)


def test_a_grid_shows_them_row_by_row(model: Path, tmp_path: Path) -> None:
    made = make_samples(load_sampler(model), SampleOptions(out=tmp_path, grid=tmp_path / "all.png", count=5))
    assert made[-1] == tmp_path / "all.png" and len(made) == 6
    pixels, pitch = images.read(tmp_path / "all.png").pixels, SIZE + 2
    assert pixels.shape == (2 * pitch + 2, 3 * pitch + 2, 3), "two rows of three"
    for place in range(5):
        top, left = (2 + pitch * n for n in divmod(place, 3))
        own = images.read(tmp_path / f"seed-{place:06}.png").pixels
        assert np.array_equal(pixels[top : top + SIZE, left : left + SIZE], own)
    assert (pixels[pitch + 2 :, 2 * pitch + 2 :] == 255).all() and (pixels[:2] == 255).all()


def test_a_walk_passes_its_pictures(model: Path, tmp_path: Path) -> None:
    options = SampleOptions(out=tmp_path, grid=tmp_path / "walk.png", count=3, walk=4, seed=7)
    sampler = load_sampler(model)
    *frames, grid = make_samples(sampler, options)
    assert [path.name for path in frames[:5]] == [
        *(f"walk-{n:06}-seed-7-to-8.png" for n in range(4)),
        "walk-000004-seed-8-to-9.png",
    ]
    assert len(frames) == 9 and frames[-1].name == "walk-000008-seed-8-to-9.png"
    for frame, seed in ((0, 7), (4, 8), (8, 9)):
        assert np.array_equal(images.read(frames[frame]).pixels, images.to_pixels(sampler(sampler.noise(seed))))
    pixels, pitch = images.read(grid).pixels, SIZE + 2
    assert pixels.shape == (2 * pitch + 2, 5 * pitch + 2, 3), "a row for each way, both ends in it"
    end, begin = pixels[2 : 2 + SIZE, 2 + 4 * pitch : 2 + 4 * pitch + SIZE], pixels[2 + pitch :, 2:]
    assert np.array_equal(end, begin[:SIZE, :SIZE])
    steps = [
        float(np.abs(images.read(a).pixels.astype(int) - images.read(b).pixels).mean()) for a, b in pairwise(frames)
    ]
    ends = float(np.abs(images.read(frames[0]).pixels.astype(int) - images.read(frames[4]).pixels).mean())
    assert 0 < max(steps[:4]) < ends, "step by step"


def test_a_walk_stays_on_the_sphere() -> None:
    a, b = noise(100, 0), noise(100, 1)
    b = b * a.norm() / b.norm()
    for share in (0.0, 0.25, 0.5, 1.0):
        assert float(between(a, b, share).norm()) == pytest.approx(float(a.norm()), rel=1e-5)
    quarter, half = between(a, b, 0.25), between(a, b, 0.5)
    torch.testing.assert_close(between(a, half, 0.5), quarter)
    assert torch.equal(between(a, b, 0), a) and torch.equal(between(a, b, 1), b)
    torch.testing.assert_close(between(a, -a, 0.5), torch.zeros_like(a), atol=1e-4, rtol=0)


def test_truncated_noise() -> None:
    plain, cut = noise(1000, 0), noise(1000, 0, 0.5)
    near = plain.abs() <= 0.5
    assert float(cut.abs().max()) <= 0.5 and torch.equal(cut[near], plain[near])
    assert float(cut.std()) == pytest.approx(0.28, abs=0.02)  # of a normal distribution cut at half its deviation
    assert torch.equal(noise(1000, 0, 100.0), plain)


@pytest.mark.parametrize(
    ("channels", "suffix", "read"), [(1, "png", (1, False)), (4, "png", (3, True)), (2, "tif", (1, True))]
)
def test_channels(channels: int, suffix: Any, read: tuple[int, bool], tmp_path: Path) -> None:
    sampler = load_sampler(write_model(tmp_path / "a2b.safetensors", channels))
    make_samples(sampler, SampleOptions(out=tmp_path / "out", count=1, format=suffix, grid=tmp_path / f"all.{suffix}"))
    for path in (tmp_path / "out" / f"seed-000000.{suffix}", tmp_path / f"all.{suffix}"):
        picture = images.read(path)
        assert (picture.pixels.shape[2], picture.alpha is not None) == read


# Errors.


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "expected: i2i sample --style"),
        (["--style", "MODEL"], 2, "expected a folder"),
        (["--style", "MODEL", "-o", "out", "--count", "0"], 2, "count"),
        (["--style", "MODEL", "-o", "out", "--walk", "3", "--count", "1"], 2, "goes from one picture to the next"),
        (["--style", "MODEL", "-o", "out", "--columns", "3"], 2, "columns = 3"),
        (["--style", "MODEL", "-o", "out", "--truncation", "0.01"], 2, "truncation"),
        (["--style", "MODEL", "--grid", "grid.txt"], 2, "grid.txt: expected the name of a picture"),
        (["--style", "MODEL", "--grid", "g.png", "--count", "900000"], 2, "too many for one"),
        (["--style", "MODEL", "-o", "out", "--walk", "9999", "--count", "9999"], 2, "together at most 1,000,000"),
        (["--style", "nothing/here", "-o", "out"], 2, "nothing/here"),
        (["--style", "monet", "-o", "out"], 2, r"network \(resnet\) translates pictures, and is no GAN: use i2i"),
        (["--style", "MODEL", "-o", "file/out"], 6, "file/out: cannot be written: File exists"),
        (["--style", "MODEL", "--grid", "nowhere/g.png"], 6, "nowhere/g.png: cannot be written"),
    ],
)
def test_invalid_sampling_options_are_refused(
    words: list[str], code: int, says: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert script(*(str(model) if word == "MODEL" else word for word in words)) == code
    assert re.search(says, " ".join(capfd.readouterr().err.split()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"], "nothing was made"


def test_a_run_of_two_directions_needs_no_direction_to_be_refused(tmp_path: Path, capfd: Any) -> None:
    for direction in DIRECTIONS:
        shutil.copy(BUNDLED / "monet-lite.safetensors", tmp_path / f"{direction}.safetensors")
    assert script("--style", tmp_path, "-o", tmp_path / "out") == 2
    said = " ".join(capfd.readouterr().err.split())
    assert (
        said.endswith("translates in two directions, and makes no pictures from noise: use i2i translate")
        and "--direction" not in said
    )


def test_nothing_is_overwritten_by_surprise(model: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "seed-000002.png").write_text("mine")
    (tmp_path / "all.png").symlink_to("nowhere")
    given = ("--style", model, "--count", 4, "-o", tmp_path, "--grid", tmp_path / "all.png")
    assert script(*given) == 2
    assert "2 outputs exist already, first" in capfd.readouterr().err
    assert sorted(tree(tmp_path)) == ["all.png", "seed-000002.png"]
    assert script(*given, "--overwrite") == 0
    assert len(tree(tmp_path)) == 5 and images.read(tmp_path / "seed-000002.png")
    assert "5 files, the last" in capfd.readouterr().out


def test_five_channels_are_written_as_tiff_alone(tmp_path: Path) -> None:
    sampler = load_sampler(write_model(tmp_path / "a2b.safetensors", 5))
    with pytest.raises(UsageError, match=r"\.png: holds no picture of 5 channels"):
        make_samples(sampler, SampleOptions(out=tmp_path / "out", count=1))
    assert not (tmp_path / "out").exists()
    make_samples(sampler, SampleOptions(out=tmp_path / "out", count=1, format="tif"))
    assert images.read(tmp_path / "out/seed-000000.tif").pixels.shape == (SIZE, SIZE, 5)


def test_sampler_is_refused_as_translator(model: Path, tmp_path: Path, capfd: Any) -> None:
    images.write(tmp_path / "in.png", images.Picture(np.zeros((16, 16, 3), np.uint8)))
    assert exit_code("translate", "--style", model, tmp_path / "in.png", "-o", tmp_path / "out.png") == 2
    assert "dcgan makes pictures from noise: use i2i sample" in capfd.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.slow
def test_exports(model: Path, tmp_path: Path, capfd: Any) -> None:
    """Other forms make the same pictures; the reference has no such network."""
    pytest.importorskip("onnxruntime")
    from onnxruntime import InferenceSession

    assert exit_code("export", model, "-o", tmp_path / "folder") == 0
    assert exit_code("export", model, "-o", tmp_path / "g.onnx") == 0
    assert "dcgan, noise → Monet" in capfd.readouterr().err
    expected = load_sampler(model, "cpu")(noise(8, 3))
    assert torch.equal(load_sampler(tmp_path / "folder", "cpu")(noise(8, 3)), expected)
    (made,) = InferenceSession(tmp_path / "g.onnx").run(None, {"input": noise(8, 3)[None].numpy()})
    assert np.abs(made[0] - expected.numpy()).max() < 1e-5
    assert exit_code("export", model, "-o", tmp_path / "g.pth") == 5
    assert "g.pth: not written: the reference has no dcgan" in capfd.readouterr().err


def test_nonfinite_samples_are_refused(model: Path, tmp_path: Path) -> None:
    sampler = load_sampler(model, "cpu")
    with torch.no_grad():
        next(sampler.network.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="not finite"):
        make_samples(sampler, SampleOptions(out=tmp_path, count=1))
    assert not list(tmp_path.iterdir())


def test_it_stops_between_two_pictures(model: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    written = make_samples(
        load_sampler(model),
        SampleOptions(out=tmp_path, grid=tmp_path / "all.png", count=9),
        lambda number, total, path: seen.append(number),
        lambda: len(seen) == 3,
    )
    assert len(written) == 3 == len(list(tmp_path.iterdir()))


def test_a_full_disk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        make_samples(load_sampler(model), SampleOptions(out=tmp_path, count=2))
    assert not list(tmp_path.iterdir())


def test_a_sampler_of_a_network_at_hand(model: Path) -> None:
    network, info = model_file.load(model)
    sampler = Sampler(network, info)
    assert (sampler.size, sampler.channels, sampler.numbers) == (SIZE, 3, 8)
    assert torch.equal(sampler(sampler.noise(1)), load_sampler(model, "cpu")(noise(8, 1)))
    with pytest.raises(UsageError, match=r"resnet\) translates"):
        Sampler(network, replace(info, network="resnet"))
