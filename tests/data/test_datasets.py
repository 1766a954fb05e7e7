"""Samples as functions of (seed, t), damage, depth, direction, pairs among others, one domain, and options that do not
fit."""

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from i2i import images
from i2i.config import from_mapping
from i2i.data.datasets import Images, open_datasets
from i2i.data.folders import PairRecord
from i2i.data.options import DataOptions, check_mixing, check_one_domain, check_sizes
from i2i.data.pair import ImagePair, batches
from i2i.data.toy import true_map
from i2i.errors import InputError, UsageError


def make(path, value, size=24, dtype=np.uint8, channels=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 40, (size, size, channels)).astype(dtype)
    pixels[..., 0] = value
    images.write(path, images.Picture(pixels))
    return path


OPTIONS = DataOptions(load_size=20, crop_size=16, seed=3)


def unpaired(tmp_path, options=OPTIONS, a=5, b=3, train=True):
    paths_a = [make(tmp_path / "trainA" / f"{i}.png", 10 + i) for i in range(a)]
    paths_b = [make(tmp_path / "trainB" / f"{i}.png", 100 + i) for i in range(b)]
    return Images((paths_a, paths_b), options, train)


def value(tensor):
    """The number that `make` wrote into the first channel."""
    return round((float(tensor[0].mean()) + 1) * 127.5)


def test_every_epoch_is_a_permutation_of_each_domain(tmp_path):
    dataset = unpaired(tmp_path)
    assert len(dataset) == 5
    a = [value(dataset[t].a) for t in range(30)]
    b = [value(dataset[t].b) for t in range(30)]
    for epoch in range(6):
        assert sorted(a[epoch * 5 : epoch * 5 + 5]) == [10, 11, 12, 13, 14]
    for epoch in range(10):
        assert sorted(b[epoch * 3 : epoch * 3 + 3]) == [100, 101, 102]
    assert a[:5] != a[5:10] or a[5:10] != a[10:15]


def test_a_sample_depends_on_seed_and_t_alone(tmp_path):
    dataset = unpaired(tmp_path)
    forward = [dataset[t] for t in range(12)]
    fresh = pickle.loads(pickle.dumps(unpaired(tmp_path)))  # noqa: S301
    for t in reversed(range(12)):
        assert torch.equal(fresh[t].a, forward[t].a) and torch.equal(fresh[t].b, forward[t].b)
    other = unpaired(tmp_path, dataclasses.replace(OPTIONS, seed=4))
    assert any(not torch.equal(other[t].a, forward[t].a) for t in range(3))


def test_the_same_picture_looks_different_in_another_epoch(tmp_path):
    dataset = unpaired(tmp_path, a=1, b=1)
    assert len({dataset[t].a.numpy().tobytes() for t in range(40)}) > 20


def test_evaluation_is_in_order_and_plain(tmp_path):
    dataset = unpaired(tmp_path, train=False)
    assert [value(dataset[t].a) for t in range(5)] == [10, 11, 12, 13, 14]
    assert torch.equal(dataset[0].a, dataset[5].a)


def test_direction(tmp_path):
    pair = unpaired(tmp_path)[0]
    turned = unpaired(tmp_path, dataclasses.replace(OPTIONS, direction="b2a"))[0]
    assert torch.equal(pair.a, turned.b) and torch.equal(pair.b, turned.a)


def test_side_by_side_and_two_files_give_the_same(tmp_path):
    a, b = (images.read(make(tmp_path / f"{name}.png", v)).pixels for name, v in (("a", 20), ("b", 200)))
    images.write(tmp_path / "ab.png", images.Picture(np.hstack([a, b])))
    one = Images([[PairRecord(tmp_path / "ab.png")]], OPTIONS)[0]
    two = Images([[PairRecord(tmp_path / "a.png", tmp_path / "b.png")]], OPTIONS)[0]
    assert torch.equal(one.a, two.a) and torch.equal(one.b, two.b)
    assert (value(one.a), value(one.b)) == (20, 200)


def test_crop_and_flip_of_a_pair_agree(tmp_path):
    path = make(tmp_path / "a.png", 20)
    dataset = Images([[PairRecord(path, path)]], OPTIONS)
    for t in range(10):
        assert torch.equal(dataset[t].a, dataset[t].b)


@pytest.mark.parametrize("paired", [True, False])
def test_a_random_zoom_shows_more_of_a_picture_and_labels_as_they_are(tmp_path, paired):
    classes = np.random.default_rng(0).integers(0, 2, (64, 64, 1)).astype(np.uint8) * 5
    for side in ("A", "B"):
        (tmp_path / f"train{side}").mkdir()
        images.write(tmp_path / f"train{side}" / "one.png", images.Picture(classes))
    options = DataOptions(data=tmp_path, preprocess="crop", crop_size=16, random_zoom=0.25, classes_a="6", channels_b=1)
    train = open_datasets(options, paired).train
    seen = [train[t] for t in range(6)]
    assert all(x.a.shape == (6, 16, 16) and ((x.a == 1).sum(dim=0) == 1).all() for x in seen)
    assert all(set(x.a.argmax(dim=0).unique().tolist()) == {0, 5} for x in seen)
    assert any(len(x.b.unique()) > 2 for x in seen), "pictures are averaged"
    plain = dataclasses.replace(options, classes_a="")
    alone = Images([[tmp_path / "trainB/one.png"]], plain, make_pair=lambda x, seed: ImagePair(x, x))
    assert alone[0].b.shape == (1, 16, 16) and any(len(alone[t].b.unique()) > 2 for t in range(6))


def test_channels_of_each_domain(tmp_path):
    record = PairRecord(make(tmp_path / "ab.png", 20))
    options = dataclasses.replace(OPTIONS, channels_a=1, channels_b=3, direction="b2a")
    pair = Images([[record]], options)[0]
    assert pair.a.shape == (3, 16, 16) and pair.b.shape == (1, 16, 16)


def test_sixteen_bits_reach_the_tensor(tmp_path):
    ramp = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16, 1) * 2 + 1
    path = tmp_path / "deep.png"
    images.write(path, images.Picture(ramp))
    options = dataclasses.replace(OPTIONS, channels_a=1, channels_b=1, preprocess="none", flip=False)
    pair = Images([[PairRecord(path, path)]], options)[0]
    assert np.array_equal(images.to_pixels(pair.a, np.uint16), ramp)


def test_five_channels(tmp_path):
    path = tmp_path / "five.tif"
    images.write(path, images.Picture(np.zeros((20, 20, 5), np.uint16)))
    options = dataclasses.replace(OPTIONS, channels_a=5)
    assert Images([[path], [make(tmp_path / "b.png", 1)]], options)[0].a.shape == (5, 16, 16)


@pytest.mark.promise("R11")
def test_damage_stops_or_is_replaced(tmp_path):
    whole = unpaired(tmp_path)
    bad = whole.lists[0][2]
    bad.write_bytes(b"damaged")
    with pytest.raises(InputError, match=str(bad)):
        [whole[t] for t in range(5)]
    patient = Images(whole.lists, dataclasses.replace(OPTIONS, on_bad="skip"))
    samples = [patient[t] for t in range(10)]
    replaced = [t for t, sample in enumerate(samples) if sample.skipped]
    assert len(replaced) == 2 and all(samples[t].skipped == (str(bad),) for t in replaced)
    for t in replaced:
        following = t + 1 if t != 4 else 0
        assert value(samples[t].a) == value(samples[following if t != 9 else 5].a)
    for path in whole.lists[0]:
        path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="none of 5"):
        patient[0]


def test_pair_of_two_sizes_names_its_files(tmp_path):
    record = PairRecord(make(tmp_path / "a.png", 1), make(tmp_path / "b.png", 1, size=30))
    with pytest.raises(InputError, match=r"a\.png, .*b\.png: sizes differ"):
        Images([[record]], OPTIONS)[0]


def test_open_datasets(tmp_path):
    unpaired(tmp_path)
    opened = open_datasets(dataclasses.replace(OPTIONS, data=tmp_path), paired=False)
    assert len(opened.train) == 5 and opened.validation is None
    for name in ("testA/1.png", "testB/1.png"):
        make(tmp_path / name, 1)
    assert len(open_datasets(dataclasses.replace(OPTIONS, data=tmp_path), paired=False).validation) == 1
    for i in range(30):
        make(tmp_path / "trainA" / f"more{i}.png", 1)
    (tmp_path / "trainA" / "1.png").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"1 picture cannot be read(.|\n)*1\.png"):
        open_datasets(dataclasses.replace(OPTIONS, data=tmp_path), paired=False)


def test_skipped_damaged_pictures_are_named(tmp_path, capfd):
    unpaired(tmp_path, a=40)
    (tmp_path / "trainA" / "1.png").write_bytes(b"damaged")
    (tmp_path / "trainA" / "\x1b.png").write_bytes(b"")
    open_datasets(dataclasses.replace(OPTIONS, data=tmp_path, on_bad="skip"), paired=False)
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(str(tmp_path))[0] for line in lines] == ["i2i: left out: "] * 2
    assert lines[0].endswith("\\x1b.png: empty file") and "trainA/1.png: text is not read here" in lines[1]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"preprocess": "none"},
            r"cannot be used:(.|\n)*flat\.png: 40x10 pixels, scaled to 40x8.* the 16 that the network takes$",
        ),
        ({"preprocess": "scale_width", "load_size": 48}, r"flat\.png: 40x10 pixels, scaled to 48x12: too small"),
        ({"preprocess": "scale_width", "load_size": 80}, None),
        ({"preprocess": "scale_shortside"}, None),
        (
            {"preprocess": "crop", "crop_size": 12},
            r"flat\.png: 40x10 pixels: too small, a side is below the crop of 12$",
        ),
    ],
)
def test_pictures_too_small_for_the_network(tmp_path, paired, changes, message):
    for i in range(3):
        make(tmp_path / "trainA" / f"{i}.png", i)
        make(tmp_path / "trainB" / f"{i}.png", i)
    for name in ("trainA/flat.png",) if not paired else ("trainA/flat.png", "trainB/flat.png"):
        images.write(tmp_path / name, images.Picture(np.zeros((10, 40, 3), np.uint8)))
    options = dataclasses.replace(OPTIONS, data=tmp_path, **changes)
    if message is None:
        open_datasets(options, paired, multiple=4, minimum=16)
        return
    with pytest.raises(InputError, match=message):
        open_datasets(options, paired, multiple=4, minimum=16)
    unchecked = open_datasets(dataclasses.replace(options, check="off"), paired, multiple=4, minimum=16)
    with pytest.raises(InputError, match=r"flat\.png: 40x10 pixels.*: too small"):
        [unchecked.train[t] for t in range(4)]


@pytest.mark.parametrize("paired", [True, False])
def test_open_toys(paired):
    opened = open_datasets(from_mapping(DataOptions, {"data": "toy", "crop_size": 32}), paired)
    assert opened.train[0].a.shape == opened.validation[0].b.shape == (3, 32, 32)


def test_toys_that_do_not_fit_the_network():
    options = DataOptions(data=Path("toy"), preprocess="none", crop_size=24)
    with pytest.raises(UsageError, match=r"crop_size = 24.*at least 32"):
        open_datasets(options, paired=True, multiple=4, minimum=32)
    with pytest.raises(UsageError, match=r"crop_size = 24.*multiples of 16"):
        open_datasets(options, paired=True, multiple=16, minimum=16)


def test_a_folder_of_the_name_toy_is_used(tmp_path, monkeypatch):
    unpaired(tmp_path / "toy")
    monkeypatch.chdir(tmp_path)
    assert len(open_datasets(dataclasses.replace(OPTIONS, data=Path("toy")), paired=False).train) == 5


def test_toys_are_as_large_as_crops():
    with pytest.raises(UsageError, match="toy pictures are drawn as large as crops"):
        open_datasets(DataOptions(data=Path("toy"), random_zoom=0.9), paired=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 300}, r"crop_size = 300.*load_size = 286"),
        ({"crop_size": 250}, r"crop_size = 250.*multiples of 4, for example 248 or 252"),
        ({"crop_size": 8}, r"crop_size = 8.*at least 16"),
        ({"crop_size": 300, "preprocess": "crop", "batch_size": 2}, None),
        ({"batch_size": 2, "preprocess": "none"}, r"batch_size = 2.*preprocess = none"),
        ({"load_size": 6, "preprocess": "scale_width"}, r"load_size = 6"),
        ({"random_zoom": 0.5, "preprocess": "none"}, r"random_zoom = 0\.5: preprocess = none crops nothing"),
        ({"random_zoom": 0.5, "instance_edges": True}, r"random_zoom = 0\.5: instance_edges"),
        ({"random_zoom": 0.5}, r"random_zoom = 0\.5: of load_size = 286 .* at least 0\.896"),
        ({"random_zoom": 0.896}, None),
        ({}, None),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    options = dataclasses.replace(DataOptions(), **changes)
    if message is None:
        check_sizes(options, multiple=4, minimum=16)
    else:
        with pytest.raises(UsageError, match=message):
            check_sizes(options, multiple=4, minimum=16)


@pytest.mark.parametrize("field", ["channels_a", "load_size", "crop_size", "batch_size", "workers", "seed"])
@settings(max_examples=10, deadline=None)
@given(number=st.integers(max_value=-1))
def test_numbers_out_of_range(field, number):
    with pytest.raises(UsageError, match=field):
        from_mapping(DataOptions, {field: number})


def test_a_folder_is_opened_by_its_names(tmp_path, monkeypatch):
    """With `check="off"` no file is looked at, but for the first of each folder: there may be a million."""
    make(tmp_path / "trainA/0000.png", 1)
    make(tmp_path / "trainB/0000.png", 1)
    for i in range(1, 200):
        (tmp_path / f"trainA/{i:04}.png").hardlink_to(tmp_path / "trainA/0000.png")
    looks = []
    for name in ("stat", "lstat", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, *a, real=real, **k: looks.append(str(path)) or real(path, *a, **k))
    found = open_datasets(DataOptions(data=tmp_path, check="off"), paired=False).train
    monkeypatch.undo()
    assert isinstance(found, Images) and len(found.lists) == 2
    assert len(found) == len(found.lists[0]) == 200 and list(found.lists[0][7:8]) == [tmp_path / "trainA/0007.png"]
    assert len([path for path in looks if path.endswith(".png")]) <= 2, looks


SIDE = 16


def fill(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, images.Picture(np.full((SIDE, SIDE, 3), value, np.uint8)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A pair has one value in both domains, the others have none in common."""
    for i in range(6):
        fill(tmp_path / "trainA" / f"{i}.png", i)
        fill(tmp_path / "trainB" / f"{i}.png", 100 + i)
        fill(tmp_path / "testA" / f"{i}.png", i)
        fill(tmp_path / "testB" / f"{i}.png", 100 + i)
        for side in "AB":
            fill(tmp_path / "pairs" / "train" / side / f"{i}.png", 200 + i)
    return tmp_path


def options(data: Path, **more: object) -> DataOptions:
    given = {"data": data, "paired_data": data / "pairs", "load_size": SIDE, "crop_size": SIDE, "batch_size": 4}
    return DataOptions(**(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_share_of_the_samples_are_pairs(data: Path, share: float) -> None:
    found = open_datasets(options(data, paired_share=share), paired=False)
    assert len(found.train) == 6 and found.validation is not None and found.validation[0].is_pair is None
    kinds = []
    for t in range(400):
        pair = found.train[t]
        a, b = (int(((x[0, 0, 0] + 1) * 127.5).round()) for x in (pair.a, pair.b))
        assert pair.is_pair is not None
        assert (a == b and a >= 200) if pair.is_pair else (a < 100 <= b < 200)
        kinds.append(bool(pair.is_pair))
    assert np.mean(kinds) == pytest.approx(share, abs=0.08)


def test_batches_say_which_rows_are_pairs(data: Path) -> None:
    train = open_datasets(options(data, paired_share=0.5), paired=False).train
    whole = list(batches(train, 0, 24, 4, 0))
    for workers in (1, 2):
        for one, other in zip(batches(train, 0, 24, 4, workers), whole, strict=True):
            assert one.is_pair is not None and other.is_pair is not None
            assert torch.equal(one.a, other.a) and torch.equal(one.is_pair, other.is_pair)
    flags = torch.cat([batch.is_pair for batch in whole if batch.is_pair is not None])
    assert flags.tolist() == [bool(train[t].is_pair) for t in range(24)]
    parts = whole[0].to("cpu").contiguous(torch.channels_last).parts(2)
    assert torch.equal(torch.cat([part.is_pair for part in parts if part.is_pair is not None]), flags[:4])


def test_only_an_algorithm_that_learns_from_both_takes_pairs(data: Path) -> None:
    with pytest.raises(UsageError, match=r"paired_data = .*CycleGAN"):
        check_mixing(options(data), supports_pairs=False)
    check_mixing(options(data), supports_pairs=True)


def test_toy_pairs_show_one_scene() -> None:
    toy = DataOptions(data=Path("toy"), paired_data=Path("toy"), paired_share=0.5, crop_size=16, load_size=16)
    train = open_datasets(toy, paired=False).train
    found = [train[t] for t in range(20)]
    alike = [torch.equal(true_map(pair.a), pair.b) for pair in found]
    assert alike == [bool(pair.is_pair) for pair in found] and 4 < sum(alike) < 16


def make_pair(picture: torch.Tensor, seed: int) -> ImagePair:
    return ImagePair(torch.rand(2, generator=torch.Generator().manual_seed(seed)), picture)


def test_one_domain(data: Path) -> None:
    found = open_datasets(options(data / "trainB", paired_data=None), paired=False, make_pair=make_pair)
    train = found.train
    assert isinstance(train, Images) and len(train) == 6 and found.validation is None
    values = [round(float(train[t].b[0, 0, 0] + 1) * 127.5) for t in range(12)]
    assert sorted(values[:6]) == sorted(values[6:]) == list(range(100, 106))
    assert torch.equal(train[3].a, train[3].a) and not torch.equal(train[3].a, train[9].a)
    assert str(data / "trainB") in train.names(0) and len(train.sources()) == 6


def test_splits_of_one_domain(data: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            fill(data / "own" / split / f"{i}.png", i)
    found = open_datasets(options(data / "own", paired_data=None), paired=False, make_pair=make_pair)
    assert found.validation is not None and (len(found.train), len(found.validation)) == (3, 2)
    (data / "empty").mkdir()
    for wrong, said in (
        (data, "two domains; give one of them"),
        (data / "none", "no such folder"),
        (data / "empty", "no pictures"),
    ):
        with pytest.raises(InputError, match=said):
            open_datasets(options(wrong, paired_data=None), paired=False, make_pair=make_pair)


@pytest.mark.parametrize("name", ["val", "testA", "test"])
def test_held_out_pictures_are_not_trained_on(data: Path, name: str) -> None:
    fill(data / "one" / "0.png", 1)
    fill(data / "one" / name / "1.png", 2)
    with pytest.raises(InputError, match=f"{name}"):
        open_datasets(options(data / "one", paired_data=None), paired=False, make_pair=make_pair)


@pytest.mark.parametrize(
    "wrong",
    [{"classes_a": "2"}, {"classes_b": "2"}, {"instance_edges": True}, {"channels_a": 1}, {"pairs": "intersect"}],
)
def test_one_domain_set_has_no_second_domain(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} = .*there is one domain"):
        check_one_domain(DataOptions(**wrong))
    check_one_domain(DataOptions(channels_b=1, crop_size=64))


def test_paired_share_needs_paired_data() -> None:
    with pytest.raises(UsageError, match=r"paired_share = 0\.5: of what paired_data names"):
        check_mixing(DataOptions(paired_share=0.5), supports_pairs=True)
