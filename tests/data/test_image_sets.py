"""Pairs among pictures without partners, and pictures of one domain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2i import images
from i2i.data.datasets import open_datasets
from i2i.data.image_sets import OneDomain
from i2i.data.loader import batches
from i2i.data.options import DataOptions, check_mixing, check_one_domain
from i2i.data.pair import ImagePair
from i2i.data.toy import true_map
from i2i.errors import InputError, UsageError
from i2i.images import Picture

SIDE = 16


def fill(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(np.full((SIDE, SIDE, 3), value, np.uint8)))


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
    assert isinstance(train, OneDomain) and len(train) == 6 and found.validation is None
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
    with pytest.raises(UsageError, match=r"paired_share = 0\.5: of what --paired-data names"):
        check_mixing(DataOptions(paired_share=0.5), supports_pairs=True)
