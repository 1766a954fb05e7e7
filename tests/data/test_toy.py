"""Toy domains: deterministic, in range, a mapping that is known and visible, standard layouts."""

import numpy as np
import pytest
import torch
from check_files import check
from toy_folders import write_folder

from i2i import images
from i2i.data import folders
from i2i.data.toy import LABEL_COLOURS, ToyPairs, ToyUnpaired, true_map
from i2i.errors import UsageError

pytestmark = pytest.mark.arithmetic


@pytest.mark.parametrize("kind", [ToyPairs, ToyUnpaired])
@pytest.mark.parametrize("size", [16, 33, 64])
def test_samples(kind, size):
    dataset = kind(size, seed=2)
    pair = dataset[1_000_003]
    for side in (pair.a, pair.b):
        assert side.shape == (3, size, size) and side.min() >= -1 and side.max() <= 1
        assert side.std() > 0.1
    again = kind(size, seed=2)[1_000_003]
    assert torch.equal(pair.a, again.a) and torch.equal(pair.b, again.b)
    assert not torch.equal(pair.a, dataset[0].a)
    assert not torch.equal(pair.a, kind(size, seed=3)[1_000_003].a)
    assert torch.equal(kind(size, seed=2, direction="b2a")[1_000_003].a, pair.b)


def test_held_out_toys_are_another_fixed_set():
    train, held_out = ToyPairs(32), ToyPairs(32, train=False)
    assert torch.equal(held_out[0].a, held_out[len(held_out)].a)
    assert not any(torch.equal(held_out[t].a, train[t].a) for t in range(5))


def test_label_maps_are_flat():
    colours = images.to_pixels(ToyPairs(64)[0].a).reshape(-1, 3)
    assert {tuple(c) for c in colours.tolist()} <= {tuple(c) for c in LABEL_COLOURS.tolist()}


def test_a_scene_follows_from_its_labels():
    """The mean colour per label explains most of a scene, so there is something to learn."""
    pairs = [ToyPairs(32)[t] for t in range(20)]
    labels = np.concatenate([images.to_pixels(p.a).reshape(-1, 3) for p in pairs])
    scenes = np.concatenate([images.to_pixels(p.b).reshape(-1, 3) for p in pairs]).astype(float)
    guess = np.zeros_like(scenes)
    for colour in LABEL_COLOURS:
        chosen = (labels == colour).all(1)
        guess[chosen] = scenes[chosen].mean(0) if chosen.any() else 0
    assert ((scenes - guess) ** 2).sum() < 0.15 * ((scenes - scenes.mean(0)) ** 2).sum()


def test_the_true_map():
    a = torch.stack([ToyUnpaired(32)[t].a for t in range(8)])
    b = true_map(a)
    assert b.shape == a.shape and b.min() >= -1 and b.max() <= 1
    assert (b - a).abs().mean() > 0.2
    assert torch.equal(true_map(a[0]), b[0])
    rows = b[:, :, 20:].mean((0, 1, 3))
    bright = torch.arange(20, 32) % 4 >= 2
    assert rows[bright].mean() - rows[~bright].mean() > 0.1


def test_domains_are_unpaired_but_alike():
    dataset = ToyUnpaired(32)
    mapped = torch.stack([true_map(dataset[t].a) for t in range(40)])
    given = torch.stack([dataset[t].b for t in range(40)])
    assert min((mapped[t] - given[t]).abs().mean() for t in range(40)) > 0.02
    assert (mapped.mean((0, 2, 3)) - given.mean((0, 2, 3))).abs().max() < 0.05


def test_folders(tmp_path):
    write_folder(tmp_path / "u", "unpaired", count=4, size=16)
    write_folder(tmp_path / "p", "paired", count=4, size=16)
    assert [len(side) for side in folders.unpaired(tmp_path / "u", "train")] == [4, 4]
    assert [len(side) for side in folders.unpaired(tmp_path / "u", "test")] == [1, 1]
    records = folders.paired(tmp_path / "p", "train")
    assert len(records) == 4 and check(records, "full") == []
    first = images.read(records[0].a).pixels
    assert np.array_equal(first[:, :16], images.to_pixels(ToyPairs(16)[0].a))


def test_too_small():
    with pytest.raises(UsageError, match="16"):
        ToyPairs(8)
