"""Unpacking: what is taken, what is refused as a whole, and what is left on disk whatever happens."""

import fcntl
import gzip
import hashlib
import io
import os
import random
import re
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from i2i.data.members import members
from i2i.errors import InputError, LockedError, OutputError, UsageError
from i2i.tools.datasets.archive import Limits, Unpacked, unpack

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


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def check_refused(archive, reason, limits=None, **options):
    """The archive is refused with the reason, and only it is left."""
    before = sorted(archive.parent.iterdir())
    with pytest.raises(InputError) as caught:
        unpack(archive, archive.parent / "deep" / "er" / "out", limits or Limits(), **options)
    assert sorted(archive.parent.iterdir()) == before
    name, _, said = str(caught.value).partition(": ")
    assert name == str(archive) and re.search(reason, said) and said.isprintable()


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
    assert unpack(archive, tmp_path / "new" / "out") == Unpacked(2, 3 * len(PICTURE), 3)
    assert tree(tmp_path / "new") == ["out/train/1.png", "out/train/Zoë 2.JPG"]
    assert (tmp_path / "new/out/train/Zoë 2.JPG").read_bytes() == PICTURE * 2


@pytest.mark.promise("R49")
def test_zip(tmp_path):
    archive = make_zip(tmp_path / "any name", [("set/", b""), *GOOD])
    assert unpack(archive, tmp_path / "out") == Unpacked(2, 3 * len(PICTURE), 3)
    assert tree(tmp_path / "out") == ["train/1.png", "train/Zoë 2.JPG"]


def test_long_names(tmp_path):
    name = f"set/{'x' * 120}/{'y' * 200}.png"
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        unpack(make_tar(tmp_path / "a", [(name, PICTURE)], format=format), tmp_path / str(number))
        assert tree(tmp_path / str(number)) == [name.removeprefix("set/")]


def test_names_that_are_not_utf8(tmp_path):
    unpack(make_tar(tmp_path / "a", [("set/\udcff.png", PICTURE)], format=tarfile.GNU_FORMAT), tmp_path / "out")
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"\xff.png"]


def test_only_a_folder_without_meaning_is_taken_away(tmp_path):
    unpack(make_zip(tmp_path / "a", [("trainA/1.png", PICTURE)]), tmp_path / "layout")
    unpack(make_zip(tmp_path / "a", [("x/1.png", PICTURE), ("y/1.png", PICTURE)]), tmp_path / "two")
    assert tree(tmp_path / "layout") == ["trainA/1.png"]
    assert tree(tmp_path / "two") == ["x/1.png", "y/1.png"]


NAMES = {
    "../1.png": r"with \.\.",
    "set/../../1.png": r"with \.\.",
    "/etc/1.png": "absolute",
    "//host/1.png": "absolute",
    "C:/1.png": "drive",
    "c:1.png": "drive",
    "..\\..\\1.png": "backslash",
    "set\\1.png": "backslash",
    "set/\x1b[2J1.png": "control character",
    "set/1.png\n": "control character",
    "set/" + "x" * 252 + ".png": "255 bytes",
    "set/" + "ü" * 127 + ".png": "255 bytes",
    "1/2/3/4/5/6/7/8/9.png": "8 names deep",
    "../notes.txt": r"with \.\.",
}


@pytest.mark.promise("R49", "R52", "H16")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_are_refused(tmp_path, make, name):
    check_refused(make(tmp_path / "a", [("set/0.png", PICTURE), (name, PICTURE)]), NAMES[name])


@pytest.mark.promise("R49")
def test_a_null_in_a_name(tmp_path):
    archive = make_zip(tmp_path / "a", [("set/1.png_", PICTURE)])
    archive.write_bytes(archive.read_bytes().replace(b"1.png_", b"1.png\0"))
    check_refused(archive, "control character")


TWINS = [
    ("set/1.png", "set/1.png"),
    ("set/1.png", "set/1.PNG"),
    ("set/é.png", "set/e\N{COMBINING ACUTE ACCENT}.png"),
    ("set/straße.png", "set/STRASSE.png"),
    ("set/1.png", "set//./1.png"),
    ("set/1.png", "set/1.png/2.png"),
    ("set/1.png/2.png", "set/1.png"),
    ("notes.txt", "notes.txt"),
]


@pytest.mark.promise("R49")
@pytest.mark.parametrize("names", TWINS)
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one(tmp_path, make, names):
    check_refused(make(tmp_path / "a", [(name, PICTURE) for name in names]), "occurs twice")


KINDS = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "FIFO",
    tarfile.CONTTYPE: "of type",
    b"Z": "of type",
}


@pytest.mark.promise("R49", "H15")
@pytest.mark.parametrize("type", KINDS)
def test_kinds_that_are_refused_in_a_tar(tmp_path, type):
    files = [("set/0.png", PICTURE), (tar_info("set/1.png", type, "0.png"), b"")]
    check_refused(make_tar(tmp_path / "a", files), KINDS[type])


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_kinds_that_are_refused_in_a_zip(tmp_path, kind):
    files = [("set/0.png", PICTURE), (zip_info("set/1.png", kind | 0o777), b"/etc/passwd")]
    check_refused(make_zip(tmp_path / "a", files), "link" if kind == stat.S_IFLNK else "special file")


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
    check_refused(make_tar(tmp_path / "a", files), "linkpath")
    only = [file for file in files if file[0].type != tarfile.SYMTYPE]
    check_refused(make_tar(tmp_path / "a", only), "8 names deep")
    assert victim.read_bytes() == b"mine" and tree(tmp_path / "outside") == ["victim.png"]


@pytest.mark.promise("R49")
@pytest.mark.parametrize("key", ["size", "linkpath", "GNU.sparse.major", "GNU.sparse.name"])
def test_pax_records_that_change_what_a_member_is(tmp_path, key):
    info = tar_info("set/1.png", pax_headers={key: "1"})
    check_refused(make_tar(tmp_path / "a", [(info, PICTURE)]), "pax record")


@pytest.mark.promise("R49")
def test_sparse_members(tmp_path):
    block = bytearray(tar_info("set/1.png", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "a").write_bytes(block + bytes(1024))
    check_refused(tmp_path / "a", "sparse")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("type", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_that_would_fill_the_memory(tmp_path, type):
    block = tar_info("././@LongLink", type, size=8 << 30).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a").write_bytes(gzip.compress(block + bytes(50_000_000)))
    check_refused(tmp_path / "a", "record of 8,589,934,592 bytes")


@pytest.mark.promise("R49")
def test_a_size_that_leads_backwards(tmp_path):
    block = bytearray(tar_info("set/1.png").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 11 + b"\0"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    (tmp_path / "a").write_bytes(block + bytes(1024))
    check_refused(tmp_path / "a", "negative size")


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb(tmp_path, make):
    archive = make(tmp_path / "a", [("set/1.png", bytes(50_000_000))])
    assert archive.stat().st_size < 50_000
    started = time.monotonic()
    check_refused(archive, "200 times its size")
    assert time.monotonic() - started < 2


@pytest.mark.promise("R49", "H16")
def test_a_bomb_among_honest_members(tmp_path):
    noise = random.Random(0).randbytes(2_000_000)
    archive = make_zip(tmp_path / "a", [("set/0.png", noise), ("set/1.png", bytes(50_000_000))])
    check_refused(archive, "member 'set/1.png': unpacks to more than 200 times")


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_many_small_bombs(tmp_path, make):
    archive = make(tmp_path / "a", [(f"set/{number}.png", bytes(500_000)) for number in range(100)])
    check_refused(archive, "the archive: unpacks to more than 200 times its size")


@pytest.mark.promise("R49")
def test_what_is_left_out_of_a_tar_counts_too(tmp_path):
    check_refused(
        make_tar(tmp_path / "a", [("0.png", PICTURE), ("notes.txt", bytes(50_000_000))]), "200 times its size"
    )


@pytest.mark.promise("R49")
def test_what_follows_the_end_of_a_tar_counts_too(tmp_path):
    archive = make_tar(tmp_path / "a", [("0.png", PICTURE)])
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()) + bytes(50_000_000)))
    check_refused(archive, "200 times its size")


@pytest.mark.promise("R49")
def test_a_dictionary_that_would_fill_the_memory(tmp_path):
    """A block of xz names the size of its dictionary, and whoever unpacks it allocates that."""
    archive = make_tar(tmp_path / "a", [("0.png", PICTURE)], "w:xz")
    data = bytearray(archive.read_bytes())
    size, place = 4 * (data[12] + 1), data.index(b"\x21\x01", 12, 24) + 2
    data[place] = 40  # 4 GiB
    data[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(data[12 : 12 + size - 4]))
    archive.write_bytes(data)
    check_refused(archive, "damaged: Memory usage limit exceeded")


@pytest.mark.promise("R49")
def test_more_than_the_limits(tmp_path):
    files = [(f"set/{number}.png", PICTURE) for number in range(10)]
    for make in (make_zip, make_tar):
        archive = make(tmp_path / "a", files)
        check_refused(archive, "more than 9 members", Limits(members=9))
        check_refused(archive, "more than 5,000 bytes", Limits(total_bytes=5_000))
        check_refused(archive, "more than 3 bytes", Limits(name_bytes=3))
        check_refused(archive, "1 names deep", Limits(depth=1))
        unpack(archive, tmp_path / f"out {make.__name__}", Limits(members=10, name_bytes=5, depth=2))
    assert Limits() == Limits(200_000, 50 << 30, 200, 1 << 20, 255, 8)


@pytest.mark.promise("R49")
def test_a_table_of_contents_that_would_fill_the_memory(tmp_path):
    archive = make_zip(tmp_path / "a", [(f"{number:0200}.txt", b"") for number in range(6_000)])
    check_refused(archive, "table of contents", Limits(members=100))


@pytest.mark.promise("R49")
@pytest.mark.parametrize("bit", [0, 6])
def test_encrypted(tmp_path, bit):
    archive = make_zip(tmp_path / "a", [("set/1.png", PICTURE)])
    data = bytearray(archive.read_bytes())
    data[6] |= 1 << bit
    data[data.index(b"PK\1\2") + 8] |= 1 << bit
    archive.write_bytes(data)
    check_refused(archive, "encrypted")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_are_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a", "w", method) as archive:
        archive.writestr("set/1.png", PICTURE)
    check_refused(tmp_path / "a", "packed with method")


@pytest.mark.promise("R49", "H16")
@pytest.mark.parametrize("change", [-1, 1, -len(PICTURE)])
def test_a_size_that_is_not_the_true_one(tmp_path, change):
    archive = make_zip(tmp_path / "a", [("set/1.png", PICTURE)])
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", len(PICTURE) + change)
    archive.write_bytes(data)
    check_refused(archive, "its size is not")


@pytest.mark.promise("R49")
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_cut_off(tmp_path, make):
    archive = make(tmp_path / "a", [(f"set/{n}.png", random.Random(n).randbytes(2_000)) for n in range(3)])
    whole = archive.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 300, 10, 0):
        archive.write_bytes(whole[:size])
        check_refused(archive, "damaged|not a zip or tar")


def test_files_that_are_no_archive_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(PICTURE)
    check_refused(tmp_path / "a", "not a zip or tar archive")
    check_refused(make_zip(tmp_path / "a", [("notes.txt", b"")]), "no pictures in it, 1 other files")
    with pytest.raises(InputError, match="cannot be opened"):
        unpack(tmp_path / "missing", tmp_path / "out")


@pytest.mark.promise("R49")
def test_a_hash_is_checked_before_anything_else(tmp_path):
    archive = make_zip(tmp_path / "a", [("../1.png", PICTURE)])
    check_refused(archive, "its SHA-256 is .*, expected 00", sha256="00" * 32)
    good = make_zip(tmp_path / "a", GOOD)
    unpack(good, tmp_path / "out", sha256=hashlib.sha256(good.read_bytes()).hexdigest().upper())


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
            unpack(tmp_path / "a", tmp_path / f"out{case}")
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
    with pytest.raises(UsageError, match="is there already"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="is there already"):
        unpack(archive, tmp_path / "link")


def test_the_working_folder_as_target(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "a", GOOD)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    unpack(archive, Path())
    assert tree(tmp_path / "out") == ["train/1.png", "train/Zoë 2.JPG"]


def test_a_place_that_cannot_be_written(tmp_path):
    archive = make_zip(tmp_path / "a", GOOD)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be (written|created)"):
        unpack(archive, tmp_path / "file" / "out")


def test_another_process_at_the_same_place(tmp_path):
    archive = make_zip(tmp_path / "a", GOOD)
    folder = tmp_path / ".i2i-out.unpacking"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match="another process"):
        unpack(archive, tmp_path / "out")
    os.close(descriptor)
    unpack(archive, tmp_path / "out")
    assert not folder.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from i2i.tools.datasets import archive
where, number = sys.argv[1], int(sys.argv[2])
calls = 0
owner, name = {"write": (archive._Unpacking, "_write"), "rename": (Path, "rename")}[where]
honest = getattr(owner, name)
def deadly(*arguments):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(*arguments)
setattr(owner, name, deadly)
archive.unpack(Path(sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.mark.promise("R49")
def test_killed_in_the_middle(tmp_path):
    archive = make_zip(tmp_path / "a", [(f"set/{number}.png", PICTURE) for number in range(5)])
    for where, number in (("write", "3"), ("rename", "1")):
        command = [sys.executable, "-c", KILLED, where, number, str(archive), str(tmp_path / "out")]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert sorted(path.name for path in tmp_path.iterdir()) == [".i2i-out.unpacking", "a"]
        (tmp_path / ".i2i-out.unpacking" / "stray").write_bytes(b"")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path) == ["a", *(f"out/{number}.png" for number in range(5))]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from i2i.tools.datasets.archive import unpack
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


@pytest.mark.promise("R49")
def test_a_table_of_contents_is_not_kept_before_it_is_counted(tmp_path, monkeypatch):
    archive = tmp_path / "many.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(3_000):
            file.writestr(f"{number}", b"")
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", lambda *_: pytest.fail("an entry was kept"))
    check_refused(archive, "more than 2,000 members", Limits(members=2_000))
    with pytest.raises(InputError, match="more than 2,999 members"):
        unpack(archive, tmp_path / "out", Limits(members=2_999))


@pytest.mark.promise("R49")
def test_members_that_look_like_a_table_of_contents_are_taken(tmp_path):
    many, inner = tmp_path / "many.zip", io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        for number in range(2_000):
            file.writestr(f"{number}", b"")
    table = inner.getvalue()[inner.getvalue().index(b"PK\1\2") :]
    with zipfile.ZipFile(many, "w") as file:
        file.writestr("table.txt", table)
    with many.open("rb") as opened:
        assert [b"".join(member.chunks) for member in members(opened, 100, lambda count: None)] == [table]
