"""The memory of this machine and of its container."""

import resource
from pathlib import Path

import pytest

from i2i import machine


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
