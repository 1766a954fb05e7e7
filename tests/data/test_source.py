"""The cache of pictures: the same samples with it, without it and while it is built; damage, change, a full disk."""

import dataclasses
import itertools
import multiprocessing
import os
import shutil
import warnings
from collections import namedtuple
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from disks import FilesUpTo

from i2i import images
from i2i.data.datasets import PairedImages, UnpairedImages, open_datasets
from i2i.data.folders import PairRecord
from i2i.data.loader import batches
from i2i.data.options import DataOptions
from i2i.data.source import Source, Transform, load
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
    for kind, lists in ((UnpairedImages, (paths[:3], paths)), (PairedImages, (records,))):
        plain = samples(kind(lists, options, train, 4))
        assert samples(kind(lists, cached, train, 4)) == plain
        assert samples(kind(lists, cached, train, 4)) == plain


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
    queue.put(samples(UnpairedImages((paths, paths), options)) == expected)


def test_several_processes_build_it(tmp_path):
    paths = [make(tmp_path / f"{i}.png", i) for i in range(8)]
    options = DataOptions(load_size=20, crop_size=16)
    expected = samples(UnpairedImages((paths, paths), options))
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
        UnpairedImages([[path], [path]], larger)[0]
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


def picture(height, width, channels=3, dtype=np.uint8):
    values = np.random.default_rng(height * width).random((height, width, channels))
    return (values * np.iinfo(dtype).max).astype(dtype)


def transformed(transform, seed, a, b=None):
    """Resized, cropped and flipped."""
    if b is not None:
        transform.check_pair(a.shape, b.shape)
    crops = transform.crop(seed, *(transform.resize(one) for one in (a, b) if one is not None))
    return crops[0], crops[1] if b is not None else None


SIZES = {
    "resize_and_crop": (32, 32),
    "crop": (32, 32),
    "scale_width": (28, 40),
    "scale_width_and_crop": (32, 32),
    "scale_shortside": (32, 32),
    "none": (48, 68),
}


@pytest.mark.arithmetic
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("preprocess", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_size_depth_and_channels(preprocess, train, dtype, channels):
    transform = Transform(preprocess, load_size=40, crop_size=32, multiple=4, train=train)
    a, b = transformed(transform, 0, picture(49, 67, channels, dtype), picture(49, 67, 1))
    assert a.shape == (*SIZES[preprocess], channels) and a.dtype == dtype
    assert b.shape == (*SIZES[preprocess], 1)


@pytest.mark.arithmetic
def test_never_smaller_than_one_multiple():
    a, _ = transformed(Transform("none", multiple=16), 0, picture(3, 100))
    assert a.shape[:2] == (16, 96)


@pytest.mark.arithmetic
@pytest.mark.parametrize("preprocess", SIZES)
def test_crop_and_flip_of_a_pair_agree(preprocess):
    transform = Transform(preprocess, load_size=40, crop_size=32)
    source = picture(64, 64)
    looks = set()
    for seed in range(20):
        a, b = transformed(transform, seed, source, source)
        assert np.array_equal(a, b)
        looks.add(a.tobytes())
    assert len(looks) > (2 if preprocess in ("scale_width", "none") else 10) - 1


@pytest.mark.arithmetic
def test_the_seed_alone_decides():
    transform = Transform(load_size=40, crop_size=32)
    source = picture(64, 64)
    first = [transformed(transform, seed, source)[0] for seed in range(6)]
    np.random.seed(0)
    for seed in reversed(range(6)):
        assert np.array_equal(transformed(transform, seed, source)[0], first[seed])


@pytest.mark.arithmetic
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(256, 256), (256, 20), (20, 256)])
def test_shrinking_does_not_alias(dtype, size):
    full = np.iinfo(dtype).max
    board = (np.indices(size).sum(0) % 2 * full).astype(dtype)[..., None]
    for side in (32, 48):
        small = transformed(Transform("resize_and_crop", side, side, flip=False), 0, board)[0] / full
        # along an axis that is enlarged the pattern of 20 pixels may stay visible; the shrunk one averages it
        assert abs(small.mean() - 0.5) < 0.01
        assert np.abs(small - 0.5).max() < 0.2


@pytest.mark.arithmetic
def test_evaluation_is_the_middle_without_flip():
    transform = Transform("crop", crop_size=32, train=False)
    source = picture(64, 64)
    assert np.array_equal(transformed(transform, 5, source)[0], source[16:48, 16:48])


@pytest.mark.arithmetic
def test_same_size_is_untouched():
    source = picture(64, 64)
    assert np.array_equal(transformed(Transform("none", flip=False, multiple=4), 0, source)[0], source)


@pytest.mark.arithmetic
def test_flat_picture_is_stretched_until_the_crop_fits():
    a, _ = transformed(Transform("scale_width_and_crop", 40, 32), 0, picture(10, 100))
    assert a.shape == (32, 32, 3)


@pytest.mark.arithmetic
def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(InputError, match="20x40 pixels: too small, a side is below the crop of 32"):
        transformed(Transform("crop", crop_size=32), 0, picture(40, 20))
    with pytest.raises(InputError, match="sizes differ: 20x40 and 40x20"):
        transformed(Transform(), 0, picture(40, 20), picture(20, 40))


def composed(transform, seed, a, b):
    """The same by one call of albumentations, with the crop's place and the flip that belong to the seed."""
    target = transform.target(*a.shape[:2])
    smaller = tuple(map(min, a.shape[:2], target))
    top, left, _, _, flipped = transform._crop_window(seed, *target)
    steps = [A.Resize(*smaller, interpolation=cv2.INTER_AREA), A.Resize(*target, interpolation=cv2.INTER_CUBIC)]
    if transform.preprocess not in ("scale_width", "none"):
        side = transform.crop_size
        steps.append(A.Crop(left, top, left + side, top + side) if transform.train else A.CenterCrop(side, side))
    if flipped:
        steps.append(A.HorizontalFlip(p=1))
    compose = A.Compose(steps, additional_targets={"b": "image"})
    done = compose(image=a, b=b)
    return done["image"], done["b"]


@pytest.mark.arithmetic
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("preprocess", SIZES)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1), (np.uint8, 5)])
def test_crop_and_flip_are_those_of_albumentations(preprocess, train, dtype, channels):
    for flip in (True, False):
        transform = Transform(preprocess, load_size=41, crop_size=32, flip=flip, train=train)
        a, b = picture(49, 67, channels, dtype), picture(49, 67, 1)
        for seed in (0, 1, 2, 2**32 - 1):
            for ours, theirs in zip(transformed(transform, seed, a, b), composed(transform, seed, a, b), strict=True):
                assert np.array_equal(ours, theirs)


LOOKS = [(27, 25, True), (4, 27, False), (31, 31, True), (7, 17, True), (15, 24, True), (13, 5, False)]


@pytest.mark.arithmetic
def test_place_and_flip_have_nothing_to_do_with_each_other():
    looks = np.array([Transform(crop_size=32)._crop_window(seed, 64, 64) for seed in range(4000)], float)[:, [0, 1, 4]]
    assert np.abs(np.corrcoef(looks.T) - np.eye(3)).max() < 0.06  # 1 / √4000 is 0.016
    assert np.allclose(looks.mean(axis=0), (16, 16, 0.5), atol=(0.6, 0.6, 0.03))
    assert looks[:, :2].min() == 0 and looks[:, :2].max() == 32


@pytest.mark.arithmetic
def test_each_seed_has_its_crop_and_flip_for_good():
    """Numbers noted once: a run that goes on after an update sees the pictures that it would have seen."""
    source = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1)
    looks = []
    for seed in (0, 1, 2, 3, 2024, 4_000_000_000):
        crop = transformed(Transform("crop", crop_size=32), seed, source)[0][..., 0]
        looks.append((*divmod(int(crop.min()), 64), bool(crop[0, 0] > crop[0, 1])))
    assert looks == LOOKS


@pytest.mark.arithmetic
def test_a_picture_is_resized_alike_where_it_is_said_to_be():
    """The name of a resize has all that matters to it, and nothing else, such as the flip."""
    source = picture(40, 140)
    seen: dict[str, bytes] = {}
    for preprocess in SIZES:
        for larger, crop, multiple, train in itertools.product((40, 44), (32, 36), (4, 16), (True, False)):
            transform = Transform(preprocess, larger, crop, multiple=multiple, train=train)
            resized = transform.resize(source)
            assert seen.setdefault(transform.resizing, resized.tobytes()) == resized.tobytes()
            assert resized.shape[:2] == transform.target(40, 140)


@pytest.mark.arithmetic
def test_zoomed_crops_are_of_every_scale_and_still_have_their_size() -> None:
    transform = Transform("crop", crop_size=16, zoom=0.25)
    seen = np.array([transform._crop_window(seed, 64, 48)[:4] for seed in range(2000)])
    assert np.array_equal(seen[:, 2], seen[:, 3]) and (seen[:, 2].min(), seen[:, 2].max()) == (16, 48)
    assert (seen[:, 0] + seen[:, 2]).max() == 64 and (seen[:, 1] + seen[:, 3]).max() == 48
    scales = 16 / seen[seen[:, 2] < 48, 2]
    assert abs(scales.mean() - (1 / 3 + 1) / 2) < 0.02, "uniform, as far as the picture goes"
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[:, None], 48, axis=1)[..., None]
    for seed in range(20):
        (crop,) = transform.crop(seed, ramp)
        top, _, height, _, _ = transform._crop_window(seed, 64, 48)
        assert crop.shape == (16, 16, 1)
        assert abs(float(crop.mean()) - (top + (height - 1) / 2)) < 1, "all of what was seen, smaller"


@pytest.mark.arithmetic
def test_zoomed_pairs_agree_and_labels_stay_labels() -> None:
    transform = Transform("crop", crop_size=16, zoom=0.25)
    labels = np.random.default_rng(0).choice([0, 7, 200], (64, 64, 1)).astype(np.uint8)
    for seed in range(10):
        a, b, c = transform.crop(seed, labels, labels, labels, labels=[True, False])
        assert set(np.unique(a)) <= {0, 7, 200}
        zoomed = transform._crop_window(seed, 64, 64).height > 16
        assert np.array_equal(b, c) and np.array_equal(a, b) == (not zoomed)


@pytest.mark.arithmetic
def test_without_a_zoom_and_for_validation_nothing_is_scaled() -> None:
    source = picture(40, 50)
    for transform in (Transform("crop", crop_size=16), Transform("crop", crop_size=16, zoom=0.25, train=False)):
        for seed in range(5):
            top, left, height, width, _ = transform._crop_window(seed, 40, 50)
            assert (height, width) == (16, 16)
            crop = transform.crop(seed, source)[0]
            assert np.array_equal(np.sort(crop, axis=1), np.sort(source[top : top + 16, left : left + 16], axis=1))
