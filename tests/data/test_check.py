"""The check before a training looks at all pictures, whole, and says which are not what they seem."""

import dataclasses
import re
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from check_files import check
from PIL import Image

from i2i import images
from i2i.data import check as checking
from i2i.data import datasets
from i2i.data.check import narrow, picture_facts, remarks
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions
from i2i.data.source import picture_part
from i2i.errors import InputError
from i2i.images import Picture
from i2i.tools.datasets.inspect import inspect


def smooth(seed: int, side: int = 24, channels: int = 3) -> np.ndarray:
    """Values from 0 to 1, of gentle slopes, (side, side, channels)."""
    y, x = np.mgrid[0:side, 0:side] / side
    return np.dstack([(np.sin(5 * x + seed + i) * np.cos(4 * y + i) + 1) / 2 for i in range(channels)])


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(pixels))
    return path


def photos(data: Path, count: int = 20) -> list[Path]:
    names = [data / f"train{side}" / f"{i:02}.png" for side in "AB" for i in range(count)]
    return [write(path, np.rint(smooth(i) * 255).astype(np.uint8)) for i, path in enumerate(names)]


def options(data: Path, **more: object) -> DataOptions:
    return DataOptions(**({"data": data, "load_size": 24, "crop_size": 16} | more))  # type: ignore[arg-type]


def cut_short(path: Path) -> None:
    """Damage that a header does not show."""
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.promise("R11")
def test_hidden_damage_is_found_before_the_training(tmp_path: Path) -> None:
    files = photos(tmp_path)
    cut_short(files[3])
    with pytest.raises(InputError, match=r"1 picture cannot be read:\n.*03\.png.*\nUse on_bad='skip'"):
        open_datasets(options(tmp_path), paired=False)
    assert len(open_datasets(options(tmp_path, check="quick"), paired=False).train) == 20
    assert len(open_datasets(options(tmp_path, on_bad="skip"), paired=False).train) == 20


@pytest.mark.promise("R11")
@pytest.mark.parametrize(("damaged", "accepted"), [(2, True), (3, False)])
def test_five_of_a_hundred_may_be_damaged(tmp_path: Path, damaged: int, accepted: bool) -> None:
    files = photos(tmp_path)
    for path in files[:damaged]:
        cut_short(path)
    if accepted:
        assert len(check(files)) == damaged
        assert len(open_datasets(options(tmp_path, on_bad="skip"), paired=False).train) == 20
        return
    for look in (lambda: check(files), lambda: open_datasets(options(tmp_path, on_bad="skip"), paired=False)):
        with pytest.raises(InputError, match=r"3 of 40 pictures cannot be read, more than the 5% that may be left out"):
            look()
    assert inspect(tmp_path, full=True).exit_code == 4


@pytest.mark.promise("R11")
def test_a_sample_of_a_large_set_is_decoded_and_reported(tmp_path: Path, monkeypatch, capfd) -> None:
    files = photos(tmp_path)
    for i in (4, 31):
        cut_short(files[i])
    monkeypatch.setattr(checking, "SAMPLE", 10)
    assert check(files) == [files[4]]
    assert check(files, "full") == [files[4], files[31]]
    open_datasets(options(tmp_path, on_bad="skip"), paired=False)
    assert "checked 10 of 40 pictures by decoding them, the headers of the others" in capfd.readouterr().err
    monkeypatch.setattr(checking, "SAMPLE", 40)
    assert len(check(files)) == 2


def test_only_the_first_of_several_processes_decodes(tmp_path: Path, monkeypatch) -> None:
    cut_short(photos(tmp_path)[3])
    monkeypatch.setattr(datasets, "_is_first", lambda: False)
    assert len(open_datasets(options(tmp_path), paired=False).train) == 20


def test_other_channels_are_found_before_the_training(tmp_path: Path) -> None:
    for i in range(4):
        for side in "AB":
            write(tmp_path / f"train{side}" / f"{i}.tif", np.rint(smooth(i, channels=6) * 65535).astype(np.uint16))
    with pytest.raises(InputError, match=r"8 pictures have another number of channels(.|\n)*6 channels where 3"):
        open_datasets(options(tmp_path), paired=False)
    assert len(open_datasets(options(tmp_path, channels_a=6, channels_b=6), paired=False).train) == 4
    # one of the many is one that cannot be used
    files = photos(tmp_path / "photos", 30)
    files[0].unlink()
    write(files[0].with_suffix(".tif"), np.zeros((24, 24, 6), np.uint16))
    with pytest.raises(InputError, match="1 picture has another number of channels"):
        open_datasets(options(tmp_path / "photos"), paired=False)
    assert len(open_datasets(options(tmp_path / "photos", on_bad="skip"), paired=False).train) == 30


def with_a_band(path: Path, pixels: np.ndarray) -> None:
    """RGB and a band of no stated meaning, such as near-infrared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.rint(pixels * 255).astype(np.uint8), photometric="rgb", extrasamples=["unspecified"])


def test_a_band_beside_colours_is_one_of_four_channels(tmp_path: Path) -> None:
    for i in range(4):
        with_a_band(tmp_path / "data" / "trainA" / f"{i}.tif", smooth(i, channels=4))
        write(tmp_path / "data" / "trainB" / f"{i}.png", np.rint(smooth(i) * 255).astype(np.uint8))
    train = open_datasets(options(tmp_path / "data", channels_a=4, load_size=16), paired=False).train
    assert train[0].a.shape == (4, 16, 16)
    two = smooth(0, channels=4)
    with_a_band(tmp_path / "beside" / "train" / "0.tif", np.hstack([two, 1 - two]))
    given = options(tmp_path / "beside", channels_a=4, channels_b=4, preprocess="none")
    pair = open_datasets(given, paired=True).train[0]
    assert pair.a.shape == (4, 24, 24) and float((pair.a + pair.b).abs().max()) < 0.01
    halves = [picture_part(images.read(tmp_path / "beside/train/0.tif"), part) for part in ("left", "right")]
    assert [half.channels(4).shape for half in halves] == [(24, 24, 4)] * 2


@pytest.mark.parametrize("top", [1000, 4095, 10_000])
def test_16_bit_pictures_that_use_few_bits_are_reported(tmp_path: Path, capfd, top: int) -> None:
    for side in "AB":
        for i in range(3):
            pixels = np.rint(smooth(i, channels=1) * top).astype(np.uint16)
            pixels[0, 0], pixels[0, 1] = 0, top
            write(tmp_path / f"train{side}" / f"{i}.png", pixels)
    given = options(tmp_path, channels_a=1, channels_b=1)
    dataset = open_datasets(given, paired=False).train
    told = capfd.readouterr().err
    assert f"domain A: the pictures have values from 0 to {top} of 65535" in told
    assert f"each value v to v * {65535 // top}" in told
    assert f"a network sees -1.000 to {2 * top / 65535 - 1:.3f}" in told
    assert float(dataset[0].a.max()) <= 2 * top / 65535 - 1 + 1e-6
    assert any(f"trainB: the pictures have values from 0 to {top} of 65535" in r for r in inspect(tmp_path).remarks)
    open_datasets(dataclasses.replace(given, check="off"), paired=False)
    assert not capfd.readouterr().err


def test_narrow_value_ranges_are_explained() -> None:
    assert narrow(0, 65535 / 4 + 1, 65535) == "" == narrow(7, 7, 65535)
    assert "from 30000 to 40000 of 65535, 15.3% of the range" in narrow(30000, 40000, 65535)
    assert "(v - 30000) * 6" in narrow(30000, 40000, 65535)
    assert "v * 50" in narrow(0, 0.02, 1)


def labels(seed: int, classes: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (side // 8, side // 8), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize(
    ("classes", "kind", "said"),
    [
        (2, "grey", "the numbers 0 and 1 alone, which a network sees as black. They seem to be masks: classes_b=2"),
        (
            5,
            "grey",
            "from 0 to 4, which a network sees as nearly black. They seem to be indices of classes: classes_b=5",
        ),
        (5, "three", "from 0 to 4.* classes_b=5 takes them, saved as grey ones, as labels"),
        (5, "palette", "a palette, of which they use the numbers 0 to 4.* labels by colour: classes_b=5"),
        (5, "void", "from 0 to 4, and 255, which is no label"),
    ],
)
def test_labels_taken_for_pictures_are_reported(tmp_path: Path, capfd, classes: int, kind: str, said: str) -> None:
    for i in range(4):
        write(tmp_path / "train/A" / f"{i}.png", np.rint(smooth(i) * 255).astype(np.uint8))
        held = labels(i, classes)
        held[0, :2] = 0, classes - 1
        if kind == "void":
            held[-1] = 255
        path = tmp_path / "train/B" / f"{i}.png"
        if kind == "palette":
            path.parent.mkdir(exist_ok=True)
            made = Image.fromarray(held, "P")
            made.putpalette([7 * i % 256 for i in range(768)])
            made.save(path)
        else:
            write(path, held[..., None].repeat(3 if kind == "three" else 1, 2))
    open_datasets(options(tmp_path), paired=True)
    (line,) = capfd.readouterr().err.splitlines()
    (remark,) = (text for text in inspect(tmp_path).remarks if "seem to be" in text)
    for text in (line, remark):
        assert re.search(said, text), text
    assert "domain B" in line and "train/B" in remark


def test_pictures_are_not_taken_for_labels() -> None:
    dark = np.random.default_rng(0).integers(0, 50, (64, 64, 1), np.uint8)
    drawing = np.where(smooth(0, 64, 1) > 0.5, 255, 0).astype(np.uint8)
    photo = np.rint(smooth(0, 64) * 255).astype(np.uint8)
    for pixels in (dark, drawing, photo, drawing.repeat(3, 2)):
        assert remarks("A", [picture_facts(Picture(pixels))] * 3, "--classes-a") == []
    few = picture_facts(Picture(labels(0, 5)[..., None]))
    assert remarks("A", [few, few], "") and not remarks("A", [few, picture_facts(Picture(photo))], "")
    lossy = picture_facts(Picture(labels(0, 5)[..., None], format="JPEG"))
    assert remarks("A", [lossy], "") == []


def test_large_pictures_are_decoded_one_after_the_other(tmp_path: Path, monkeypatch) -> None:
    files, held, most = photos(tmp_path, 4), [], []
    read = images.read

    def watched(path: Path, values: None) -> Picture:
        held.append(path)
        most.append(len(held))
        time.sleep(0.02)
        held.remove(path)
        return read(path)

    monkeypatch.setattr(checking, "cores", lambda: 3)
    monkeypatch.setattr(checking.images, "read", watched)  # type: ignore[attr-defined]
    for pixels, at_a_time in ((24 * 24 - 1, 1), (2 * 24 * 24, 2), (1 << 20, 4)):
        most.clear()
        monkeypatch.setattr(checking, "AT_A_TIME", pixels)
        check(files)
        assert max(most) == at_a_time
