import numpy as np
import pytest

from i2i.evaluation import segmentation

pytestmark = pytest.mark.arithmetic


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
