"""The members of a zip or tar archive, one after the other, without belief in what their headers say.

Nothing is written here and no name is judged; `archive.py` does that. Zip: `zipfile` reads the table of
contents. Tar: `tarfile` reads single headers of 512 bytes; the walk from one to the next is ours, since
`tarfile`'s own reads long names and pax records of any size into memory and can be sent backwards.
"""

import bz2
import contextlib
import copy
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from i2i.errors import InputError

_CHUNK = 1 << 18
_TAR_BLOCK = 512
_MAX_TAR_RECORD = 1 << 16
_LZMA_MEMORY = 256 << 20
# of a zip's table of contents: an entry has 46 bytes, its name and a few more
_ENTRY_BYTES = 192
_ENTRY = struct.Struct("<4s24x3H12x")  # its signature; how long its name, its further fields and its comment are
_ENTRY_SIGNATURE = b"PK\1\2"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Member:
    """One entry: `refusal` says why none of its kind is accepted, or is empty.

    `size` is what the header says; `packed` the bytes that it takes in the archive, or None where that cannot
    be told. `chunks` gives the bytes there really are, once, and only until the next member is asked for.
    """

    name: str
    chunks: Iterator[bytes]
    folder: bool = False
    refusal: str = ""
    size: int = 0
    packed: int | None = None


class Reader(Protocol):
    """A stream that gives at most `size` bytes, fewer where it likes, none at its end."""

    def read(self, size: int, /) -> bytes: ...


def members(file: BinaryIO, most: int, count: Callable[[int], None]) -> Iterator[Member]:
    """The members of the archive in `file`: zip, or tar, plain or packed with gzip, bzip2 or xz, by content.

    At most about `most` entries are held in memory. `count(n)` is called for every n bytes that unpacking
    brings forth, also those between members. Raises `InputError` for what is no such archive or damaged.
    """
    head = file.read(262)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _zip_members(file, most, count)
    if head.startswith(b"\x1f\x8b"):
        return _tar_members(_Counted(gzip.GzipFile(fileobj=file), count))
    if head.startswith(b"BZh"):
        return _tar_members(_Counted(_Decoder(file, bz2.BZ2Decompressor), count))
    if head.startswith(b"\xfd7zXZ\0"):
        return _tar_members(_Counted(_Decoder(file, _xz), count))
    if head[257:262] == b"ustar":
        return _tar_members(_Counted(file, count))
    raise InputError("not a zip or tar archive")


@contextlib.contextmanager
def reasons() -> Iterator[None]:
    """Turns what a damaged archive raises into `InputError`."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"damaged: {error}") from None
    except (EOFError, struct.error, ValueError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"damaged: {error or 'it ends early'}") from None
    except OSError as error:  # bz2 says so of damaged data
        raise InputError(f"cannot be read: {error.strerror or error}") from None


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


def _zip_members(file: BinaryIO, most: int, count: Callable[[int], None]) -> Iterator[Member]:
    with opened_zip(file, most) as archive:
        for info in archive.infolist():
            yield Member(
                name=info.orig_filename,
                folder=info.orig_filename.endswith("/"),
                refusal=_zip_refusal(info),
                size=info.file_size,
                packed=info.compress_size,
                chunks=_zip_chunks(archive, info, count),
            )


def _zip_refusal(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a symbolic link" if kind == stat.S_IFLNK else "a special file"
    if info.flag_bits & 0x41:
        return "encrypted"
    return "" if info.compress_type in _METHODS else f"packed with method {info.compress_type}"


def _zip_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: Callable[[int], None]) -> Iterator[bytes]:
    # zipfile stops at the size of the header; with another one it goes on to the true end, and checks the CRC there
    endless = copy.copy(info)
    endless.file_size = 1 << 62
    with archive.open(endless) as stream:
        while data := stream.read(_CHUNK):
            count(len(data))
            yield data


class _Decoder:
    """Streams of bzip2 or xz, also several on end, with bounded output per call and bounded memory."""

    def __init__(self, file: BinaryIO, start: Callable[[], Any]) -> None:
        self._file, self._start = file, start
        self._decoder, self._rest = start(), b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decoder.eof:
                self._rest = self._decoder.unused_data.lstrip(b"\0") or self._file.read(_CHUNK).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._decoder = self._start()
            packed, self._rest = self._rest, b""
            if self._decoder.needs_input and not packed:
                packed = self._file.read(_CHUNK)
                if not packed:
                    raise EOFError
            if data := self._decoder.decompress(packed, size):
                return bytes(data)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


class _Counted:
    """A stream whose every byte is told to `count`."""

    def __init__(self, stream: Reader, count: Callable[[int], None]) -> None:
        self._stream, self._count = stream, count

    def pieces(self, size: int) -> Iterator[bytes]:
        """Exactly `size` bytes. Raises `EOFError` if there are fewer."""
        while size > 0:
            data = self._stream.read(min(size, _CHUNK))
            if not data:
                raise EOFError
            self._count(len(data))
            size -= len(data)
            yield data

    def block(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        for _ in self.pieces(size):
            pass

    def rest(self) -> None:
        """Read to the end, where a packed stream has its check sum."""
        while data := self._stream.read(_CHUNK):
            self._count(len(data))


def _tar_members(stream: _Counted) -> Iterator[Member]:
    """ustar, with the long names of GNU tar and of pax; sparse files and the like are refused."""
    name: str | None = None
    while any(block := stream.block(_TAR_BLOCK)):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.size < 0:
            raise InputError("damaged: a negative size")
        padding = -header.size % _TAR_BLOCK
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
            record = _tar_record(stream, header.size, padding)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = record.rstrip(b"\0").decode("utf-8", "surrogateescape")
            else:
                name = _pax_path(record, header.type == tarfile.XGLTYPE) or name
            continue
        data = stream.pieces(header.size)
        yield Member(
            name=header.name if name is None else name,
            folder=header.type == tarfile.DIRTYPE,
            refusal=_tar_refusal(header),
            size=header.size,
            chunks=data,
        )
        for _ in data:  # what was not asked for
            pass
        stream.skip(padding)
        name = None
    stream.rest()


def _tar_refusal(header: tarfile.TarInfo) -> str:
    if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        return ""
    kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a FIFO"}
    kinds |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.GNUTYPE_SPARSE: "a sparse file"}
    kinds |= {tarfile.GNUTYPE_LONGLINK: "a link to a long name"}
    return kinds.get(header.type, f"of type {header.type!r}")


def _tar_record(stream: _Counted, size: int, padding: int) -> bytes:
    if size > _MAX_TAR_RECORD:
        raise InputError(f"a name or pax record of {size:,} bytes; at most {_MAX_TAR_RECORD:,} are accepted")
    record = stream.block(size)
    stream.skip(padding)
    return record


def _pax_path(record: bytes, everywhere: bool) -> str | None:
    """The name in a pax record (`LENGTH KEY=VALUE`, newline). What would change sizes or kinds is refused."""
    path = None
    while record.strip(b"\0"):
        found = re.match(rb"(\d{1,6}) ([^=]+)=", record)
        length = int(found[1]) if found else 0
        if found is None or not found.end() < length <= len(record) or record[length - 1 : length] != b"\n":
            raise InputError("damaged: a pax record that is none")
        key, value = found[2], record[found.end() : length - 1]
        if key in (b"size", b"linkpath") or key.startswith(b"GNU.sparse.") or (everywhere and key == b"path"):
            raise InputError(f"a pax record {key.decode('ascii', 'backslashreplace')!r}, which is not accepted")
        if key == b"path":
            path = value.decode("utf-8", "surrogateescape")
        record = record[length:]
    return path
