"""`log.jsonl`: one JSON object per line, each whole."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from i2i.errors import OutputError
from i2i.files import atomic_write, check_regular

MAX_LINE_BYTES = 1 << 20
"""What is longer was not written by a run."""


class LogFile:
    """A log that goes on after `step`: later lines of an earlier attempt, a torn one, and what is no log are dropped.

    With `validate_again` so are the validations of `step` itself, for the run begins with that one. Lines wait
    in memory until `write` or `sync`, and while the disk is full.
    """

    def __init__(self, path: Path, step: int, validate_again: bool = False) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        check_regular(path)
        if path.exists():
            with _opened(path) as lines:
                kept = (line for line in _bounded(lines) if _belongs(line, step, validate_again))
                atomic_write(path, lambda file: file.writelines(kept))
        try:
            self._file = path.open("ab", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def add(self, line: dict[str, Any]) -> None:
        """Append one line, later. Floats that JSON does not know (NaN, infinity) become null."""
        self._waiting.append(json.dumps(_plain(line), allow_nan=False).encode() + b"\n")

    def write(self) -> OSError | None:
        """Write the lines that wait; if that fails they go on waiting, none of them is torn."""
        data = b"".join(self._waiting)
        try:
            if self._file.write(data) != len(data):  # what fits is written without an error
                raise OSError(None, "the disk is full")
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._size)
            return error
        self._size += len(data)
        self._waiting.clear()
        return None

    def sync(self) -> None:
        """Bring every line to the disk: a state that follows must not know of steps that the log lost.

        Raises `OutputError`.
        """
        failure = self.write()
        if failure:
            raise OutputError(f"{self.path}: cannot be written: {failure.strerror}")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.write()
        self._file.close()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from None


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    """The lines that are whole and at most `MAX_LINE_BYTES` long."""
    long = False
    while piece := file.readline(MAX_LINE_BYTES):
        whole = piece.endswith(b"\n")
        if whole and not long:
            yield piece
        long = not whole


def _belongs(line: bytes, step: int, validate_again: bool) -> bool:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(entry, dict) or type(at := entry.get("step")) is not int:
        return False
    again = validate_again and at == step and entry.get("kind") == "validation"
    return at <= step and not again


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
