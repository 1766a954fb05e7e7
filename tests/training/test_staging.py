"""A data set and a run folder in an object store: a new machine goes on where another was lost."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from children import Child, digest, lines, run, start, status
from faults import KillAtStep
from object_store import content, endpoint, fill, new_bucket, put, use_s3
from toy_folders import write_folder

from i2i import cli
from i2i.config import read_options
from i2i.errors import InputError, LockedError, OutputError
from i2i.files import staged, store_of
from i2i.folders import stores
from i2i.training import staging
from i2i.urls import StorePath, store_path

OPTIONS = "--max-steps 8 --save-every 2 --log-every 1 --workers 0"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> StorePath:
    use_s3(monkeypatch, endpoint())
    return new_bucket("s3")


@pytest.fixture
def data(tmp_path: Path, bucket: StorePath) -> Path:
    """A data set, which the bucket has too."""
    write_folder(tmp_path / "pairs", "paired", count=4, size=32)
    fill(bucket / "pairs", tmp_path / "pairs")
    return tmp_path / "pairs"


def on_machine(home: Path, bucket: StorePath, options: str, faults: Any = ()) -> Child:
    """A training by the command line on a machine whose cache is `home`."""
    words = f"{options} --data {bucket / 'pairs'}"
    # the fork server of the tests may have been started before the store
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} | {
        "I2I_HOME": str(home)
    }
    return start("pix2pix", bucket / "runs" / "x", words, faults, environment)


def folder_of(home: Path, bucket: StorePath) -> Path:
    return home / "stores" / "s3" / bucket.parts[1] / "runs" / "x"


@pytest.mark.promise("R1")
def test_a_new_machine_goes_on_where_another_was_lost(data: Path, bucket: StorePath, tmp_path: Path) -> None:
    undisturbed = tmp_path / "straight"
    run("pix2pix", undisturbed, f"{OPTIONS} --data {data}")
    first, second = tmp_path / "first", tmp_path / "second"
    lost = on_machine(first, bucket, OPTIONS, [KillAtStep(6)])
    assert lost.wait() == -signal.SIGKILL, lost.said()
    there = content(bucket / "runs" / "x")
    assert {name for name in there if name.endswith(".pt")} == {"state-00000002.pt", "state-00000004.pt"}
    assert not [name for name in there if name.startswith(".")]

    child = on_machine(second, bucket, OPTIONS)
    assert child.wait() == 0, child.said()
    assert "resumed at step 4" in child.said()
    folder = folder_of(second, bucket)
    assert digest(folder) == digest(undisturbed)
    assert lines(folder, "step") == lines(undisturbed, "step")
    there = content(bucket / "runs" / "x")
    assert {name for name in there if name.endswith(".pt")} == {"state-00000006.pt", "state-00000008.pt"}
    for name in ("a2b.safetensors", "status.json", "log.jsonl", "state-00000008.json"):
        assert there[name] == (folder / name).read_bytes(), name
    assert status(folder)["status"] == "finished"
    configured = read_options(folder / "config.yaml")
    assert configured["data"] == str(bucket / "pairs") and configured["run"] == str(bucket / "runs" / "x")

    again = on_machine(first, bucket, OPTIONS)  # what this one has is older
    assert again.wait() == 0 and "nothing was left to do" in again.said(), again.said()
    assert digest(folder_of(first, bucket)) == digest(undisturbed)


def test_a_copy_stands_for_its_place_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path))
    place = store_path("s3://bucket/runs/x")
    assert store_of(staged(place)) == place
    assert store_of(tmp_path) is store_of(Path("runs/x")) is store_of(tmp_path / "stores" / "s3") is None


def test_a_store_that_fails_costs_no_step(bucket: StorePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path))
    folder = staged(bucket / "run")
    staging.fetch_run(folder)
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("{}")
    put(bucket / "run", "state-00000001.pt", b"of a step that is gone here")
    staging.put_run(folder)
    assert set(content(bucket / "run")) == {"log.jsonl"}
    missing = staged(store_path("s3://no-such-bucket-here/run"))
    with pytest.raises(InputError, match="no such bucket"):
        staging.fetch_run(missing)
    missing.mkdir(parents=True)
    (missing / "log.jsonl").write_text("{}")
    with pytest.raises(OutputError, match="no such bucket"):
        staging.put_run(missing)
    assert stores.files(bucket / "run")


@pytest.mark.promise("R17")
def test_of_two_machines_that_train_at_once_one_is_stopped(
    bucket: StorePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that put nothing since the other did. The same command again goes on with what the other has put."""

    def on(machine: str) -> Path:
        monkeypatch.setenv("I2I_HOME", str(tmp_path / machine))
        return staged(bucket / "run")

    def write(folder: Path, step: int, host: str, pid: int = os.getpid()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status.json").write_text(json.dumps({"step": step, "host": host, "pid": pid}))

    here = socket.gethostname()
    staging.fetch_run(on("first"))
    for step in (1, 2):
        write(on("first"), step, here)
        staging.put_run(on("first"))
    staging.fetch_run(on("second"))
    write(on("second"), 3, "second", 7)
    staging.put_run(on("second"))
    write(on("first"), 3, here)
    with pytest.raises(LockedError, match="pid 7 on second"):
        staging.put_run(on("first"))
    assert b"second" in content(bucket / "run")["status.json"]

    staging.fetch_run(on("first"))
    write(on("first"), 4, here)
    staging.put_run(on("first"))
    write(on("first"), 5, here)
    lost_its_answer = {"step": 4.5, "host": here, "pid": os.getpid()}
    put(bucket / "run", "status.json", json.dumps(lost_its_answer).encode())
    staging.put_run(on("first"))


@pytest.mark.promise("R17")
@pytest.mark.parametrize("status", [b"damaged", b"[1]", b"{}", b"\xff"])
def test_a_status_that_no_run_wrote_is_another_machines(bucket: StorePath, tmp_path: Path, status: bytes) -> None:
    folder = staged(bucket / "run")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    put(bucket / "run", "status.json", status)
    with pytest.raises(LockedError, match="an unknown machine"):
        staging.put_run(folder)
    assert content(bucket / "run") == {"status.json": status}


def test_a_configuration_names_the_store() -> None:
    """Nothing is fetched for it."""
    function, text = cli._parsed(["train", "pix2pix", "--data", "s3://bucket/pairs", "--print-config"], "")
    assert function is print and "data: s3://bucket/pairs\n" in text
