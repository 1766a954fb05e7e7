"""The memory that a picture takes in a network is known before it is tried."""

from pathlib import Path

import numpy as np
import pytest
from fork_server import python

from i2i import images
from i2i.folders.batch import translate_folder
from i2i.inference import loaded_model
from i2i.inference.loaded_model import bytes_per_pixel
from i2i.inference.streaming import stream
from i2i.inference.translator import Translator
from i2i.models.info import describe
from i2i.networks import create_generator, generator_config, list_generators

BANDS = "translated by bands of rows"
SIDE = 1024
REAL = """
import os, re, sys, numpy, torch
from i2i.networks import create_generator
from i2i.models.info import describe
from i2i.inference.translator import Translator
torch.set_num_threads(1)
def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
side = int(sys.argv[1])
for word in sys.argv[2:]:
    name, width, runtime = word.split(",")
    if os.fork():  # each network in a process of its own, which has imported everything
        assert os.wait()[1] == 0
        continue
    network = create_generator(name, width=int(width))
    info = describe(network, direction="a2b")
    translator = Translator(network, info, runtime=runtime, precision="fp32")
    translator.model.runtime.run(numpy.zeros((1, 3, 512, 512), numpy.float32))
    picture = numpy.zeros((1, 3, side, side), numpy.float32)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak so far, which a conversion may have made, is forgotten
    before = memory("VmRSS")
    translator.model.runtime.run(picture)
    print(word, (memory("VmHWM") - before) / side**2, translator.model.bytes_per_pixel, flush=True)
    os._exit(0)
"""


def _taken_and_expected(*networks: str) -> dict[str, tuple[float, float]]:
    done = python("-c", REAL, SIDE, *networks)
    assert done.returncode == 0, done.stderr
    return {word: (float(taken), float(expected)) for word, taken, expected in map(str.split, done.stdout.splitlines())}


def _check_estimates(*networks: str) -> None:
    found = _taken_and_expected(*networks)
    assert len(found) == len(networks)
    for word, (taken, expected) in found.items():
        # the allocator has a say in what it takes
        assert taken < 1.15 * expected and expected < 3.5 * taken, f"{word}: {taken:.0f}, expected {expected:.0f}"


# bytes a pixel, by the width: nobody watches a small picture, for which `surely_fits` reckons with so many. What takes
# more could end the process unasked. All activations at once take more; libraries differ by far less than there is room
MOST = {2: 330, 8: 630}


@pytest.mark.promise("R37")
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_an_unmeasured_picture_takes_no_more_memory_than_assumed(runtime: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, "torch"))
    networks = [f"{name},{runtime}" for name in ("resnet_6blocks,8", "resnet_1blocks,2", "unet_256,8")]
    found = _taken_and_expected(*(networks if runtime == "torch" else networks[:1]))
    for word, (taken, expected) in found.items():
        most = MOST[int(word.split(",")[1])]
        assert taken < most and expected < most, f"{word}: {taken:.0f}, expected {expected:.0f}"
    for width, most in MOST.items():
        side = int((loaded_model.UNWATCHED / most) ** 0.5)
        assert loaded_model.surely_fits(width, side, side) and not loaded_model.surely_fits(width, 2 * side, 2 * side)


@pytest.mark.slow
@pytest.mark.promise("R37")
@pytest.mark.parametrize(
    "network", ["resnet_6blocks,8,torch", "resnet_1blocks,2,torch", "unet_256,8,torch", "resnet_1blocks,8,onnx"]
)
def test_the_estimate_is_a_bound_and_near_what_is_taken(network: str) -> None:
    pytest.importorskip("onnxruntime" if network.endswith("onnx") else "torch")
    _check_estimates(network)


@pytest.mark.slow
@pytest.mark.promise("R37")
@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnx"])
@pytest.mark.parametrize("network", ["resnet_1blocks,2", "resnet_6blocks,32", "resnet_1blocks,64", "unet_256,16"])
def test_the_estimate_is_a_bound_for_every_width(network: str, runtime: str) -> None:
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}.get(runtime, "torch"))
    _check_estimates(f"{network},{runtime}")


def test_it_grows_with_the_width_and_draws_nothing() -> None:
    narrow, wide = (bytes_per_pixel(generator_config("resnet_9blocks", width=width)) for width in (32, 64))
    assert 1.5 < wide / narrow < 2  # the columns of the last kernels are as many in both


@pytest.mark.parametrize("name", [name for name in list_generators() if not name.startswith("dcgan")] + ["unet_512"])
def test_small_pictures_need_no_estimate(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for width, runtime in ((2, "torch"), (6, "torch"), (6, "onnx"), (64, "onnx")):
        per_pixel = bytes_per_pixel(generator_config(name, width=width), runtime)
        for pixels in (loaded_model.UNWATCHED / per_pixel * share for share in (0.3, 0.9, 1.1, 3)):
            side = int(pixels**0.5)
            assert not loaded_model.surely_fits(width, side, side) or per_pixel * side * side < loaded_model.UNWATCHED
    assert loaded_model.surely_fits(64, 256, 256)


def test_all_pairs_of_places_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        loaded_model.bytes_of_pairs(0, 768, 768) == 0
        and loaded_model.bytes_of_pairs(2, 768, 768) == 2 * 4 * (192 * 192) ** 2
    )
    monkeypatch.setattr(loaded_model, "available_memory", lambda: 10**9)
    assert loaded_model.fits(100.0, 768, 768) and not loaded_model.fits(
        100.0, 768, 768, loaded_model.bytes_of_pairs(2, 768, 768)
    )


def _with_room_for(pixels: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Translator:
    monkeypatch.setattr(loaded_model, "UNWATCHED", 0)
    network = create_generator(name, width=2)
    used = Translator(network, describe(network, direction="a2b"), precision="fp32")
    monkeypatch.setattr(loaded_model, "available_memory", lambda: int(used.model.bytes_per_pixel * pixels))
    (tmp_path / "in").mkdir()
    for side in (100, 300):
        values = np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)
        images.write(tmp_path / "in" / f"{side}.png", images.Picture(values))
    return used


@pytest.mark.promise("R37")
def test_too_large_a_picture_for_a_unet_is_one_failed_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = _with_room_for(200 * 200, "unet_32", tmp_path, monkeypatch)
    report = translate_folder(tmp_path / "in", tmp_path / "out", used)
    assert [(r.source.stem, r.status) for r in report.records] == [("100", "done"), ("300", "failed")]
    assert "300x300 pixels need about" in report.failed[0].reason and "size=192 would fit" in report.failed[0].reason


@pytest.mark.promise("R37", "R38")
@pytest.mark.parametrize(("size", "note"), [(None, ""), (250, BANDS)])
def test_too_large_a_picture_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, note: str
) -> None:
    used = _with_room_for(200 * 200, "resnet_1blocks", tmp_path, monkeypatch)
    report = translate_folder(tmp_path / "in", tmp_path / "out", used, size=size)
    assert [(r.status, r.note) for r in report.records] == [("done", note), ("done", BANDS)]
    assert len(report.notices) == 1 and report.notices[0].endswith("translated by bands of rows")
    monkeypatch.setattr(loaded_model, "available_memory", lambda: 10**12)
    translate_folder(tmp_path / "in", tmp_path / "whole", used, size=size)
    for name in ("100.png", "300.png"):
        one, two = (images.read(tmp_path / folder / name).pixels.astype(int) for folder in ("out", "whole"))
        assert np.abs(one - two).max() <= 1


@pytest.mark.promise("R37")
def test_no_room_for_the_spool_is_one_failed_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = _with_room_for(200 * 200, "resnet_1blocks", tmp_path, monkeypatch)
    monkeypatch.setenv("I2I_SPOOL", "/proc")
    monkeypatch.setitem(stream.__kwdefaults__, "in_memory", 0)
    report = translate_folder(tmp_path / "in", tmp_path / "out", used)
    assert [(r.source.stem, r.status) for r in report.records] == [("100", "done"), ("300", "failed")]
    assert "bytes are needed for the spool" in report.failed[0].reason and "I2I_SPOOL" in report.failed[0].reason
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["100.png"]
