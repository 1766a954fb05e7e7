"""A picture by bands of rows is the picture as a whole."""

import itertools
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i import images
from i2i.acceleration import winograd
from i2i.acceleration.inference import Moments
from i2i.errors import ImageError
from i2i.folders.alone import translate_large
from i2i.folders.batch import translate_folder
from i2i.folders.jobs import Job
from i2i.images import Picture, Pixels, png
from i2i.images import large as spools
from i2i.images.large import SpoolError
from i2i.inference.loaded_model import LoadedModel
from i2i.inference.options import FolderOptions
from i2i.inference.runtimes import InputSpec
from i2i.inference.schedule import layers_of, schedule
from i2i.inference.streaming import stream, stream_bands, stream_tensor, streamable
from i2i.inference.translator import Translator
from i2i.models.info import describe
from i2i.networks import GeneratorConfig, create_generator, generator_config
from i2i.networks.blocks import for_translation
from i2i.networks.resnet import ResnetGenerator

pytestmark = pytest.mark.arithmetic

KINDS = (
    "resnet_2blocks",
    "resnet_2blocks_antialiased",
    "resnet_2blocks_resize",
    "resnet_2blocks_smooth",
    "resnet_0blocks",
    "mobile_resnet_2blocks",
    "mobile_resnet_2blocks_subpixel",
)
SIZES = ((8, 8), (8, 64), (52, 36))
CHILD = Path(__file__).parents[1] / "support" / "streaming_child.py"


def made(name: str = "resnet_2blocks", statistics: Any = "batch", **options: Any) -> ResnetGenerator:
    """A network whose batch norm has seen something."""
    torch.manual_seed(0)
    network = create_generator(name, **{"width": 4, **options})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    ready = for_translation(network, statistics)
    assert isinstance(ready, ResnetGenerator)
    return ready


def streamed(network: ResnetGenerator, x: Tensor, **options: Any) -> Tensor:
    return stream_tensor(network, x[0], **options)[None]


def error(network: ResnetGenerator, x: Tensor, **options: Any) -> float:
    with torch.inference_mode():
        whole = network(x)
    result = streamed(network, x, **options)
    assert result.shape == whole.shape
    return float((result - whole).abs().max())


PADDINGS = ("reflect", "replicate", "zero")
NORMS = (("instance", "batch"), ("batch", "batch"), ("batch", "running"), ("none", "batch"))


def all_marked() -> Iterator[Any]:
    """Each kind with the default padding and norm, two kinds with each other padding or norm; the rest is slow."""
    for name, norm, padding in itertools.product(KINDS, NORMS, PADDINGS):
        other = (norm != NORMS[0]) + (padding != PADDINGS[0])
        first = other == 0 or (other == 1 and name in ("resnet_2blocks_smooth", "mobile_resnet_2blocks"))
        yield pytest.param(name, *norm, padding, marks=[] if first else pytest.mark.slow)


@pytest.mark.promise("R38")
@pytest.mark.parametrize(("name", "norm", "statistics", "padding"), [*all_marked()])
def test_bands_give_what_the_whole_gives(name: str, norm: str, statistics: str, padding: str) -> None:
    network = made(name, statistics, norm=norm, padding=padding)
    for size, band_bytes in itertools.product(SIZES, (1, 20_000)):
        x = torch.rand(1, 3, *size) * 2 - 1
        assert error(network, x, band_bytes=band_bytes) < 1e-4, (size, band_bytes)


@pytest.mark.parametrize("name", ["resnet_2blocks", "resnet_2blocks_antialiased"])
@pytest.mark.parametrize("band_bytes", [1, 200_000])
def test_wide_generators(name: str, band_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose blocks have the 64 channels that `winograd` is for."""
    calls: list[Tensor] = []
    correlate = winograd.correlate
    monkeypatch.setattr(winograd, "correlate", lambda x, *a: (calls.append(x), correlate(x, *a))[1])
    assert error(made(name, width=16), torch.rand(1, 3, 60, 52) * 2 - 1, band_bytes=band_bytes) < 1e-4
    assert calls


@pytest.mark.parametrize("bias", [True, False])
def test_biases_and_other_channels(bias: bool) -> None:
    network = made(in_channels=2, out_channels=5, bias=bias)
    assert error(network, torch.rand(1, 2, 40, 24) * 2 - 1, band_bytes=9000) < 1e-4


@pytest.mark.parametrize("name", ["resnet_0blocks", "mobile_resnet_2blocks", "mobile_resnet_2blocks_subpixel"])
def test_a_share_of_the_picture_is_mixed_in(name: str) -> None:
    network = made(name, input_share=0.3)
    assert error(network, torch.rand(1, 3, 52, 36) * 2 - 1, band_bytes=9000) < 1e-4


def test_a_file_holds_what_memory_holds(tmp_path: Path) -> None:
    network, x = made(width=8), torch.rand(1, 3, 64, 48)
    results = [streamed(network, x, in_memory=size, folder=tmp_path, band_bytes=9000) for size in (0, 1 << 28)]
    assert torch.equal(*results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_is_within_one_level(name: str) -> None:
    network, x = made(name, width=16), torch.rand(1, 3, 96, 64) * 2 - 1
    assert error(network, x, keep=torch.float16) * 127.5 < 1


def test_too_large_for_half_precision_is_kept_in_full() -> None:
    network, picture = made(), _picture(64, 48)
    network.down[1].conv.weight.mul_(1e7)
    with pytest.raises(OverflowError):
        streamed(network, torch.rand(1, 3, 64, 48), keep=torch.float16)
    whole = _by_bands(network, picture)
    assert _levels(_by_bands(network, picture, in_memory=0), whole) <= 1


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_statistics_are_those_of_the_whole(mean: float) -> None:
    x = torch.randn(1, 3, 64, 500, dtype=torch.float64) * torch.tensor([1.0, 0.01, 30.0])[:, None, None] + mean
    x = x.float()
    found = Moments()
    for rows in x.split((1, 30, 3, 30), 2):
        found.add(rows.contiguous(memory_format=torch.channels_last))
    exact = x.double().flatten(2)
    variance = exact.var(2, correction=0)[0]
    assert ((found.mean() - exact.mean(2)[0]).abs() / variance.sqrt()).max() < 1e-6
    assert torch.allclose(found.variance(), variance, rtol=1e-5)


def test_a_brightness_that_changes_down_the_picture() -> None:
    """Bands of very different means: what cancels where only sums are kept."""
    x = torch.linspace(-1, 1, 96)[None, None, :, None] + 0.01 * torch.randn(1, 3, 96, 40)
    assert error(made(width=8), x.clamp(-1, 1), band_bytes=5000) < 1e-4


def test_naive_tiles_are_far_off() -> None:
    """For contrast: a tile with the statistics of itself alone is another picture."""
    network = made(width=8)
    x = torch.linspace(-1, 1, 128)[None, None, :, None] * torch.rand(1, 3, 128, 64)
    with torch.inference_mode():
        whole, tiles = network(x), torch.cat([network(tile) for tile in x.split(64, 2)], 2)
    assert float((whole - tiles).abs().mean()) > 1000 * float((whole - streamed(network, x)).abs().mean())


@pytest.mark.parametrize("name", ["resnet_9blocks", "resnet_9blocks_antialiased", "resnet_6blocks"])
@pytest.mark.parametrize("item_bytes", [2, 4])
def test_the_spool_is_small_and_nothing_large_waits_in_it(name: str, item_bytes: int) -> None:
    with torch.device("meta"):
        layers = layers_of(create_generator(name).eval())  # type: ignore[arg-type]
    plan = schedule(layers, 1024, 1024, item_bytes)
    full = 64 * item_bytes * 1024**2  # one result of the stem
    assert plan.spool_bytes <= full * (1.5 if name.endswith("antialiased") else 0.75)
    kept = [cut.main for step in plan.passes if (cut := step.target) is not None]
    assert all(lane.zoom < 1 for lane in kept) and len(kept) > 10


def test_without_statistics_of_the_picture_there_is_no_spool() -> None:
    layers = layers_of(made(norm="batch", statistics="running"))
    plan = schedule(layers, 64, 64, 4)
    assert len(plan.passes) == 1 and plan.spool_bytes == 0


@pytest.mark.parametrize("size", [(2, 3), (5, 61), (77, 66), (61, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pictures_of_any_size_and_depth(size: tuple[int, int], dtype: Any) -> None:
    network = made("resnet_1blocks")
    translator = Translator(network, describe(network, direction="a2b"), precision="fp32")
    picture = _picture(*size, dtype)
    whole, result = translator.translate(picture), translator.stream(picture)
    assert result.pixels.dtype == whole.pixels.dtype and (result.icc, result.exif) == (b"icc", b"exif")
    assert result.alpha is not None and np.array_equal(result.alpha, picture.alpha)  # type: ignore[arg-type]
    for streamed_one in (result, _by_bands(network, picture, band_bytes=3000)):
        assert _levels(streamed_one, whole) <= 1


def test_tensors() -> None:
    network, x = made("resnet_1blocks"), torch.rand(3, 50, 61) * 2 - 1
    whole = Translator(network, describe(network, direction="a2b"), precision="fp32")(x)
    assert (stream_tensor(network, x, band_bytes=3000) - whole).abs().max() < 1e-4


def test_streamable_networks() -> None:
    assert streamable(generator_config("resnet_9blocks_antialiased", dropout=True)) is None
    assert "U-Net" in (streamable(generator_config("unet_128")) or "")
    assert "dropout" in (streamable(generator_config("resnet_9blocks", dropout=True), dropout=True) or "")


def _loaded(config: GeneratorConfig, device: str) -> LoadedModel:
    runtime: Any = SimpleNamespace(device=torch.device(device), precision="fp32")
    return LoadedModel(runtime, describe(config, direction="a2b"), InputSpec(3, 3, 128, 128, None))


@pytest.mark.promise("R37")
def test_networks_without_streaming_name_a_size_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    config = generator_config("unet_128", width=2)
    monkeypatch.setattr("i2i.inference.loaded_model.available_memory", lambda: 10**7)
    with pytest.raises(ImageError, match=r"4000x3000 pixels need about .* a U-Net takes .*; size=\d+ would fit"):
        _loaded(config, "cpu").by_bands(np.zeros((3, 3000, 4000), np.float32))


@pytest.mark.promise("R37")
def test_on_a_gpu_it_is_its_memory_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = generator_config("unet_128", width=2)
    for name, value in (("mem_get_info", (2 * 10**6, 0)), ("memory_reserved", 10**7), ("memory_allocated", 2 * 10**6)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, value=value: value)
    with pytest.raises(ImageError, match=r"0\.0 GB are free, and a U-Net takes .*; size=\d+ would fit"):
        _loaded(config, "cuda").by_bands(np.zeros((3, 3000, 4000), np.float32))


@pytest.mark.parametrize("refusal", ["free", "fallocate", "folder"])
def test_full_spool_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    folder = tmp_path
    if refusal == "free":
        folder = Path("/proc")  # a file system of no size
        if not folder.is_dir():
            pytest.skip("no /proc")
    elif refusal == "fallocate":

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spools.os, "posix_fallocate", full)  # type: ignore[attr-defined]
    else:
        folder = tmp_path / "missing"
    network = made(width=8)
    with pytest.raises(SpoolError, match="I2I_SPOOL") as caught:
        streamed(network, torch.rand(1, 3, 64, 64), in_memory=0, folder=folder)
    if refusal != "folder":
        assert "bytes are needed for the spool" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_spool_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_SPOOL", str(tmp_path))
    assert spools.spool_folder() == tmp_path
    with spools.Spool(1000, in_memory=0) as kept:
        assert list(tmp_path.iterdir()) == []  # it has no name, so that nothing stays behind
        kept.write(10, memoryview(b"abc"))
        data = bytearray(5)
        kept.read(9, memoryview(data))
    assert data == b"\0abc\0"


def test_error_while_streaming_leaves_no_files(tmp_path: Path) -> None:
    def refuse(top: int, rows: Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream(
            made(), lambda top, bottom: torch.rand(3, bottom - top, 64), (64, 64), refuse, in_memory=0, folder=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


def test_reduced_arithmetic() -> None:
    network, x = made(width=8), torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        whole = network(x).float()
    assert (streamed(network, x, autocast=torch.bfloat16, band_bytes=9000) - whole).abs().mean() < 0.02


def _picture(height: int, width: int, dtype: Any = np.uint8) -> Picture:
    rng = np.random.default_rng(0)
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    pixels = (rng.random((height, width, 3)) * full).astype(dtype)
    return Picture(pixels, alpha=pixels[..., 0].copy(), icc=b"icc", exif=b"exif", format="TIFF")


def _by_bands(network: ResnetGenerator, picture: Picture, **options: Any) -> Picture:
    parts: list[Pixels] = []
    stream_bands(network, picture, lambda top, rows: parts.append(rows), picture.pixels.dtype.type, **options)
    return picture.with_pixels(np.concatenate(parts))


def _levels(one: Picture, two: Picture) -> float:
    full = 1 if one.pixels.dtype == np.float32 else np.iinfo(one.pixels.dtype).max
    return float(np.abs(one.pixels.astype(np.float64) - two.pixels).max()) * 255 / full


@pytest.mark.parametrize("bands", [4, 5])
@pytest.mark.parametrize("alpha", [False, True])
def test_bands_of_data_are_translated_as_by_the_whole(bands: int, alpha: bool) -> None:
    values = np.random.default_rng(0).integers(0, 255, (36, 28, 6), np.uint8)
    picture = Picture(values[..., :3].copy(), values[..., 5] if alpha else None, extra=values[..., 3:bands].copy())
    network = made("resnet_1blocks", in_channels=bands, out_channels=bands)
    translator = Translator(network, describe(network, direction="a2b"), precision="fp32")
    whole, found = translator.translate(picture), translator.stream(picture)
    assert whole.extra is not None and found.extra is not None and _levels(whole, found) <= 1
    assert np.abs(whole.extra.astype(int) - found.extra).max() <= 1
    assert (found.alpha is not None) == alpha and np.array_equal(found.alpha, whole.alpha)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_report_of_a_large_one_is_that_of_a_whole_one(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyvips")
    picture = Picture(_picture(36, 28).pixels, resolution=(300.0, 200.0), xmp=b"<x tiff:Orientation='1'/>")
    picture.texts = {"Copyright": "me", "Title": "a view", "Comment": "x" * 70_000}
    picture.colour = png.chunk(b"gAMA", bytes([0, 0, 195, 80]))
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in" / "a.png", picture)
    network = made("resnet_1blocks")
    used = Translator(network, describe(network, direction="a2b"), precision="fp32")
    (record,) = translate_folder(tmp_path / "in", tmp_path / "out", used, format=cast("Any", suffix[1:])).records
    (whole,) = (tmp_path / "out").iterdir()
    options = FolderOptions(format=cast("Any", suffix[1:]))
    job = Job(str(tmp_path / "in" / "a.png"), str(tmp_path / f"large{suffix}"), "")
    note = translate_large(used, job, options)
    assert note == record.note and "not kept: long texts" in note
    one, two = images.read(whole), images.read(tmp_path / f"large{suffix}")
    for name in ("icc", "exif", "colour", "resolution", "xmp", "texts", "unread"):
        assert getattr(one, name) == getattr(two, name), name


def in_a_process(folder: Path, side: int, width: int, *more: str) -> dict[str, Any]:
    pytest.importorskip("pyvips")
    command = [sys.executable, str(CHILD), str(folder), str(side), str(width), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [path.name for path in folder.iterdir()] == ["out.tif"]
    (folder / "out.tif").unlink()
    found: dict[str, Any] = json.loads(done.stdout)
    print(found)
    return found


@pytest.mark.slow
@pytest.mark.promise("R39")
def test_memory_does_not_follow_the_height(tmp_path: Path) -> None:
    small, large = (in_a_process(tmp_path, side, 4)["peak_bytes"] for side in (1024, 4096))
    assert large < 1_000_000_000 and large - small < 400_000_000


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.promise("R39")
def test_8192_in_one_and_a_half_gigabytes_of_anonymous_memory(tmp_path: Path) -> None:
    found = in_a_process(tmp_path, 8192, 64, "whole")
    assert found["peak_bytes"] < 1_500_000_000
    assert found["streamed"] < 1.3 * statistics.mean(found["whole"])


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.promise("R39")
def test_picture_of_16384_pixels_completes(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, 16_384, 16)["peak_bytes"] < 2_500_000_000


@pytest.mark.slow
@pytest.mark.promise("R38")
@pytest.mark.parametrize(("keep", "most"), [(torch.float32, 1e-4), (torch.float16, 1 / 127.5)])
def test_2048_is_the_picture_as_a_whole(tmp_path: Path, keep: torch.dtype, most: float) -> None:
    """In the plain memory format: with channels last torch's group norm of so many pixels is off by more than this."""
    torch.manual_seed(0)
    network = for_translation(create_generator("resnet_9blocks", width=8))
    x = torch.rand(3, 2048, 2048) * 2 - 1
    with torch.inference_mode():
        whole = network(x[None])[0]
    assert float((stream_tensor(network, x, keep=keep, in_memory=0, folder=tmp_path) - whole).abs().max()) < most


@pytest.mark.slow
@pytest.mark.promise("R1")
def test_killed_streaming_leaves_no_spool(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    command = [sys.executable, str(CHILD), str(tmp_path), "2048", "16"]
    with subprocess.Popen(command) as child:
        time.sleep(8)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []
