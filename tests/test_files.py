"""Files that appear whole or not at all, in a place that is free or may be replaced, and with every byte."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from i2i import files
from i2i.errors import ExistsError, OutputError
from i2i.files import atomic_write, write_all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, meanwhile: Callable[[], object] = lambda: None, replace: bool = False) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"new")
        meanwhile()

    atomic_write(path, write, replace=replace)


@pytest.fixture(params=["hard links", "none"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with hard links and without, such as those of USB sticks."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "none":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.promise("R25")
def test_what_appears_while_a_file_is_written_is_kept(tmp_path: Path, links: None) -> None:
    path = tmp_path / "a"
    with pytest.raises(ExistsError, match="appeared"):
        put(path, meanwhile=lambda: path.write_bytes(b"mine"))
    assert path.read_bytes() == b"mine" and names(tmp_path) == ["a"]
    put(path, replace=True)
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a"]


def test_a_free_place_is_taken(tmp_path: Path, links: None) -> None:
    put(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new" and names(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_nlink == 1


def test_a_link_to_nothing_is_free_and_one_to_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to("nowhere")
    put(tmp_path / "nothing")
    assert not (tmp_path / "nothing").is_symlink() and not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(ExistsError):
        put(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"mine"


def test_what_is_being_written_is_removed_by_who_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        put(tmp_path / "a", meanwhile=files.abandon)
    assert names(tmp_path) == []


@pytest.mark.promise("R4")
def test_every_byte_is_written_or_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes what fits of the last block, and says so by a number alone."""
    room, write = [10], os.write

    def short(descriptor: int, data: bytes | memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(descriptor, bytes(data)[: min(4, room[0])])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", short)
    with (tmp_path / "a").open("wb", buffering=0) as file:
        write_all(file.fileno(), b"0123456789")
        with pytest.raises(OSError, match="No space left"):
            write_all(file.fileno(), b"x")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_cannot_be_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        put(tmp_path / name)
