"""Masks, strength and mixes for folders of pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_tools import folder, model, picture, run, translator, tree

from i2i import images
from i2i.errors import ImageError, SomeFailed, UsageError
from i2i.folders.alone import translate_large
from i2i.folders.batch import translate_folder
from i2i.folders.jobs import Job
from i2i.images import Picture
from i2i.inference import scaling
from i2i.inference.options import FolderOptions

HALF = np.repeat(np.array([[0, 0, 0, 0, 255, 255, 255, 255, 255]], np.uint8), 12, axis=0)


def _mask(path: Path, mask: Any = HALF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(mask[..., None]))
    return path


def _pixels(path: Path) -> Any:
    return images.read(path).pixels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "in", ("a.png", "deep/b.png", "deep/c.tif"))


def test_each_picture_has_the_mask_of_its_name(source: Path, tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.bmp", "deep/b.txt"):
        _mask(tmp_path / "masks" / name) if not name.endswith("txt") else (tmp_path / "masks" / name).touch()
    whole = translate_folder(source, tmp_path / "whole", translator())
    report = translate_folder(source, tmp_path / "out", translator(), mask=tmp_path / "masks")
    assert not whole.failed and [record.source.name for record in report.failed] == ["c.tif"]
    expected = f"has no mask; expected {tmp_path / 'masks/deep/c'}.png, or with another suffix"
    assert report.failed[0].reason == expected and not (tmp_path / "out/deep/c.tif").exists()
    assert [record.note for record in report.done] == [
        f"mask {tmp_path / 'masks' / n}" for n in ("a.png", "deep/b.bmp")
    ]
    for name in ("a.png", "deep/b.png"):
        found, made, own = (_pixels(tmp_path / place / name) for place in ("out", "whole", "in"))
        assert np.array_equal(found[:, :4], own[:, :4]) and np.array_equal(found[:, 4:], made[:, 4:])
    with pytest.raises(SomeFailed, match="has no mask"):
        translate_folder(source, tmp_path / "strict", translator(), mask=tmp_path / "masks", strict=True)


def test_one_mask_serves_all_pictures_of_its_size(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(source / "other.png", 5, 9)
    used, heights = translator(), list[int]()
    through = used.translate_batch
    monkeypatch.setattr(used, "translate_batch", lambda p, size: (heights.extend(q.height for q in p), through(p))[1])
    report = translate_folder(source, tmp_path / "out", used, mask=_mask(source / "mask.png"), keep="luminance")
    assert heights == [12, 12, 12]  # that the other one's mask does not fit is found before the network runs
    (failed,) = report.failed
    assert failed.source.name == "other.png"
    assert failed.reason == "is 9x5 pixels, but its mask 9x12; expected a mask of the same size"
    assert sorted(tree(tmp_path / "out")) == ["a.png", "deep/b.png", "deep/c.tif"]  # the mask is no input
    assert np.array_equal(_pixels(tmp_path / "out/a.png")[:, :4], _pixels(source / "a.png")[:, :4])


def test_masks_in_a_folder_of_the_input_are_no_input(source: Path, tmp_path: Path) -> None:
    for name in ("a", "deep/b", "deep/c"):
        _mask(source / f"masks/{name}.png")
    report = translate_folder(source, tmp_path / "out", translator(), mask=str(source / "masks"))
    assert len(report.done) == len(report.records) == 3
    with pytest.raises(UsageError, match="holds the masks, and no pictures to translate"):
        translate_folder(source / "masks", tmp_path / "other", translator(), mask=source / "masks")


def test_two_masks_of_one_name_are_told_apart_by_suffix_or_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png", "b.tif"))
    for name in ("a.png", "a.bmp", "b.png", "b.bmp"):
        _mask(tmp_path / "masks" / name)
    report = translate_folder(source, tmp_path / "out", translator(), mask=tmp_path / "masks")
    assert [record.source.name for record in report.done] == ["a.png"]
    assert "has several masks: " in report.failed[0].reason and "b.bmp" in report.failed[0].reason


@pytest.mark.parametrize("broken", [b"", b"no picture"])
def test_a_mask_that_cannot_be_read_costs_its_picture_alone(source: Path, tmp_path: Path, broken: bytes) -> None:
    for name in ("a", "deep/b", "deep/c"):
        _mask(tmp_path / f"masks/{name}.png")
    (tmp_path / "masks/a.png").write_bytes(broken)
    report = translate_folder(source, tmp_path / "out", translator(), mask=tmp_path / "masks")
    assert len(report.done) == 2 and report.failed[0].reason.startswith(f"its mask {tmp_path / 'masks/a.png'}: ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mask": "masks"}, "no such file or folder. Did you mean 'mask'"),
        ({"mask": "empty"}, "has no mask for these pictures:"),
        ({"mask": "alpha", "alpha": "white"}, "mask alpha and alpha white contradict each other"),
        ({"mix": {"one": 1}}, "expected one of style and mix, such as style='monet' or mix='monet:0.6,vangogh:0.4'"),
        ({"strength": 2}, "strength = 2"),
        ({"keep": "hue"}, "keep = 'hue'"),
    ],
)
def test_mistakes_are_errors_before_any_work(
    options: Any, reason: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mask").mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=reason):
        translate_folder(source, tmp_path / "out", translator(), **options)
    assert not (tmp_path / "out").exists()


def test_a_file_called_alpha_is_a_mask_too(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alpha").write_bytes(_mask(tmp_path / "mask.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(translate_folder(source, tmp_path / "file", translator(), mask="./alpha").done) == 3
    assert len(translate_folder(source, tmp_path / "own", translator(), mask="alpha").failed) == 3


def test_the_command_line_plans_and_reports_it(source: Path, tmp_path: Path) -> None:
    one, masks = model(tmp_path / "one.safetensors"), tmp_path / "masks"
    _mask(masks / "a.png"), _mask(masks / "deep/b.png")
    words = [source, "-o", tmp_path / "out", "--strength", 0.25, "--mask", masks, "--keep", "colour"]
    words += ["--mix", f"{one}:2,{model(tmp_path / 'two.safetensors')}:1"]
    code, child = run(tmp_path, *words, "--dry-run")
    assert code == 0, child.stderr
    assert f"{source / 'a.png'} → {tmp_path / 'out/a.png'} (mask {masks / 'a.png'})\n" in child.stdout
    assert f"{source / 'deep/c.tif'}: has no mask; expected" in child.stdout and not (tmp_path / "out").exists()
    code, child = run(tmp_path, *words, "--json")
    report = json.loads(child.stdout)
    assert code == 3 and report["counts"] == {"done": 2, "skipped": 0, "failed": 1, "left": 0}
    assert report["options"] == {
        "strength": 0.25, "mask": str(masks), "keep": "colour",
        "mix": f"{one}:2,{tmp_path / 'two.safetensors'}:1",
    }  # fmt: skip
    assert report["style"] == report["options"]["mix"]
    assert {style: facts["share"] for style, facts in report["mix"].items()} == {
        str(one): pytest.approx(2 / 3), str(tmp_path / "two.safetensors"): pytest.approx(1 / 3),
    }  # fmt: skip
    odd = _mask(tmp_path / "m\x1bs" / "a.png").parent
    code, child = run(tmp_path, source / "a.png", "-o", tmp_path / "x", "--style", one, "--mask", odd, "--dry-run")
    assert code == 0 and "/a.png)" in child.stdout and "\x1b" not in child.stdout
    code, child = run(tmp_path, *words, "--style", one)
    assert code == 2 and "expected one of --style and --mix" in child.stderr


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    "options", [{"strength": 0.0}, {"strength": 0.4}, {"keep": "luminance"}, {"keep": "colour", "strength": 0.7}]
)
@pytest.mark.parametrize("paint_size", [0, 16])
def test_a_large_picture_is_blended_by_bands(
    options: Any, alpha: bool, paint_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    monkeypatch.setattr(scaling, "_BAND_PIXELS", 200)
    draw = np.random.default_rng(0)
    pixels, mask = draw.integers(0, 256, (40, 36, 3), np.uint8), draw.integers(0, 256, (40, 36), np.uint8)
    mask[:, :9], mask[:, 30:] = 0, 255
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in/a.png", Picture(pixels, mask if alpha else None))
    options["mask"] = "alpha" if alpha else _mask(tmp_path / "mask.png", mask)
    used = translator(precision="fp32")
    used.paint_size = paint_size
    (record,) = translate_folder(tmp_path / "in", tmp_path / "whole", used, **options).records
    mask = "" if alpha else str(options["mask"])
    job = Job(str(tmp_path / "in/a.png"), str(tmp_path / "large.png"), "a.png", mask_text=mask)
    assert translate_large(used, job, FolderOptions(**options)) == record.note
    whole, found = images.read(tmp_path / "whole/a.png"), images.read(tmp_path / "large.png")
    assert np.abs(whole.pixels.astype(int) - found.pixels).max() <= 1 and np.array_equal(whole.alpha, found.alpha)
    assert np.array_equal(found.pixels[:, :9], pixels[:, :9])


def test_a_large_picture_with_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    mask = _mask(tmp_path / "m.png", HALF[:5])
    job = Job(str(picture(tmp_path / "a.png")), str(tmp_path / "out.png"), "a.png", mask_text=str(mask))
    with pytest.raises(ImageError, match="is 9x12 pixels, but its mask 9x5"):
        translate_large(translator(), job, FolderOptions(mask=job.mask))
    assert not job.target.exists()
