"""Where results wait for the next pass: memory, or a file without a name, read and written explicitly.

The file is not mapped into memory: the system can drop the parts of it that it keeps. Nobody else sees it, and it is
gone when the process is, however that ends.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import numpy as np

from i2i.errors import FULL, OutputError

FOLDER_VARIABLE = "I2I_SPOOL"
IN_MEMORY = 1 << 28
"""Up to so many bytes are kept in memory."""
_CHOOSE = f"free some, or name a folder on another disk in the environment variable {FOLDER_VARIABLE}"


class SpoolError(OutputError):
    """There is no room for a spool, or its folder cannot be used."""


def spool_folder() -> Path:
    """The folder of `I2I_SPOOL`, else of `TMPDIR`, else /var/tmp, which is on a disk where /tmp may be memory."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and os.access(large, os.W_OK | os.X_OK):
        return large
    return Path(tempfile.gettempdir())


class Spool:
    """So many bytes, all zero at first: in memory up to `in_memory`, else in a file in `folder` (`spool_folder()`).

    Raises `SpoolError` if there is no room for it, with the bytes needed, and whenever the system refuses.
    """

    def __init__(self, size: int, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.size, self._folder = size, folder or spool_folder()
        self._data = np.zeros(size, np.uint8).data if size <= in_memory else None
        self._file: Any = self._new_file() if self._data is None else None
        self._place = Lock()  # `os.preadv` needs none, and is not everywhere

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def descriptor(self) -> int:
        """That of the file."""
        descriptor: int = self._file.fileno()
        return descriptor

    def read(self, start: int, data: memoryview) -> None:
        """Fills `data` with the bytes from `start` on."""
        if self._data is not None:
            data[:] = self._data[start : start + len(data)]
        else:
            self._whole("readinto", start, data)

    def write(self, start: int, data: memoryview) -> None:
        """Puts `data` at `start`."""
        if self._data is not None:
            self._data[start : start + len(data)] = data
        else:
            self._whole("write", start, data)

    def close(self) -> None:
        """Gives memory and file back."""
        self._data = None if self._data is None else memoryview(b"")
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _new_file(self) -> Any:
        try:
            if self.size > (free := self._free()):
                raise self._no_room(free)
            file = tempfile.TemporaryFile(  # noqa: SIM115 - it is open as long as this is
                dir=self._folder, prefix=".i2i-", suffix=".part", buffering=0
            )
        except OSError as error:
            raise SpoolError(f"{self._folder}: cannot hold the spool: {error.strerror}; {_CHOOSE}") from error
        try:
            if hasattr(os, "posix_fallocate"):  # so that the room is there to the end
                os.posix_fallocate(file.fileno(), 0, self.size)
            else:
                os.ftruncate(file.fileno(), self.size)
        except OSError as error:
            file.close()
            raise self._refused(error) from error
        return file

    def _whole(self, call: Literal["readinto", "write"], start: int, data: memoryview) -> None:
        try:
            with self._place:
                self._file.seek(start)
                while len(data):
                    if not (done := getattr(self._file, call)(data)):
                        raise SpoolError(f"{self._folder}: the spool has become shorter")
                    data = data[done:]
        except OSError as error:
            raise self._refused(error) from error

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _refused(self, error: OSError) -> SpoolError:
        if error.errno in FULL:
            return self._no_room(self._free())
        return SpoolError(f"{self._folder}: the spool cannot be used: {error.strerror}; {_CHOOSE}")

    def _no_room(self, free: int) -> SpoolError:
        return SpoolError(
            f"{self._folder}: {self.size:,} bytes are needed for the spool of this picture, {free:,} are free; "
            f"{_CHOOSE}"
        )
