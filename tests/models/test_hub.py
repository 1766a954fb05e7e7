"""Models on the Hugging Face Hub, which is played by a folder on this machine."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2i.algorithms.distill import Teacher
from i2i.errors import ModelError, UsageError
from i2i.models import hub, model_file, pretrained, styles
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


def save(folder: Path) -> Path:
    network = ResnetConfig(width=2, blocks=1).build()
    model_file.save_pretrained(folder, network, describe(network, direction="a2b"))
    return folder


class Hub:
    """What is asked of the Hub, and what it says."""

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
    fake = Hub(save(tmp_path / "snapshot"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


ALLOWED = ["config.json", "model.safetensors"]


def test_fetching(fake: Hub) -> None:
    assert styles.find("hub:owner/name@v1") == fake.snapshot
    wanted = {"revision": "abc", "allow_patterns": ALLOWED, "local_files_only": False}
    assert fake.asked == [("owner/name", "v1"), ("owner/name", wanted)]
    pretrained.open_model(styles.find("hub:owner/name"))


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
        hub.fetch("owner/name")
    assert len(fake.asked) == 1


def test_without_network_the_cache_is_used(fake: Hub) -> None:
    for failure in (errors.OfflineModeIsEnabled("offline"), ConnectionError("no route")):
        fake.failure = failure
        assert hub.fetch("owner/name", "v1") == fake.snapshot
        assert fake.asked.pop()[1] == {"revision": "v1", "allow_patterns": ALLOWED, "local_files_only": True}
    (fake.snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model.safetensors cannot be had, as the network cannot be used"):
        hub.fetch("owner/name")


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "../x", "a/..", "a b/c", "a/b\n", "https://x/y"])
def test_invalid_hub_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected hub:owner/name"):
        styles.find(f"hub:{name}")


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'i2i\[hub\]'"):
        hub.fetch("owner/name")


def test_publishing(fake: Hub, tmp_path: Path) -> None:
    assert hub.push(fake.snapshot, "owner/name", private=True) == "https://hub/commit"
    upload = {"repo_id": "owner/name", "folder_path": str(fake.snapshot), "allow_patterns": ALLOWED}
    assert fake.asked == [("owner/name", {"private": True, "exist_ok": True}), ("upload", upload)]
    with pytest.raises(ModelError):
        hub.push(tmp_path, "owner/name")
    (fake.snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors"):
        hub.push(fake.snapshot, "owner/name")
    assert len(fake.asked) == 2


@pytest.mark.promise("R50")
def test_the_library_itself_offline(tmp_path: Path) -> None:
    """Its cache is found as it lays it out, and no socket is opened."""
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
