"""Files that appear whole or not at all, in a place that is free or may be replaced, and with every byte."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from i2i import files
from i2i.errors import ExistsError, LockedError, OutputError
from i2i.files import atomic_write, is_reserved, locked, make_folders, write_all


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


HOLD = "import sys, time; from pathlib import Path; from i2i.files import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print(flush=True); time.sleep(99)"


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the lock `lock`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.promise("R17")
def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path, other: "subprocess.Popen[bytes]") -> None:
    with (
        pytest.raises(LockedError, match=rf"in use \(pid {other.pid} on .* since 20"),
        locked(tmp_path / "lock", "in use"),
    ):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    with locked(tmp_path / "lock", "in use") as held:
        assert held
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_forked_child_does_not_inherit_a_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    with locked(tmp_path / "lock", "in use") as held:
        assert held
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    put(tmp_path / "a")
    with locked(tmp_path / "lock", "in use") as held:
        assert not held


def test_the_space_is_told_where_the_folder_is_gone(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "bytes are free" in str(files.refused(tmp_path / "gone" / "too" / "file", full))


WITHOUT_FCNTL = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
from i2i.files import atomic_write, locked, remove_strays
folder = Path(sys.argv[1])
with locked(folder / "lock", "in use"):
    atomic_write(folder / "a", lambda file: file.write(b"new"))
    remove_strays(folder, 1e12)
"""


def test_without_fcntl_files_are_locked_and_written(tmp_path: Path) -> None:
    """Windows has no fcntl."""
    subprocess.run([sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)], check=True)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        ("con", True),
        ("NUL.png", True),
        ("com1", True),
        ("LPT².txt", True),
        ("aux .tar.gz", True),
        ("CONIN$", True),
        ("a:b.png", True),
        ("what?.png", True),
        ("a.", True),
        ("a ", True),
        ("tab\t", True),
        ("console.png", False),
        ("com.png", False),
        ("com10", False),
        ("a con", False),
        (".hidden", False),
        ("ä → b.png", False),
        ("a.b", False),
    ],
)
def test_names_that_windows_reserves(name: str, reserved: bool) -> None:
    assert is_reserved(name) == reserved
    if sys.version_info >= (3, 13):
        import ntpath

        assert ntpath.isreserved(name) == reserved


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "_WAITS", (0.0, 0.0))


def test_windows_writes_no_file_and_makes_no_folder_of_a_reserved_name(tmp_path: Path, windows: None) -> None:
    for act in (lambda: put(tmp_path / "aux.png"), lambda: make_folders(tmp_path / "a" / "nul" / "b")):
        with pytest.raises(OutputError, match="Windows reserves this name"):
            act()
    assert names(tmp_path) == ["a"]
    put(tmp_path / "auxiliary.png")


@pytest.mark.parametrize("refusals", [2, 3])
def test_a_file_that_a_program_has_open_on_windows(
    refusals: int, tmp_path: Path, windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced once the program lets go of it; else the error says why it is not."""
    (tmp_path / "a").write_bytes(b"old")
    left, replace = [refusals], os.replace

    def refusing(source: Path, target: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    if refusals == 2:
        put(tmp_path / "a", replace=True)
    else:
        with pytest.raises(OutputError, match="Access is denied; Windows replaces no file that a program has open"):
            put(tmp_path / "a", replace=True)
    assert (tmp_path / "a").read_bytes() == (b"new" if refusals == 2 else b"old") and names(tmp_path) == ["a"]


def test_a_path_that_is_too_long_for_windows(tmp_path: Path, windows: None) -> None:
    path = tmp_path / ("a" * 150) / ("b" * 150)
    with pytest.raises(OutputError, match="longer than the 259 characters that Windows takes"):
        put(path)


def test_files_take_the_place_of_files_alone(tmp_path: Path) -> None:
    """As root a rename would put a file in the place of /dev/null."""

    def write(path: Path) -> None:
        atomic_write(path, lambda file: file.write(b"new"))

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
        for target in (name, f"to {name}"):
            with pytest.raises(OutputError, match=r"cannot be written: .* is there already"):
                write(tmp_path / target)
    device = tmp_path / "null"
    device.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="no regular file"):
        write(device)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    (tmp_path / "old").write_bytes(b"old")
    for link, target in (("link", "old"), ("loose", "nothing")):
        (tmp_path / link).symlink_to(target)
        write(tmp_path / link)
        assert (tmp_path / link).read_bytes() == b"new" and not (tmp_path / link).is_symlink()
    assert (tmp_path / "old").read_bytes() == b"old" and not (tmp_path / "nothing").exists()
    assert not list(tmp_path.glob(".i2i-*"))
