"""The temporary folder of the page: files go by their age, and the oldest where they take too much."""

import os
import time
from pathlib import Path

import pytest

from i2i.tools.page.disk import delete_old, make_room, used

pytestmark = pytest.mark.promise("R51")


def put(path: Path, size: int, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_old_files_go_and_empty_folders(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "old.png", 4, 7200)
    put(tmp_path / "a" / "new.png", 4, 0)
    put(tmp_path / ".lock", 4, 7200)
    delete_old(tmp_path, time.time() - 3600)
    assert names(tmp_path) == [".lock", "a", "new.png"]


def test_the_oldest_go_where_all_take_too_much(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"order{number}" / f"{number}.png", 100, 100 - number)
    os.link(tmp_path / "order3" / "3.png", tmp_path / "order0" / "again.png")
    assert used(tmp_path) == 400, "a file with two names is one"
    make_room(tmp_path, 250)
    assert names(tmp_path) == ["2.png", "3.png", "again.png", "order0", "order2", "order3"]
    make_room(tmp_path, 250)
    assert used(tmp_path) == 200
