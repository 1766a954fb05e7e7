"""Unpacking archives of pictures that strangers made, by rules of our own.

Taken are regular files with the suffix of a picture; other regular files and hidden ones are counted and left
out. An archive with a single member that should not be there is refused as a whole: a name that leads outside
(`..`, absolute, a drive, a backslash), a link, a device, an encrypted or sparse file, two names that are one
on some file system, a bomb. Neither `zipfile` nor `tarfile` extracts anything here.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from i2i import images
from i2i.config import real
from i2i.data.folders import SPLITS
from i2i.data.members import Member, members, reasons
from i2i.errors import FULL, InputError, LockedError, OutputError, UsageError
from i2i.tools.datasets.outputs import folders_above

_LAYOUT = {*SPLITS, *(split + side for split in SPLITS for side in "AB"), "A", "B"}


@dataclass(frozen=True)
class Limits:
    """What an archive may be. `ratio` is bytes out per byte in, judged above `small_bytes` only.

    `depth` is the number of names on the way to a file, its own included.
    """

    members: int = 200_000
    total_bytes: int = 50 << 30
    ratio: int = 200
    small_bytes: int = 1 << 20
    name_bytes: int = 255
    depth: int = 8


@dataclass(frozen=True)
class Unpacked:
    """What came out: pictures, their bytes, and how many regular files were left out."""

    pictures: int
    bytes: int
    left_out: int


DEFAULT_LIMITS = Limits()


def unpack(archive: Path, target: Path, limits: Limits = DEFAULT_LIMITS, *, sha256: str | None = None) -> Unpacked:
    """Unpack the pictures of a zip or tar archive into the new folder `target`.

    A single folder that holds everything, as most archives have, is taken away. The pictures are written to
    `.i2i-NAME.unpacking` beside `target`, which gets its name when all of them are there; whatever fails, that
    folder is removed, and one that a killed process has left is cleared by the next.

    Raises `InputError` for an archive that is refused, damaged, or not the one with `sha256`; `UsageError` if
    `target` is there; `OutputError` if it cannot be written; `LockedError` if another process unpacks there.
    """
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(f"{target}: is there already; remove it or choose another folder")
    target = real(target)
    try:
        file = archive.open("rb")
    except OSError as error:
        raise InputError(f"{archive}: cannot be opened: {error.strerror}") from None
    with file:
        try:
            _check_hash(file, sha256)
            with folders_above(target), _workspace(target) as folder:
                done = _Unpacking(folder, limits, os.fstat(file.fileno()).st_size).run(file)
                _what_it_holds(folder).rename(target)
        except InputError as error:
            raise InputError(f"{archive}: {error}; nothing of it was kept") from None
        except OSError as error:
            raise _refused(target, error) from None
    return done


def _check_hash(file: BinaryIO, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    if found != sha256.lower():
        raise InputError(f"its SHA-256 is {found}, expected {sha256}")
    file.seek(0)


@contextlib.contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """An empty folder of a known name, locked as long as the process lives, removed at the end."""
    folder = target.with_name(f".i2i-{target.name}.unpacking")
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise LockedError(f"{target}: another process is unpacking to it")
        _clear(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _what_it_holds(folder: Path) -> Path:
    """The folder itself, or the one folder that is all it holds, unless its name says what is in it."""
    inside = list(folder.iterdir())
    alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in _LAYOUT
    return inside[0] if alone else folder


def _refused(target: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    if error.errno not in FULL:
        return OutputError(f"{target}: cannot be written: {reason}")
    there = next(parent for parent in target.absolute().parents if parent.exists())
    return OutputError(f"{target}: cannot be written: {reason}; {shutil.disk_usage(there).free:,} bytes are free")


class _Unpacking:
    """One archive of `packed` bytes on its way into `folder`."""

    def __init__(self, folder: Path, limits: Limits, packed: int) -> None:
        self.folder, self.limits, self.packed = folder, limits, packed
        self.entries = self.out = self.pictures = self.bytes = self.left_out = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def run(self, file: BinaryIO) -> Unpacked:
        with reasons():
            found = members(file, self.limits.members, self._count)
        while True:
            with reasons():
                member = next(found, None)
            if member is None:
                break
            self._take(member)
        if not self.pictures:
            raise InputError(f"no pictures in it, {self.left_out} other files")
        return Unpacked(self.pictures, self.bytes, self.left_out)

    def _count(self, size: int) -> None:
        self.out += size
        if self.out > self.limits.total_bytes:
            raise InputError(f"more than {self.limits.total_bytes:,} bytes when unpacked")
        self._check_ratio(self.out, self.packed, "the archive")

    def _check_ratio(self, out: int, packed: int, what: str) -> None:
        if out > self.limits.small_bytes and out > self.limits.ratio * packed:
            raise InputError(f"{what}: unpacks to more than {self.limits.ratio} times its size")

    def _take(self, member: Member) -> None:
        self.entries += 1
        if self.entries > self.limits.members:
            raise InputError(f"more than {self.limits.members:,} members")
        if member.refusal:
            raise InputError(f"member {member.name!r}: {member.refusal}, which is not accepted")
        parts = _parts(member.name, self.limits)
        if not parts:
            if not member.folder:
                raise InputError("a member without a name")
            return
        self._check_twins(member, parts)
        if member.folder:
            return
        hidden = any(part.startswith(".") for part in parts)
        if hidden or Path(parts[-1]).suffix.lower() not in images.SUFFIXES:
            self.left_out += 1
            return
        self._write(member, self.folder.joinpath(*parts))
        self.pictures += 1

    def _check_twins(self, member: Member, parts: list[str]) -> None:
        """A name may occur once, also where case or the composition of accents does not count."""
        key = unicodedata.normalize("NFC", "/".join(parts).casefold())
        above = [key[: match.start()] for match in re.finditer("/", key)]
        if not self.files.isdisjoint([*above, key]) or (not member.folder and key in self.folders):
            raise InputError(f"member {member.name!r}: a name that occurs twice, which is not accepted")
        self.folders.update([*above, key] if member.folder else above)
        if not member.folder:
            self.files.add(key)

    def _write(self, member: Member, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size, data = 0, iter(member.chunks)
        with path.open("xb") as file:
            while True:
                with reasons():
                    chunk = next(data, None)
                if chunk is None:
                    break
                size += len(chunk)
                if size > member.size:
                    break
                if member.packed is not None:
                    self._check_ratio(size, member.packed, f"member {member.name!r}")
                file.write(chunk)
        if size != member.size:
            raise InputError(f"member {member.name!r}: its size is not the {member.size:,} bytes that its header says")
        self.bytes += size


def _parts(name: str, limits: Limits) -> list[str]:
    """The names on the way to a member. Raises `InputError` for one that is not harmless everywhere."""
    reason = ""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if any(unicodedata.category(character) == "Cc" for character in name):
        reason = "a control character in its name"
    elif name.startswith("/"):
        reason = "an absolute name"
    elif ".." in parts:
        reason = "a name with .."
    elif "\\" in name:
        reason = "a backslash in its name"
    elif re.match(r"[A-Za-z]:", name):
        reason = "a name with a drive"
    elif len(parts) > limits.depth:
        reason = f"more than {limits.depth} names deep"
    elif any(len(os.fsencode(part)) > limits.name_bytes for part in parts):
        reason = f"a name of more than {limits.name_bytes} bytes"
    if reason:
        raise InputError(f"member {name[:300]!r}: {reason}, which is not accepted")
    return parts
