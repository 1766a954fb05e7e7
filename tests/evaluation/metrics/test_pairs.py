import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from i2i import images
from i2i.errors import InputError
from i2i.evaluation.applicable import hold_indices
from i2i.evaluation.data import Item, PictureFiles
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.metrics import pairs
from i2i.evaluation.metrics.pairs import cycle_error, l1, luminance_ssim, ms_ssim, psnr, ssim
from i2i.evaluation.options import LABELS, EvaluationOptions
from i2i.images import Picture
from i2i.images.palettes import Palette, indexed
from i2i.losses.regularisers import luminance

pytestmark = pytest.mark.arithmetic


def pictures(seed: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(2, channels, 9, 9, generator=generator) * 2 - 1
    return F.interpolate(rough, (40, 48), mode="bilinear").clamp(-1, 1)


def test_l1_and_psnr_are_their_formulas() -> None:
    a, b = pictures(0), pictures(1)
    for n in range(2):
        x, y = ((p[n].double().numpy() + 1) / 2 for p in (a, b))
        assert l1(a, b)[n].item() == pytest.approx(abs(x - y).mean(), rel=1e-6)
        assert psnr(a, b)[n].item() == pytest.approx(-10 * math.log10(((x - y) ** 2).mean()), rel=1e-6)
    assert psnr(a, a).tolist() == [100.0, 100.0]


def test_ssim_agrees_with_a_direct_computation() -> None:
    a, b = pictures(0).double(), (0.7 * pictures(0) + 0.3 * pictures(1)).double()
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(taps, taps) / taps.sum() ** 2

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x.flatten(0, 1)[:, None], (5, 5, 5, 5), mode="reflect"), window[None, None])

    x, y = (a + 1) / 2, (b + 1) / 2
    mx, my = blurred(x), blurred(y)
    vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    expected = expected.reshape(2, -1).mean(dim=1)
    assert ssim(a.float(), b.float()).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert ssim(a.float(), a.float()).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_images_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shapes"):
        l1(pictures(0), pictures(0)[..., :20])


def test_ms_ssim_agrees_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    generator = torch.Generator().manual_seed(5)
    rough = torch.rand(3, 3, 40, 50, generator=generator) * 2 - 1
    a = F.interpolate(rough, (180, 200), mode="bilinear")
    b = (0.7 * a + 0.3 * a.flip(-1) + 0.1 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)
    expected = image.multiscale_structural_similarity_index_measure(
        (a + 1) / 2, (b + 1) / 2, data_range=1.0, reduction="none", normalize="relu"
    )
    assert ms_ssim(a, b).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert 0 <= ms_ssim(a, -a).max() < 0.1
    with pytest.raises(ValueError, match="176"):
        ms_ssim(a[..., :175], a[..., :175])


def test_ssim_and_psnr_agree_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    a, b = pictures(0), pictures(1)
    x, y = (a + 1) / 2, (b + 1) / 2
    for n in range(2):
        expected = image.peak_signal_noise_ratio(x[n : n + 1], y[n : n + 1], data_range=1.0)
        assert psnr(a, b)[n].item() == pytest.approx(expected.item(), rel=1e-5)


def test_luminance_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = np.asarray(image.fromarray(pixels).convert("L"), np.float32)
    found = luminance(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)
    assert np.abs((found[0, 0].numpy() + 1) * 127.5 - expected).max() <= 0.51


def test_colours_do_not_count_and_structure_does() -> None:
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = luminance(x).expand(-1, 3, -1, -1)
    torch.testing.assert_close(luminance_ssim(grey, x), torch.ones(2))
    assert luminance_ssim(-x, x).max() < 0
    assert cycle_error(x, x).tolist() == [0, 0]
    assert cycle_error(torch.ones(1, 3, 4, 4), -torch.ones(1, 3, 4, 4)).tolist() == [1]
    with pytest.raises(ValueError, match="no luminance"):
        luminance(x[:, :2])


def test_scores_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 4, (3, 40, 40)).astype(np.uint8)
    expected[expected == 3] = 255  # class 2 is the last; some pixels have no label
    made = np.where(draw.random(expected.shape) < 0.6, expected, draw.integers(0, 3, expected.shape)).astype(np.uint8)
    counts = sum(pairs.confusion(m, e, 3) for m, e in zip(made, expected, strict=True))
    found = pairs.scores(counts)
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
    found = pairs.scores(pairs.confusion(made, expected, 5))
    a, b = torch.from_numpy(made).long(), torch.from_numpy(expected).long()
    assert found.mean_iou == pytest.approx(float(theirs.multiclass_jaccard_index(a, b, 5)), abs=1e-6)
    assert found.class_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="macro")), abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="micro")), abs=1e-6)


def test_a_made_pixel_without_label_is_wrong() -> None:
    made, expected = np.array([[0, 255]], np.uint8), np.array([[0, 1]], np.uint8)
    found = pairs.scores(pairs.confusion(made, expected, 2))
    assert (found.pixel_accuracy, found.mean_iou) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no pixel has a label"):
        pairs.scores(pairs.confusion(made, np.full((1, 2), 255, np.uint8), 2))


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
