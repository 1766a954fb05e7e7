"""Published checkpoints, fetched from a server on this machine or put there by hand."""

import functools
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from local_server import LocalServer, redirect, running
from pickles import Calls

from i2i.download import download
from i2i.errors import ModelError, UsageError
from i2i.models import junyanz, model_file, published, styles
from i2i.models.info import read_info
from i2i.networks import NetworkConfig
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

SMALL = ResnetConfig(width=2, blocks=1)
NAME = "style_monet"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared_server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalServer:
    """It stands for the authors' server, and their networks are small."""
    shared_server.answers.clear()
    shared_server.requests.clear()
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(styles, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setitem(published._FOLDERS, "cyclegan", shared_server.url)
    monkeypatch.setattr(published, "download", functools.partial(download, context=shared_server.context))
    options = {"blocks": 1, "width": 2, "norm": "instance", "dropout": False}
    monkeypatch.setitem(published.NETWORKS, "cyclegan", ("resnet", options))
    return shared_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "catalogue" / "cyclegan"


def checkpoint(tmp_path: Path, config: NetworkConfig = SMALL, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    torch.save(junyanz.to_reference(config, config.build().state_dict()), tmp_path / "latest_net_G.pth")
    return (tmp_path / "latest_net_G.pth").read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.promise("R50")
def test_fetched_when_asked_for_converted_and_kept(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    data = checkpoint(tmp_path)
    server.serve(f"/{NAME}.pth", data)
    with pytest.raises(UsageError, match="not on this machine"):
        styles.find(NAME)
    assert server.requests == []
    seen: list[int] = []
    path = styles.find(NAME, "b2a", download=True, progress=lambda done, _: seen.append(done))
    assert seen[-1] == len(data)
    assert names(folder) == [f"{NAME}.json", f"{NAME}.safetensors"]
    network, info = model_file.load(path)
    assert (info.direction, info.input_domain, info.output_domain) == ("b2a", "photo", "Monet")
    assert (info.training.algorithm, info.training.dataset, info.licence) == ("cyclegan", "monet2photo", "")
    assert info.paint_size == 384
    torch.manual_seed(0)
    for name, tensor in SMALL.build().state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    assert styles.find(NAME) == styles.find(f"cyclegan/{NAME}") == styles.find(NAME, download=True) == path
    assert len(server.requests) == 1


def test_download_source_is_recorded(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    data = checkpoint(tmp_path)
    url = server.serve(f"/{NAME}.pth", data)
    styles.find(NAME, download=True)
    record = json.loads((folder / f"{NAME}.json").read_text())
    assert record["url"] == url and record["sha256"] == hashlib.sha256(data).hexdigest()
    assert record["size"] == len(data) and record["licence"] == "not stated" and "1703.10593" in record["paper"]


def test_a_unet_keeps_its_dropout_and_its_statistics(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(published._FOLDERS, "pix2pix", server.url)
    options = {"depth": 5, "width": 2, "norm": "batch", "dropout": True}
    monkeypatch.setitem(published.NETWORKS, "pix2pix", ("unet", options))
    server.serve("/day2night.pth", checkpoint(tmp_path, UNetConfig(width=2, depth=5)))
    info = read_info(styles.find("day2night", download=True))
    assert (info.dropout, info.statistics, info.direction, info.output_domain) == (True, "batch", "b2a", "night")
    assert info.paint_size == 0


@pytest.mark.promise("R50")
def test_digest_of_first_download_is_required_later(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    first, other = checkpoint(tmp_path), checkpoint(tmp_path, seed=1)
    server.serve(f"/{NAME}.pth", first)
    path = styles.find(NAME, download=True)
    path.unlink()
    server.serve(f"/{NAME}.pth", other, etag='"two"')
    with pytest.raises(
        ModelError, match=r"was used first \(.*\); to trust this one instead, remove .*style_monet.json"
    ):
        styles.find(NAME, download=True)
    assert names(folder) == [f"{NAME}.json"]
    server.serve(f"/{NAME}.pth", first)
    assert styles.find(NAME, download=True) == path
    path.unlink()
    (folder / f"{NAME}.json").unlink()
    server.serve(f"/{NAME}.pth", other)
    assert styles.find(NAME, download=True) == path


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sha256": 3}', "{}"])
def test_damaged_trust_record_is_refused(server: LocalServer, tmp_path: Path, folder: Path, text: str) -> None:
    server.serve(f"/{NAME}.pth", checkpoint(tmp_path))
    folder.mkdir(parents=True)
    (folder / f"{NAME}.json").write_text(text)
    with pytest.raises(ModelError, match="damaged record of a download; remove it"):
        styles.find(NAME, download=True)
    assert names(folder) == [f"{NAME}.json"]


def pinned(monkeypatch: pytest.MonkeyPatch, **pins: Any) -> None:
    entries = [replace(e, **pins) if e.name == NAME else e for e in published.ENTRIES]
    monkeypatch.setattr(published, "ENTRIES", tuple(entries))


@pytest.mark.promise("R50")
def test_pins_are_kept_to(server: LocalServer, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = checkpoint(tmp_path)
    server.serve(f"/{NAME}.pth", data)
    pinned(monkeypatch, sha256="0" * 64)
    with pytest.raises(ModelError, match=f"not the expected file.*{'0' * 64}"):
        styles.find(NAME, download=True)
    (folder / f"{NAME}.pth").write_bytes(data)
    with pytest.raises(ModelError, match=f"that of cyclegan/style_monet is {'0' * 64}"):
        styles.find(NAME)
    (folder / f"{NAME}.pth").unlink()
    pinned(monkeypatch, sha256=hashlib.sha256(data).hexdigest(), size=5)
    with pytest.raises(ModelError, match="expected 5"):
        styles.find(NAME, download=True)
    assert names(folder) == []
    pinned(monkeypatch, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    styles.find(NAME, download=True)


@pytest.mark.promise("R46", "R50")
def test_a_hostile_answer_leaves_nothing(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    torch.save({"model.1.weight": Calls(os.mkdir, str(tmp_path / "marker"))}, tmp_path / "evil.pth")
    hostile = (tmp_path / "evil.pth").read_bytes()
    other = [checkpoint(tmp_path, config) for config in (UNetConfig(width=2, depth=5), PatchGANConfig(width=2))]
    for data in (hostile, hostile[:100], b"<html>not found</html>", b"", *other):
        server.serve(f"/{NAME}.pth", data)
        with pytest.raises(ModelError, match=f"{NAME}.pth: fetched, refused and removed again"):
            styles.find(NAME, download=True)
        assert names(folder) == []
    assert not (tmp_path / "marker").exists()


@pytest.mark.promise("R50")
def test_interrupted_download_resumes(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    data = checkpoint(tmp_path)
    server.serve(f"/{NAME}.pth", data, stop=1000)
    with pytest.raises(ModelError, match="broke off after 1,000"):
        styles.find(NAME, download=True)
    server.serve(f"/{NAME}.pth", data)
    styles.find(NAME, download=True)
    assert server.requests[-1][1]["Range"] == "bytes=1000-"
    assert names(folder) == [f"{NAME}.json", f"{NAME}.safetensors"]


@pytest.mark.promise("R50")
@pytest.mark.parametrize("to", ["http://localhost/x", "file:///etc/passwd"])
def test_a_redirect_to_elsewhere(server: LocalServer, folder: Path, to: str) -> None:
    server.answer(f"/{NAME}.pth", redirect(to))
    with pytest.raises(ModelError, match="refused"):
        styles.find(NAME, download=True)
    assert names(folder) == []


@pytest.mark.promise("R50")
def test_without_network_it_says_where_to_put_the_file(
    server: LocalServer, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(published._FOLDERS, "cyclegan", "https://localhost:1")
    by_hand = folder / f"{NAME}.pth"
    with pytest.raises(ModelError, match=f"cannot be reached: .*; by hand, put the file at {by_hand}"):
        styles.find(NAME, download=True)
    by_hand.write_bytes(checkpoint(tmp_path))
    path = styles.find(NAME)
    assert read_info(path).output_domain == "Monet"
    assert json.loads((folder / f"{NAME}.json").read_text())["url"] == ""
    assert names(folder) == [f"{NAME}.json", f"{NAME}.pth", f"{NAME}.safetensors"]
    assert server.requests == []


@pytest.mark.promise("R46")
def test_a_file_put_there_by_hand_is_not_trusted_either(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    torch.save({"model.1.weight": Calls(os.mkdir, str(tmp_path / "marker"))}, folder / f"{NAME}.pth")
    with pytest.raises(ModelError, match="never run"):
        styles.find(NAME)
    (folder / f"{NAME}.pth").write_bytes(checkpoint(tmp_path, UNetConfig(width=2, depth=5)))
    with pytest.raises(ModelError, match=r"a unet with .*; cyclegan/style_monet is a resnet"):
        styles.find(NAME)
    assert not (tmp_path / "marker").exists()
    assert names(folder) == [f"{NAME}.pth"]


def test_several_at_once_fetch_it_once(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    server.serve(f"/{NAME}.pth", checkpoint(tmp_path))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(styles.find(NAME, download=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.requests) == 1
    assert names(folder) == [f"{NAME}.json", f"{NAME}.safetensors"]


def test_concurrent_requests_fetch_a_style_once(
    server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def fetch(*arguments: Any) -> None:
        calls.append(arguments)
        time.sleep(0.05)
        (folder / f"{NAME}.safetensors").touch()

    monkeypatch.setattr(published, "_fetch", fetch)
    threads = [threading.Thread(target=styles.find, args=[NAME], kwargs={"download": True}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert names(folder) == [f"{NAME}.safetensors"]


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)


@pytest.mark.promise("R29")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (sparse, "1,073,741,825 bytes; at most 1,073,741,824"),
    ],
    ids=["pipe", "folder", "large"],
)
def test_invalid_file_in_the_checkpoint_place_is_refused(
    server: LocalServer, folder: Path, make: Any, message: str
) -> None:
    folder.mkdir(parents=True)
    make(folder / f"{NAME}.pth")
    with pytest.raises(ModelError, match=rf"{NAME}\.pth: {message}"):
        styles.find(NAME)
    assert names(folder) == [f"{NAME}.pth"] and server.requests == []


def test_a_checkpoint_without_permission(server: LocalServer, tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{NAME}.pth").write_bytes(checkpoint(tmp_path))

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ModelError, match=r"\.pth: cannot be read: Permission"):
        patch.setattr("hashlib.file_digest", refuse)
        styles.find(NAME)
