"""Links are followed once and end, and what is no file never holds up a folder."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from batch_tools import folder, picture, translator, tree

from i2i.errors import InputError
from i2i.folders.batch import translate_folder


def _loops(path: Path) -> Path:
    """A folder with links to itself, to its parent, to a brother, twice, and to nothing."""
    folder(path, ("a.png", "deep/b.png"))
    (path / "loop").symlink_to(path, target_is_directory=True)
    (path / "deep" / "up").symlink_to("..", target_is_directory=True)
    (path / "deep" / "brother").symlink_to("../deep", target_is_directory=True)
    folder(path.parent / "elsewhere", ("c.png",))
    for name in ("one", "two"):
        (path / name).symlink_to("../elsewhere", target_is_directory=True)
    (path / "self").symlink_to("self")
    return path


@pytest.mark.promise("R28", "H19")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"a.png", "deep/b.png"}),
        ({"follow_links": True}, {"a.png", "deep/b.png", "one/c.png"}),
        ({"follow_links": True, "recursive": False}, {"a.png"}),
        ({"recursive": False}, {"a.png"}),
    ],
)
def test_links_to_folders(tmp_path: Path, options: dict[str, Any], expected: set[str]) -> None:
    source = _loops(tmp_path / "in")
    report = translate_folder(source, tmp_path / "out", translator(), **options)
    assert set(tree(tmp_path / "out")) == expected
    assert len(report.records) == len(expected)


@pytest.mark.promise("R28")
def test_links_to_files_are_followed(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    other = picture(tmp_path / "elsewhere.png")
    (source / "b.png").symlink_to(other)
    (source / "c.png").symlink_to("b.png")
    (source / "gone.png").symlink_to("nowhere.png")
    (source / "round.png").symlink_to("round.png")
    report = translate_folder(source, tmp_path / "out", translator())
    assert {r.source.name: r.status for r in report.records} == {
        "a.png": "done", "b.png": "done", "c.png": "done", "gone.png": "failed", "round.png": "failed",
    }  # fmt: skip
    assert tree(tmp_path / "out")["b.png"] == tree(tmp_path / "out")["c.png"]
    assert not (tmp_path / "out" / "b.png").is_symlink()


@pytest.mark.promise("R28", "H19")
@pytest.mark.timeout(20)
def test_a_link_to_itself_is_one_failure_in_place_too(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    (source / "round.png").symlink_to("round.png")
    report = translate_folder(source, None, translator(), in_place=True)
    assert {r.source.name: r.status for r in report.records} == {"a.png": "done", "round.png": "failed"}


@pytest.mark.promise("R28")
def test_a_linked_folder_may_be_the_input_itself(tmp_path: Path) -> None:
    folder(tmp_path / "in", ("a.png", "deep/b.png"))
    (tmp_path / "link").symlink_to("in", target_is_directory=True)
    translate_folder(tmp_path / "link", tmp_path / "out", translator())
    assert set(tree(tmp_path / "out")) == {"a.png", "deep/b.png"}


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    there = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is a short one
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(there)


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


SPECIAL = [_fifo, _socket, _zero, _terminal]


@pytest.mark.promise("R29")
@pytest.mark.timeout(5)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make", SPECIAL)
def test_special_files_are_skipped(tmp_path: Path, make: Any, named: bool) -> None:
    source = folder(tmp_path / "in", ("a.png",))
    make(source / "special.png")
    inputs = sorted(source.iterdir()) if named else source
    report = translate_folder(inputs, tmp_path / "out", translator())
    assert {(r.source.name, r.status, r.reason) for r in report.records} == {
        ("a.png", "done", ""), ("special.png", "skipped", "not a regular file"),
    }  # fmt: skip
    with pytest.raises(InputError, match="no pictures found"):
        translate_folder(source / "special.png", tmp_path / "out2", translator())


@pytest.mark.promise("R29")
@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", ["/proc/self/mem", "/proc/kmsg", "/proc/self/status", "/proc/self/environ"])
def test_files_of_the_kernel_do_not_block(tmp_path: Path, name: str) -> None:
    if not Path(name).exists():
        pytest.skip("not on this system")
    source = folder(tmp_path / "in", ("b.png",))
    (source / "a.png").symlink_to(name)
    report = translate_folder(source, tmp_path / "out", translator())
    assert [r.status for r in report.records] == ["failed", "done"]


@pytest.mark.promise("R29", "R30")
@pytest.mark.timeout(5)
@pytest.mark.parametrize("make", [*SPECIAL, pytest.param(lambda path: None, id="nothing")])
def test_a_file_that_vanishes_or_becomes_special_is_one_failure(tmp_path: Path, make: Any) -> None:
    source = folder(tmp_path / "in", [f"{i}.png" for i in range(10)])

    def change(number: int, *_: object) -> None:
        if number == 1:  # while the next ones have been read
            (source / "9.png").unlink()
            make(source / "9.png")

    report = translate_folder(source, tmp_path / "out", translator(), progress=change)
    assert [r.status for r in report.records] == ["done"] * 9 + ["failed"]
