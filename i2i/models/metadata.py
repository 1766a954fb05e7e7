"""The header of a file of weights, held to limits before it is believed. Nothing here needs torch."""

import hashlib
import json
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i2i.errors import ModelError

MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 8 << 20
MAX_INFO_BYTES = 1 << 20
MAX_JSON_DEPTH = 16
MAX_TENSORS = 10_000
MAX_TEXT = 1000


@contextmanager
def naming(file: Path | str) -> Iterator[None]:
    """Puts the name of the file before the message of a `ModelError`."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def regular_file(path: Path, limit: int = MAX_FILE_BYTES) -> int:
    """Returns the size in bytes of the file at `path`. Raises `ModelError` if it is not a file or over `limit`."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("not a regular file")
    if status.st_size > limit:
        raise ModelError(f"{status.st_size:,} bytes; at most {limit:,} are accepted")
    return status.st_size


def read_bounded(path: Path, limit: int) -> bytes:
    """Returns the contents of a regular file of at most `limit` bytes. Raises `ModelError`."""
    regular_file(path, limit)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None


def strict_json(text: str | bytes) -> dict[str, Any]:
    """Returns the JSON object in `text`: at most 1 MiB and 16 levels, no key twice, no NaN.

    A text in it has at most 1000 characters and no line break or control character. Raises `ModelError`.
    """
    if len(text) > MAX_INFO_BYTES:
        raise ModelError(f"its description has {len(text)} characters; at most {MAX_INFO_BYTES} are accepted")
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ModelError("its description is not valid JSON") from None
    if not isinstance(values, dict):
        raise ModelError("its description is not a JSON object")
    _check_values(values, MAX_JSON_DEPTH)
    return values


def _check_values(value: object, depth: int) -> None:
    """Raises `ModelError` for more levels than `depth`, and for texts that are too long or hold control characters."""
    if isinstance(value, dict | list):
        if not depth:
            raise ModelError(f"its description is deeper than {MAX_JSON_DEPTH} levels")
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_values(part, depth - 1)
    elif isinstance(value, str) and len(value) > MAX_TEXT:
        raise ModelError(f"its description has a text of {len(value)} characters; at most {MAX_TEXT} are accepted")
    elif isinstance(value, str) and without_controls(value) != value:
        raise ModelError(f"its description has a control character in {value[:80]!a}")


def without_controls(text: str) -> str:
    """Returns `text` with `_` for each line break, control character and byte that was no UTF-8."""
    return "".join("_" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key twice")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def looks_like_safetensors(path: Path) -> bool:
    """Returns whether the file begins as a `.safetensors` does: the length of a header, and then the header."""
    try:
        size = regular_file(path)
        with path.open("rb") as file:
            start = file.read(9)
    except (OSError, ModelError):
        return False
    return int.from_bytes(start[:8], "little") <= size - 8 and start[8:] == b"{"


def read_header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Returns the metadata of a `.safetensors` file, and the shape of each tensor by name.

    Raises `ModelError`, without the file's name.
    """
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise ModelError("not a model file (.safetensors), or damaged: its header is too long")
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    try:
        content = json.loads(text, object_pairs_hook=_unique)
        metadata: dict[str, str] = content.pop("__metadata__", {})
        if len(content) > MAX_TENSORS:
            raise ModelError(f"{len(content)} tensors; at most {MAX_TENSORS} are accepted")
        shapes = {name: _shape(entry["shape"]) for name, entry in content.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError("not a model file (.safetensors), or damaged: its header cannot be read") from None
    return metadata, shapes


def _shape(sizes: list[Any]) -> tuple[int, ...]:
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("shape")
    return tuple(sizes)


def body_sha256(data: bytes) -> str:
    """Returns the SHA-256 of what follows the header of a `.safetensors` file."""
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(memoryview(data)[start:]).hexdigest()
