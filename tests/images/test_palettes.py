from pathlib import Path

import numpy as np
import pytest

from i2i.data.toy import draw_labels, label_map
from i2i.errors import InputError, UsageError
from i2i.images.palettes import FACADES, TOY, Palette, class_planes, distance, find, to_classes, to_colours

THREE = Palette("three", ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def test_colours_are_snapped_to_the_nearest() -> None:
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 12, (20, 30)).astype(np.uint8)
    colours = to_colours(classes, FACADES)
    noisy = np.clip(colours.astype(int) + draw.integers(-12, 13, colours.shape), 0, 255).astype(np.uint8)
    assert np.array_equal(to_classes(noisy, FACADES), classes)
    anything = draw.integers(0, 256, (6, 7, 3), np.uint8)
    for pixel, found in zip(anything.reshape(-1, 3), to_classes(anything, FACADES).ravel(), strict=True):
        distances = [sum((int(c) - k) ** 2 for c, k in zip(pixel, colour, strict=True)) for colour in FACADES.colours]
        assert found == np.argmin(distances)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_each_class_has_a_plane(kind: type) -> None:
    planes = np.array([[[0, 2, 255]], [[1, 0, 1]]], kind)
    expected = [[1, -1, -1], [-1, -1, -1], [-1, 1, -1], [1, -1, 1]]
    found = class_planes(np.stack([planes, planes]), 3)
    assert found.dtype == np.float32 and found[1, :, 0].tolist() == expected
    assert class_planes(planes[:1], 3)[:, 0].tolist() == expected[:3]


def test_a_grey_picture_holds_indices() -> None:
    indices = np.array([[0, 1, 2, 255]], np.uint8)
    assert np.array_equal(to_classes(indices[..., None], THREE), indices)
    with pytest.raises(InputError, match="class indices, 0 to 2 or 255; found 3"):
        to_classes(np.array([[[3]]], np.uint8), THREE)
    with pytest.raises(InputError, match="uint16"):
        to_classes(np.zeros((1, 1, 1), np.uint16), THREE)


def test_palettes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "roads.txt"
    file.write_text("#ff0000 wall\n\n0 255 0\n 0, 0, 255, sky\n")
    assert find(str(file)) == Palette("roads", THREE.colours)
    assert find("facades") is FACADES and len(FACADES) == 12
    for text, reason in (
        ("#ff0000\n#ff00zz\n", "line 2.*no colour"),
        ("1 2 3\n1 2 300\n", "line 2.*no colour"),
        ("1 2 3\n", "2 to 255"),
        ("1 2 3\n4 5 6\n1 2 3", "twice"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=reason):
            find(str(file))
    with pytest.raises(UsageError, match="facades"):
        find("facade")


def test_classes_by_their_number() -> None:
    palette = find("40")
    assert palette.indexed and len(palette) == 40 == len(set(palette.colours))
    indices = np.arange(40, dtype=np.uint8).reshape(5, 8)
    assert np.array_equal(to_classes(indices[..., None], palette), indices)
    with pytest.raises(InputError, match=r"a picture of colours .*; expected a grey one of class indices, 0 to 39"):
        to_classes(to_colours(indices, palette), palette)
    for number in ("0", "1", "256"):
        with pytest.raises(UsageError, match=f"classes_b = {number}: there may be 2 to 255"):
            find(number, "classes_b")


def test_the_toy_pictures_are_of_their_palette() -> None:
    labels = draw_labels(np.random.default_rng(0), 64)
    assert np.array_equal(to_classes(label_map(labels), TOY), labels)


def test_how_far_a_picture_is_from_a_palette() -> None:
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 12, (40, 40)).astype(np.uint8)
    assert distance(to_colours(classes, FACADES), FACADES) == 0 == distance(classes[..., None], FACADES)
    shifted = np.where(
        to_colours(classes, FACADES) > 128, to_colours(classes, FACADES) - 3, 3 + to_colours(classes, FACADES)
    )
    assert distance(shifted.astype(np.uint8), FACADES) == pytest.approx(3 * 3**0.5)
    assert distance(draw.integers(0, 256, (40, 40, 3), np.uint8), FACADES) > 50


def test_masks_of_a_grey_palette() -> None:
    """0 and 255 are its colours; 0 and 1 are indices."""
    masks = Palette("masks", ((0, 0, 0), (255, 255, 255)))
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    assert np.array_equal(to_classes(mask[..., None], masks), mask // 255)
    assert np.array_equal(to_classes((mask // 255)[..., None], masks), mask // 255)
    assert np.array_equal(to_classes(np.array([[[0], [255]]], np.uint8), FACADES), [[0, 255]])


def test_many_colours_are_snapped_alike() -> None:
    anything = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    distances = np.square(anything[:, :, None].astype(int) - FACADES.array()).sum(axis=3)
    assert np.array_equal(to_classes(anything, FACADES), distances.argmin(axis=2))
