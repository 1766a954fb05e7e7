"""Files: special ones, odd names, whole or not at all."""

import os
import socket
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from fork_server import python
from picture_samples import gradient

from i2i.errors import ImageError, OutputError
from i2i.files import atomic_write, remove_strays
from i2i.images import Picture, probe, read, write


@pytest.mark.timeout(10)
def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for name in ("fifo.png", "socket.png"):
            for look in (read, probe):
                with pytest.raises(ImageError, match="not a regular file"):
                    look(tmp_path / name)
    for path in (tmp_path, tmp_path / "missing.png", Path("/dev/null")):
        with pytest.raises(ImageError):
            read(path)


@pytest.mark.promise("H2")
def test_file_names_that_are_not_utf8(tmp_path, not_utf8):
    test_odd_names(tmp_path, f"{not_utf8}.png")


@pytest.mark.parametrize("name", ["with space'\".png", "new\nline.png", "-x.png", "x" * 251 + ".png"])
def test_odd_names(tmp_path, name):
    path = tmp_path / name
    write(path, Picture(gradient()))
    assert np.array_equal(read(path).pixels, gradient())
    assert probe(path) == (17, 12)


@pytest.mark.promise("R21")
def test_a_file_that_is_being_written_is_no_stray(tmp_path):
    """However long ago it was begun: another run would take it away from under the writer."""

    def write_slowly(file):
        file.write(b"new")
        remove_strays(tmp_path, time.time() + 1000)

    atomic_write(tmp_path / "a.png", write_slowly)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"new"


def test_atomic_write_keeps_the_old_file_when_the_writer_fails(tmp_path):
    path = tmp_path / "state"
    atomic_write(path, lambda file: file.write(b"old"))
    old_umask = os.umask(0o027)
    try:
        atomic_write(path, lambda file: file.write(b"new"))
    finally:
        os.umask(old_umask)
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640

    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, half)
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError):
        atomic_write(path, lambda file: 1 / 0)
    with pytest.raises(OutputError, match="No such file"):
        atomic_write(tmp_path / "missing" / "state", lambda file: None)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from i2i.errors import OutputError
from i2i.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
path = Path(sys.argv[1])
writers = {
    "bytes": lambda file: file.write(bytes(1_000_000)),
    "pieces": lambda file: [file.write(bytes(1_000)) for _ in range(1_000)],
    "torch": lambda file: torch.save({"weights": torch.zeros(250_000)}, file),
}
for name, writer in writers.items():
    try:
        atomic_write(path, writer)
    except OutputError as error:
        print(name, error)
"""


@pytest.mark.promise("H10")
def test_full_disk(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    done = python("-c", FULL_DISK, path, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["bytes", "pieces", "torch"]
    assert all(str(path) in line and "are free" in line for line in lines)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


FULL_DISK_FOR_PICTURES = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from i2i.errors import OutputError
from i2i.images import Picture, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
for path in sys.argv[1:]:
    try:
        write(Path(path), Picture(noise))
    except OutputError as error:
        print(path, error)
"""


@pytest.mark.promise("H10")
def test_a_full_disk_leaves_the_old_picture(tmp_path):
    paths = [tmp_path / f"a{suffix}" for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm")]
    for path in paths:
        path.write_bytes(b"old")
    done = python("-c", FULL_DISK_FOR_PICTURES, *paths, check=True)
    assert len(done.stdout.splitlines()) == len(paths)
    assert all(path.read_bytes() == b"old" for path in paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths)
