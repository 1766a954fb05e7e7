"""Inception and LPIPS from files of the user: the same numbers as the originals, and no code is run."""

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles import Calls
from torchvision.models.inception import BasicConv2d

from i2i.errors import ModelError, UsageError
from i2i.evaluation import features
from i2i.evaluation.features import Inception
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


@pytest.mark.promise("R46")
def test_a_compressed_member_is_refused(tmp_path: Path) -> None:
    """However small: it could inflate to anything, and torch.save writes none."""
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(9)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/more", bytes(range(99)), zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="its members are compressed"):
        features.load_inception(path)


@pytest.mark.promise("R46")
@pytest.mark.parametrize("name", ["keys", "values"])
def test_a_dict_with_other_methods_is_refused(tmp_path: Path, name: str) -> None:
    state, path = OrderedDict({"fc.weight": torch.zeros(1)}), tmp_path / "weights.pth"
    setattr(state, name, 3)
    torch.save(state, path)
    with pytest.raises(ModelError, match="a dict with attributes"):
        features.load_inception(path)


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


@pytest.mark.promise("R47")
def test_the_number_of_tensors_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.models.state_dicts.MAX_TENSORS", 10)
    torch.save({str(i): torch.zeros(1) for i in range(11)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="11 tensors; at most 10 are accepted"):
        features.load_inception(tmp_path / "weights.pth")


@pytest.mark.promise("R50")
def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path))
    asked: list[Any] = []

    def download(url: str, path: Path, **options: Any) -> None:
        asked.append((url, options["sha256"], options["size"]))
        path.write_bytes(b"weights")

    monkeypatch.setattr(features, "download", download)
    assert features.find_inception(None) is None and not asked
    found = features.find_inception(None, fetch=True)
    assert found is not None and asked == [
        (features.INCEPTION_URL, features.INCEPTION_SHA256, features.INCEPTION_BYTES)
    ]
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
        ({"features.0.weight": torch.zeros(64, 3, 11, 11)}, "features.0.bias is missing; expected torchvision"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=reason):
            features.load_lpips(path)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image.lpips", None)
    with pytest.raises(UsageError, match=r"i2i\[metrics\]"):
        features.load_lpips(path)
