"""Folders of pictures: planned before anything is done, and nothing lost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import exit_code
from heic_samples import HERE
from PIL import Image

from i2i import images
from i2i.data.folders import find_images
from i2i.errors import ModelError, OutputError, UsageError
from i2i.folders import plan as plan_module
from i2i.folders.batch import translate_folder
from i2i.images.formats import lacking
from i2i.inference.options import FolderOptions
from i2i.inference.translator import Translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import init_weights
from i2i.networks.resnet import ResnetConfig

CONFIG = ResnetConfig(width=2, blocks=1)
ROOT = Path(__file__).parents[2]


def _network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return init_weights(CONFIG.build(), gain=0.3)


@pytest.fixture
def style(tmp_path: Path) -> Path:
    network = _network()
    model_file.save(tmp_path / "m.safetensors", network, describe(network, direction="a2b"))
    return tmp_path / "m.safetensors"


def _picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (13, 9), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def _folder(folder: Path, names: tuple[str, ...] = ("a.png", "b.JPG", "deep/er/c.webp", "deep/d.tif")) -> Path:
    for seed, name in enumerate(names):
        _picture(folder / name, seed=seed)
    return folder


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_tree_names_sizes_and_formats_are_kept(tmp_path: Path, style: Path) -> None:
    source = _folder(tmp_path / "in")
    (source / "notes.txt").write_text("no picture")
    report = translate_folder(source, tmp_path / "out", style, device="cpu")
    assert sorted(_tree(tmp_path / "out")) == ["a.png", "b.JPG", "deep/d.tif", "deep/er/c.webp"]
    assert [r.status for r in report.records] == ["done"] * 4
    for record in report.done:
        before, after = images.read(record.source), images.read(record.target)
        assert (after.pixels.shape, after.format) == (before.pixels.shape, before.format)
        assert not np.array_equal(after.pixels, before.pixels)


def test_alpha_and_sixteen_bits_are_kept(tmp_path: Path, style: Path) -> None:
    pixels = np.arange(12 * 10 * 3, dtype=np.uint16).reshape(12, 10, 3) * 180
    alpha = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in" / "x.png", images.Picture(pixels, alpha))
    translate_folder(tmp_path / "in", tmp_path / "out", style, device="cpu")
    found = images.read(tmp_path / "out" / "x.png")
    assert found.pixels.dtype == np.uint16
    assert len(np.unique(found.pixels)) > 256
    assert found.alpha is not None
    assert np.array_equal(found.alpha, alpha)


def test_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    network = ResnetConfig(width=2, blocks=1, norm="batch", dropout=True).build()
    translator = Translator(network, describe(network, direction="a2b", dropout=True))
    source = _folder(tmp_path / "in")
    files = find_images(source)
    translate_folder(files, tmp_path / "one", translator)
    translate_folder(files[::-1], tmp_path / "two", translator)
    translate_folder(files[2], tmp_path / "three", translator)
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two")
    assert _tree(tmp_path / "three").items() <= _tree(tmp_path / "one").items()


def test_one_file_to_a_file_name(tmp_path: Path, style: Path) -> None:
    source = _picture(tmp_path / "a.png")
    translate_folder(source, tmp_path / "new" / "b.jpg", style, device="cpu")
    assert images.read(tmp_path / "new" / "b.jpg").format == "JPEG"
    _picture(tmp_path / "c.png")
    for inputs in ([source, tmp_path / "c.png"], [tmp_path / "new"]):
        with pytest.raises(UsageError, match="several inputs need a folder"):
            translate_folder(inputs, tmp_path / "d.png", style)


@pytest.mark.parametrize(("size", "expected"), [(8, (24, 8)), (60, (180, 60))])
def test_size_is_of_the_shorter_side(tmp_path: Path, style: Path, size: int, expected: tuple[int, int]) -> None:
    source = _picture(tmp_path / "a.png", "RGBA", size=(60, 20))
    translate_folder(source, tmp_path / "out", style, device="cpu", size=size)
    with Image.open(tmp_path / "out" / "a.png") as found:
        assert (found.size, found.mode) == (expected, "RGBA")
    for wrong in (0, -1, 70_000):
        with pytest.raises(UsageError, match="size"):
            translate_folder(source, tmp_path / "out2", style, size=wrong)


def test_what_a_format_cannot_hold_is_one_failure(tmp_path: Path) -> None:
    network = ResnetConfig(out_channels=6, width=2, blocks=0).build()
    translator = Translator(network, describe(network, direction="a2b"))
    report = translate_folder(_folder(tmp_path / "in"), tmp_path / "out", translator)
    assert {r.source.suffix: r.status for r in report.records} == {
        ".png": "failed", ".JPG": "failed", ".tif": "done", ".webp": "failed",
    }  # fmt: skip


def test_a_folder_of_results_is_listed_for_many_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For there may be a million in it."""
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    source = _folder(tmp_path / "in", tuple(f"{number}.png" for number in range(100)))
    (tmp_path / "out").mkdir()
    for inputs, count in ((source / "0.png", 0), (source, 1)):
        assert plan_module.plan(inputs, tmp_path / "out", FolderOptions()).todo
        assert len(listed) == count


def test_the_model_is_loaded_before_anything_is_created(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError):
        translate_folder(_folder(tmp_path / "in"), tmp_path / "out", tmp_path / "m.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_folder_where_a_result_belongs(tmp_path: Path, style: Path) -> None:
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a folder"):
        translate_folder(_folder(tmp_path / "in"), tmp_path / "out", style, overwrite=True)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_stop_while_writing_leaves_nothing_half_written(
    tmp_path: Path, style: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    source, real = _folder(tmp_path / "in", ("a.png", "b.png", "c.png")), os.link

    def second_fails(a: Any, b: Any) -> None:
        if Path(b).name == "b.png":
            raise stop
        real(a, b)

    monkeypatch.setattr(os, "link", second_fails)
    with pytest.raises(KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else OutputError):
        translate_folder(source, tmp_path / "out", style, device="cpu")
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert "a.png" in left and left <= {"a.png", "c.png"}


def test_the_first_picture_does_not_wait_for_torchs_compiler(tmp_path: Path) -> None:
    """It takes a second to import, and arithmetic on the device `meta` does import it."""
    torch.manual_seed(0)
    network = ResnetConfig(blocks=1, width=2, downsampling="antialiased", upsampling="antialiased").build()
    model_file.save(tmp_path / "m.safetensors", network, describe(network, direction="a2b"))
    code = (
        "import numpy, sys, i2i\n"
        f"translate = i2i.load_translator({str(tmp_path / 'm.safetensors')!r}, device='cpu', runtime='torch')\n"
        "translate(numpy.zeros((64, 64, 3), numpy.uint8))\n"
        "assert not {'torch._dynamo', 'torch._inductor', 'sympy', 'kornia', 'albumentations'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_an_unknown_style_has_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--style", tmp_path / "none", _picture(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert exit_code("translate", *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and "none" in said.err


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("o.gif", {}, r"\.gif is not written; written are"),
        ("o.heic", {}, r"\.heic is not written"),
        ("o.png", {"format": "jpg"}, "contradict"),
        ("out", {"format": "png", "quality": 80}, "quality"),
        (None, {}, "give out='OUT', or in_place=True"),
        ("out", {"in_place": True}, "give out='OUT', or in_place=True"),
        (None, {"in_place": True, "overwrite": True}, "contradict"),
        ("out", {"overwrite": True, "skip_existing": True}, "contradict"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, style: Path, out: str | None, options: dict[str, Any], message: str
) -> None:
    source = _picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=message):
        translate_folder(source, out and tmp_path / out, style, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "m.safetensors"]


@pytest.mark.promise("R25")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_in_place_loses_no_page_or_frame(tmp_path: Path, style: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (0, 200)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    before = (tmp_path / name).read_bytes()
    report = translate_folder(tmp_path / name, None, style, in_place=True)
    assert "further pages or frames" in report.failed[0].reason
    assert (tmp_path / name).read_bytes() == before
    report = translate_folder(tmp_path / name, tmp_path / "out", style)
    assert "the first of several" in report.done[0].note


def test_in_place_keeps_who_may_read(tmp_path: Path, style: Path) -> None:
    source = _picture(tmp_path / "a.png")
    source.chmod(0o600)
    before = source.read_bytes()
    translate_folder(source, None, style, in_place=True)
    assert source.read_bytes() != before and source.stat().st_mode & 0o777 == 0o600


def test_a_report_among_the_results(tmp_path: Path, style: Path) -> None:
    source = _folder(tmp_path / "in", ("a.png",))
    out = tmp_path / "new" / "out"
    for report, more in ((out / "r.json", ()), (tmp_path / "new" / "q.json", ("--overwrite", "--dry-run"))):
        assert exit_code("translate", "--style", style, source, "-o", out, "--report", report, *more) == 0
        assert '"left": 0' in report.read_text() or more


def test_a_picture_under_the_name_of_something_else(tmp_path: Path, style: Path) -> None:
    source = _folder(tmp_path / "in", ("a.jpg", "a.png"))
    (source / "a.jpg").rename(source / "a.psd")
    (source / "b.psd").write_bytes(b"8BPS\0\1" + bytes(40))
    report = translate_folder(source, tmp_path / "out", style)
    assert sorted(_tree(tmp_path / "out")) == ["a.png", "a.psd.png"]
    assert [record.source.name for record in report.failed] == ["b.psd"] and "Photoshop" in report.failed[0].reason


@pytest.mark.skipif(bool(lacking("HEIF")), reason="pi-heif is not installed")
def test_a_picture_of_a_phone_becomes_an_upright_jpeg(tmp_path: Path, style: Path) -> None:
    for name in ("turned", "ten_bits"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.heic").write_bytes((HERE / f"{name}.heic").read_bytes())
    report = translate_folder(tmp_path / "in", tmp_path / "out", style)
    assert _tree(tmp_path / "out").keys() == {"turned.jpg", "ten_bits.jpg"} and len(report.done) == 2
    with Image.open(tmp_path / "out" / "turned.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (32, 48))
        assert image.getexif().get(274, 1) == 1 and image.getexif()[33432] == "somebody" and image.info["icc_profile"]
    deep = translate_folder(tmp_path / "in" / "ten_bits.heic", tmp_path / "deep.png", style)
    assert deep.done and images.read(tmp_path / "deep.png").pixels.dtype == np.uint16
    report = translate_folder(tmp_path / "in", None, style, in_place=True)
    assert {"cannot be written" in record.reason for record in report.failed} == {True}
