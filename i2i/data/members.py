"""A zip file whose table of contents is bounded before `zipfile` reads it."""

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from i2i.errors import InputError

# of a table of contents: an entry has 46 bytes, its name and a few more
_ENTRY_BYTES = 192
_ENTRY = struct.Struct("<4s24x3H12x")  # its signature; how long its name, its further fields and its comment are
_ENTRY_SIGNATURE = b"PK\1\2"


@contextlib.contextmanager
def opened_zip(file: BinaryIO, entries: int) -> Iterator[zipfile.ZipFile]:
    """A zip file whose table of contents has at most `entries`: `zipfile` reads it at once, and keeps every entry.

    Raises `InputError` for a longer table, before anything is made of it.
    """
    bounded: Any = _BoundedFile(file, entries)
    with zipfile.ZipFile(bounded) as archive:
        bounded.opening = False
        yield archive


class _BoundedFile:
    """A zip file as `zipfile` reads it; at most a mebibyte at once, beside the table of contents.

    That is looked through while the file is `opening`: what members hold may look like a table.
    """

    def __init__(self, file: BinaryIO, entries: int) -> None:
        self._file, self._entries, self._most = file, entries, max(entries * _ENTRY_BYTES, 1 << 20)
        self.opening = True
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise InputError(f"its table of contents has {size:,} bytes; at most {self._most:,} are accepted")
        data = self._file.read(self._most if size < 0 else size)
        if self.opening and _has_more_entries(data, self._entries):
            raise InputError(f"more than {self._entries:,} members")
        return data


def _has_more_entries(table: bytes, most: int) -> bool:
    """Whether a table of contents (APPNOTE.TXT, Sec. 4.3.12) has more than so many entries, as `zipfile` goes on."""
    place = 0
    for _ in range(most + 1):
        if len(table) < place + _ENTRY.size:
            return False
        signature, *lengths = _ENTRY.unpack_from(table, place)
        if signature != _ENTRY_SIGNATURE:
            return False
        place += _ENTRY.size + sum(lengths)
    return True
