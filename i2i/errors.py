"""The errors that a user meets, and their exit codes.

0 all done · 1 unexpected (a bug) · 2 usage or configuration · 3 finished, some inputs failed ·
4 no usable input · 5 model or state unusable · 6 output not writable or disk full · 7 output locked ·
8 training diverged · 9 too little memory, or too few processes or open files, or a process was lost ·
75 preempted after a saved state · 130 SIGINT · 141 nobody reads the results · 143 SIGTERM without a saved state.
"""

import difflib
import errno
import itertools
import os
import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import get_args

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SCARCE = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|bad_alloc|out of memory|STATUS_ALLOC_FAILED|Cannot allocate memory")
_NO_SHARED = re.compile(r"unable to (?:allocate|open|mmap|resize|write to)[^\n]*(?:shared memory|</torch_\w+>)")
"""Matches torch's messages about shared memory, and no path that has such a word."""
_SHARED = re.compile(r"/(?:psm_|torch_)\w+")
"""Matches the whole name of a piece of shared memory, and no path that a user gives."""
_PACKAGE = Path(__file__).parent
_COMPARED = 10_000  # names at most
_flags = False
"""Whether the user types options as flags, in a command: else in Python."""


class I2IError(Exception):
    """A mistake or a fault that the message explains: the wrong value and its place, what was expected, what to do.

    The arguments are the lines of the message: nearly always one, which a list may follow.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(I2IError, ValueError):
    """An option out of range, an unknown key, options that contradict each other."""

    exit_code = 2


class SomeFailed(I2IError):
    """The work is finished, but some inputs or checks failed; each was named with its reason."""

    exit_code = 3


class InputError(I2IError):
    """No usable input: a folder that is missing, empty, laid out differently, or damaged."""

    exit_code = 4


class ImageError(InputError):
    """One picture that cannot be read; the message says why, the caller knows its name."""


class ModelError(I2IError):
    """A model file, a training state or a checkpoint that cannot be used."""

    exit_code = 5


class DownloadError(I2IError):
    """A download that failed or was refused: no network, wrong size or hash, a redirect to somewhere unsafe.

    Who asked for the file says whether it was a model (exit code 5) or input (4).
    """


class OutputError(I2IError):
    """The output cannot be written: no permission, or the disk is full."""

    exit_code = 6


class ExistsError(OutputError):
    """Something is at the path of an output already, and may not be replaced."""


class LockedError(I2IError):
    """Another process writes to the same run folder."""

    exit_code = 7


class DivergedError(I2IError):
    """Training produced non-finite numbers again and again."""

    exit_code = 8


class ResourceError(I2IError):
    """The machine has no more memory, processes, threads, shared memory or open files for this, or a process that the
    work needs was lost."""

    exit_code = 9


class Interrupted(I2IError):
    """A signal stopped the work in good order. `exit_code` says which and how."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the machine or the device of the network has no more memory."""
    # torch's own by its name, for there may be no torch in this process
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def of_system(error: OSError, written: bool = False) -> I2IError:
    """The error for a refusal of the system, by its reason and by whether the path is `written` or read."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    path = name and f"{name}: "
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _SCARCE or (error.errno in FULL and _SHARED.fullmatch(name)):
        return ResourceError(f"{path}{reason}; {_LESS}")
    if isinstance(error, ConnectionError):
        return ResourceError(f"{path}lost a process that the work needs: {reason}")
    if written or error.errno in {*FULL, errno.EROFS}:
        return OutputError(f"{path}cannot be written: {reason}")
    return InputError(f"{path}cannot be read: {reason}")


def explained(error: Exception, written: bool = False) -> I2IError | None:
    """The error that a user understands; None if `error` is a bug. `written` says whether its path is an output."""
    if isinstance(error, I2IError):
        return error
    if isinstance(error, OSError):
        return None if _of_package(error) else of_system(error, written)
    if out_of_memory(error) or (isinstance(error, RuntimeError) and _out_of_means(str(error))):
        return ResourceError(f"{str(error).strip() or 'not enough memory'}; {_LESS}")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return UsageError(f"{error.object[:300]!a}: a name that is no UTF-8 cannot be written down; choose another")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UsageError("a path has a NUL character in it, which no path can have")
    return None


def _of_package(error: OSError) -> bool:
    """Whether a file of this package is missing."""
    own = isinstance(error.filename, str) and Path(error.filename).is_relative_to(_PACKAGE)
    return own and error.errno == errno.ENOENT


def _out_of_means(text: str) -> bool:
    return "can't start new thread" in text or _NO_SHARED.search(text) is not None


_LESS = "the machine has too little left: end other programs, or take fewer workers, smaller batches or pictures"


@contextmanager
def on_command_line() -> Iterator[None]:
    """Inside, messages name options as flags."""
    global _flags
    before, _flags = _flags, True
    try:
        yield
    finally:
        _flags = before


def as_typed(name: str, *value: object, is_switch: bool = True) -> str:
    """An option as the user gives it: `--ngf 4` in a command, `ngf=4` in Python; without a value, its name alone.

    A switch of a command takes no value: `--flip`, `--no-flip`.
    """
    flag, given = f"--{name.replace('_', '-')}", value[0] if value else None
    given = str(given) if isinstance(given, os.PathLike) else given
    if not _flags:
        return f"{name}={given!r}" if value else name
    if not value or (is_switch and given is True):
        return flag
    if is_switch and given is False:
        return flag.replace("--", "--no-", 1)
    words = [shlex.quote(str(word)) for word in (given if isinstance(given, list) else [given])]
    return f"no {flag}" if given in (None, "", []) else " ".join((flag, *words))


def check_word(name: str, value: object, words: object) -> None:
    """Raises `UsageError` unless the argument `name` has one of the `words`: those of a `Literal`, or that and None."""
    if value is None and NoneType in get_args(words):
        return
    known = get_args(get_args(words)[0]) or get_args(words)
    if value not in known:
        raise UsageError(f"{name} = {value!r}: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


def nearest(name: str, known: Collection[str], most: int = 1) -> str:
    """` Did you mean 'x'?` for a name that is close to known ones, of which the first are compared; else empty."""
    near = difflib.get_close_matches(name, [*itertools.islice(known, _COMPARED)], n=most)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
