"""State dicts in files of others: `.pth` files of `torch.save`, and `.safetensors`. No code in a file is ever run.

torch's restricted unpickler refuses code, but it calls constructors that no weights need: a file of a hundred bytes can
ask them for any amount of memory. So each pickle is first read with stand-ins: only what rebuilds dense tensors from
stored bytes is known, nothing is allocated, and the sizes are compared with the size of the file.
"""

import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor

from i2i.data.members import opened_zip
from i2i.errors import InputError, ModelError
from i2i.models.metadata import MAX_FILE_BYTES, MAX_TENSORS, looks_like_safetensors, read_header, regular_file
from i2i.networks.blocks import blur_filter

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
IsKnown = Callable[[Collection[str]], bool]
"""Tells whether these may be the names of a known network."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
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
_MAX_PREFIX = 4  # names that a key has before those of its network


def read(path: Path, is_known: IsKnown = lambda names: False, *, own: bool = False) -> StateDict:
    """Returns the state dict in the file at `path`: dense tensors on the CPU, in their own types.

    It may be an entry of a dict, such as `{"state_dict": …, "epoch": 3}`: the only one, or the only one with the names
    of a known network. `own`: it is of a module of the
    author's own, which may have integers and one tensor under several names; its shapes are compared before any use.

    Raises `ModelError`, without the file's name, for anything else. A flipped bit is noticed by the checksums of a zip
    file; files of torch before 1.6 have none.
    """
    if looks_like_safetensors(path):
        size, content = regular_file(path), _from_safetensors(path)
    else:
        size = check_pickles(path)
        content = _unwrapped(_from_pickle(path), is_known)
    refuse_hostile(content, size, own)
    if {"networks", "architecture"} <= set(content):
        raise ModelError("a training state, to go on from, and no model: its run has model files (a2b.safetensors)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise ModelError(f"entry {name[:80]!r} is a {type(value).__name__}, not a tensor; expected a state dict")
    return dict(content)


def _from_safetensors(path: Path) -> Mapping[Any, Any]:
    read_header(path)
    try:
        # not mapped into memory: a mapped file that shrinks under us would kill the process
        return from_safetensors(path.read_bytes())
    except Exception as error:  # whatever its library makes of odd bytes
        raise ModelError(f"damaged: {error}") from None


def _from_pickle(path: Path) -> dict[Any, Any]:
    try:
        with warnings.catch_warnings(action="ignore"):
            # not mapped, as above
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # whatever bytes can do to the restricted unpickler
        raise ModelError(f"cannot be read as a checkpoint: {_reason(error)}") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"holds a {type(content).__name__}, not a state dict")
    return _as_dict(content)


def _as_dict(content: Mapping[Any, Any]) -> dict[Any, Any]:
    if set(getattr(content, "__dict__", {})) - {"_metadata"}:  # they could replace its methods
        raise ModelError("holds a dict with attributes, not a plain state dict")
    return dict(content)


def _unwrapped(content: dict[Any, Any], is_known: IsKnown) -> Mapping[Any, Any]:
    """Returns the one state dict among the entries of a training's checkpoint, whatever its key.

    The names of a known network tell it; without them, that it holds tensors alone.
    """
    if _has_known_names(content, is_known):
        return content
    nested = {key: _as_dict(value) for key, value in content.items() if isinstance(value, Mapping)}
    found = {key: value for key, value in nested.items() if _has_known_names(value, is_known)}
    if not found:
        if any(isinstance(value, Tensor) for value in content.values()):
            return content
        found = {k: v for k, v in nested.items() if v and all(isinstance(entry, Tensor) for entry in v.values())}
    if len(found) > 1:
        names = ", ".join(repr(key)[:60] if isinstance(key, str) else type(key).__name__ for key in list(found)[:6])
        raise ModelError(f"holds {len(found)} state dicts ({names}); save the one that is meant to a file of its own")
    return next(iter(found.values()), content)


def _has_known_names(content: Mapping[Any, Any], is_known: IsKnown) -> bool:
    names = {_without_wrapper(key) for key in content if isinstance(key, str)}
    return is_known(names) or bool(_common_prefix(names, is_known))


def without_prefixes(state_dict: Mapping[str, Any], is_known: IsKnown) -> dict[str, Any]:
    """Returns the state dict without `module.` and `_orig_mod.`, and without a prefix that all keys have (`netG.`).

    Raises `ModelError` for keys that are then alike.
    """
    tensors: dict[str, Any] = {}
    for key, value in state_dict.items():
        name = _without_wrapper(key)
        if name in tensors:
            raise ModelError(f"{name} occurs twice, with and without the prefix of a wrapper")
        tensors[name] = value
    prefix = "" if is_known(tensors) else _common_prefix(tensors, is_known)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _without_wrapper(key: str) -> str:
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def _common_prefix(names: Collection[str], is_known: IsKnown) -> str:
    """Returns what all names begin with, up to a dot, where those of a known network follow; such as `netG.`."""
    first = next(iter(names), "")
    for dot in islice(re.finditer(r"\.", first), _MAX_PREFIX):
        prefix = first[: dot.end()]
        if not all(name.startswith(prefix) for name in names):
            return ""
        if is_known({name.removeprefix(prefix) for name in names}):
            return prefix
    return ""


def _reason(error: Exception) -> str:
    """Returns torch's message without its advice to load the file unsafely."""
    message = str(error)
    if found := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it holds code or objects ({found[1]}), not weights alone; such files are never run"
    if "weights_only" in message:
        return "it holds code or objects, not weights alone; such files are never run"
    first = message.strip().partition("\n")[0][:200]
    return f"damaged or not written by torch.save ({type(error).__name__}: {first})"


# tensors, whatever file they come from


def refuse_hostile(tensors: Mapping[str, Any], size: int, own: bool = False) -> None:
    """Refuses, by name, tensors of a file of `size` bytes that are no plain weights, without reading their numbers.

    Sparse, quantised, complex or (unless `own`) integer tensors, but for batch norm's counter; and tensors larger than
    the memory behind them (expanded, or many over one storage), for a copy of those could be of any size;
    and that memory can be no larger than the file. Raises `ModelError`, also for names that are no text.
    """
    for name in tensors:
        if not isinstance(name, str):
            raise ModelError(f"a key is of type {type(name).__name__}; expected the names of tensors")
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{len(tensors)} tensors; at most {MAX_TENSORS} are accepted")
    storages: set[int] = set()
    used = stored = 0
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            _refuse_odd(name, tensor, own)
            used += tensor.numel() * tensor.element_size()
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in storages:
                storages.add(storage.data_ptr())
                stored += storage.nbytes()
            if stored > size:
                raise ModelError(f"{name}: the tensors up to it take {stored:,} bytes, and the file has {size:,}")
            if used > stored and not own:
                raise ModelError(f"{name}: shape {tuple(tensor.shape)} is larger than what is stored for it")


def _refuse_odd(name: str, tensor: Tensor, own: bool) -> None:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_nested:
        raise ModelError(f"{name}: a {type(tensor).__name__}, not a plain tensor")
    if vars(tensor):
        raise ModelError(f"{name}: a tensor with attributes, not a plain tensor")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ModelError(f"{name}: {tensor.layout} on {tensor.device}; expected a dense tensor with numbers")
    counter = name.endswith("num_batches_tracked") and tensor.dtype == torch.int64
    whole = own and not tensor.is_floating_point() and not tensor.is_complex()
    if tensor.dtype not in FLOATS and not counter and not whole:
        raise ModelError(f"{name}: {tensor.dtype}; expected float32, float64, float16 or bfloat16")


def refuse_nonfinite(tensors: Mapping[str, Tensor]) -> None:
    """Refuses, by name, a tensor with a NaN or an infinity, or a number that is one in float32."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ModelError(f"{name}: not finite (NaN, infinity, or beyond the range of float32)")


def refuse_changed_filters(tensors: Mapping[str, Tensor]) -> None:
    """Refuses, by name, a blur filter (`filt`) that is not the binomial one, which is the same in every network."""
    for name, tensor in tensors.items():
        if name.endswith(".filt") and not torch.equal(tensor.float(), blur_filter(tensor.shape[-1]).expand_as(tensor)):
            raise ModelError(f"{name}: not the binomial blur filter of CUT's networks")


def refuse_other_shapes(found: Shapes, expected: Shapes) -> None:
    """Refuses, by name, the first difference between the names and shapes of a file and those of its network."""
    for name, shape in expected.items():
        if name not in found:
            raise ModelError(f"{name} is missing")
        if found[name] != shape:
            raise ModelError(f"{name} has the shape {found[name]}; its network has {shape}")
    for name in found:
        if name not in expected:
            raise ModelError(f"{name[:100]} has no place in its network")


# pickles, before torch sees them


def check_pickles(path: Path) -> int:
    """Refuses what `torch.load` should not see: damage, zip bombs, and pickles that call more than weights need.

    Returns the size of the file in bytes. Raises `ModelError`, without the file's name.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:  # by its first bytes, as torch decides it
            pickles = _of_zip(file, size) if file.read(4) == b"PK\x03\x04" else _of_legacy_file(file)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    left = MAX_OPCODES
    for stream in pickles:
        start = stream.tell()
        left = _counted(stream, left)
        stream.seek(start)
        _Reading(stream, size).check()
    return size


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
                raise ModelError(f"its pickle has the operation {opcode.name}: not written by torch.save")
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
        self.entries = 0

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

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count, *_ = pid
        if not isinstance(kind, _Standin) or kind.function or type(key) is not str or type(count) is not int:
            raise ModelError("damaged or not written by torch.save")
        taken = count * kind.count
        if self.storages.setdefault(key, taken) != taken or not 0 <= sum(self.storages.values()) <= self.size:
            raise ModelError(f"its storages take more than the {self.size:,} bytes of the file")
        return _Standin(self, "", count)

    def ordered(self, entries: Any = ()) -> OrderedDict[Any, Any]:
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


def _key(key: Any) -> Any:
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

    def __setstate__(self, state: Any) -> None:
        """A tensor could be given another shape so, and any amount of memory."""
        raise self.reading.refusal("BUILD")


def _of_zip(opened: BinaryIO, size: int) -> list[io.BytesIO]:
    """torch stores the members of its zip files uncompressed; compressed ones could inflate without limit."""
    try:
        _check_end(opened, size)
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


def _check_end(opened: BinaryIO, size: int) -> None:
    """Python's reader takes the table of contents that ends where the end record begins, torch's the one that the
    record names. A file could show them two. Raises `BadZipFile` for such a one, and for one with a comment."""
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


def _content(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> io.BytesIO:
    with file.open(member) as opened:
        return io.BytesIO(b"".join(iter(partial(opened.read, 1 << 20), b"")))


def _of_legacy_file(opened: BinaryIO) -> list[io.BytesIO]:
    opened.seek(0)
    return [io.BytesIO(opened.read(MAX_PICKLE_BYTES))] * _LEGACY_PICKLES  # each begins where the last one ended
