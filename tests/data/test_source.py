"""The cache of pictures: the same samples with it, without it and while it is built; damage, change, a full disk."""

import dataclasses
import multiprocessing
import os
import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import FilesUpTo

from i2i import images
from i2i.data.datasets import Images, open_datasets
from i2i.data.folders import PairRecord
from i2i.data.options import DataOptions
from i2i.data.pair import batches
from i2i.data.source import Source, load
from i2i.data.transforms import Transform
from i2i.errors import ImageError, InputError, OutputError

TRANSFORM = Transform(load_size=20, crop_size=16)
PREPROCESS = ("resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "none")


def make(path, value=0, size=(24, 30), dtype=np.uint8, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    full = np.iinfo(dtype).max
    pixels = np.random.default_rng(value).integers(0, full, (*size, channels), dtype)
    images.write(path, images.Picture(pixels))
    return path


def never(path):
    pytest.fail("decoded again")


def pixels(path, folder, resizer=TRANSFORM, channels=3):
    return load(Source(path, channels), resizer, folder).pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_decoded_and_resized_once(tmp_path, monkeypatch, dtype):
    path, folder = make(tmp_path / "a.png", dtype=dtype), tmp_path / "cache"
    plain = load(Source(path, 3), TRANSFORM)
    assert plain.pixels.shape == (20, 20, 3) and plain.pixels.dtype == dtype and plain.size == (24, 30)
    built = load(Source(path, 3), TRANSFORM, folder)
    monkeypatch.setattr(images, "read", never)
    read = load(Source(path, 3), TRANSFORM, folder)
    for other in (built, read):
        assert np.array_equal(other.pixels, plain.pixels) and other.size == plain.size
    (entry,) = folder.iterdir()
    assert entry.stat().st_size == 136 + 20 * 20 * 3 * np.dtype(dtype).itemsize


def test_a_large_entry_is_mapped(tmp_path, monkeypatch):
    path, folder = make(tmp_path / "a.png", size=(600, 600)), tmp_path / "cache"
    crop = Transform("crop", crop_size=16)
    plain = pixels(path, folder, crop)
    monkeypatch.setattr(images, "read", never)
    stored = pixels(path, folder, crop)
    assert np.array_equal(stored, plain)
    torch.set_warn_always(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.from_numpy(stored)
    torch.set_warn_always(False)
    while stored.base is not None and not isinstance(stored, np.memmap):
        stored = stored.base
    assert isinstance(stored, np.memmap), "a crop reads its own part"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-100],
        lambda data: b"",
        lambda data: data[:20],
        lambda data: bytes(len(data)),
        lambda data: b"\x92" + data[1:],
        lambda data: data[:16] + b"#" + data[17:],
        lambda data: data.replace(b"(3, 20, 20)", b"(4, 15, 20)"),
        lambda data: data.replace(b"planes", b"pixels"),
        lambda data: data.replace(b"|u1", b"|S1"),
    ],
)
def test_a_damaged_entry_is_replaced(tmp_path, damage):
    path, folder = make(tmp_path / "a.png"), tmp_path / "cache"
    plain = pixels(path, folder).copy()
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert np.array_equal(pixels(path, folder), plain)
    assert entry.read_bytes() == whole


def test_cache_entries_of_changed_files_or_options_are_not_used(tmp_path):
    path, folder = make(tmp_path / "a.bmp", 1), tmp_path / "cache"

    def entries():
        return len(list(folder.iterdir()))

    pixels(path, folder)
    length = path.stat().st_size
    make(path, 2)
    os.utime(path, (1, 1))
    assert path.stat().st_size == length
    assert np.array_equal(pixels(path, folder), pixels(path, None)) and entries() == 2
    for count, changes in enumerate(
        [{"load_size": 24}, {"preprocess": "crop"}, {"preprocess": "scale_shortside"}, {"train": False}], 3
    ):
        other = dataclasses.replace(TRANSFORM, **changes)
        assert np.array_equal(pixels(path, folder, other), pixels(path, None, other)) and entries() == count
    assert pixels(path, folder, channels=1).shape == (20, 20, 1) and entries() == 7
    half = Source(path, 3, "left")
    assert load(half, TRANSFORM, folder).size == (24, 15) and entries() == 8
    pixels(path, folder, dataclasses.replace(TRANSFORM, crop_size=8, flip=False))
    assert entries() == 8, "crop and flip come later"


def test_a_picture_that_changes_while_it_is_decoded_is_not_kept(tmp_path, monkeypatch):
    path, folder = make(tmp_path / "a.png"), tmp_path / "cache"
    read = images.read

    def changing(path, **options):
        picture = read(path, **options)
        os.utime(path, (1, 1))
        return picture

    monkeypatch.setattr(images, "read", changing)
    pixels(path, folder)
    assert not folder.exists()


def samples(dataset, count=8):
    return [(pair.a.numpy().tobytes(), pair.b.numpy().tobytes()) for pair in (dataset[t] for t in range(count))]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("preprocess", PREPROCESS)
def test_no_sample_is_changed(tmp_path, preprocess, train):
    paths = [make(tmp_path / f"{i}.png", i, (20 + 3 * i, 44), (np.uint8, np.uint16)[i % 2]) for i in range(4)]
    options = DataOptions(preprocess=preprocess, load_size=20, crop_size=16, channels_b=1)
    cached = dataclasses.replace(options, cache=tmp_path / "cache")
    records = [PairRecord(path) for path in paths] + [PairRecord(path, path) for path in paths]
    for lists in ((paths[:3], paths), (records,)):
        plain = samples(Images(lists, options, train, 4))
        assert samples(Images(lists, cached, train, 4)) == plain
        assert samples(Images(lists, cached, train, 4)) == plain


def test_resume_with_or_without_cache_gives_the_same_samples(tmp_path):
    """Batches from any start, by workers or not, while it is built, when it is there and after it was deleted."""
    for side in "AB":
        for i in range(5):
            make(tmp_path / f"train{side}" / f"{i}.png", i)
    options = DataOptions(data=tmp_path, load_size=20, crop_size=16)
    cached = dataclasses.replace(options, cache=tmp_path / "cache")
    plain = list(batches(open_datasets(options, False).train, 0, 12, 2, 0))
    for start, workers in ((0, 1), (4, 0), (8, 1)):
        for chosen in (cached, options, cached):
            later = list(batches(open_datasets(chosen, False).train, start, 12, 2, workers))
            for one, other in zip(later, plain[start // 2 :], strict=True):
                assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)
        shutil.rmtree(tmp_path / "cache")


def build(paths, options, expected, queue):
    queue.put(samples(Images((paths, paths), options)) == expected)


def test_several_processes_build_it(tmp_path):
    paths = [make(tmp_path / f"{i}.png", i) for i in range(8)]
    options = DataOptions(load_size=20, crop_size=16)
    expected = samples(Images((paths, paths), options))
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    cached = dataclasses.replace(options, cache=tmp_path / "cache")
    several = [fork.Process(target=build, args=(paths, cached, expected, queue)) for _ in range(4)]
    for process in several:
        process.start()
    assert [queue.get(timeout=60) for _ in several] == [True] * 4
    for process in several:
        process.join()
    assert len(list(tmp_path.joinpath("cache").glob("*.npy"))) == 8
    assert not list(tmp_path.joinpath("cache").glob(".*"))


def test_a_picture_too_small_or_of_odd_width(tmp_path):
    path, folder = make(tmp_path / "a.png", size=(24, 31)), tmp_path / "cache"
    with pytest.raises(InputError, match="odd width 31"):
        load(Source(path, 3, "left"), TRANSFORM, folder)
    crop = Transform("crop", crop_size=20)
    pixels(path, folder, crop)
    larger = DataOptions(preprocess="crop", crop_size=28, cache=folder)
    with pytest.raises(InputError, match=r"31x24 pixels: too small, a side is below the crop of 28"):
        Images([[path], [path]], larger)[0]
    with pytest.raises(ImageError, match="cannot be opened: No such file"):
        pixels(tmp_path / "none.png", folder)


def write_on_a_full_disk(path, folder, queue):
    FilesUpTo(500)()
    try:
        pixels(path, folder)
    except OutputError as error:
        queue.put(str(error))


def test_a_disk_that_gets_full(tmp_path):
    path, folder = make(tmp_path / "a.png"), tmp_path / "cache"
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    process = fork.Process(target=write_on_a_full_disk, args=(path, folder, queue))
    process.start()
    said = queue.get(timeout=60)
    process.join()
    assert said.startswith(f"{folder}: this picture cannot be added to the cache: File too large; 1,336 bytes")
    assert list(folder.iterdir()) == []


def test_cache_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be added to the cache: "):
        pixels(make(tmp_path / "a.png"), tmp_path / "file")
    make(tmp_path / "trainA" / "a.png"), make(tmp_path / "trainB" / "b.png")
    with pytest.raises(OutputError, match="no folder for the cache"):
        open_datasets(DataOptions(data=tmp_path, cache=tmp_path / "file", load_size=20, crop_size=16), False)


def test_complete_cache_may_be_read_only(tmp_path, capfd, monkeypatch):
    make(tmp_path / "trainA" / "a.png"), make(tmp_path / "trainB" / "b.png")
    options = DataOptions(data=tmp_path, cache=tmp_path / "cache", load_size=20, crop_size=16)
    expected = open_datasets(options, False).train[0]
    monkeypatch.setattr(os, "access", lambda *_: False)
    (tmp_path / "cache").chmod(0o555)
    sample = open_datasets(options, False).train[0]
    assert torch.equal(sample.a, expected.a) and "2 pictures are there\n" in capfd.readouterr().err


def test_cache_reports_entries_and_bytes_before_training(tmp_path, capfd, monkeypatch):
    for name in ("trainA/1", "trainA/2", "trainB/1", "testA/1", "testB/1"):
        make(tmp_path / f"{name}.png")
    folder = tmp_path / "cache"
    options = DataOptions(data=tmp_path, cache=folder, load_size=400, crop_size=256)
    train = open_datasets(options, False).train
    needed = 5 * 136 + 3 * 400 * 400 * 3 + 2 * 256 * 256 * 3
    assert capfd.readouterr().err == (f"i2i: cache {folder}: 0 pictures are there, 5 to come ({needed / 1e6:.1f} MB)\n")
    (folder / ".i2i-dead.part").write_text("")
    os.utime(folder / ".i2i-dead.part", (1, 1))
    (folder / ".i2i-alive.part").write_text("")
    [train[t] for t in range(2)]
    open_datasets(options, False)
    assert "3 pictures are there, 2 to come (0.4 MB)" in capfd.readouterr().err
    assert sorted(path.name for path in folder.glob(".*")) == [".i2i-alive.part"]
    monkeypatch.setattr(os, "access", lambda *_: False)  # what permissions are, root would not feel
    with pytest.raises(OutputError, match="the cache cannot be written: no permission"):
        open_datasets(options, False)
    usage = namedtuple("usage", "free")(300_000)
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"the cache needs 0\.4 MB for 2 pictures, 0\.3 MB are free"):
        open_datasets(options, False)
    assert Path(folder).is_dir()
