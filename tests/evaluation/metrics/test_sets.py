"""FID, KID, IS, precision and recall against torchmetrics, torch-fidelity and plain NumPy, on the same features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2i.errors import InputError, ModelError
from i2i.evaluation.data import Item, PictureFiles
from i2i.evaluation.metrics import sets
from i2i.evaluation.metrics.networks import Features, extract
from i2i.evaluation.metrics.sets import resized, squared
from i2i.images import Picture, write

pytestmark = pytest.mark.arithmetic


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
def images() -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    a = draw.integers(0, 256, (60, 3, 16, 16), np.uint8)
    b = (draw.integers(0, 256, (45, 3, 16, 16)) * np.array([0.8, 1.0, 0.6])[:, None, None]).astype(np.uint8)
    return torch.from_numpy(a), torch.from_numpy(b)


@pytest.fixture(scope="module")
def features(images: tuple[torch.Tensor, torch.Tensor]) -> tuple[Features, Features]:
    network = SmallNetwork()
    a, b = (extract([x.float() / 127.5 - 1 for x in some], network, 16, batch=20) for some in images)
    return a, b


def test_features_are_float64_and_in_order(images: Any, features: Any) -> None:
    a, _ = features
    assert a.pool.dtype == a.logits.dtype == torch.float64
    pool, logits = SmallNetwork()(images[0].float() / 127.5 - 1)
    torch.testing.assert_close((a.pool, a.logits), (pool.double(), logits.double()), atol=1e-5, rtol=1e-5)


def test_fid_is_torchmetrics(images: Any, features: Any) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    pytest.importorskip("torch_fidelity")
    theirs = fid.FrechetInceptionDistance(feature=Pool(0), input_img_size=(3, 16, 16))
    theirs.set_dtype(torch.float64)
    theirs.update(images[0], real=True)
    theirs.update(images[1], real=False)
    assert sets.fid(features[0].pool, features[1].pool).value == pytest.approx(float(theirs.compute()), abs=1e-4)


def test_fid_is_torch_fidelitys_also_for_fewer_pictures_than_features(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    for a, b in (features[0].pool, features[1].pool), (features[0].pool[:9], features[1].pool[:12]):
        statistics = [theirs.fid_features_to_statistics(x) for x in (a, b)]
        expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert sets.fid(a, b).value == pytest.approx(expected, abs=1e-4)
        assert sets.fid(b, a).value == pytest.approx(sets.fid(a, b).value, rel=1e-9)
        assert sets.fid(a, a).value == pytest.approx(0, abs=1e-9)


def test_kid_is_the_mean_of_torch_fidelitys_subsets(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = features[0].pool, features[1].pool
    settings = {"kid_subsets": 2000, "kid_subset_size": 20, "rng_seed": 7, "verbose": False}
    expected = theirs.kid_features_to_metric(a, b, **settings)
    error = expected["kernel_inception_distance_std"] / 2000**0.5
    found = sets.kid(a, b).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], abs=4 * error) and error < 0.02 * found


def test_kid_is_torchmetrics(features: Any) -> None:
    theirs = pytest.importorskip("torchmetrics.image.kid")
    a, b = features[0].pool[:40], features[1].pool[:40]
    assert sets.kid(a, b).value == pytest.approx(float(theirs.poly_mmd(a, b)), abs=1e-4)


def test_inception_score_is_torch_fidelitys_and_torchmetrics(images: Any, features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_isc")
    module = pytest.importorskip("torchmetrics.image.inception")
    logits = features[0].logits
    expected = theirs.isc_features_to_metric(logits, splits=6, shuffle=True, rng_seed=3)
    found, deviation = sets.inception_score(logits, splits=6, seed=3)
    assert found.value == pytest.approx(expected["inception_score_mean"], abs=1e-4)
    assert deviation == pytest.approx(expected["inception_score_std"], abs=1e-4)
    metric = module.InceptionScore(feature=Pool(1), splits=1)
    metric.update(images[0])
    assert sets.inception_score(logits, splits=1)[0].value == pytest.approx(float(metric.compute()[0]), abs=1e-4)
    assert sets.inception_score(torch.zeros(20, 5), splits=2)[0].value == pytest.approx(1)


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
        assert (sets.precision(a, b, k).value, sets.recall(a, b, k).value) == pytest.approx(expected)
    same = torch.from_numpy(real)
    assert sets.precision(same, same).value == sets.recall(same, same).value == 1
    assert sets.precision(same + 1000, same).value == sets.recall(same + 1000, same).value == 0


def test_precision_and_recall_are_torch_fidelitys(features: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    a, b = features[0].pool, features[1].pool
    settings = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    expected = theirs.prc_features_to_metric(a, b, **settings)
    assert sets.precision(a, b).value == pytest.approx(expected["precision"], abs=1e-4)
    assert sets.recall(a, b).value == pytest.approx(expected["recall"], abs=1e-4)


def test_too_few_pictures_are_an_error_that_says_so(features: Any) -> None:
    a, b = features[0].pool, features[1].pool
    for call in (
        lambda: sets.fid(a[:1], b),
        lambda: sets.kid(a[:1], b),
        lambda: sets.inception_score(a[:5], splits=10),
        lambda: sets.precision(a[:3], b),
        lambda: sets.recall(a, b[:3]),
    ):
        with pytest.raises(InputError, match="undefined for a set of"):
            call()
    with pytest.raises(ValueError, match="shapes"):
        sets.fid(a, b[:, :3])


def test_the_inception_score_of_what_is_certain_is_1() -> None:
    assert sets.inception_score(torch.tensor([[1000.0, 0.0]] * 5), 1)[0].value == 1
    both = torch.tensor([[1000.0, 0.0, -2000.0], [0.0, 1000.0, -2000.0]])
    assert sets.inception_score(both, 1)[0].value == pytest.approx(2)


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
    assert sets.diversity(pictures).value == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-6)
    assert sets.diversity([pictures[0]] * 3).value == 0
    with pytest.raises(InputError, match="a set of 1"):
        sets.diversity(pictures[:1])


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
