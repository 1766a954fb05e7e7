"""The formulas against torchmetrics, torch-fidelity and plain NumPy, on the same pictures and features."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from i2i import images
from i2i.errors import InputError, ModelError
from i2i.evaluation import metrics
from i2i.evaluation.applicable import hold_indices
from i2i.evaluation.data import Item, PictureFiles
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.features import Features, extract
from i2i.evaluation.metrics import cycle_error, l1, luminance_ssim, ms_ssim, psnr, resized, squared, ssim
from i2i.evaluation.options import LABELS, EvaluationOptions
from i2i.images import Picture, write
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
    counts = sum(metrics.confusion(m, e, 3) for m, e in zip(made, expected, strict=True))
    found = metrics.scores(counts)
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
    found = metrics.scores(metrics.confusion(made, expected, 5))
    a, b = torch.from_numpy(made).long(), torch.from_numpy(expected).long()
    assert found.mean_iou == pytest.approx(float(theirs.multiclass_jaccard_index(a, b, 5)), abs=1e-6)
    assert found.class_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="macro")), abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(theirs.multiclass_accuracy(a, b, 5, average="micro")), abs=1e-6)


def test_a_made_pixel_without_label_is_wrong() -> None:
    made, expected = np.array([[0, 255]], np.uint8), np.array([[0, 1]], np.uint8)
    found = metrics.scores(metrics.confusion(made, expected, 2))
    assert (found.pixel_accuracy, found.mean_iou) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no pixel has a label"):
        metrics.scores(metrics.confusion(made, np.full((1, 2), 255, np.uint8), 2))


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


class SmallNetwork(torch.nn.Module):
    """In place of Inception: random weights, 24 features, 7 classes."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = torch.nn.Conv2d(3, 24, 5, 3)
            self.classes = torch.nn.Linear(24, 7, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = 10 * self.convolution(images).relu().mean(dim=(2, 3))
        return features, self.classes(features)


class Pool(torch.nn.Module):
    """The same as torchmetrics takes it: bytes in, features out."""

    num_features = 24

    def __init__(self, which: int) -> None:
        super().__init__()
        self.network, self.which = SmallNetwork(), which

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(images.to(self.network.classes.weight.dtype) / 127.5 - 1)[self.which]
        return found


@pytest.fixture(scope="module")
def two_sets() -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    a = draw.integers(0, 256, (60, 3, 16, 16), np.uint8)
    b = (draw.integers(0, 256, (45, 3, 16, 16)) * np.array([0.8, 1.0, 0.6])[:, None, None]).astype(np.uint8)
    return torch.from_numpy(a), torch.from_numpy(b)


@pytest.fixture(scope="module")
def features(two_sets: tuple[torch.Tensor, torch.Tensor]) -> tuple[Features, Features]:
    network = SmallNetwork()
    a, b = (extract([x.float() / 127.5 - 1 for x in some], network, 16, batch=20) for some in two_sets)
    return a, b


def test_features_are_float64_and_in_order(two_sets: Any, features: Any) -> None:
    a, _ = features
    assert a.pool.dtype == a.logits.dtype == torch.float64
    pool, logits = SmallNetwork()(two_sets[0].float() / 127.5 - 1)
    torch.testing.assert_close((a.pool, a.logits), (pool.double(), logits.double()), atol=1e-5, rtol=1e-5)


def test_fid_is_torchmetrics(two_sets: Any, features: Any) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    pytest.importorskip("torch_fidelity")
    theirs = fid.FrechetInceptionDistance(feature=Pool(0), input_img_size=(3, 16, 16))
    theirs.set_dtype(torch.float64)
    theirs.update(two_sets[0], real=True)
    theirs.update(two_sets[1], real=False)
    assert metrics.fid(features[0].pool, features[1].pool).value == pytest.approx(float(theirs.compute()), abs=1e-4)


def test_fid_is_torch_fidelitys_also_for_fewer_pictures_than_features(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    for a, b in (features[0].pool, features[1].pool), (features[0].pool[:9], features[1].pool[:12]):
        statistics = [theirs.fid_features_to_statistics(x) for x in (a, b)]
        expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert metrics.fid(a, b).value == pytest.approx(expected, abs=1e-4)
        assert metrics.fid(b, a).value == pytest.approx(metrics.fid(a, b).value, rel=1e-9)
        assert metrics.fid(a, a).value == pytest.approx(0, abs=1e-9)


def test_kid_is_the_mean_of_torch_fidelitys_subsets(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = features[0].pool, features[1].pool
    settings = {"kid_subsets": 2000, "kid_subset_size": 20, "rng_seed": 7, "verbose": False}
    expected = theirs.kid_features_to_metric(a, b, **settings)
    error = expected["kernel_inception_distance_std"] / 2000**0.5
    found = metrics.kid(a, b).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], abs=4 * error) and error < 0.02 * found


def test_kid_is_torchmetrics(features: Any) -> None:
    theirs = pytest.importorskip("torchmetrics.image.kid")
    a, b = features[0].pool[:40], features[1].pool[:40]
    assert metrics.kid(a, b).value == pytest.approx(float(theirs.poly_mmd(a, b)), abs=1e-4)


def test_inception_score_is_torch_fidelitys_and_torchmetrics(two_sets: Any, features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_isc")
    module = pytest.importorskip("torchmetrics.image.inception")
    logits = features[0].logits
    expected = theirs.isc_features_to_metric(logits, splits=6, shuffle=True, rng_seed=3)
    found, deviation = metrics.inception_score(logits, splits=6, seed=3)
    assert found.value == pytest.approx(expected["inception_score_mean"], abs=1e-4)
    assert deviation == pytest.approx(expected["inception_score_std"], abs=1e-4)
    metric = module.InceptionScore(feature=Pool(1), splits=1)
    metric.update(two_sets[0])
    assert metrics.inception_score(logits, splits=1)[0].value == pytest.approx(float(metric.compute()[0]), abs=1e-4)
    assert metrics.inception_score(torch.zeros(20, 5), splits=2)[0].value == pytest.approx(1)


def test_precision_and_recall_are_the_definition(features: Any) -> None:
    made, real = features[0].pool.numpy(), features[1].pool.numpy()

    def covered(points: np.ndarray[Any, Any], manifold: np.ndarray[Any, Any], k: int) -> float:
        inside = 0
        for point in points:
            for centre in manifold:
                radius = np.sort(np.linalg.norm(manifold - centre, axis=1))[k]  # the 0th is itself
                if np.linalg.norm(point - centre) <= radius:
                    inside += 1
                    break
        return inside / len(points)

    for k in (1, 3, 6):
        expected = covered(made, real, k), covered(real, made, k)
        a, b = torch.from_numpy(made), torch.from_numpy(real)
        assert (metrics.precision(a, b, k).value, metrics.recall(a, b, k).value) == pytest.approx(expected)
    same = torch.from_numpy(real)
    assert metrics.precision(same, same).value == metrics.recall(same, same).value == 1
    assert metrics.precision(same + 1000, same).value == metrics.recall(same + 1000, same).value == 0


def test_precision_and_recall_are_torch_fidelitys(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    a, b = features[0].pool, features[1].pool
    settings = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    expected = theirs.prc_features_to_metric(a, b, **settings)
    assert metrics.precision(a, b).value == pytest.approx(expected["precision"], abs=1e-4)
    assert metrics.recall(a, b).value == pytest.approx(expected["recall"], abs=1e-4)


def test_too_few_pictures_are_an_error_that_says_so(features: Any) -> None:
    a, b = features[0].pool, features[1].pool
    for call in (
        lambda: metrics.fid(a[:1], b),
        lambda: metrics.kid(a[:1], b),
        lambda: metrics.inception_score(a[:5], splits=10),
        lambda: metrics.precision(a[:3], b),
        lambda: metrics.recall(a, b[:3]),
    ):
        with pytest.raises(InputError, match="undefined for a set of"):
            call()
    with pytest.raises(ValueError, match="shapes"):
        metrics.fid(a, b[:, :3])


def test_the_inception_score_of_what_is_certain_is_1() -> None:
    assert metrics.inception_score(torch.tensor([[1000.0, 0.0]] * 5), 1)[0].value == 1
    both = torch.tensor([[1000.0, 0.0, -2000.0], [0.0, 1000.0, -2000.0]])
    assert metrics.inception_score(both, 1)[0].value == pytest.approx(2)


def test_features_that_are_not_finite_are_refused() -> None:
    network = SmallNetwork()
    network.convolution.weight.data *= 1e38
    with pytest.raises(ModelError, match="not finite"):
        extract([torch.ones(3, 16, 16)], network, 16)


def test_transparency_is_measured_as_it_is_seen_over_white(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[:, :8] = 0
    other = pixels.copy()
    other[:, :8] = 0
    pictures = {"a": Picture(pixels, alpha), "hidden": Picture(other, alpha), "lost": Picture(pixels)}
    for name, picture in pictures.items():
        write(tmp_path / f"{name}.png", picture)
    seen, hidden, lost = (PictureFiles([Item(tmp_path / f"{name}.png")])[0] for name in pictures)
    assert torch.equal(seen, hidden) and not torch.equal(seen, lost)
    assert (seen[:, :, :8] == 1).all() and torch.equal(seen[:, :, 8:], lost[:, :, 8:])


def test_diversity_is_the_mean_over_all_pairs() -> None:
    pictures = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    pairs = [(pictures[i] - pictures[j]).abs().mean() / 2 for i in range(5) for j in range(i)]
    assert metrics.diversity(pictures).value == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-6)
    assert metrics.diversity([pictures[0]] * 3).value == 0
    with pytest.raises(InputError, match="a set of 1"):
        metrics.diversity(pictures[:1])


def test_the_resizer_is_pillows_bicubic() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).random((40, 60), np.float32) * 2 - 1
    # not the rows and columns at the edge, where Pillow's values outside [-1, 1] would differ from clamped ones
    for height, width in ((13, 20), (80, 90)):
        expected = np.asarray(image.fromarray(pixels).resize((width, height), image.Resampling.BICUBIC)).clip(-1, 1)
        np.testing.assert_allclose(resized(torch.from_numpy(pixels)[None], height, width)[0], expected, atol=1e-5)


def test_squared_takes_the_middle() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 32, 64)
    middle = squared(ramp, 16)
    assert middle.shape == (1, 16, 16)
    assert middle.mean().abs() < 1e-3 and middle.max() < 0.55
    assert squared(ramp[..., :32], 32) is not None and torch.equal(squared(ramp[..., :32], 32), ramp[..., :32])
