"""prepare_dataset.py instances: from labels and maps of instances to label pictures that a training takes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code
from disks import listed

from i2i import images
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions
from i2i.data.transforms import Transform
from i2i.errors import ImageError, InputError, UsageError
from i2i.images import Picture
from i2i.images.palettes import TOY, boundaries, to_colours
from i2i.tools.datasets.pairs import REACH, add_instances, numbered

SIDE, CLASSES = 96, 4
script = partial(exit_code, "prepare-dataset")


def write(path, pixels, alpha=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(pixels, alpha))


def blocks(seed, count, size=12, side=SIDE, dtype=np.uint8):
    """Squares of `size` pixels of the values below `count`, (side, side)."""
    cells = np.random.default_rng(seed).integers(0, count, (side // size, side // size))
    return cells.repeat(size, 0).repeat(size, 1).astype(dtype)


def tiles(across, size, side):
    """Squares of `size` pixels, `across` of them in a row, each of another value, (side, side) uint16."""
    rows = np.arange(side) // size
    return (rows[:, None] * across + rows).astype(np.uint16)


def by_value(map_):
    return map_[..., None]


def by_colour(map_):
    """Several instances have the same red, the same green or the same blue."""
    return np.stack([map_ // 1000 * 20, map_ % 1000 // 2 * 90, map_ % 2], axis=2).astype(np.uint8)


@pytest.fixture
def scene(tmp_path):
    """Two pictures of classes and of instances in the manner of Cityscapes: class · 1000 + n."""
    for i in range(2):
        classes, things = blocks(i, CLASSES), blocks(i + 10, 5, size=8)
        write(tmp_path / f"labels/{i}.png", by_value(classes))
        write(tmp_path / f"maps/{i}.png", by_value(classes * np.uint16(1000) + things))
    return tmp_path


def trained(folder, classes, side):
    """The boundaries that a training has of each picture, (H, W) bool."""
    given = {"instance_edges": True, "load_size": side, "crop_size": side, "flip": False}
    data = open_datasets(DataOptions(data=folder, classes_a=classes, **given), paired=True).train
    return {Path(data.names(t).split(", ")[0]).stem: data[t].a[-1].numpy() > 0 for t in range(len(data))}  # type: ignore[attr-defined]


@pytest.mark.parametrize("side", [SIDE, 40])
@pytest.mark.parametrize("as_map", [by_value, by_colour])
@pytest.mark.parametrize("classes", ["index", "colour"])
def test_boundaries_are_those_of_labels_and_instances(tmp_path, classes, as_map, side):
    expected = {}
    resize = Transform(load_size=side, crop_size=side).resize
    for i in range(3):
        labels, things = blocks(i, CLASSES), blocks(i + 10, 5, size=8)
        map_ = labels * np.uint16(1000) + things if i else things.astype(np.uint16)
        shown = by_value(labels) if classes == "index" else to_colours(labels, TOY)
        write(tmp_path / f"labels/{i}.png", shown)
        write(tmp_path / f"maps/{i}.png", as_map(map_))
        write(tmp_path / f"set/train/B/{i}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        near = [resize(by_value(plane), labels=True)[..., 0] for plane in (labels, map_)]
        expected[str(i)] = boundaries(*near) > 0
        assert boundaries(near[0]).sum() < 0.8 * expected[str(i)].sum() < 0.7 * side * side
    assert script("instances", tmp_path / "labels", tmp_path / "maps", "-o", tmp_path / "set/train/A") == 0
    assert listed(tmp_path / "set/train/A") == ["0.png", "1.png", "2.png"]
    found = trained(tmp_path / "set", str(CLASSES) if classes == "index" else "toy", side)
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    for i in range(3):
        written = images.read(tmp_path / f"set/train/A/{i}.png")
        assert np.array_equal(written.pixels, images.read(tmp_path / f"labels/{i}.png").pixels)
        assert written.alpha.dtype == np.uint8


def test_each_instance_has_its_number():
    things = np.zeros((20, 20, 1), np.uint16)
    things[:4], things[4:6] = 26_003, 26_001
    numbers = numbered(things)
    assert np.array_equal(np.unique(numbers[6:]), [255])  # the largest
    assert np.array_equal(np.unique(numbers[:4]), [254]) and np.array_equal(np.unique(numbers[4:6]), [253])
    numbers = numbered(tiles(15, 3, 45)[..., None])
    assert len(np.unique(numbers)) == 225 and numbers.min() == 31
    full = np.arange(255).repeat(4).reshape(30, 34, 1)
    assert np.array_equal(np.unique(numbered(full)), np.arange(1, 256))  # never 0


def test_more_instances_than_numbers():
    """They share numbers; boundaries are as before, also scaled down to an eighth."""
    things = tiles(40, 6, 240)
    things[90:150, 90:150] = 7  # one that touches many
    things[100, :] = 2000
    numbers = numbered(things[..., None])
    assert len(np.unique(things)) > 1000 and numbers.min() >= 1
    for step in range(1, REACH + 1):
        for start in range(step):
            near = np.s_[start::step, start::step]
            assert np.array_equal(boundaries(numbers[near]), boundaries(things[near]))
    around = np.arange(900)[None].repeat(9, 0) // 3
    around[4] = 300  # next to all 300 others
    numbers = numbered(around[..., None])
    assert np.array_equal(boundaries(numbers), boundaries(around))
    noise = np.random.default_rng(0).integers(0, 300, (150, 150, 1), np.uint16)
    with pytest.raises(ImageError, match="300 instances, too close together for the 255 numbers of an alpha"):
        numbered(noise)
    numbered(noise % 255)


def test_the_names_of_cityscapes(scene):
    for i, city in enumerate(("aachen/aachen_000000_000019", "bonn_000001_000019")):
        for what, folder in (("labelIds", "labels"), ("instanceIds", "maps")):
            path = scene / "city" / folder / f"{city}_gtFine_{what}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            (scene / folder / f"{i}.png").rename(path)
    assert script("instances", scene / "city/labels", scene / "city/maps", "-o", scene / "out") == 0
    assert listed(scene / "out") == ["aachen/aachen_000000_000019.png", "bonn_000001_000019.png"]
    write(scene / "city/labels/bonn_000001_000019_gtFine_color.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(InputError, match="have the same name without suffix"):
        add_instances(scene / "city/labels", scene / "city/maps", scene / "again")


def busy(channels):
    return np.random.default_rng(0).integers(0, 250, (SIDE, SIDE, channels), np.uint8)


def glass(value):
    return np.full((SIDE, SIDE), value, np.uint8)


WRONG = {
    "size": ("maps/1.png", (np.zeros((SIDE, SIDE + 1, 1), np.uint8),), "96x96, and its partner .* 97x96; labels and"),
    "no map": ("maps/1.png", (busy(3),), "its partner .*: no map of instances: most neighbouring pixels differ"),
    "no labels": ("labels/1.png", (busy(1),), "no labels: most neighbouring"),
    "swapped": ("labels/1.png", (by_value(blocks(0, 4, dtype=np.uint16)),), "uint16, where labels have 8 bits"),
    "floating": ("maps/1.tif", (np.zeros((SIDE, SIDE, 1), np.float32),), "floating point, where instances"),
    "lossy": ("maps/1.jpg", (by_value(blocks(0, 4)),), "JPEG may have changed pixels"),
    "channels": ("maps/1.tif", (np.zeros((SIDE, SIDE, 5), np.uint8),), "5 channels, where a map has 1 or 3"),
    "clear": ("labels/1.png", (by_value(blocks(0, 4)), glass(9)), "parts of it are transparent"),
    "no partner": ("maps/2.png", (by_value(blocks(0, 4)),), "1 picture has no partner of .*/maps/2.png has no"),
    "no map of it": ("labels/2.png", (by_value(blocks(0, 4)),), "1 picture has no partner of .*/labels/2.png has"),
}


@pytest.mark.promise("R13")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_before_the_first_is_written(scene, name):
    where, picture, said = WRONG[name]
    if where.endswith(("tif", "jpg")):
        (scene / where).with_suffix(".png").unlink()
    write(scene / where, *picture)
    with pytest.raises(InputError, match=f"(?s){said}"):
        add_instances(scene / "labels", scene / "maps", scene / "out")
    assert script("instances", scene / "labels", scene / "maps", "-o", scene / "out") == 4
    assert not (scene / "out").exists()


@pytest.mark.promise("R13", "R33")
def test_damage_and_emptiness(scene):
    (scene / "maps/0.png").write_bytes((scene / "maps/0.png").read_bytes()[:-40])
    with pytest.raises(InputError, match=r"1 picture cannot be used, nothing was written:\n.*its partner .*/0\.png: "):
        add_instances(scene / "labels", scene / "maps", scene / "out")
    for folder in ("labels", "maps"):
        for path in (scene / folder).iterdir():
            path.unlink()
    for folder in ("labels", "missing"):
        assert script("instances", scene / folder, scene / "maps", "-o", scene / "out") == 4
    assert not (scene / "out").exists()


def test_labels_may_have_been_saved_with_loss(scene):
    """As the facades of pix2pix are; a training takes the nearest colour."""
    (scene / "labels/1.png").unlink()
    write(scene / "labels/1.jpg", busy(3))
    assert add_instances(scene / "labels", scene / "maps", scene / "out").done == 2
    assert np.array_equal(images.read(scene / "out/1.png").pixels, images.read(scene / "labels/1.jpg").pixels)


def test_an_opaque_alpha_is_none(scene):
    for folder in ("labels", "maps"):
        picture = images.read(scene / folder / "1.png")
        alpha = np.full((SIDE, SIDE), np.iinfo(picture.pixels.dtype).max, picture.pixels.dtype)
        write(scene / "opaque" / folder / "1.png", picture.pixels, alpha)
    add_instances(scene / "labels", scene / "maps", scene / "one")
    add_instances(scene / "opaque/labels", scene / "opaque/maps", scene / "two")
    assert (scene / "one/1.png").read_bytes() == (scene / "two/1.png").read_bytes()


@pytest.mark.promise("R22", "R25")
def test_no_surprise_on_disk(scene):
    places, out = ("instances", scene / "labels", scene / "maps"), scene / "out"
    assert script(*places) == 2
    assert script(*places, "-o", scene / "labels") == script(*places, "-o", scene / "maps/deeper") == 2
    assert script(*places, "-o", out) == 0
    before = {name: (out / name).read_bytes() for name in listed(out)}
    (out / "0.png").write_bytes(b"other")
    assert script(*places, "-o", out) == 2
    (out / "1.png").unlink()
    assert script(*places, "-o", out, "--skip-existing") == 0
    assert (out / "0.png").read_bytes() == b"other" and (out / "1.png").read_bytes() == before["1.png"]
    assert script(*places, "-o", out, "--overwrite") == 0
    assert {name: (out / name).read_bytes() for name in listed(out)} == before
    with pytest.raises(UsageError, match="contradict each other"):
        add_instances(*places[1:], out, overwrite=True, skip_existing=True)


@pytest.mark.promise("R30")
def test_one_that_vanishes_meanwhile(scene, monkeypatch):
    from i2i.tools.datasets import pairs

    honest = pairs.images.write  # type: ignore[attr-defined]

    def and_remove(path, picture, **how):
        honest(path, picture, **how)
        (scene / "labels/1.png").unlink()

    monkeypatch.setattr(pairs.images, "write", and_remove)  # type: ignore[attr-defined]
    outcome = add_instances(scene / "labels", scene / "maps", scene / "out")
    assert (outcome.done, [path.name for path, _ in outcome.failed]) == (1, ["1.png"])
