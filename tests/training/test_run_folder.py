"""One run writes to a run folder."""

import signal
import socket
from pathlib import Path

import psutil
import pytest
from children import Child, digest, run, start, status

from i2i.errors import DivergedError, InputError
from i2i.training.run_folder import RunFolder

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
