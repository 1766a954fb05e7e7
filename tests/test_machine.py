"""The ranks that torchrun gives, the memory of this machine and of its container."""

import importlib
import os
import resource
from datetime import timedelta
from pathlib import Path

import pytest
from fork_server import python

from i2i import machine
from i2i.errors import ResourceError, UsageError
from i2i.machine import Place, meet, place, together

SCRIPTS = Path(__file__).parents[1] / "scripts"
MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def variables(text: str) -> dict[str, str]:
    return dict(word.split("=") for word in text.split())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("", Place()),
        ("MASTER_ADDR=left MASTER_PORT=over", Place()),
        ("WORLD_SIZE=", Place()),
        ("RANK= LOCAL_RANK= WORLD_SIZE= LOCAL_WORLD_SIZE=", Place()),
        ("WORLD_SIZE=1", Place()),
        ("RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 LOCAL_WORLD_SIZE=1", Place()),
        ("SLURM_PROCID=3 SLURM_NTASKS=4", Place()),
    ],
)
def test_alone_it_is_the_first(told: str, expected: Place) -> None:
    assert place(variables(told)) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("RANK=1 WORLD_SIZE=2", Place(1, 2, 1, 2)),
        ("RANK=1 LOCAL_RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=1", Place(1, 2, 0, 1)),
        ("RANK=5 WORLD_SIZE=8 LOCAL_WORLD_SIZE=4", Place(5, 8, 1, 4)),
        ("RANK=5 LOCAL_RANK=1 WORLD_SIZE=8 LOCAL_WORLD_SIZE=4", Place(5, 8, 1, 4)),
    ],
)
def test_ranks_come_from_the_environment(told: str, expected: Place) -> None:
    assert place(variables(told) | MEETING) == expected


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ("RANK=1", "RANK = 1, but not WORLD_SIZE"),
        ("RANK=0", "RANK = 0, but not WORLD_SIZE"),
        ("LOCAL_RANK=2", "LOCAL_RANK = 2, but not WORLD_SIZE"),
        ("LOCAL_WORLD_SIZE=4", "LOCAL_WORLD_SIZE = 4, but not WORLD_SIZE"),
        ("RANK=1 WORLD_SIZE=", "RANK = 1, but not WORLD_SIZE"),
        ("WORLD_SIZE=2", "WORLD_SIZE = 2, but not RANK or MASTER_ADDR or MASTER_PORT"),
        ("RANK=1 WORLD_SIZE=2", "but not MASTER_ADDR or MASTER_PORT"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=x", "but not MASTER_PORT"),
        ("WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=1", "but not RANK"),
        ("RANK=1 WORLD_SIZE=1", "RANK = 1, WORLD_SIZE = 1: a rank counts from 0"),
        ("RANK=2 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=1", "RANK = 2, WORLD_SIZE = 2: a rank"),
        ("RANK=0 LOCAL_RANK=2 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=1", "LOCAL_RANK = 2"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=3 MASTER_ADDR=x MASTER_PORT=1", "LOCAL_WORLD_SIZE = 3"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=0 MASTER_ADDR=x MASTER_PORT=1", "LOCAL_WORLD_SIZE = 0"),
        ("WORLD_SIZE=0", "WORLD_SIZE = 0"),
        ("RANK=-1 WORLD_SIZE=2", "RANK = '-1': expected a whole number"),
        ("RANK=first WORLD_SIZE=2", "RANK = 'first'"),
        ("RANK=0 WORLD_SIZE=2.0", r"WORLD_SIZE = '2\.0'"),
        ("RANK=0 WORLD_SIZE=99999999999999999999", "WORLD_SIZE = '9999"),
        ("RANK=² WORLD_SIZE=3", "RANK = '²'"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=x MASTER_PORT=http", "MASTER_PORT = 'http'"),
    ],
)
def test_missing_and_impossible_variables_are_named(told: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        place(variables(told))


@pytest.mark.parametrize(
    "words", ["train_cyclegan.py --data toy --run run", "translate.py --style monet --runtime torch none.png -o out"]
)
def test_a_script_that_reads_them_ends_with_2_before_it_makes_anything(words: str, tmp_path: Path) -> None:
    script, *arguments = words.split()
    done = python(SCRIPTS / script, *arguments, environment={**os.environ, "RANK": "1"}, cwd=tmp_path)
    assert done.returncode == 2 and "RANK = 1, but not WORLD_SIZE" in done.stderr, done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("error", [RuntimeError("failed to listen: EADDRINUSE\nmore"), OSError(98, "in use")])
def test_processes_that_cannot_meet_say_where(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    module = importlib.import_module("torch.distributed.rendezvous")  # in its package, the function has that name
    monkeypatch.setattr(module, "rendezvous", refused)
    monkeypatch.setenv("MASTER_ADDR", "nosuch.invalid")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ResourceError, match=r"^cannot meet at nosuch\.invalid:29500: .*PORT") as told, together():
        meet("gloo", timedelta(seconds=1))
    assert "lost" not in str(told.value) and "more" not in str(told.value)


def test_files_that_a_container_caches_count_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("49000000\n")
    (tmp_path / "memory.stat").write_text("anon 9\ninactive_file 40000000\nactive_file 2000000\n")
    assert machine.available_memory() == 43_000_000
    (tmp_path / "memory.stat").write_text("anon 9\ninactive_file 60000000\n")  # read at another moment
    assert machine.available_memory() == 50_000_000


def test_the_memory_of_this_machine() -> None:
    assert resource.getpagesize() < machine.available_memory() < 1 << 50


def test_the_peak_stays_after_memory_is_freed() -> None:
    before, size = machine.peak_memory(), 1 << 28
    bytearray(b"x" * size)
    assert before <= machine.peak_memory() and machine.peak_memory() >= size
