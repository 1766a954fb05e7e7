"""Public data sets: an archive is unpacked by rules, and fetching one ends whole or with nothing; their facts are well
formed, and names lead to them."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from disks import listed
from local_server import file, redirect, running

from i2i.errors import InputError, LockedError, OutputError, UsageError
from i2i.files import locked
from i2i.tools.datasets import fetch as module
from i2i.tools.datasets.fetch import SETS, PublicSet, fetch, find_set, unpack

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


def make_zip(path, files):
    """`files`: pairs of a name, or a whole `ZipInfo`, and bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def make_tar(path, files, mode="w:gz", format=tarfile.PAX_FORMAT):
    """`files`: pairs of a name, or a whole `TarInfo`, and bytes."""
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_info(name, type=tarfile.REGTYPE, to="", **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, to
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def zip_info(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def check_refused(archive, reason):
    """The archive is refused with the reason, and only it is left."""
    before = sorted(archive.parent.iterdir())
    with pytest.raises(InputError) as caught:
        unpack(archive, archive.parent / "deep" / "er" / "out")
    assert sorted(archive.parent.iterdir()) == before
    name, _, said = str(caught.value).partition(": ")
    assert name == str(archive) and re.search(reason, said) and said.isprintable()


COMPRESSED = {"w": open, "w:gz": gzip.open, "w:bz2": bz2.open, "w:xz": lzma.open}


GOOD = [
    ("set/train/1.png", PICTURE),
    ("./set/train/Zoë 2.JPG", PICTURE * 2),
    ("set/readme.txt", b"words"),
    ("set/train/._1.png", b"of a Mac"),
    ("__MACOSX/.hidden/1.png", b"of a Mac"),
]


@pytest.mark.promise("R49")
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path, mode, format):
    archive = make_tar(tmp_path / "any name", [(tar_info("set", tarfile.DIRTYPE), b""), *GOOD], mode, format)
    assert unpack(archive, tmp_path / "new" / "out") == (2, 3)
    assert listed(tmp_path / "new") == ["out/train/1.png", "out/train/Zoë 2.JPG"]
    assert (tmp_path / "new/out/train/Zoë 2.JPG").read_bytes() == PICTURE * 2


@pytest.mark.promise("R49")
def test_zip(tmp_path):
    archive = make_zip(tmp_path / "any name", [("set/", b""), *GOOD])
    assert unpack(archive, tmp_path / "out") == (2, 3)
    assert listed(tmp_path / "out") == ["train/1.png", "train/Zoë 2.JPG"]


def test_long_names(tmp_path):
    name = f"set/{'x' * 120}/{'y' * 200}.png"
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        unpack(make_tar(tmp_path / "a", [(name, PICTURE)], format=format), tmp_path / str(number))
        assert listed(tmp_path / str(number)) == [name.removeprefix("set/")]


def test_names_that_are_not_utf8(tmp_path):
    unpack(make_tar(tmp_path / "a", [("set/\udcff.png", PICTURE)], format=tarfile.GNU_FORMAT), tmp_path / "out")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"\xff.png"]


def test_only_a_folder_without_meaning_is_taken_away(tmp_path):
    unpack(make_zip(tmp_path / "a", [("trainA/1.png", PICTURE)]), tmp_path / "layout")
    unpack(make_zip(tmp_path / "a", [("x/1.png", PICTURE), ("y/1.png", PICTURE)]), tmp_path / "two")
    assert listed(tmp_path / "layout") == ["trainA/1.png"]
    assert listed(tmp_path / "two") == ["x/1.png", "y/1.png"]


OUT = ["../1.png", "set/../../1.png", "/etc/1.png", "//host/1.png", "C:/1.png", "c:1.png", "../notes.txt"]
ODD = ["..\\..\\1.png", "set\\1.png", "set/\x1b[2J1.png", "set/1.png\n"]


@pytest.mark.promise("R49", "R52", "H16")
@pytest.mark.parametrize("name", OUT + ODD)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_are_refused(tmp_path, make, name):
    check_refused(
        make(tmp_path / "a", [("set/0.png", PICTURE), (name, PICTURE)]), "leads out of the folder, or with odd"
    )


@pytest.mark.promise("R49")
@pytest.mark.parametrize(
    "names", [("1.png", "1.png"), ("1.png", ".//1.png"), ("1.png", "1.png/2.png"), ("1.png/2.png", "1.png")]
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_occur_twice(tmp_path, make, names):
    check_refused(make(tmp_path / "a", [(f"set/{name}", PICTURE) for name in names]), "occurs twice")


@pytest.mark.promise("R49", "H15")
@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_kinds_that_are_refused_in_a_tar(tmp_path, type):
    files = [("set/0.png", PICTURE), (tar_info("set/1.png", type, "0.png"), b"")]
    check_refused(make_tar(tmp_path / "a", files), "a link or a special file")


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_kinds_that_are_refused_in_a_zip(tmp_path, kind):
    files = [("set/0.png", PICTURE), (zip_info("set/1.png", kind | 0o777), b"/etc/passwd")]
    check_refused(make_zip(tmp_path / "a", files), "a link or a special file")


@pytest.mark.promise("R49", "H15")
def test_links_whose_path_grows_beyond_what_the_system_resolves(tmp_path):
    """CVE-2025-4517: a chain of links makes `realpath` give up, and a filter believe in a harmless target."""
    files, path, long = [], "", "d" * 247
    for letter in "abcdefghijklmnop":
        files.append((tar_info(path + long, tarfile.DIRTYPE), b""))
        files.append((tar_info(path + letter, tarfile.SYMTYPE, long), b""))
        path += long + "/"
    short = "/".join("abcdefghijklmnop")
    files.append((tar_info(f"{short}/{'l' * 254}", tarfile.SYMTYPE, "../" * 16), b""))
    files.append((tar_info("escape", tarfile.SYMTYPE, f"{short}/{'l' * 254}/../../outside"), b""))
    files.append((tar_info("hard.png", tarfile.LNKTYPE, "escape/victim.png"), b""))
    files.append((tar_info("hard.png"), PICTURE))
    victim = tmp_path / "outside" / "victim.png"
    victim.parent.mkdir()
    victim.write_bytes(b"mine")
    check_refused(make_tar(tmp_path / "a", files, format=tarfile.GNU_FORMAT), "a link")
    check_refused(make_tar(tmp_path / "a", files), "a link")
    assert victim.read_bytes() == b"mine" and listed(tmp_path / "outside") == ["victim.png"]


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_BYTES"])
def test_more_than_the_limits(tmp_path, monkeypatch, make, limit):
    """Files that are left out count too, and sizes are known before a byte is written."""
    archive = make(tmp_path / "a", [(f"set/{n}.png", PICTURE) for n in range(5)] + [("notes.txt", bytes(5_000_000))])
    allowed = 6 if limit == "MAX_MEMBERS" else 5 * len(PICTURE) + 5_000_000
    monkeypatch.setattr(module, limit, allowed - 1)
    check_refused(archive, "more than .* files or .* bytes when unpacked")
    monkeypatch.setattr(module, limit, allowed)
    assert unpack(archive, tmp_path / "out") == (5, 1)


@pytest.mark.promise("R49", "H16")
def test_a_size_that_is_not_the_true_one(tmp_path):
    """`zipfile` ends at the size of the header, and misses the checksum there."""
    archive = make_zip(tmp_path / "a", [("set/1.png", bytes(1_000_000))])
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = (1000).to_bytes(4, "little")
    archive.write_bytes(data)
    check_refused(archive, "damaged")


@pytest.mark.promise("R49")
def test_encrypted(tmp_path):
    archive = make_zip(tmp_path / "a", [("set/1.png", PICTURE)])
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    check_refused(archive, "damaged: .*(encrypted|encryption)")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_cut_off(tmp_path, make):
    archive = make(tmp_path / "a", [(f"set/{n}.png", random.Random(n).randbytes(2_000)) for n in range(3)])
    whole = archive.read_bytes()
    for size in (len(whole) - 100, len(whole) // 2, 300, 10, 0):
        archive.write_bytes(whole[:size])
        check_refused(archive, "damaged|not a zip or tar")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("size", [1536, 3072, 4608, 1700, 2000])
def test_a_tar_that_ends_early(tmp_path, mode, size):
    """Its members have 1536 bytes each: it ends between two of them, before the zeros of the end, or in a header."""
    whole = make_tar(tmp_path / "a", [(f"set/{n}.png", bytes(1_000)) for n in range(3)], "w").read_bytes()
    assert unpack(tmp_path / "a", tmp_path / "whole") == (3, 0)
    shutil.rmtree(tmp_path / "whole")
    with COMPRESSED[mode](tmp_path / "a", "wb") as file:
        file.write(whole[:size])
    check_refused(tmp_path / "a", "damaged")


@pytest.mark.promise("R49")
def test_a_bad_header_in_the_middle(tmp_path):
    data = bytearray(make_tar(tmp_path / "a", [(f"set/{n}.png", bytes(1_000)) for n in range(3)], "w").read_bytes())
    data[1536 + 3] ^= 1
    (tmp_path / "a").write_bytes(data)
    check_refused(tmp_path / "a", "damaged: bad checksum")


@pytest.mark.promise("R49")
def test_the_checksum_at_the_end_is_compared(tmp_path):
    data = bytearray(make_tar(tmp_path / "a", [("set/1.png", PICTURE)]).read_bytes())
    data[-8] ^= 1
    (tmp_path / "a").write_bytes(data)
    check_refused(tmp_path / "a", "damaged: CRC check failed")


@pytest.mark.promise("R49")
def test_sparse_files(tmp_path):
    files = [("set/0.png", PICTURE), (tar_info("set/1.png", tarfile.GNUTYPE_SPARSE), b"")]
    check_refused(make_tar(tmp_path / "a", files), "a link or a special file")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", [f"{'x' * 300}.png", f"{'x' * 300}/1.png"])
def test_a_name_that_is_too_long(tmp_path, make, name):
    check_refused(make(tmp_path / "a", [("0.png", PICTURE), (name, PICTURE)]), "a name that is too long")


def test_files_that_are_no_archive_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(PICTURE)
    check_refused(tmp_path / "a", "not a zip or tar archive")
    check_refused(make_zip(tmp_path / "a", [("notes.txt", b"")]), "no pictures in it, 1 other files")
    with pytest.raises(InputError, match="not a zip or tar archive"):
        unpack(tmp_path / "missing", tmp_path / "out")


@pytest.mark.promise("R49")
def test_any_bytes(tmp_path):
    """300 archives with mutations: whole, or refused with a reason, and never anything else on disk."""
    dice = random.Random(49)
    files = [(f"set/{n}.png", dice.randbytes(300)) for n in range(4)]
    seeds = [make_zip(tmp_path / "a", files).read_bytes()]
    seeds += [make_tar(tmp_path / "a", files, mode).read_bytes() for mode in ("w", "w:gz", "w:bz2", "w:xz")]
    outcomes = set()
    for case in range(300):
        data = bytearray(seeds[case % len(seeds)])
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(min(len(data), 3_000))] = dice.randrange(256)
        (tmp_path / "a").write_bytes(data)
        try:
            unpacked = unpack(tmp_path / "a", tmp_path / f"out{case}")
            assert sum(unpacked) == 4, "a suffix may be another now"
            outcomes.add("whole")
        except InputError:
            outcomes.add("refused")
            assert not (tmp_path / f"out{case}").exists()
    assert outcomes == {"whole", "refused"}
    assert all(path.name == "a" or path.name.startswith("out") for path in tmp_path.iterdir())


@pytest.mark.promise("R25")
def test_nothing_is_replaced(tmp_path):
    archive = make_zip(tmp_path / "a", GOOD)
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already"):
        unpack(archive, tmp_path / "link")


def test_the_working_folder_as_target(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a", GOOD)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    unpack(archive, Path())
    assert listed(tmp_path / "out") == ["train/1.png", "train/Zoë 2.JPG"]


def test_a_place_that_cannot_be_written(tmp_path):
    archive = make_zip(tmp_path / "a", GOOD)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be (written|created)"):
        unpack(archive, tmp_path / "file" / "out")


def test_another_process_at_the_same_place(tmp_path):
    archive = make_zip(tmp_path / "a", GOOD)
    with locked(tmp_path / ".i2i-out.lock"), pytest.raises(LockedError, match="another process unpacks to out"):
        unpack(archive, tmp_path / "out")
    unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


KILLED = """
import os, signal, sys
from pathlib import Path
import shutil
from i2i.tools.datasets.fetch import unpack
where, number = sys.argv[1], int(sys.argv[2])
calls = 0
owner, name = {"write": (shutil, "copyfileobj"), "rename": (Path, "rename")}[where]
honest = getattr(owner, name)
def deadly(*arguments):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*arguments)
setattr(owner, name, deadly)
unpack(Path(sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.mark.promise("R49")
def test_killed_in_the_middle(tmp_path):
    archive = make_zip(tmp_path / "a", [(f"set/{number}.png", PICTURE) for number in range(5)])
    for where, number in (("write", "3"), ("rename", "1")):
        command = [sys.executable, "-c", KILLED, where, number, str(archive), str(tmp_path / "out")]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert sorted(path.name for path in tmp_path.iterdir()) == [".i2i-out.lock", ".i2i-out.unpacking", "a"]
        (tmp_path / ".i2i-out.unpacking" / "stray").write_bytes(b"")
    unpack(archive, tmp_path / "out")
    assert listed(tmp_path) == ["a", *(f"out/{number}.png" for number in range(5))]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from i2i.tools.datasets.fetch import unpack
from i2i.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
except OutputError as error:
    print(error)
"""


@pytest.mark.promise("R49")
def test_full_disk(tmp_path):
    noise = random.Random(0).randbytes(1_000_000)
    archive = make_zip(tmp_path / "a", [("set/0.png", PICTURE), ("set/1.png", noise)])
    command = [sys.executable, "-c", FULL_DISK, str(archive), str(tmp_path / "out")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "out") in said and "bytes are free" in said
    assert list(tmp_path.iterdir()) == [Path(archive)]


# Fetching


def zipped(names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, PICTURE)
    return data.getvalue()


def tarred(names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PICTURE)
            archive.addfile(info, io.BytesIO(PICTURE))
    return data.getvalue()


NAMES = ["toys/trainA/1.png", "toys/trainB/1.png", "toys/license.txt"]
DATA = zipped(NAMES)
TOYS = PublicSet("cyclegan/toys", "unpaired", ("a", "b"), "a paper", "a licence")


def toys(*urls, **changes):
    return dataclasses.replace(TOYS, urls=urls, **changes)


@pytest.fixture(scope="module")
def server():
    with running() as local:
        yield local


@pytest.mark.promise("R50")
@pytest.mark.parametrize("suffix, data", [(".zip", DATA), (".tar.gz", tarred(NAMES))])
def test_fetch(server, tmp_path, suffix, data):
    url = server.serve(f"/good/toys{suffix}", data)
    entry = toys(url, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    fetched = fetch(entry, tmp_path / "sets" / "toys", context=server.context)
    assert listed(tmp_path) == [f"sets/toys/{name}" for name in ("SOURCE.json", "trainA/1.png", "trainB/1.png")]
    source = json.loads((tmp_path / "sets/toys/SOURCE.json").read_bytes())
    assert (source["url"], source["sha256"], source["pinned"]) == (url, entry.sha256, True)
    assert (fetched.pictures, fetched.left_out) == (2, 1)


@pytest.mark.promise("R50")
def test_a_hash_that_nobody_stated_is_recorded(server, tmp_path):
    fetched = fetch(toys(server.serve("/toys.zip", DATA)), tmp_path / "t", keep_archive=True, context=server.context)
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert json.loads((tmp_path / "t/SOURCE.json").read_bytes())["pinned"] is False
    assert (tmp_path / "t.zip").read_bytes() == DATA


@pytest.mark.promise("R49", "R50")
@pytest.mark.parametrize("facts", [{"sha256": "00" * 32}, {"size": len(DATA) + 1}, {"size": len(DATA) - 1}])
def test_a_wrong_archive_leaves_nothing(server, tmp_path, facts):
    entry = toys(server.serve("/wrong/toys.zip", DATA), **facts)
    with pytest.raises(InputError, match=r"expected(.|\n)*put it at"):
        fetch(entry, tmp_path / "toys", context=server.context)
    assert not (tmp_path / "toys").exists() and not (tmp_path / "toys.zip").exists()


@pytest.mark.promise("R49", "R50")
def test_a_hostile_archive_leaves_nothing(server, tmp_path):
    url = server.serve("/hostile/toys.zip", zipped(["../1.png"]))
    with pytest.raises(InputError, match="leads out of the folder"):
        fetch(toys(url), tmp_path / "toys", context=server.context)
    assert not list(tmp_path.iterdir())


def test_the_second_place_is_tried(server, tmp_path):
    urls = server.url + "/missing/toys.zip", server.serve("/second/toys.zip", DATA)
    assert fetch(toys(*urls), tmp_path / "toys", context=server.context).url == urls[1]


def test_after_a_break_that_cannot_go_on_the_second_place_is_tried(server, tmp_path):
    url = server.answer("/untagged/toys.zip", file(DATA, stop=len(DATA) // 2, etag=None))
    other = server.serve("/after/toys.zip", DATA)
    assert fetch(toys(url, other), tmp_path / "toys", context=server.context).url == other
    assert [path.name for path in tmp_path.iterdir()] == ["toys"]


def test_what_broke_off_goes_on_at_the_same_place(server, tmp_path):
    url = server.answer("/slow/toys.zip", file(DATA, stop=len(DATA) // 2))
    entry = toys(url, server.serve("/other/toys.zip", DATA))
    with pytest.raises(InputError, match="broke off"):
        fetch(entry, tmp_path / "toys", context=server.context)
    server.serve("/slow/toys.zip", DATA)
    assert fetch(entry, tmp_path / "toys", context=server.context).url == url
    assert server.requests[-1][1]["Range"] == f"bytes={len(DATA) // 2}-"
    assert listed(tmp_path) == ["toys/SOURCE.json", "toys/trainA/1.png", "toys/trainB/1.png"]


@pytest.mark.promise("R50")
def test_no_redirect_to_anything_but_https(server, tmp_path):
    url = server.answer("/moved/toys.zip", redirect(server.url.replace("https", "http") + "/toys.zip"))
    with pytest.raises(InputError, match="redirected to an address that is refused"):
        fetch(toys(url), tmp_path / "toys", context=server.context)
    with pytest.raises(InputError, match="only https"):
        fetch(toys("http://localhost/toys.zip"), tmp_path / "toys")


@pytest.fixture
def no_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.promise("R50")
def test_an_archive_put_there_by_hand_needs_no_network(no_network, tmp_path):
    (tmp_path / "toys.zip").write_bytes(DATA)
    entry = toys("https://localhost/toys.zip", sha256=hashlib.sha256(DATA).hexdigest())
    assert fetch(entry, tmp_path / "toys").pictures == 2
    assert (tmp_path / "toys.zip").exists(), "it is not ours to remove"
    (tmp_path / "again.zip").write_bytes(DATA)
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch(toys("https://localhost/toys.zip", sha256="00" * 32), tmp_path / "again")


def test_what_is_not_fetched(no_network, tmp_path):
    with pytest.raises(UsageError, match="Register at"):
        fetch(find_set("pix2pix/cityscapes"), tmp_path / "cityscapes")
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "mine").touch()
    with pytest.raises(UsageError, match="exists already"):
        fetch(toys("https://localhost/toys.zip"), tmp_path / "toys")


# The catalogue


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_facts_are_well_formed(entry):
    assert entry.layout and entry.domains and entry.paper and entry.licence and entry.shown_size
    assert bool(entry.urls) != bool(entry.instead)
    for url in entry.urls:
        parts = urlsplit(url)
        assert parts.scheme == "https" and parts.hostname.endswith("berkeley.edu") and not parts.query
        assert parts.path.endswith(f"/{entry.folder}" + (".tar.gz" if entry.name.startswith("pix2pix/") else ".zip"))
    assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16) and entry.size)
    assert all(count > 0 for count in entry.counts.values())


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_the_table_in_the_documentation(entry):
    table = (Path(__file__).parents[3] / "datasets" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in table.splitlines() if f"`{entry.name}`" in line and line.startswith("|"))
    if entry.urls:
        assert entry.layout in line and entry.shown_size.split(" GiB")[0] in line
        assert line.endswith("| known |" if entry.sha256 else "| unknown |")
        assert all(f"{count:,}" in line for count in entry.counts.values())


def test_what_is_there():
    known = {entry.name for entry in SETS}
    assert len(known) == len(SETS) == 19
    cyclegan = (
        "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps"
    )
    cyclegan += " cityscapes facades iphone2dslr_flower ae_photos"
    assert {f"cyclegan/{name}" for name in cyclegan.split()} <= known
    pix2pix = "facades cityscapes maps edges2shoes edges2handbags night2day"
    assert {f"pix2pix/{name}" for name in pix2pix.split()} <= known
    assert len({entry.sha256 for entry in SETS if entry.sha256}) == 10


def test_names():
    assert find_set("horse2zebra") is find_set("cyclegan/horse2zebra")
    with pytest.raises(UsageError, match=r"maps: there are two .* cyclegan/maps \(unpaired\) or pix2pix/maps"):
        find_set("maps")
    with pytest.raises(UsageError, match="Did you mean 'horse2zebra'"):
        find_set("horse2zebras")
