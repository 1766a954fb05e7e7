"""Domains of labels: class indices or colours in the files, a channel for each class in the batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import images
from i2i.config import from_mapping
from i2i.data import check as checking
from i2i.data import datasets
from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions, channels
from i2i.data.pair import batches
from i2i.errors import InputError, UsageError
from i2i.images import Picture
from i2i.images.palettes import FACADES, to_colours

SIDE, CLASSES = 24, 5


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, Picture(pixels))


def blocks(seed: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (SIDE // 4, SIDE // 4), np.uint8).repeat(4, 0).repeat(4, 1)


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Photos that are their labels in grey, so that crops and flips can be told from each other."""
    for i in range(4):
        labels = blocks(i, CLASSES)
        write(tmp_path / "train" / "A" / f"{i}.png", (labels * 50)[..., None].repeat(3, 2))
        write(tmp_path / "train" / "B" / f"{i}.png", labels[..., None])
    return tmp_path


def options(data: Path, **more: object) -> DataOptions:
    given = {"data": data, "classes_b": str(CLASSES), "load_size": 30, "crop_size": SIDE, "batch_size": 2}
    return DataOptions(**(given | more))  # type: ignore[arg-type]


def test_labels_are_cropped_and_flipped_with_their_photo(indexed: Path) -> None:
    data = open_datasets(options(indexed, load_size=SIDE, crop_size=16), paired=True).train
    looks = set()
    for t in range(12):
        pair = data[t]
        assert pair.b.shape == (CLASSES, 16, 16) and set(pair.b.unique().tolist()) == {-1.0, 1.0}
        assert torch.equal(pair.b.sum(dim=0), torch.full((16, 16), 2.0 - CLASSES))
        grey = ((pair.a[0] + 1) * 127.5).round()
        assert torch.equal(pair.b.argmax(dim=0), grey / 50)
        looks.add(tuple(grey.flatten().tolist()))
    assert len(looks) > 8


def test_labels_are_resized_to_the_nearest(indexed: Path) -> None:
    """A mixture of the classes 0 and 4 would be class 2."""
    pair = open_datasets(options(indexed), paired=True).train[0]
    assert set(pair.b.argmax(dim=0).unique().tolist()) <= set(range(CLASSES))
    assert torch.equal(pair.b.max(dim=0).values, torch.ones(SIDE, SIDE))


def test_workers_and_the_cache_change_nothing(indexed: Path, tmp_path: Path) -> None:
    plain = open_datasets(options(indexed), paired=True).train
    expected = list(batches(plain, 0, 8, 2, 0))
    cached = open_datasets(options(indexed, cache=tmp_path / "cache"), paired=True).train
    for dataset, workers in ((plain, 1), (cached, 0), (cached, 0), (cached, 2)):
        for one, other in zip(batches(dataset, 0, 8, 2, workers), expected, strict=True):
            assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)


def test_the_other_direction(indexed: Path) -> None:
    backwards = options(indexed, direction="b2a")
    pair = open_datasets(backwards, paired=True).train[0]
    assert (len(pair.a), len(pair.b)) == channels(backwards) == (CLASSES, 3)


def test_colours_beside_a_photo_in_a_lossy_picture(tmp_path: Path) -> None:
    labels = blocks(0, 12).repeat(4, 0).repeat(4, 1)
    photo = np.random.default_rng(1).integers(0, 256, (*labels.shape, 3), np.uint8)
    path = tmp_path / "train" / "0.jpg"
    write(path, np.hstack([photo, to_colours(labels, FACADES)]))
    found = open_datasets(
        options(tmp_path, classes_b="facades", load_size=96, crop_size=96, flip=False, batch_size=1), paired=True
    )
    made = found.train[0].b
    assert made.shape == (12, 96, 96)
    assert (made.argmax(dim=0).numpy() == labels).mean() > 0.9  # JPEG blurs their edges
    with pytest.raises(InputError, match=r"0\.jpg: its pixels are .* levels from the colours of 'facades'.*other side"):
        open_datasets(options(tmp_path, classes_a="facades", classes_b=""), paired=True)


def test_pixels_without_a_label(indexed: Path) -> None:
    path = indexed / "train" / "B" / "0.png"
    write(path, np.full((SIDE, SIDE, 1), 255, np.uint8))
    data = open_datasets(options(indexed), paired=True).train
    found = [t for t in range(4) if not bool((data[t].b > 0).any())]
    assert len(found) == 1 and bool((data[found[0]].b == -1).all())


def test_indices_that_are_no_classes_are_found_before_the_training(indexed: Path) -> None:
    write(indexed / "train" / "B" / "2.png", np.full((SIDE, SIDE, 1), CLASSES, np.uint8))
    with pytest.raises(InputError, match=r"1 picture is no label map:\n.*2\.png: .* 0 to 4 or 255; found 5"):
        open_datasets(options(indexed), paired=True)
    write(indexed / "train" / "B" / "2.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(InputError, match=r"2\.png: a picture of colours .*; expected a grey one of class indices"):
        open_datasets(options(indexed), paired=True)


@pytest.mark.parametrize(
    ("wrong", "said"), [("facade", "classes_b = 'facade': .*facades"), ("1", "2 to 255"), ("a.txt", "no such file")]
)
def test_invalid_classes_are_refused(indexed: Path, wrong: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_datasets(options(indexed, classes_b=wrong), paired=True)


def test_toy_labels() -> None:
    toy = DataOptions(data=Path("toy"), classes_a="toy", crop_size=32, load_size=32)
    pair = open_datasets(toy, paired=True).train[0]
    assert channels(toy) == (11, 3) == (len(pair.a), len(pair.b))
    assert torch.equal(pair.a.sum(dim=0), torch.full((32, 32), -9.0))
    wrongs: list[dict[str, Any]] = [{"classes_b": "toy"}, {"classes_a": "facades"}]
    for wrong in wrongs:
        with pytest.raises(UsageError, match="classes_a='toy'"):
            open_datasets(DataOptions(data=Path("toy"), crop_size=32, load_size=32, **wrong), paired=True)


@pytest.mark.parametrize("beside", [True, False])
def test_instance_edges(tmp_path: Path, beside: bool) -> None:
    """Two things of one class meet where their instances, the alpha, do; in 8 bits and in 16."""
    classes, instances = np.zeros((SIDE, SIDE, 1), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    classes[:, 12:], instances[12:] = 1, 9
    picture = Picture(classes, instances)
    if beside:
        picture = Picture(np.hstack([classes, classes]), np.hstack([instances, instances]))
        (tmp_path / "train").mkdir()
        images.write(tmp_path / "train" / "0.png", picture)
    else:
        for side in "AB":
            (tmp_path / "train" / side).mkdir(parents=True)
            images.write(tmp_path / "train" / side / "0.png", picture)
    given = options(tmp_path, classes_a="2", classes_b="2", load_size=SIDE, instance_edges=True, batch_size=1)
    assert channels(given) == (3, 2)
    data = open_datasets(given, paired=True).train
    (batch,) = batches(data, 0, 1, 1, 1)
    (plain,) = batches(data, 0, 1, 1, 0)
    assert torch.equal(batch.a, plain.a) and batch.a.shape == (1, 3, SIDE, SIDE) and batch.b.shape[1] == 2
    edges = batch.a[0, 2] > 0
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[:, 11:13] = expected[11:13] = True
    assert torch.equal(edges, expected)


def test_instance_edges_need_label_inputs(indexed: Path) -> None:
    with pytest.raises(UsageError, match="instance_edges: the input is no labels; classes_a says which there are"):
        channels(options(indexed, instance_edges=True))
    backwards = options(indexed, instance_edges=True, direction="b2a")
    assert channels(backwards) == (CLASSES + 1, 3) == tuple(map(len, _sides(backwards)))


def _sides(given: DataOptions) -> tuple[torch.Tensor, torch.Tensor]:
    pair = open_datasets(given, paired=True).train[0]
    return pair.a, pair.b


def test_masks_of_0_and_255_are_not_class_indices(tmp_path: Path) -> None:
    """With 0 and 255 all but the background would be without a label."""
    for i in range(6):
        mask = (blocks(i, 2) * 255)[..., None]
        write(tmp_path / "train" / "A" / f"{i}.png", mask.repeat(3, 2))
        write(tmp_path / "train" / "B" / f"{i}.png", mask)
    with pytest.raises(InputError, match=r"no class but 0, and 255, which is none\. For binary masks"):
        open_datasets(options(tmp_path, classes_b="2"), paired=True)
    (tmp_path / "two.txt").write_text("#000000 ground\n#ffffff thing\n")
    given = options(tmp_path, classes_b=str(tmp_path / "two.txt"), load_size=SIDE, flip=False)
    pair = open_datasets(given, paired=True).train[0]
    assert torch.equal(pair.b[1], pair.a[0]) and torch.equal(pair.b[0], -pair.a[0])


def test_every_grey_picture_is_looked_at(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / "train" / "A" / f"{i}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        write(tmp_path / "train" / "B" / f"{i}.png", np.full((SIDE, SIDE, 1), 12 if i == 8 else i % 3, np.uint8))
    with pytest.raises(InputError, match=r"8\.png: .* 0 to 11 or 255; found 12"):
        open_datasets(options(tmp_path, classes_b="facades"), paired=True)
    assert len(open_datasets(options(tmp_path, classes_b="facades", check="off"), paired=True).train) == 9


def test_a_number_of_classes_in_yaml() -> None:
    assert from_mapping(DataOptions, {"classes_b": 12}) == DataOptions(classes_b="12")
    with pytest.raises(UsageError, match="classes_b"):
        from_mapping(DataOptions, {"classes_b": 1.5})


def palette_file(
    path: Path, labels: np.ndarray, colours: list[tuple[int, int, int]], void: tuple[int, int, int]
) -> None:
    """As Pascal VOC keeps labels: a palette PNG, 255 the colour of a border."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(labels, "P")
    made.putpalette([*sum(colours, ()), *[0] * (765 - 3 * len(colours)), *void])
    made.save(path)


VOC: list[tuple[int, ...]] = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize("rule", ["4", "colours"])
def test_a_palette_file_holds_its_indices_or_its_colours_and_a_border_is_no_label(
    tmp_path: Path, rule: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data, kept = tmp_path / "data", []
    for i in range(4):
        kept.append(blocks(i, 4))
        kept[-1][0] = 255
        write(data / "train/A" / f"{i}.png", (kept[-1] // 2)[..., None].repeat(3, 2))
        palette_file(data / "train/B" / f"{i}.png", kept[-1], VOC, (224, 224, 192))
    (tmp_path / "voc.txt").write_text("".join(f"{r} {g} {b}\n" for r, g, b in VOC))
    classes = rule if rule == "4" else str(tmp_path / "voc.txt")
    given = options(data, classes_b=classes, load_size=SIDE, flip=False, batch_size=1)
    train = open_datasets(given, paired=True).train
    found = {bytes(_classes(train[t].b)) for t in range(4)}
    assert found == {bytes(labels) for labels in kept}
    told = capfd.readouterr().err
    assert ("more than 25 levels from every colour of 'voc'" in told) == (rule != "4")
    assert "seem" not in told


def _classes(planes: torch.Tensor) -> np.ndarray:
    there = (planes > 0).any(dim=0)
    return np.where(there.numpy(), planes.argmax(dim=0).numpy(), 255).astype(np.uint8)


@pytest.mark.parametrize("classes", ["4", "8"])
def test_indices_in_a_lossy_file_are_refused(tmp_path: Path, classes: str) -> None:
    for i in range(2):
        write(tmp_path / "train/A" / f"{i}.png", blocks(i, 4)[..., None].repeat(3, 2))
        write(tmp_path / "train/B" / f"{i}.jpg", blocks(i, 4)[..., None])
    with pytest.raises(InputError, match=r"2 pictures are no label maps:\n.*0\.jpg: a lossy format"):
        open_datasets(options(tmp_path, classes_b=classes), paired=True)
    unchecked = open_datasets(options(tmp_path, classes_b=classes, check="off"), paired=True).train
    with pytest.raises(InputError, match="JPEG may have changed the indices"):
        unchecked[0]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("first", ["white", "black"])
def test_masks_of_one_colour_follow_the_rule_of_their_set(tmp_path: Path, first: str, suffix: str) -> None:
    """An all-black mask is of the class black, the second one where white comes first; with JPEG's noise too."""
    colours = {"white": "#ffffff\n#000000\n", "black": "#000000\n#ffffff\n"}[first]
    (tmp_path / "two.txt").write_text(colours)
    masks = [np.zeros((SIDE, SIDE), np.uint8), np.full((SIDE, SIDE), 255, np.uint8), blocks(0, 2) * 255]
    for i, mask in enumerate(masks):
        write(tmp_path / "train/A" / f"{i}.png", mask[..., None].repeat(3, 2))
        write(tmp_path / "train/B" / f"{i}.{suffix}", mask[..., None])
    given = options(tmp_path, classes_b=str(tmp_path / "two.txt"), load_size=SIDE, flip=False)
    train = open_datasets(given, paired=True).train
    for t in range(3):
        white = train[t].a[0] > 0
        assert torch.equal(train[t].b[0 if first == "white" else 1] > 0, white)
        assert torch.equal(train[t].b.sum(dim=0), torch.zeros(SIDE, SIDE))


def test_a_grey_picture_among_colours_holds_colours(tmp_path: Path) -> None:
    """Some programs keep a picture that is all white as a grey one; as indices 255 would be no label."""
    colours = np.array([(255, 255, 255), (200, 0, 0), (0, 0, 200)], np.uint8)
    for i in range(3):
        photo = np.full((SIDE, SIDE, 3), 100 * i, np.uint8)
        write(tmp_path / "train/A" / f"{i}.png", photo)
        white = np.full((SIDE, SIDE, 1), 255, np.uint8)
        write(tmp_path / "train/B" / f"{i}.png", white if i == 1 else colours[blocks(i, 3)])
    (tmp_path / "three.txt").write_text("#ffffff\n#c80000\n#0000c8\n")
    given = options(tmp_path, classes_b=str(tmp_path / "three.txt"), load_size=SIDE, flip=False)
    train = open_datasets(given, paired=True).train
    (pair,) = (train[t] for t in range(3) if abs(float(train[t].a[0, 0, 0]) + 1 - 1 / 1.275) < 1e-3)
    assert bool((pair.b[0] == 1).all())


DARK = np.array([(0, 0, 0), (20, 0, 0), (0, 20, 0)], np.uint8)


def dark_masks(data: Path, coloured: set[int], count: int = 6) -> str:
    """Masks of three dark classes, as colours or as indices; their palette."""
    for i in range(count):
        write(data / "train/A" / f"{i}.png", np.full((SIDE, SIDE, 3), 100, np.uint8))
        labels = blocks(i, 3)
        write(data / "train/B" / f"{i}.png", DARK[labels] if i in coloured else labels[..., None])
    (data / "dark.txt").write_text("".join(f"{r} {g} {b}\n" for r, g, b in DARK))
    return str(data / "dark.txt")


@pytest.mark.parametrize("check", ["auto", "quick", "off"])
def test_indices_among_colours_are_refused(tmp_path: Path, check: str) -> None:
    """Taken for colours, all of the indices 0, 1 and 2 would be black."""
    classes = dark_masks(tmp_path, coloured={4})
    with pytest.raises(InputError, match=r"B/0\.png holds class indices \(0, 1, 2\), and .*B/4\.png colours of 'dark'"):
        open_datasets(options(tmp_path, classes_b=classes, check=check), paired=True)


@pytest.mark.parametrize("check", ["auto", "quick", "full", "off"])
def test_labels_have_one_rule_in_any_check(tmp_path: Path, check: str) -> None:
    """A mask that is all white is of the colour white, where others of its set hold black and white."""
    (tmp_path / "two.txt").write_text("#ffffff\n#000000\n")
    for i in range(3):
        write(tmp_path / "train/A" / f"{i}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        write(tmp_path / "train/B" / f"{i}.png", (blocks(i, 2) * (1 if i else 0) * 255)[..., None])
    given = options(tmp_path, classes_b=str(tmp_path / "two.txt"), check=check)
    train = open_datasets(given, paired=True).train
    assert train.palettes[1].held == "colours"  # type: ignore[attr-defined]


@pytest.mark.parametrize("check", ["auto", "full"])
def test_every_process_takes_the_same_labels_for_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """The first one decodes more than the others, who look at a sample of the labels alone."""
    (tmp_path / "two.txt").write_text("#000000\n#ffffff\n")
    for i in range(7):
        write(tmp_path / "train/A" / f"{i}.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        mask = np.ones((SIDE, SIDE, 1), np.uint8) if i == 5 else 255 * blocks(i, 2)[..., None]
        write(tmp_path / "train/B" / f"{i}.png", mask)
    monkeypatch.setattr(checking, "SAMPLE", 3)
    held = []
    for first in (True, False):
        monkeypatch.setattr(datasets, "_is_first", lambda first=first: first)
        given = options(tmp_path, classes_b=str(tmp_path / "two.txt"), check=check)
        held.append(open_datasets(given, paired=True).train.palettes[1].held)  # type: ignore[attr-defined]
    assert held == ["colours", "colours"]
