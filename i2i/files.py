"""Files that appear whole or not at all, locks that die with their process, SHA-256 of files, and i2i's own folder.

Windows differs: it replaces and removes no file that a program has open or mapped, syncs no folder, ends lines in
files that are not opened as binary, and refuses names that other systems take.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import os
import re
import secrets
import select
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from platformdirs import user_cache_path

from i2i.errors import FULL, ExistsError, LockedError, OutputError
from i2i.urls import StorePath

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

WINDOWS = os.name == "nt"
BINARY = getattr(os, "O_BINARY", 0)
"""For `os.open`: Windows else changes line ends."""
_RESERVED = re.compile(
    r"""[<>:"|?*\\/\x00-\x1f]|[. ]$|^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)""", re.IGNORECASE
)
_LONGEST = 259
"""The characters of a path that Windows takes unless its user enables long paths."""
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts to replace a file that another program has open: a viewer, a virus scanner, an indexer."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""How systems say that a file system has no hard links; the last one is how Windows does."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_STORES = "stores"
LOCK = "lock"
"""The file that is locked while a process uses the folder around it."""
_being_written: set[Path] = set()
"""The temporary files and folders that this process is writing."""


class _RecordingWriter(io.BufferedWriter):
    """Remembers a failed write: `torch.save` turns the `OSError` of its file into a `RuntimeError`."""

    failure: OSError | None = None

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def atomic_write(
    path: Path, write: Callable[[BinaryIO], object], mode: int | None = None, *, replace: bool = True
) -> None:
    """Call `write` with a temporary file in the folder of `path`, then put that file in the place of `path`.

    The bytes are on the disk before the name appears; the file's mode follows the umask unless `mode` is given.
    Whatever fails, an earlier file at `path` stays as it was and the temporary one is removed. A link at `path` to a
    file, or to nothing, is itself replaced, and what it points to stays as it is. Without `replace` nothing but a
    link to nothing is, not even what appears while the file is written: that is an `ExistsError`. Raises
    `OutputError` if at `path`, or where a link there leads, is anything but a regular file (a folder, a device, a
    pipe), if the system refuses (no permission, read-only, missing folder) or the disk is full.
    """
    check_regular(path)
    temporary = path.with_name(f".i2i-{secrets.token_hex(8)}.part")
    _being_written.add(temporary)
    try:
        _write(path, temporary, write, mode, replace)
    finally:
        _being_written.discard(temporary)


def _write(path: Path, temporary: Path, write: Callable[[BinaryIO], object], mode: int | None, replace: bool) -> None:
    try:
        # O_EXCL with 0666 lets the kernel apply umask and default ACLs; tempfile would leave 0600
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    except OSError as error:
        raise refused(path, error) from error
    file = _RecordingWriter(io.FileIO(descriptor, "wb"))
    try:
        if mode is not None:
            temporary.chmod(mode)
        _lock(descriptor)  # so that `remove_strays` leaves it alone
        write(file)
        file.flush()
        os.fsync(descriptor)
        if WINDOWS:
            file.close()
        place(temporary, path, replace)
        file.close()
        _sync_folder(path.parent)
    except BaseException as error:
        cause = error if isinstance(error, OSError) else file.failure
        size = temporary.stat().st_size if temporary.exists() else 0
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        if cause is None or not isinstance(error, OSError | RuntimeError):
            raise
        raise refused(path, cause, size) from error


def place(temporary: Path, path: Path, replace: bool) -> None:
    """Give a finished file its name. Without `replace`, raises `ExistsError` where something has that already."""
    if replace:
        rename_over(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not path.is_symlink() or path.exists():
            raise appeared(path) from None
        rename_over(temporary, path)  # a link to nothing counts as free
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_without_links(temporary, path)
    else:
        temporary.unlink()


def rename_over(finished: Path, path: Path) -> None:
    """Rename a file to `path`, where another may be. Waits for a moment while a program keeps that open on Windows."""
    for seconds in _WAITS if WINDOWS else ():
        try:
            finished.replace(path)
            return
        except PermissionError:
            if not path.exists():
                raise
            time.sleep(seconds)
    finished.replace(path)


def _place_without_links(temporary: Path, path: Path) -> None:
    """Where the file system has no hard links: take the name with an empty file, which no other can take then."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        raise appeared(path) from None
    try:
        rename_over(temporary, path)
    except OSError:
        path.unlink()
        raise


def move_into_place(finished: Path, path: Path, mode: int | None = None, *, replace: bool = True) -> None:
    """Put a finished file of the same file system in the place of `path`, by the rules of `atomic_write`."""
    check_regular(path)
    try:
        with finished.open("r+b") as file:  # Windows syncs no file that is open for reading alone
            os.fsync(file.fileno())
        if mode is not None:
            finished.chmod(mode)
        place(finished, path, replace)
        _sync_folder(path.parent)
    except OSError as error:
        raise refused(path, error) from error


def appeared(path: Path) -> ExistsError:
    return ExistsError(f"{_one_line(path)}: not written: something of this name has appeared there meanwhile")


def abandon() -> None:
    """Remove what this process is writing: it ends before that is whole."""
    for temporary in list(_being_written):
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink()


@contextlib.contextmanager
def shared_folder(name: str, place: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new hidden folder in `place`, gone at the end, also at a sudden one (`abandon`).

    It is locked, so `remove_strays` removes it after a kill and not before. Raises `OutputError`.
    """
    folder = place / f".i2i-{name}-{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(mode)
    except OSError as error:
        raise refused(place, error) from error
    _being_written.add(folder)
    try:
        with locked(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _being_written.discard(folder)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte. The system may take fewer than it is given, without an error: on a disk that is nearly full."""
    view = memoryview(data)
    while len(view):
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # a pipe or terminal that somebody made non-blocking
            select.select([], [descriptor], [])


def check_regular(path: Path) -> None:
    """Raises `OutputError` if anything but a regular file is at `path`, or Windows refuses its name.

    A rename would put a file in the place of a device, for everybody on the machine; from a pipe nothing may ever come.
    """
    _check_name(path)
    try:
        kind = path.stat().st_mode
    except ValueError as error:  # a NUL in its name
        raise refused(path, error) from error
    except OSError:
        return  # nothing is there, or a link to nothing; what cannot be reached, the system refuses
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "no regular file"
        raise OutputError(f"{_one_line(path)}: cannot be written: {what} is there already")


def is_reserved(name: str) -> bool:
    """Whether Windows refuses a name, or takes it for another: devices, wildcards, a colon, a dot or space at the end.

    `os.path.isreserved` of Python 3.13 answers for Windows alone.
    """
    return _RESERVED.search(name) is not None


def _check_name(path: Path) -> None:
    if WINDOWS and is_reserved(path.name):
        raise OutputError(
            f"{_one_line(path)}: cannot be written: Windows reserves this name; choose one without a device's name "
            '(con, nul, com1), without < > : " | ? *, and without a dot or space at its end'
        )


def remove_strays(folder: Path, before: float, name: str = "") -> None:
    """Remove what a killed process left half-written in `folder` before that time (seconds since the epoch).

    With `name` only this user's shared folders of that name go, as in a folder of temporary files, where others work
    too. A file that another process is writing is locked, and stays; so do a folder with such a `LOCK`, and links.
    """
    for stray in folder.glob(f".i2i-{name}-*.part" if name else ".i2i-*.part"):
        with contextlib.suppress(OSError):
            lock = stray / LOCK if stray.is_dir() else stray
            is_ours = not name or stray.lstat().st_uid == getattr(os, "geteuid", int)()  # both are 0 on Windows
            if is_ours and stray.stat().st_mtime < before and not (lock.exists() and _is_being_written(lock)):
                stray.unlink() if lock is stray else shutil.rmtree(stray)


def _is_being_written(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))  # others may write where we spool
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file unless another process has. Returns False where it has, and where there are no locks."""
    from filelock import lock_descriptor  # here: its import takes 80 ms

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:
        return False


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[bool]:
    """Holds a lock for one process or thread. The lock is the file `path`, which exists while it is held.

    Makes the folders above it. A lock ends with its process; a forked child does not inherit it. If somebody else has
    the lock, this waits; with `busy` it raises `LockedError` with that text and the holder. Yields False on a file
    system without locks. Raises `OutputError` if the file cannot be made.
    """
    from filelock import FileLock, Timeout, has_fcntl

    lock = FileLock(path, on_acquired=_sign if has_fcntl else None)
    try:
        make_folders(path.parent)
        check_regular(path)
        lock.acquire(blocking=not busy)
    except Timeout:
        raise LockedError(f"{_one_line(path.parent)}: {busy} ({_holder(path)})") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise refused(path.parent, error) from error
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                path.unlink()
            lock.release()


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_all(descriptor, f"pid {os.getpid()} on {socket.gethostname()} since {now}\n".encode())


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "a process that has just started"
    except OSError:
        return "unknown"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    if WINDOWS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:  # network file systems; the rename stands
            raise
    finally:
        os.close(descriptor)


def _one_line(path: Path) -> str:
    return str(path).replace("\n", "\\n")


def refused(path: Path, error: OSError | ValueError, written: int = 0) -> OutputError:
    """The error to raise when the system refuses to write at `path`, where so many bytes were written before."""
    name, reason = _one_line(path), getattr(error, "strerror", None) or str(error)
    if WINDOWS:
        reason += _of_windows(path, error)
    if not isinstance(error, OSError) or error.errno not in FULL:
        return OutputError(f"{name}: cannot be written: {reason}")
    folder = next(place for place in (path.parent, *path.parent.parents) if place.is_dir())
    free = f"{shutil.disk_usage(folder).free:,}"
    room = f"more than {written:,} bytes are needed, {free} are free" if written else f"{free} bytes are free"
    return OutputError(f"{name}: cannot be written: {reason}; {room}")


def _of_windows(path: Path, error: OSError | ValueError) -> str:
    """A cause that its message does not name."""
    if len(str(path.absolute())) > _LONGEST:
        return f"; this path is longer than the {_LONGEST} characters that Windows takes unless long paths are enabled"
    if isinstance(error, PermissionError) and path.exists():
        return "; Windows replaces no file that a program has open: close the one that shows or uses it"
    return ""


def make_folders(folder: Path) -> None:
    """Create a folder and those above it, however deep: `Path.mkdir` calls itself for each level.

    Raises `OutputError`.
    """
    missing = itertools.takewhile(lambda place: not place.is_dir(), (folder, *folder.parents))
    try:
        for place in reversed(list(missing)):
            _check_name(place)
            place.mkdir(exist_ok=True)
    except OSError as error:
        raise refused(folder, error) from error


def home() -> Path:
    """`$I2I_HOME`, or else the platform's folder for caches. It need not exist yet."""
    chosen = os.environ.get("I2I_HOME", "")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("i2i", appauthor=False)


def staged(place: StorePath) -> Path:
    """The folder of this machine, below `home`, in which a copy of a place in a store is kept."""
    return home().joinpath(_STORES, place.scheme, *place.parts[1:])


def store_of(folder: Path) -> StorePath | None:
    """The place in a store whose copy that folder is; None for every other folder."""
    stores = home() / _STORES
    if not folder.is_relative_to(stores) or len(parts := folder.relative_to(stores).parts) < 2:
        return None
    return StorePath(f"{parts[0]}:", *parts[1:])
