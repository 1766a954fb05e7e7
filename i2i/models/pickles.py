"""What a file of `torch.save` would call when it is read, found without running any of it; needs no torch.

torch's restricted unpickler refuses code, but knows constructors that no weights need: some make a file of a
hundred bytes take any amount of memory, others replace the methods of a tensor. So a pickle is first gone through
with names in place of objects, and may call nothing but what rebuilds dense tensors from stored bytes.
"""

import pickletools
import re
import zipfile
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from i2i.data.members import opened_zip
from i2i.errors import InputError, ModelError
from i2i.models.metadata import MAX_FILE_BYTES, MAX_TENSORS, regular_file

MAX_PICKLE_BYTES = 16 << 20
MAX_OPCODES = 100 * MAX_TENSORS
"""Of all pickles of a file; a tensor takes 25 to 40, and what a training notes beside them a few."""
_MAX_MEMBERS = MAX_TENSORS + 1000
_PROTOCOL = 2  # the only one that torch's restricted unpickler reads
_LEGACY_PICKLES = 5  # magic number, version, system, the object, the keys of its storages
_TENSORS = {f"torch._utils {name}" for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}
_DICT = "collections OrderedDict"
_STORAGE = re.compile(r"torch(\.cuda)? [A-Z][A-Za-z0-9]*Storage|torch\.storage (Typed|Untyped)Storage")
_PLAIN = re.compile(
    "FRAME|MARK|NONE|NEWFALSE|NEWTRUE|BININT[12]?|LONG1|BINFLOAT|BINPERSID|EMPTY_(DICT|LIST|TUPLE)|TUPLE[123]?"
)


@dataclass(frozen=True)
class _Global:
    """`module name`; of the objects of a pickle, only it and texts are told apart."""

    name: str


_ORDERED = object()  # an OrderedDict
_MARK = object()
_OTHER = object()


def check_file(path: Path) -> int:
    """Refuse what `torch.load` should not see: damage, zip bombs, and pickles that call more than weights need.

    The size of the file in bytes. Raises `ModelError`, without the file's name.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:  # by its first bytes, as torch decides it
            pickles = _of_zip(file, size) if file.read(4) == b"PK\x03\x04" else _of_legacy_file(file)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    try:
        left = MAX_OPCODES
        for pickle in pickles:
            left = _check(pickle, left)
    except (ValueError, LookupError):  # of pickletools, or of a stack or memo that does not hold what is asked for
        raise ModelError("damaged or not written by torch.save") from None
    return size


def _check(pickle: BytesIO, left: int) -> int:
    """Go through the opcodes that `torch.save` writes, of any protocol, as an unpickler does.

    At most `left` of them; how many may follow.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    protocol = _PROTOCOL
    argument: Any
    for opcode, argument, _ in pickletools.genops(pickle):
        left -= 1
        if left < 0:
            raise ModelError(f"its pickles have more than {MAX_OPCODES:,} operations; weights alone have far fewer")
        match opcode.name:
            case "PROTO":
                protocol = argument
            case "GLOBAL":
                stack.append(_global(argument, stack))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{module} {name}", stack))
            case "BINUNICODE" | "SHORT_BINSTRING" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "REDUCE":
                _, function = stack.pop(), stack.pop()
                stack.append(_result(function, stack))
            case "BUILD":
                del stack[-1]
                if stack[-1] is not _ORDERED:
                    raise _refused("BUILD", stack[:-1])
            case "APPEND" | "SETITEM":
                del stack[-1 if opcode.name == "APPEND" else -2 :]
            case "APPENDS" | "SETITEMS":
                _pop_mark(stack)
            case "STOP":
                del stack[-1]
            case name if _PLAIN.fullmatch(name):
                _apply(opcode, stack)
            case name:
                raise _refused(name, stack)
    if stack:  # each would be made in vain, and there could be millions
        raise ModelError("damaged or not written by torch.save")
    if protocol != _PROTOCOL:
        raise ModelError(
            f"its pickle is of protocol {protocol}, and torch reads weights of protocol {_PROTOCOL} alone: "
            "save it again by torch.save without pickle_protocol"
        )
    return left


def _global(name: str, stack: list[Any]) -> _Global:
    if not (name in _TENSORS or name == _DICT or _STORAGE.fullmatch(name)):
        raise _refused(name, stack)
    return _Global(name)


def _result(function: Any, stack: list[Any]) -> Any:
    """What calling it gives. A storage is only ever named, in the reference to its bytes: called, it takes memory."""
    name = function.name if isinstance(function, _Global) else "REDUCE"
    if name != _DICT and name not in _TENSORS:
        raise _refused(name, stack)
    return _ORDERED if name == _DICT else _OTHER


def _apply(opcode: pickletools.OpcodeInfo, stack: list[Any]) -> None:
    if pickletools.markobject in opcode.stack_before:
        _pop_mark(stack)
    else:
        for _ in opcode.stack_before:
            stack.pop()
    stack += [_MARK if pushed is pickletools.markobject else _OTHER for pushed in opcode.stack_after]


def _pop_mark(stack: list[Any]) -> None:
    while stack.pop() is not _MARK:
        pass


def _refused(name: str, stack: list[Any]) -> ModelError:
    """The key under which it would be stored is what lies beneath it."""
    key = f"{stack[-1][:80]}: " if stack and isinstance(stack[-1], str) else ""
    found = name.replace(" ", ".")[:80]
    return ModelError(f"{key}it holds code or objects ({found}), not weights alone; such files are never run")


def _of_zip(opened: BinaryIO, size: int) -> list[BytesIO]:
    """torch stores the members of its zip files uncompressed; compressed ones could inflate without limit."""
    try:
        with opened_zip(opened, _MAX_MEMBERS) as file:
            members = file.infolist()
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
            return [_content(file, member) for member in pickles]
    except InputError as error:
        raise ModelError(str(error)) from None
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise ModelError(f"a damaged zip file ({error})") from None


def _content(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> BytesIO:
    with file.open(member) as opened:
        return BytesIO(b"".join(iter(partial(opened.read, 1 << 20), b"")))


def _of_legacy_file(opened: BinaryIO) -> list[BytesIO]:
    opened.seek(0)
    return [BytesIO(opened.read(MAX_PICKLE_BYTES))] * _LEGACY_PICKLES  # each is read to its end, where the next begins
