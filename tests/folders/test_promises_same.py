"""Speed changes no result: any number of workers gives the same bytes, batches differ by rounding alone."""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from batch_tools import Threads, Tree, folder, picture, run, translator, tree
from hypothesis import example, given, settings
from hypothesis import strategies as st

from i2i import images
from i2i.folders import pipeline
from i2i.folders.batch import translate_folder
from i2i.images import Picture
from i2i.inference.scaling import Size
from i2i.inference.translator import Translator
from i2i.models import model_file
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

RESNET = ResnetConfig(width=4, blocks=2)
BATCH = ResnetConfig(width=4, blocks=2, norm="batch", dropout=True)
UNET = UNetConfig(width=4, depth=5)
GAIN = 0.3
NETWORKS = {
    "resnet-instance": translator(RESNET, gain=GAIN, precision="fp32"),
    "resnet-running": translator(BATCH, gain=GAIN, precision="fp32", statistics="running", dropout=False),
    "resnet-per-picture": translator(BATCH, gain=GAIN, precision="fp32", statistics="batch", dropout=True),
    "unet-dropout": translator(UNET, gain=GAIN, precision="fp32", statistics="batch", dropout=True),
    "unet-running": translator(UNET, gain=GAIN, precision="fp32", statistics="running", dropout=False),
}
SIZES = st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 40), st.integers(1, 40)))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three sizes, mixed."""
    path = tmp_path_factory.mktemp("source")
    for i in range(18):
        picture(path / f"{i:02}.png", *((32, 40), (40, 32), (21, 13))[i * 7 % 3])
    return path


def _translated(source: Path, used: Translator, **options: Any) -> Tree:
    with TemporaryDirectory() as out:
        report = translate_folder(source, Path(out, "out"), used, **options)
        assert not report.failed and not report.left
        return tree(Path(out, "out"))


@pytest.mark.promise("R38")
@pytest.mark.parametrize(("name", "batch"), [("resnet-per-picture", 4), ("resnet-instance", 1)])
def test_any_number_of_workers_gives_the_same_bytes(source: Path, name: str, batch: int) -> None:
    one, *others = (_translated(source, NETWORKS[name], batch_size=batch, workers=workers) for workers in (1, 2, 5))
    assert all(other == one for other in others)


@pytest.mark.promise("R38")
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_two_threads_give_the_same_bytes_again_and_those_of_one_but_for_rounding(tmp_path: Path, runtime: str) -> None:
    """With wide convolutions, which leave memory to each thread, and with several workers."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    used = translator(ResnetConfig(width=32, blocks=1), gain=GAIN, precision="fp32")
    model_file.save(tmp_path / "a2b.safetensors", used.network, used.info)
    for i in range(4):
        picture(tmp_path / f"in/{i}.png", 120, 128)
    found: list[Tree] = []
    for threads, workers in ((1, 1), (2, 1), (2, 3)):
        out = tmp_path / f"out{len(found)}"
        options = ["--device", "cpu", "--precision", "fp32", "--runtime", runtime, "--workers", workers]
        words = [tmp_path / "in", "-o", out, "--style", tmp_path / "a2b.safetensors", *options]
        code, child = run(tmp_path, *words, prepare=[Threads(threads)])
        assert code == 0, child.stderr
        found.append(tree(out))
    assert found[1] == found[2] and _difference(found[0], found[1])[0] <= 1


class _Noting(Translator):
    """Which pictures go through the network together."""

    batches: list[list[int]]
    seconds: Callable[[], float]

    def translate_batch(self, pictures: Sequence[Picture], size: Size | None = None) -> list[Picture]:
        self.batches.append([int(p.pixels.astype(int).sum()) for p in pictures])
        time.sleep(self.seconds())
        return super().translate_batch(pictures, size)


@pytest.mark.promise("R38")
@pytest.mark.parametrize("pixels", [None, 2600])
def test_batches_follow_from_the_list_alone(source: Path, monkeypatch: pytest.MonkeyPatch, pixels: int | None) -> None:
    if pixels is not None:
        monkeypatch.setattr(pipeline, "QUEUE_PIXELS", pixels * 2)
    write, found = pipeline.write, []  # type: ignore[attr-defined]
    for number, workers in enumerate((1, 1, 1, 2, 5)):
        delays = random.Random(number)

        def late(*arguments: Any, delays: random.Random = delays) -> None:
            time.sleep(delays.choice([0, 0.01]))
            write(*arguments)

        monkeypatch.setattr(pipeline, "write", late)
        used: Any = translator(cls=_Noting)
        used.batches, used.seconds = [], lambda delays=delays: delays.choice([0, 0.01])
        translate_folder(source, source.parent / f"out{pixels}-{number}", used, batch_size=4, workers=workers)
        found.append(used.batches)
    assert all(other == found[0] for other in found)


def _difference(one: Tree, two: Tree) -> tuple[int, float]:
    """The largest, in 8-bit levels, and the share of pixels that differ."""
    assert set(one) == set(two)
    largest, different, count = 0, 0, 0
    for name in one:
        a, b = (images.decode(data[name]).pixels.astype(int) for data in (one, two))
        largest = max(largest, int(np.abs(a - b).max()))
        different += int((a != b).any(axis=2).sum())
        count += a[..., 0].size
    return largest, different / count


@pytest.mark.arithmetic
@pytest.mark.promise("R38")
@pytest.mark.parametrize(("name", "batch"), [("resnet-per-picture", 8), ("unet-running", 8), ("resnet-instance", 2)])
def test_another_batch_size_gives_the_same_bytes_on_a_cpu(source: Path, name: str, batch: int) -> None:
    one, many = (_translated(source, NETWORKS[name], batch_size=size, workers=2) for size in (1, batch))
    assert one == many


@pytest.mark.arithmetic
@pytest.mark.promise("R38")
@pytest.mark.parametrize("name", ["resnet-instance", "unet-running"])
def test_a_batch_computed_together_differs_by_rounding(source: Path, name: str) -> None:
    """As on a GPU: on a CPU a batch goes through the network one by one."""
    network = NETWORKS[name]
    used = translator(network.config, gain=GAIN, precision="fp32", statistics=network.info.statistics, dropout=False)
    one = _translated(source, used, batch_size=8)
    used.model.one_by_one = False
    largest, share = _difference(one, _translated(source, used, batch_size=8))
    assert largest <= 1 and share < 1e-3
    assert np.std(images.decode(one["00.png"]).pixels) > 20, "steep enough to show rounding"


@pytest.mark.promise("R38")
def test_any_number_of_shards_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    used = NETWORKS["resnet-per-picture"]
    whole = _translated(source, used)
    for parts in (2, 5):
        out = tmp_path / str(parts)
        for part in range(parts, 0, -1):
            translate_folder(source, out, used, shard=f"{part}/{parts}")
        assert tree(out) == whole


@pytest.mark.promise("R38")
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_small_pictures(tmp_path: Path, count: int) -> None:
    used = NETWORKS["resnet-instance"]
    source = folder(tmp_path / "in", [f"{i % 7}/{i:04}.png" for i in range(count)], height=16, width=16)
    one = _translated(source, used)
    assert len(one) == count
    for workers in (2, 5)[count < 1000 :]:
        assert _translated(source, used, workers=workers) == one
    assert _translated(source, used, batch_size=16, workers=3) == one


def _check_size(name: str, height: int, width: int) -> None:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    result = NETWORKS[name].translate(Picture(pixels))
    assert result.pixels.shape == (height, width, 3) and result.pixels.dtype == np.uint8


@pytest.mark.promise("R36")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), SIZES)
@example("resnet-instance", (3, 5000))
@example("unet-dropout", (5000, 3))
@example("unet-running", (1, 1))
@example("resnet-per-picture", (1, 257))
def test_the_output_has_the_size_of_the_input(name: str, size: tuple[int, int]) -> None:
    _check_size(name, *size)


@pytest.mark.promise("R36")
def test_sizes_in_a_folder_are_kept(tmp_path: Path) -> None:
    sizes = [(1, 1), (3, 500), (500, 3), (31, 33), (2, 2), (257, 1)]
    for height, width in sizes:
        picture(tmp_path / "in" / f"{height}x{width}.png", height, width)
    for name in ("resnet-instance", "unet-dropout"):
        out = tmp_path / name
        translate_folder(tmp_path / "in", out, NETWORKS[name], batch_size=3)
        assert {path.stem: images.probe(path)[::-1] for path in out.iterdir()} == {
            f"{height}x{width}": (height, width) for height, width in sizes
        }
