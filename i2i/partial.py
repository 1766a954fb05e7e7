"""A file that is not all there yet: `NAME.part`, locked, and beside it a note of what it is a part of."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Self

from i2i.atomic import write_all
from i2i.errors import FULL, OutputError

_MAX_NOTE_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """Where bytes come from. `validator` is an ETag or a date, empty if the server gives neither."""

    url: str = ""
    validator: str = ""
    total: int | None = None


class Part:
    """The part of `path` that is there. One process has it at a time; others wait.

    Every method raises `OutputError` if the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._target = path
        self._path = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self._file.closed:
                return
            if self.size() == 0:
                self.remove()
            self._file.close()

    def size(self) -> int:
        """The number of bytes that are there."""
        return os.fstat(self._file.fileno()).st_size

    def source(self) -> Source:
        """What the bytes are a part of, as far as it is known."""
        try:
            with self._note.open("rb") as file:
                values = json.loads(file.read(_MAX_NOTE_BYTES))
            source = Source(**values)
        except (OSError, ValueError, TypeError, RecursionError):
            return Source()
        known = isinstance(source.url, str) and isinstance(source.validator, str)
        return source if known and isinstance(source.total, int | None) else Source()

    def restart(self, source: Source) -> None:
        """Empty, from now on a part of `source`."""
        with _disk(self._target):
            self._file.truncate(0)  # before the note, so that no old byte is ever taken for one of `source`
            self._note.write_text(json.dumps(asdict(source)), encoding="ascii")

    def append(self, data: bytes) -> None:
        with _disk(self._target):
            write_all(self._file.fileno(), data)

    def need(self, size: int) -> None:
        """Raises `OutputError` if there is no room for `size` more bytes."""
        with _disk(self._target):
            free = shutil.disk_usage(self._path.parent).free
        if size > free:
            raise OutputError(f"{self._target}: {size:,} bytes are needed, {free:,} are free")

    def digest(self) -> str:
        """The SHA-256 of the bytes on the disk."""
        return digest(self._path)

    def finish(self) -> None:
        """Let the file appear under its name."""
        with _disk(self._target):
            os.fsync(self._file.fileno())
            self._path.replace(self._target)
            self._note.unlink(missing_ok=True)
            self._file.close()

    def remove(self) -> None:
        """Nothing of it is of use."""
        with _disk(self._target):
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            self._file.close()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time work on `path`; the others wait. Raises `OutputError` if the disk refuses."""
    lock = path.with_name(path.name + ".lock")
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        file.close()


def digest(path: Path) -> str:
    """The SHA-256 of a file. Raises `OutputError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _locked(path: Path) -> BinaryIO:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            # `flock` also keeps two threads of one process apart
            fcntl.flock(file, fcntl.LOCK_EX)
            if _same(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that had it has renamed or removed it


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in FULL:
            cause += f"; {shutil.disk_usage(path.parent).free:,} bytes are free"
        raise OutputError(f"{path}: cannot be written: {cause}") from error
