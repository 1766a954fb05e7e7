"""Published checkpoints, fetched from a server on this machine or put there by hand; and models on the Hugging Face
Hub, which is played by a folder on this machine."""

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from local_server import LocalServer, redirect, running
from pickles import Calls

from i2i.algorithms import CUT
from i2i.algorithms.cut import CUTOptions
from i2i.algorithms.distill import DistillOptions, Teacher
from i2i.commands.options import options_of
from i2i.commands.translate import offered
from i2i.download import download
from i2i.errors import ModelError, UsageError
from i2i.evaluation.options import EvaluationOptions, find_model
from i2i.models import junyanz, model_file, published, styles
from i2i.models.info import describe, read_info
from i2i.networks import NetworkConfig
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig
from i2i.training.launch import initialise

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
@pytest.mark.parametrize("user", ["teacher", "init_from", "page", "evaluation"])
def test_commands_fetch_only_when_asked_and_show_how_far_they_are(
    user: str, server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.serve(f"/{NAME}.pth", checkpoint(tmp_path))
    options = CUTOptions(generator="resnet_1blocks", ngf=2, ndf=2)

    def use(download: bool) -> None:
        if user == "teacher":
            DistillOptions(teacher=NAME, download=download).opened()
        elif user == "init_from":
            initialise(CUT(options), [Path(NAME)], download=download)
        elif user == "page":
            offered([NAME], download)
        else:
            find_model(NAME, EvaluationOptions(download=download))

    with pytest.raises(UsageError, match=r"not on this machine: download=True fetches https://"):
        use(False)
    assert server.requests == [] and capsys.readouterr().err == ""
    use(True)
    assert len(server.requests) == 1 and capsys.readouterr().err == "fetched 0 of 0 MB\n"
    use(False)
    assert len(server.requests) == 1, "it is here now"


@pytest.mark.parametrize("command", ["train cyclegan", "train distill", "plan", "serve", "translate"])
def test_the_option_that_an_error_names_is_there(command: str) -> None:
    name, _, algorithm = command.partition(" ")
    known = options_of(name, algorithm or ("distill" if name == "plan" else ""))
    assert "--download" in {option.flag for option in known}


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


def save(folder: Path) -> Path:
    network = ResnetConfig(width=2, blocks=1).build()
    model_file.save_pretrained(folder, network, describe(network, direction="a2b"))
    return folder


class Hub:
    """A Hub that notes the requests, and its answers."""

    def __init__(self, snapshot: Path) -> None:
        self.snapshot = snapshot
        self.sizes: dict[str, int | None] = {"config.json": 100, "model.safetensors": 100, "evil.pkl": 10}
        self.failure: Exception | None = None
        self.asked: list[tuple[str, Any]] = []

    def model_info(self, repository: str, revision: str | None, files_metadata: bool) -> Any:
        if self.failure:
            raise self.failure
        self.asked.append((repository, revision))
        siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in self.sizes.items()]
        return SimpleNamespace(sha="abc", siblings=siblings)

    def snapshot_download(self, repository: str, **options: Any) -> str:
        self.asked.append((repository, options))
        return str(self.snapshot)

    def create_repo(self, repository: str, **options: Any) -> None:
        self.asked.append((repository, options))

    def upload_folder(self, **options: Any) -> Any:
        self.asked.append(("upload", options))
        return SimpleNamespace(commit_url="https://hub/commit")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    fake = Hub(save(tmp_path / "snapshot"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


ALLOWED = ["config.json", "model.safetensors"]


def test_fetching(fake: Hub) -> None:
    assert styles.find("hub:owner/name@v1") == fake.snapshot
    wanted = {"revision": "abc", "allow_patterns": ALLOWED, "local_files_only": False}
    assert fake.asked == [("owner/name", "v1"), ("owner/name", wanted)]
    model_file.open_model(styles.find("hub:owner/name"))


def test_a_training_starts_from_a_model_of_the_hub(fake: Hub) -> None:
    algorithm = CUT(CUTOptions(generator="resnet_1blocks", ngf=2, ndf=2, norm="instance"))
    initialise(algorithm, [Path("hub:owner/name")])
    expected = model_file.open_model(fake.snapshot)[0].state_dict()
    assert all(map(torch.equal, algorithm.G.state_dict().values(), expected.values()))


def test_a_teacher_is_asked_for_once(fake: Hub) -> None:
    """Options and algorithm each open it, and a start learns from one commit."""
    first, second = Teacher.opened("hub:owner/teacher"), Teacher.opened("hub:owner/teacher")
    assert first is second and [what for what, _ in fake.asked] == ["owner/teacher"] * 2, "sizes, then the files"


@pytest.mark.promise("R50")
@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"config.json": 2 << 20, "model.safetensors": 1}, "config.json has 2097152 bytes; at most 1,048,576"),
        ({"config.json": 1, "model.safetensors": 5 << 30}, "model.safetensors has 5368709120 bytes; at most"),
        ({"config.json": 1, "model.safetensors": None}, "unknown bytes"),
        ({"config.json": 1, "model.bin": 5}, "hub:owner/name: has no model.safetensors: not a model of i2i"),
    ],
)
def test_sizes_are_asked_for_first(fake: Hub, sizes: Any, message: str) -> None:
    fake.sizes = sizes
    with pytest.raises(ModelError, match=message):
        published.from_hub("owner/name")
    assert len(fake.asked) == 1


def test_without_network_the_cache_is_used(fake: Hub) -> None:
    from huggingface_hub import errors

    for failure in (errors.OfflineModeIsEnabled("offline"), ConnectionError("no route")):
        fake.failure = failure
        assert published.from_hub("owner/name", "v1") == fake.snapshot
        assert fake.asked.pop()[1] == {"revision": "v1", "allow_patterns": ALLOWED, "local_files_only": True}
    (fake.snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model.safetensors cannot be had, as the network cannot be used"):
        published.from_hub("owner/name")


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "../x", "a/..", "a b/c", "a/b\n", "https://x/y"])
def test_invalid_hub_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected hub:owner/name"):
        styles.find(f"hub:{name}")


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'i2i\[hub\]'"):
        published.from_hub("owner/name")


def test_publishing(fake: Hub, tmp_path: Path) -> None:
    assert published.push_to_hub(fake.snapshot, "owner/name", private=True) == "https://hub/commit"
    upload = {"repo_id": "owner/name", "folder_path": str(fake.snapshot), "allow_patterns": ALLOWED}
    assert fake.asked == [("owner/name", {"private": True, "exist_ok": True}), ("upload", upload)]
    with pytest.raises(ModelError):
        published.push_to_hub(tmp_path, "owner/name")
    (fake.snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors"):
        published.push_to_hub(fake.snapshot, "owner/name")
    assert len(fake.asked) == 2


@pytest.mark.promise("R50")
def test_the_library_itself_offline(tmp_path: Path) -> None:
    """Its cache is found as it lays it out, and no socket is opened."""
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "hub" / "models--owner--name"
    save(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('a socket')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from i2i.models import styles\n"
        "from i2i.errors import ModelError\n"
        "print(styles.find('hub:owner/name').name)\n"
        "try: styles.find('hub:owner/other')\n"
        "except ModelError as error: print(error)\n"
        "import huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines() == [
        "a" * 40,
        "hub:owner/other: not in the cache, and the network cannot be used",
        "True",
    ], result.stderr
