"""Inception and LPIPS from files of the user: the same numbers as the originals, and no code is run."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import changes, drawn, half_width
from pickles import Calls
from scipy.special import stdtrit
from torch import Tensor
from torchvision.models.inception import BasicConv2d

from i2i.errors import InputError, ModelError, UsageError
from i2i.evaluation import features
from i2i.evaluation.features import Features, Inception, extract
from i2i.evaluation.metrics import draws, linear, mean
from i2i.models import state_dicts


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the names and shapes of the published ones, the counters of batch norm left out."""
    torch.manual_seed(0)
    network = Inception()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({k: v for k, v in network.net.state_dict().items() if "num_batches" not in k}, path)
    return path


def test_inception_is_torch_fidelitys(inception_file: Path) -> None:
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network, sha256 = features.load_inception(inception_file)
    assert len(sha256) == 64 and not network.training
    reference = theirs.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(inception_file))
    images = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = reference(images), network(images / 127.5 - 1)
    torch.testing.assert_close(found, tuple(expected), atol=1e-4, rtol=1e-4)
    assert found[0].shape == (1, 2048) and found[1].shape == (1, 1008) and found[0].std() > 0.1


@pytest.mark.promise("H3", "R46")
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    torch.save({"fc.weight": Calls(os.mkdir, str(marker))}, path, _use_new_zipfile_serialization=zipped)
    for load in (features.load_inception, features.load_lpips):
        with pytest.raises(ModelError, match=r"weights\.pth.*expected"):
            load(path)
    path.write_bytes(pickle.dumps(Calls(os.mkdir, str(marker))))
    with pytest.raises(ModelError):
        features.load_inception(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 (the trap is a real one)
    assert marker.exists()


@pytest.mark.promise("H3", "R46")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("guard", ["the scan", "the restricted unpickler"])
def test_each_of_two_guards_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: str, zipped: bool
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    torch.save({"fc.weight": Calls(os.mkdir, str(marker))}, path, _use_new_zipfile_serialization=zipped)
    if guard == "the scan":
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch has seen the file"))
    else:
        monkeypatch.setattr(state_dicts, "check_pickles", lambda path: 1 << 30)
    for load in (features.load_inception, features.load_lpips):
        with pytest.raises(ModelError):
            load(path)
    assert not marker.exists()


class Beginning(torch.nn.Module):
    """A network with the names of Inception's first layer and of its last."""

    def __init__(self) -> None:
        super().__init__()
        first, last = BasicConv2d(3, 32, kernel_size=3), torch.nn.Linear(2, 2)
        self.net = torch.nn.ModuleDict({"Conv2d_1a_3x3": first, "fc": last})


@pytest.mark.promise("R47")
def test_a_file_that_is_not_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(features, "Inception", Beginning)
    good = Beginning().net.state_dict()
    torch.save(good, path)
    features.load_inception(path)
    name = "Conv2d_1a_3x3.conv.weight"
    for content, reason in (
        ({"weight": torch.zeros(3)}, "Conv2d_1a_3x3.conv.weight is missing"),
        (good | {name: torch.zeros(1, 3, 3, 3)}, r"shape \(1, 3, 3, 3\); its network has \(32, 3, 3, 3\)"),
        (good | {"Conv2d_1a_3x3.bn.running_var": -torch.ones(32)}, r"bn\.running_var holds a variance below 0"),
        (good | {"AuxLogits.fc.bias": torch.zeros(4)}, "AuxLogits.fc.bias has no place in its network"),
        (good | {name: torch.full((32, 3, 3, 3), float("nan"))}, "not finite"),
        (good | {name: torch.zeros(1).expand(32, 3, 3, 3)}, "larger than what is stored"),
        ([torch.zeros(3)], "not a state dict"),
        ({"epoch": 3}, "not a tensor"),
        ({3: torch.zeros(1)}, "a key is of type int; expected the names of tensors"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=reason) as error:
            features.load_inception(path)
        assert features.INCEPTION_NAME in str(error.value)
    torch.save(good, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="expected the Inception weights"):
        features.load_inception(path)


@pytest.mark.promise("R50")
def test_nothing_is_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path))
    asked: list[Any] = []

    def download(url: str, path: Path, **options: Any) -> None:
        asked.append((url, options["sha256"], options["size"]))
        path.write_bytes(b"weights")
        options["progress"](features.INCEPTION_BYTES, features.INCEPTION_BYTES)

    monkeypatch.setattr(features, "download", download)
    assert features.find_inception(None) is None and not asked
    found = features.find_inception(None, fetch=True)
    assert found is not None and asked == [
        (features.INCEPTION_URL, features.INCEPTION_SHA256, features.INCEPTION_BYTES)
    ]
    assert capsys.readouterr().err == "fetched 96 of 96 MB\n"
    assert features.find_inception(None) == found and len(asked) == 1


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


def test_lpips_is_torchmetrics_with_that_backbone(tmp_path: Path, no_network: None) -> None:
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    backbone, path = alexnet(weights=None), tmp_path / "alexnet.pth"
    # small ones in place of the large layers that LPIPS does not use
    weights = {name: tensor for name, tensor in backbone.state_dict().items() if name.startswith("features.")}
    torch.save(weights, path)
    distance, kind, sha256 = features.load_lpips(path)
    assert kind == "alex" and len(sha256) == 64
    a, b = torch.rand(2, 2, 3, 64, 72) * 2 - 1
    reference = theirs._LPIPS(pretrained=True, net="alex", pnet_rand=True)
    for source, target in zip(backbone.features, [m for s in range(1, 6) for m in getattr(reference.net, f"slice{s}")],
                              strict=False):  # fmt: skip
        target.load_state_dict(source.state_dict())
    expected = reference(a, b).flatten()
    torch.testing.assert_close(distance(a, b), expected, atol=1e-6, rtol=1e-5)
    assert distance(a, a).abs().max() < 1e-6 and expected.min() > 1e-5


def test_files_that_are_no_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    path = tmp_path / "weights.pth"
    for content, reason in (
        ({"features.0.weight": torch.zeros(5, 3, 3, 3)}, "not the weights of a backbone"),
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "features.0.bias is missing; .*expected torchvision"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=reason):
            features.load_lpips(path)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    with pytest.raises(UsageError, match=r"i2i\[metrics\]"):
        features.load_lpips(path)


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


@pytest.fixture(scope="module")
def two_sets() -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    a = draw.integers(0, 256, (60, 3, 16, 16), np.uint8)
    b = (draw.integers(0, 256, (45, 3, 16, 16)) * np.array([0.8, 1.0, 0.6])[:, None, None]).astype(np.uint8)
    return torch.from_numpy(a), torch.from_numpy(b)


@pytest.fixture(scope="module")
def extracted(two_sets: tuple[torch.Tensor, torch.Tensor]) -> tuple[Features, Features]:
    network = SmallNetwork()
    a, b = (extract([x.float() / 127.5 - 1 for x in some], network, 16, batch=20) for some in two_sets)
    return a, b


@pytest.mark.arithmetic
def test_features_are_float64_and_in_order(two_sets: Any, extracted: Any) -> None:
    a, _ = extracted
    assert a.pool.dtype == a.logits.dtype == torch.float64
    pool, logits = SmallNetwork()(two_sets[0].float() / 127.5 - 1)
    torch.testing.assert_close((a.pool, a.logits), (pool.double(), logits.double()), atol=1e-5, rtol=1e-5)


@pytest.mark.arithmetic
def test_fid_is_torch_fidelitys_also_for_fewer_pictures_than_features(extracted: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    for a, b in (extracted[0].pool, extracted[1].pool), (extracted[0].pool[:9], extracted[1].pool[:12]):
        statistics = [theirs.fid_features_to_statistics(x) for x in (a, b)]
        expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert features.fid(a, b).value == pytest.approx(expected, abs=1e-4)
        assert features.fid(b, a).value == pytest.approx(features.fid(a, b).value, rel=1e-9)
        assert features.fid(a, a).value == pytest.approx(0, abs=1e-9)


@pytest.mark.arithmetic
def test_kid_is_the_mean_of_torch_fidelitys_subsets(extracted: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = extracted[0].pool, extracted[1].pool
    settings = {"kid_subsets": 2000, "kid_subset_size": 20, "rng_seed": 7, "verbose": False}
    expected = theirs.kid_features_to_metric(a, b, **settings)
    error = expected["kernel_inception_distance_std"] / 2000**0.5
    found = features.kid(a, b).value
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], abs=4 * error) and error < 0.02 * found


@pytest.mark.arithmetic
def test_inception_score_is_torch_fidelitys(extracted: Any) -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_isc")
    logits = extracted[0].logits
    expected = theirs.isc_features_to_metric(logits, splits=6, shuffle=True, rng_seed=3)
    found, deviation = features.inception_score(logits, splits=6, seed=3)
    assert found.value == pytest.approx(expected["inception_score_mean"], abs=1e-4)
    assert deviation == pytest.approx(expected["inception_score_std"], abs=1e-4)
    assert features.inception_score(torch.zeros(20, 5), splits=2)[0].value == pytest.approx(1)


@pytest.mark.arithmetic
def test_precision_and_recall_are_the_definition(extracted: Any) -> None:
    made, real = extracted[0].pool.numpy(), extracted[1].pool.numpy()

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
        assert (features.precision(a, b, k).value, features.recall(a, b, k).value) == pytest.approx(expected)
    same = torch.from_numpy(real)
    assert features.precision(same, same).value == features.recall(same, same).value == 1
    assert features.precision(same + 1000, same).value == features.recall(same + 1000, same).value == 0


@pytest.mark.arithmetic
def test_too_few_pictures_are_an_error_that_says_so(extracted: Any) -> None:
    a, b = extracted[0].pool, extracted[1].pool
    for call in (
        lambda: features.fid(a[:1], b),
        lambda: features.kid(a[:1], b),
        lambda: features.inception_score(a[:5], splits=10),
        lambda: features.precision(a[:3], b),
        lambda: features.recall(a, b[:3]),
    ):
        with pytest.raises(InputError, match="undefined for a set of"):
            call()


@pytest.mark.arithmetic
def test_the_inception_score_of_what_is_certain_is_1() -> None:
    assert features.inception_score(torch.tensor([[1000.0, 0.0]] * 5), 1)[0].value == 1
    both = torch.tensor([[1000.0, 0.0, -2000.0], [0.0, 1000.0, -2000.0]])
    assert features.inception_score(both, 1)[0].value == pytest.approx(2)


@pytest.mark.arithmetic
def test_features_that_are_not_finite_are_refused() -> None:
    network = SmallNetwork()
    network.convolution.weight.data *= 1e38
    with pytest.raises(ModelError, match="not finite"):
        extract([torch.ones(3, 16, 16)], network, 16)


@pytest.mark.arithmetic
def test_draws_of_kid_are_those_of_the_pictures_drawn() -> None:
    a, b = 1 + drawn(9, 4), drawn(7, 4, seed=1)
    found = features.kid(a, b, seed=2)
    assert found.resampled is not None
    for k in (0, 17):
        of_a, of_b = (torch.repeat_interleave(torch.arange(len(x)), draws(len(x), 2)[k].long()) for x in (a, b))

        def within(x: Tensor, chosen: Tensor) -> float:
            pairs = [(i, j) for i in chosen.tolist() for j in chosen.tolist() if i != j]
            return float(np.mean([(float(x[i] @ x[j]) / 4 + 1) ** 3 for i, j in pairs]))

        across = np.mean([(float(a[i] @ b[j]) / 4 + 1) ** 3 for i in of_a for j in of_b])
        assert float(found.resampled[k]) == pytest.approx(within(a, of_a) + within(b, of_b) - 2 * across)


@pytest.mark.arithmetic
def test_kid_of_points_and_of_few_pictures() -> None:
    """Two sets without any spread, x and y everywhere: (x² + 1)³ + (y² + 1)³ - 2 (x y + 1)³."""
    a, b = torch.full((4, 1), 0.5), torch.full((3, 1), -1.0)
    assert features.kid(a, b).value == pytest.approx(1.25**3 + 2**3 - 2 * 0.5**3)
    assert features.kid(a, b).interval() == pytest.approx((features.kid(a, b).value,) * 2)
    assert features.kid(drawn(2, 3), drawn(5, 3, seed=1)).interval() is None, "two pictures are one pair"
    assert features.kid(drawn(3, 3), drawn(3, 3, seed=1)).interval() is not None
    many = drawn(300, 3), drawn(270, 3, seed=1)  # in more than one block
    assert features.kid(*many).value == pytest.approx(kid_by_matrix(*many))


def kid_by_matrix(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).trace()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(within[0] + within[1] - 2 * kernel(a, b).mean())


@pytest.mark.arithmetic
def test_the_interval_of_kid_is_that_of_its_influences() -> None:
    """Far from 0, Var = 4 Var(h(x)) / n + 4 Var(g(y)) / m, h and g the means of the kernel (Sutherland 2019)."""
    a, b = 0.7 + drawn(150, 6), drawn(120, 6, seed=1)

    def means(x: Tensor, y: Tensor) -> Tensor:
        own = (x @ x.T / 6 + 1) ** 3
        return (own.sum(dim=1) - own.diagonal()) / (len(x) - 1) - ((x @ y.T / 6 + 1) ** 3).mean(dim=1)

    deviation = float((4 * means(a, b).var() / 150 + 4 * means(b, a).var() / 120) ** 0.5)
    assert half_width(features.kid(a, b)) == pytest.approx(stdtrit(119, 0.975) * deviation, rel=0.08)


@pytest.mark.arithmetic
@pytest.mark.parametrize(("count", "dimensions"), [(20, 4), (6, 9)])
def test_the_draws_of_fid_follow_each_pictures_weight(count: int, dimensions: int) -> None:
    """Also where there are fewer pictures than features."""
    a, b = 0.4 + drawn(count, dimensions), 1.5 * drawn(count + 2, dimensions, seed=1)

    def fid(w: Tensor, v: Tensor) -> Tensor:
        means, covariances = [], []
        for x, some in ((a, w), (b, v)):
            p = some / some.sum()
            means.append(p @ x)
            covariances.append(((x - means[-1]) * p[:, None]).T @ (x - means[-1]) * len(x) / (len(x) - 1))
        root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt().sum()
        trace = covariances[0].trace() + covariances[1].trace()
        return (means[0] - means[1]).square().sum() + trace - 2 * root

    ones = torch.ones(count, dtype=torch.float64), torch.ones(count + 2, dtype=torch.float64)
    influences = changes(lambda w: fid(w, ones[1]), count, 1e-3), changes(lambda v: fid(ones[0], v), count + 2, 1e-3)
    found, expected = features.fid(a, b, seed=4), linear(float(fid(*ones)), influences, 4)
    assert found.value == pytest.approx(expected.value) and found.resampled is not None
    torch.testing.assert_close(found.resampled, expected.resampled, rtol=1e-3, atol=1e-3)


@pytest.mark.arithmetic
def test_the_draws_of_the_inception_score_follow_each_pictures_weight() -> None:
    logits = 2 * drawn(30, 5)
    order = np.random.RandomState(1).permutation(30)

    def score(w: Tensor) -> Tensor:
        parts = []
        for part in (order[:15], order[15:]):
            p, some = logits[part].softmax(dim=1), w[part] / w[part].sum()
            parts.append((some @ (p * (p.log() - (some @ p).log())).sum(dim=1)).exp())
        return torch.stack(parts).mean()

    found, _ = features.inception_score(logits, splits=2, seed=1)
    expected = linear(float(score(torch.ones(30).double())), [changes(score, 30)], 1)
    assert found.value == pytest.approx(expected.value) and found.resampled is not None
    torch.testing.assert_close(found.resampled, expected.resampled, rtol=1e-5, atol=1e-5)


@pytest.mark.arithmetic
def test_shares_vary_as_a_binomial_does() -> None:
    made, real = drawn(80, 2), 0.5 * drawn(80, 2, seed=1)
    found = features.precision(made, real)
    expected = stdtrit(79, 0.975) * (found.value * (1 - found.value) / 79) ** 0.5
    assert 0.3 < found.value < 0.9 and half_width(found) == pytest.approx(expected, rel=0.1)


def shifted(shift: float, count: int, random: np.random.RandomState) -> Tensor:
    return torch.from_numpy(shift + random.standard_normal((count, 6)))


@pytest.mark.arithmetic
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "most"), [("mean", 0.9, 0.985), ("kid", 0.9, 0.985), ("fid", 0.88, 0.985), ("floor", 0.94, 1.0)]
)
def test_coverage(name: str, least: float, most: float) -> None:
    """About 95 % of 400 intervals hold the number that is right; at the floor, where two sets are of one distribution,
    more, as the draws vary more than the number."""
    random, found = np.random.RandomState(0), []
    for _ in range(400):
        if name == "mean":
            found.append(mean((shifted(0, 20, random)[:, 0] / 2).exp(), 0))
        elif name == "fid":
            found.append(features.fid(shifted(0.8, 60, random), shifted(0, 80, random)))
        else:
            found.append(features.kid(shifted(0.8 if name == "kid" else 0, 60, random), shifted(0, 80, random)))
    right = {"mean": np.exp(0.125), "floor": 0.0}.get(name, np.mean([estimate.value for estimate in found]))
    intervals = [estimate.interval() or (0.0, 0.0) for estimate in found]
    share = np.mean([low <= right <= high for low, high in intervals])
    assert least <= share <= most
