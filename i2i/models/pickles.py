"""Pickles in files of `torch.save`, checked before torch sees them. Nothing in them is ever run.

torch's restricted unpickler refuses code, but it calls constructors that no weights need: a file of a hundred bytes can
ask them for any amount of memory. So each pickle is first read with stand-ins: only what rebuilds dense tensors from
stored bytes is known, nothing is allocated, and the sizes are compared with the size of the file.
"""

import io
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from i2i.errors import ModelError
from i2i.models.metadata import MAX_FILE_BYTES, MAX_TENSORS, regular_file

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 100 * MAX_TENSORS
"""The limit of all pickles of a file. A tensor takes 25 to 40, and the notes of a training a few."""
_MAX_MEMBERS = MAX_TENSORS + 1000
_PROTOCOL = 2  # the only one that torch's restricted unpickler reads
_LEGACY_PICKLES = 5  # magic number, version, system, the object, the keys of its storages
_REBUILD = {f"torch._utils.{name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}
_STORAGE = re.compile(r"torch(\.cuda)?\.([A-Z][A-Za-z0-9]*)Storage")
_BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4, "QInt32": 4}
_BYTES |= {"Half": 2, "BFloat16": 2, "Short": 2}
"""Bytes of a number in a storage; 1 in all others."""
_OPCODES = re.compile(
    "PROTO|STOP|MARK|GLOBAL|REDUCE|BUILD|NEWOBJ|BINPERSID|APPENDS?|SETITEMS?|EMPTY_(DICT|LIST|TUPLE)|TUPLE[123]?|NONE"
    "|NEWTRUE|NEWFALSE|BININT[12]?|LONG1|BINFLOAT|BINUNICODE|SHORT_BINSTRING|(LONG_)?BIN(GET|PUT)"
)
"""Those that torch.save writes and torch's restricted unpickler reads."""
_MAX_ENTRIES = 10 * MAX_TENSORS
_KEYS = (str, int, float, bool, type(None))
_MAX_NUMBER = 1 << 63
_MAX_TABLE_BYTES = 192 * _MAX_MEMBERS  # an entry of the table of contents has 46 bytes, its name and a few more


def check_pickles(path: Path) -> None:
    """Refuses what `torch.load` should not see: damage, zip bombs, and pickles that call more than weights need.

    Raises `ModelError`, without the file's name.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":  # as torch decides it
                pickles = _of_zip(file, size)
            else:
                file.seek(0)  # each pickle begins where the last one ended
                pickles = [io.BytesIO(file.read(MAX_PICKLE_BYTES))] * _LEGACY_PICKLES
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    left = MAX_OPCODES
    for stream in pickles:
        start = stream.tell()
        left = _counted(stream, left)
        stream.seek(start)
        _Reading(stream, size).check()


def _counted(stream: io.BytesIO, left: int) -> int:
    """Returns how many operations may follow those of the next pickle."""
    head = bytes(stream.getbuffer()[stream.tell() :][:2])
    if head[:1] == b"\x80" and head[1] != _PROTOCOL:
        raise ModelError(
            f"its pickle is of protocol {head[1]}, and torch reads weights of protocol {_PROTOCOL} alone: "
            "save it again by torch.save without pickle_protocol"
        )
    try:
        for opcode, _, _ in islice(pickletools.genops(stream), left + 1):
            left -= 1
            if not _OPCODES.fullmatch(opcode.name):
                raise ModelError(
                    f"not written by torch.save (operation {opcode.name}); "
                    "expected a model file (.safetensors) or a checkpoint (.pth)"
                )
    except (ValueError, LookupError):
        raise ModelError("damaged or not written by torch.save") from None
    if left < 0:
        raise ModelError(f"its pickles have more than {MAX_OPCODES:,} operations; weights alone have far fewer")
    return left


_Unpickler: Any = pickle._Unpickler


class _Reading(_Unpickler):  # the one in Python: C's takes memory for whatever number a memo has
    """Reads a pickle with stand-ins for all that it names, so that nothing in it runs; the file has `size` bytes."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, stream: io.BytesIO, size: int) -> None:
        super().__init__(stream)
        self.size = size
        self.storages: dict[str, int] = {}
        self.stored = self.entries = 0

    def check(self) -> None:
        """Raises `ModelError` for a name, a call or a size that no weights need."""
        try:
            self.load()
            left_over = bool(self.stack)
        except ModelError:
            raise
        except Exception:  # whatever damaged bytes lead to
            left_over = True
        if left_over:
            raise ModelError("damaged or not written by torch.save")

    def find_class(self, module: str, name: str) -> Any:
        found = f"{module}.{name}"
        if found == "collections.OrderedDict":
            return self.ordered
        if found in _REBUILD:
            return _Standin(self, name)
        if kind := _STORAGE.fullmatch(found):
            return _Standin(self, "", _BYTES.get(kind[2], 1))
        raise self.refusal(found)

    def persistent_load(self, pid: tuple[Any, ...]) -> Any:
        _, kind, key, _, count, *_ = pid
        if not isinstance(kind, _Standin) or kind.function or type(key) is not str or type(count) is not int:
            raise ModelError("damaged or not written by torch.save")
        taken = count * kind.count
        if key not in self.storages:
            self.storages[key] = taken
            self.stored += taken
        if count < 0 or self.storages[key] != taken or self.stored > self.size:
            raise ModelError(f"its storages take more than the {self.size:,} bytes of the file")
        return _Standin(self, "", count)

    def ordered(self, entries: Collection[tuple[Any, Any]] = ()) -> OrderedDict[Any, Any]:
        """Stands for `OrderedDict`, to which Python 2 gives all entries; the same list may be given again and again."""
        self.entries += len(entries)
        if self.entries > _MAX_ENTRIES:
            raise ModelError(f"its dicts have more than {_MAX_ENTRIES:,} entries")
        return OrderedDict((_key(key), value) for key, value in entries)

    def load_setitem(self) -> None:
        _key(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        [_key(key) for key in self.stack[::2]]
        super().load_setitems()

    dispatch[pickle.SETITEM[0]], dispatch[pickle.SETITEMS[0]] = load_setitem, load_setitems

    def refusal(self, found: str) -> ModelError:
        """Names the key under which it would be stored, which lies beneath it."""
        key = next((f"{part[:80]}: " for part in reversed(self.stack) if isinstance(part, str)), "")
        return ModelError(f"{key}it holds code or objects ({found[:80]}), not weights alone; such files are never run")


def _key(key: object) -> Any:
    """A key of a dict, if nothing of it is deep: the hash of a deep tuple ends the process."""
    if type(key) not in _KEYS:
        raise ModelError(f"a key is of type {type(key).__name__}; expected the names of tensors")
    return key


class _Standin:
    """Stands for a function that rebuilds a tensor, for a type of storages whose numbers take `count` bytes, for a
    storage of `count` numbers, or for a tensor."""

    __slots__ = ("count", "function", "reading")

    def __init__(self, reading: _Reading, function: str, count: int = 0) -> None:
        self.reading, self.function, self.count = reading, function, count

    def __call__(self, *arguments: Any) -> "_Standin":
        if not self.function:  # a storage is only ever named, in the reference to its bytes: called, it takes memory
            raise self.reading.refusal("REDUCE")
        if self.function != "_rebuild_parameter":
            storage, offset, shape, strides, *_ = arguments
            numbers = [offset, *shape, *strides]
            if not all(type(number) is int and 0 <= number < _MAX_NUMBER for number in numbers) or len(numbers) > 129:
                raise ModelError("damaged or not written by torch.save")
            last = offset + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
            if all(shape) and last >= storage.count:
                raise ModelError(f"shape {tuple(shape)} is larger than what is stored for it")
        return _Standin(self.reading, "")

    def __setstate__(self, state: object) -> None:
        """Refuses: a state could give a tensor another shape, and with it any amount of memory."""
        raise self.reading.refusal("BUILD")


def _of_zip(opened: BinaryIO, size: int) -> list[io.BytesIO]:
    """torch stores the members of its zip files uncompressed; compressed ones could inflate without limit."""
    try:
        _check_end(opened, size)
        with zipfile.ZipFile(opened) as file:
            members = file.infolist()
            if len(members) > _MAX_MEMBERS:
                raise ModelError(f"more than {_MAX_MEMBERS:,} members")
            if sum(member.file_size for member in members) > min(size, MAX_FILE_BYTES):
                raise ModelError("its members are larger than the file: not written by torch.save")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ModelError("its members are compressed: not written by torch.save")
            if damaged := file.testzip():
                raise ModelError(f"damaged: the checksum of its member {damaged[:80]} does not match")
            pickles = [member for member in members if member.filename.lower().endswith(".pkl")]
            if not pickles:
                raise ModelError("a zip file, but not of torch.save (an exported program, .pt2, is never read)")
            if sum(member.file_size for member in pickles) > MAX_PICKLE_BYTES:
                raise ModelError(f"its pickles have more than {MAX_PICKLE_BYTES:,} bytes")
            return [io.BytesIO(file.read(member)) for member in pickles]
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise ModelError(f"a damaged zip file ({error})") from None


def _check_end(opened: BinaryIO, size: int) -> None:
    """Python's reader takes the table of contents that ends where the end record begins, torch's the one that the
    record names. A file could show them two. Raises `BadZipFile` for such a one, and for one with a comment, and
    `ModelError` for a long table, which Python reads at once."""
    opened.seek(max(size - 98, 0))
    tail = opened.read(98).rjust(98, b"\0")
    end = size - 22
    signature, length, offset, comment = struct.unpack("<4s8xIIH", tail[76:])
    if tail[56:60] == b"PK\6\7":  # a locator of the record of a large file, which torch writes always
        end = size - 98
        large, length, offset = struct.unpack("<4s36xQQ", tail[:56])
        if large != b"PK\6\6" or struct.unpack("<8xQ4x", tail[56:76])[0] != end:
            raise zipfile.BadZipFile("its end record is elsewhere")
    if signature != b"PK\5\6" or comment or offset + length != end:
        raise zipfile.BadZipFile("its table of contents is not at its end")
    if length > _MAX_TABLE_BYTES:
        raise ModelError(f"its table of contents has {length:,} bytes; at most {_MAX_TABLE_BYTES:,} are accepted")
