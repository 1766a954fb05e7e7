"""Where results wait for the next pass: memory, or a file without a name, read and written explicitly.

The file is not mapped into memory: what the system keeps of it, it can drop. Nobody else sees it, and it is gone
when the process is, however that ends.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from i2i.errors import FULL, OutputError

FOLDER_VARIABLE = "I2I_SPOOL"
IN_MEMORY = 1 << 28
"""Up to so many bytes are kept in memory."""


class SpoolError(OutputError):
    """There is no room for a spool, or its folder cannot be used."""


class Spool(Protocol):
    """So many bytes, all zero at first."""

    size: int

    def read(self, start: int, data: memoryview) -> None: ...
    def write(self, start: int, data: memoryview) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def spool(size: int, folder: Path | None = None, in_memory: int = IN_MEMORY) -> Spool:
    """A spool of so many bytes: in memory up to `in_memory`, else a file in `folder` (`spool_folder()`).

    Raises `SpoolError` if there is no room for it, with the bytes needed.
    """
    return MemorySpool(size) if size <= in_memory else FileSpool(size, folder or spool_folder())


def spool_folder() -> Path:
    """The folder of `I2I_SPOOL`, else of `TMPDIR`, else /var/tmp, which is on a disk where /tmp may be memory."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and os.access(large, os.W_OK | os.X_OK):
        return large
    return Path(tempfile.gettempdir())


class _Closing:
    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MemorySpool(_Closing):
    """A spool in memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = np.zeros(size, np.uint8).data

    def read(self, start: int, data: memoryview) -> None:
        data[:] = self._data[start : start + len(data)]

    def write(self, start: int, data: memoryview) -> None:
        self._data[start : start + len(data)] = data

    def close(self) -> None:
        self._data = memoryview(b"")


class FileSpool(_Closing):
    """A spool in a file without a name. Raises `SpoolError` whenever the system refuses."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self._folder = size, folder
        try:
            free = os.statvfs(folder)
            if size > free.f_bavail * free.f_frsize:
                raise self._no_room(free.f_bavail * free.f_frsize)
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - it is open as long as this is
                dir=folder, prefix=".i2i-", suffix=".part", buffering=0
            )
        except OSError as error:
            raise SpoolError(f"{folder}: cannot hold the spool: {error.strerror}; {_CHOOSE}") from error
        try:
            if hasattr(os, "posix_fallocate"):  # so that the room is there to the end
                os.posix_fallocate(self._file.fileno(), 0, size)
            else:
                os.ftruncate(self._file.fileno(), size)
        except OSError as error:
            self.close()
            raise self._refused(error) from error

    def read(self, start: int, data: memoryview) -> None:
        self._whole(os.preadv, start, data)

    def write(self, start: int, data: memoryview) -> None:
        self._whole(os.pwritev, start, data)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def _whole(self, call: "_Call", start: int, data: memoryview) -> None:
        while len(data):
            try:
                done = call(self._file.fileno(), [data], start)
            except OSError as error:
                raise self._refused(error) from error
            if done == 0:
                raise SpoolError(f"{self._folder}: the spool has become shorter")
            start, data = start + done, data[done:]

    def _refused(self, error: OSError) -> SpoolError:
        if error.errno in FULL:
            free = os.statvfs(self._folder)
            return self._no_room(free.f_bavail * free.f_frsize)
        return SpoolError(f"{self._folder}: the spool cannot be used: {error.strerror}; {_CHOOSE}")

    def _no_room(self, free: int) -> SpoolError:
        return SpoolError(
            f"{self._folder}: {self.size:,} bytes are needed for the spool of this picture, {free:,} are free; "
            f"{_CHOOSE}"
        )


_CHOOSE = f"free some, or name a folder on another disk in the environment variable {FOLDER_VARIABLE}"


class _Call(Protocol):
    def __call__(self, descriptor: int, buffers: Sequence[memoryview], offset: int, /) -> int: ...
