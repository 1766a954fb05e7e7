from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import images
from i2i.errors import InputError
from i2i.evaluation.applicable import hold_indices
from i2i.evaluation.data import Item, PictureFiles
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.metrics import labels
from i2i.evaluation.options import LABELS, EvaluationOptions
from i2i.images import Picture
from i2i.images.palettes import Palette, indexed

pytestmark = pytest.mark.arithmetic


def test_scores_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 4, (3, 40, 40)).astype(np.uint8)
    expected[expected == 3] = 255  # class 2 is the last; some pixels have no label
    made = np.where(draw.random(expected.shape) < 0.6, expected, draw.integers(0, 3, expected.shape)).astype(np.uint8)
    counts = sum(labels.confusion(m, e, 3) for m, e in zip(made, expected, strict=True))
    found = labels.scores(counts)
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
    found = labels.scores(labels.confusion(made, expected, 5))
    a, b = torch.from_numpy(made).long(), torch.from_numpy(expected).long()
    assert found.mean_iou == pytest.approx(float(theirs.multiclass_jaccard_index(a, b, 5)), abs=1e-6)
    assert found.class_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="macro")), abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="micro")), abs=1e-6)


def test_a_made_pixel_without_label_is_wrong() -> None:
    made, expected = np.array([[0, 255]], np.uint8), np.array([[0, 1]], np.uint8)
    found = labels.scores(labels.confusion(made, expected, 2))
    assert (found.pixel_accuracy, found.mean_iou) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no pixel has a label"):
        labels.scores(labels.confusion(made, np.full((1, 2), 255, np.uint8), 2))


def _numbered(path: Path) -> Path:
    """A PNG with a palette, whose numbers are two classes."""
    image = Image.new("P", (8, 6))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 4, 6))
    image.save(path)
    return path


def test_numbers_of_a_palette_are_class_indices(tmp_path: Path) -> None:
    files = PictureFiles([Item(_numbered(tmp_path / "a.png"))])
    assert hold_indices(indexed(2), files)
    assert not hold_indices(Palette("two", ((255, 0, 0), (0, 255, 0))), files), "colours of classes"
    greys = tmp_path / "mask.png"
    images.write(greys, Picture(np.array([[[0], [255]]], np.uint8)))
    masks = PictureFiles([Item(greys)])
    assert hold_indices(indexed(255), masks) and not hold_indices(Palette("mask", ((0,) * 3, (255,) * 3)), masks)


def test_folders_of_such_files_are_scored_as_labels(tmp_path: Path) -> None:
    for side in "ab":
        (tmp_path / side).mkdir()
        _numbered(tmp_path / side / "0.png")
    found = evaluate([str(tmp_path / "a"), str(tmp_path / "b")], EvaluationOptions(palette="2"))
    (row,) = found.rows
    assert set(row.measures) == set(LABELS) and row.measures["mean_iou"].value == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_bands_of_data_are_measured_as_they_are_translated(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 255, (6, 8, 5), np.uint8)
    images.write(tmp_path / "a.tif", Picture(values[..., :3].copy(), extra=values[..., 3:].copy()))
    files, picture = PictureFiles([Item(tmp_path / "a.tif")], channels), images.read(tmp_path / "a.tif")
    if channels in (1, 3, 5):
        assert torch.equal(files[0], images.to_tensor(picture.channels(channels)))
    else:
        with pytest.raises(InputError, match="has 5 channels"):
            files[0]
