"""One run writes to a run folder.

A data set and a run folder in an object store: a new machine goes on where another was lost."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from children import Child, digest, lines, run, start, status
from faults import KillAtStep
from object_store import content, endpoint, fill, new_bucket, put, use_s3
from toy_folders import write_folder

from i2i import cli
from i2i.config import read_options
from i2i.errors import DivergedError, InputError, LockedError, OutputError
from i2i.files import staged, store_of
from i2i.folders import stores
from i2i.training import run_folder
from i2i.training.run_folder import RunFolder
from i2i.urls import StorePath, store_path

LONG = "--max-steps 100000 --log-every 1 --save-every 5 --workers 2"


def running(child: Child) -> None:
    child.until(lambda: (child.folder / "state-00000005.json").exists())
    assert child.process.is_alive(), child.said()


@pytest.mark.promise("R17")
def test_a_second_run_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start("cyclegan", folder, LONG)
    running(first)
    config, told = (folder / "config.yaml").read_bytes(), status(folder)["pid"]
    second = start("cyclegan", folder, f"{LONG} --lr 0.1")
    assert second.wait() == 7, second.said()
    assert f"pid {first.pid} on " in second.said() and " since 20" in second.said()
    assert "another run writes here" in second.said()
    assert (folder / "config.yaml").read_bytes() == config and status(folder)["pid"] == told
    first.signal(signal.SIGTERM)
    assert first.wait() == 75, first.said()


@pytest.mark.promise("R17")
def test_a_killed_run_leaves_no_lock_though_its_workers_live_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start("cyclegan", folder, LONG)
    running(first)
    workers = psutil.Process(first.pid).children()
    assert len(workers) == 2
    first.signal(signal.SIGKILL)
    first.wait()
    last = max(int(path.stem[6:]) for path in folder.glob("state-*.json"))
    second = start("cyclegan", folder, f"--max-steps {last + 3} --workers 0")
    # They look for their parent every five seconds.
    assert all(worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert second.wait() == 0, second.said()
    undisturbed = tmp_path / "straight"
    run("cyclegan", undisturbed, f"--max-steps {last + 3} --workers 0")
    assert digest(folder) == digest(undisturbed)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DivergedError("nan"), ("diverged", 8, "nan")),
        (InputError("no picture"), ("failed", 4, "no picture")),
        (KeyboardInterrupt(), ("interrupted", 130, "KeyboardInterrupt")),
        (MemoryError(), ("failed", 9, "MemoryError")),
        (ZeroDivisionError("a bug"), ("failed", 1, "a bug")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_status_says_how_a_run_failed(error: BaseException, expected: tuple[str, int, str], tmp_path: Path) -> None:
    RunFolder(tmp_path).failed(error, step=7)
    told = status(tmp_path)
    assert (told["status"], told["exit_code"], told["reason"]) == expected
    assert told["step"] == 7 and told["processes"] == 1 and told["host"] == socket.gethostname()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    child = start("cyclegan", tmp_path / "file" / "run", "--max-steps 3 --workers 0")
    assert child.wait() == 6, child.said()
    assert f"{tmp_path}/file/run: cannot be written" in child.said()


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
    run_folder.fetch_run(folder)
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("{}")
    put(bucket / "run", "state-00000001.pt", b"of a step that is gone here")
    run_folder.put_run(folder)
    assert set(content(bucket / "run")) == {"log.jsonl"}
    missing = staged(store_path("s3://no-such-bucket-here/run"))
    with pytest.raises(InputError, match="no such bucket"):
        run_folder.fetch_run(missing)
    missing.mkdir(parents=True)
    (missing / "log.jsonl").write_text("{}")
    with pytest.raises(OutputError, match="no such bucket"):
        run_folder.put_run(missing)
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
    run_folder.fetch_run(on("first"))
    for step in (1, 2):
        write(on("first"), step, here)
        run_folder.put_run(on("first"))
    run_folder.fetch_run(on("second"))
    write(on("second"), 3, "second", 7)
    run_folder.put_run(on("second"))
    write(on("first"), 3, here)
    with pytest.raises(LockedError, match="pid 7 on second"):
        run_folder.put_run(on("first"))
    assert b"second" in content(bucket / "run")["status.json"]

    run_folder.fetch_run(on("first"))
    write(on("first"), 4, here)
    run_folder.put_run(on("first"))
    write(on("first"), 5, here)
    lost_its_answer = {"step": 4.5, "host": here, "pid": os.getpid()}
    put(bucket / "run", "status.json", json.dumps(lost_its_answer).encode())
    run_folder.put_run(on("first"))


@pytest.mark.promise("R17")
@pytest.mark.parametrize("status", [b"damaged", b"[1]", b"{}", b"\xff"])
def test_a_status_that_no_run_wrote_is_another_machines(bucket: StorePath, tmp_path: Path, status: bytes) -> None:
    folder = staged(bucket / "run")
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    put(bucket / "run", "status.json", status)
    with pytest.raises(LockedError, match="an unknown machine"):
        run_folder.put_run(folder)
    assert content(bucket / "run") == {"status.json": status}


def test_a_configuration_names_the_store() -> None:
    """Nothing is fetched for it."""
    function, text = cli._parsed(["train", "pix2pix", "--data", "s3://bucket/pairs", "--print-config"], "")
    assert function is print and "data: s3://bucket/pairs\n" in text
