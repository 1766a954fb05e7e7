from pathlib import Path

import numpy as np
import pytest

from i2i.errors import InputError, UsageError
from i2i.evaluation import palettes, segmentation
from i2i.evaluation.palettes import FACADES, Palette

THREE = Palette("three", ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def test_colours_are_snapped_to_the_nearest() -> None:
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 12, (20, 30)).astype(np.uint8)
    colours = segmentation.to_colours(classes, FACADES)
    noisy = np.clip(colours.astype(int) + draw.integers(-12, 13, colours.shape), 0, 255).astype(np.uint8)
    assert np.array_equal(segmentation.to_classes(noisy, FACADES), classes)
    anything = draw.integers(0, 256, (6, 7, 3), np.uint8)
    for pixel, found in zip(anything.reshape(-1, 3), segmentation.to_classes(anything, FACADES).ravel(), strict=True):
        distances = [sum((int(c) - k) ** 2 for c, k in zip(pixel, colour, strict=True)) for colour in FACADES.colours]
        assert found == np.argmin(distances)


def test_a_grey_picture_holds_indices() -> None:
    indices = np.array([[0, 1, 2, 255]], np.uint8)
    assert np.array_equal(segmentation.to_classes(indices[..., None], THREE), indices)
    with pytest.raises(InputError, match="class indices, 0 to 2 or 255; found 3"):
        segmentation.to_classes(np.array([[[3]]], np.uint8), THREE)
    with pytest.raises(InputError, match="uint16"):
        segmentation.to_classes(np.zeros((1, 1, 1), np.uint16), THREE)


def test_scores_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 4, (3, 40, 40)).astype(np.uint8)
    expected[expected == 3] = 255  # class 2 is the last; some pixels have no label
    made = np.where(draw.random(expected.shape) < 0.6, expected, draw.integers(0, 3, expected.shape)).astype(np.uint8)
    counts = sum(segmentation.confusion(m, e, 3) for m, e in zip(made, expected, strict=True))
    found = segmentation.scores(counts)
    known = expected != 255
    right = [(made[known & (expected == k)] == k).mean() for k in range(3)]
    unions = [(known & ((made == k) | (expected == k))).sum() for k in range(3)]
    ious = [(known & (made == k) & (expected == k)).sum() / union for k, union in enumerate(unions)]
    assert found.pixel_accuracy == pytest.approx((made == expected)[known].mean())
    assert found.class_accuracy == pytest.approx(np.mean(right))
    assert found.mean_iou == pytest.approx(np.mean(ious))
    assert found.per_class == pytest.approx(dict(enumerate(ious)))


def test_mean_iou_is_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(1)
    made, expected = (draw.integers(0, 5, (30, 30)).astype(np.uint8) for _ in range(2))
    found = segmentation.scores(segmentation.confusion(made, expected, 5))
    a, b = torch.from_numpy(made).long(), torch.from_numpy(expected).long()
    assert found.mean_iou == pytest.approx(float(theirs.multiclass_jaccard_index(a, b, 5)), abs=1e-6)
    assert found.class_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="macro")), abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="micro")), abs=1e-6)


def test_a_made_pixel_without_label_is_wrong() -> None:
    made, expected = np.array([[0, 255]], np.uint8), np.array([[0, 1]], np.uint8)
    found = segmentation.scores(segmentation.confusion(made, expected, 2))
    assert (found.pixel_accuracy, found.mean_iou) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no pixel has a label"):
        segmentation.scores(segmentation.confusion(made, np.full((1, 2), 255, np.uint8), 2))


def test_palettes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "roads.txt"
    file.write_text("#ff0000 wall\n\n0 255 0\n 0, 0, 255, sky\n")
    assert palettes.find(str(file)) == Palette("roads", THREE.colours)
    assert palettes.find("facades") is FACADES and len(FACADES) == 12
    for text, reason in (
        ("#ff0000\n#ff00zz\n", "line 2.*no colour"),
        ("1 2 3\n1 2 300\n", "line 2.*no colour"),
        ("1 2 3\n", "2 to 255"),
        ("1 2 3\n4 5 6\n1 2 3", "twice"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=reason):
            palettes.find(str(file))
    with pytest.raises(UsageError, match="facades"):
        palettes.find("facade")
