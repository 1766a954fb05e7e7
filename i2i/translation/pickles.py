"""What a file of `torch.save` would call when it is read, found without running any of it; needs no torch.

torch's restricted unpickler refuses code, but knows constructors that no weights need, and some of them make
a file of a hundred bytes take any amount of memory. So their names are looked for first.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from i2i.errors import ModelError
from i2i.translation.metadata import MAX_FILE_BYTES, regular_file

MAX_PICKLE_BYTES = 16 << 20
_LEGACY_PICKLES = 5  # magic number, version, system, the object, the keys of its storages


def check_file(path: Path) -> None:
    """Refuse what `torch.load` should not see: damage, zip bombs, and pickles that call more than weights need.

    Raises `ModelError`, without the file's name.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:  # by its first bytes, as torch decides it
            pickles = _of_zip(file, size) if file.read(4) == b"PK\x03\x04" else _of_legacy_file(file)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    try:
        for name in _called(pickles):
            if not _rebuilds_tensors(name):
                found = name.replace(" ", ".")[:80]
                raise ModelError(f"it holds code or objects ({found}), not weights alone; such files are never run")
    except ValueError:  # of pickletools
        raise ModelError("damaged or not written by torch.save") from None


def _rebuilds_tensors(name: str) -> bool:
    module, _, leaf = name.partition(" ")
    if module == "collections":
        return leaf == "OrderedDict"
    return module.partition(".")[0] == "torch" and leaf != "Tensor"  # which would make one of any size


def _called(pickles: list[BytesIO]) -> Iterator[str]:
    for pickle in pickles:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument)
            elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                yield opcode.name


def _of_zip(opened: BinaryIO, size: int) -> list[BytesIO]:
    """torch stores the members of its zip files uncompressed; compressed ones could inflate without limit."""
    try:
        with zipfile.ZipFile(opened) as file:
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
            return [BytesIO(file.read(member)) for member in pickles]
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        raise ModelError(f"a damaged zip file ({error})") from None


def _of_legacy_file(opened: BinaryIO) -> list[BytesIO]:
    opened.seek(0)
    return [BytesIO(opened.read(MAX_PICKLE_BYTES))] * _LEGACY_PICKLES  # each is read to its end, where the next begins
