"""What can go wrong for a user, and the exit code that says so to a script.

0 all done · 1 unexpected (a bug) · 2 usage or configuration · 3 finished, some inputs failed ·
4 no usable input · 5 model or state unusable · 6 output not writable or disk full · 7 output locked ·
8 training diverged · 9 too little memory, or too few processes or open files, or a process was lost ·
75 preempted after a saved state · 130 SIGINT · 141 nobody reads the results · 143 SIGTERM without a saved state.
"""

import errno
import os
import re

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SCARCE = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|bad_alloc|out of memory|STATUS_ALLOC_FAILED|Cannot allocate memory")
_SHARED = re.compile(r"shared memory|/dev/shm|/psm_|/torch_\d")


class I2IError(Exception):
    """A mistake or a fault that the message explains: what was wrong, where, what was expected, what to do.

    Its arguments are the lines of the message: nearly always one, which a list may follow.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(I2IError, ValueError):
    """An option out of range, an unknown key, options that contradict each other."""

    exit_code = 2


class SomeFailed(I2IError):
    """The work is finished, but some inputs failed; each was named with its reason."""

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
    """Whether it says that memory ran out: of the machine, or of what the network runs on."""
    # torch's own by its name, for there may be no torch in this process
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


def of_system(error: OSError, written: bool = False) -> I2IError:
    """What the system's refusal means, by its reason, and by whether the path that it names is `written` or read."""
    path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _SCARCE or _SHARED.search(str(error)):
        return ResourceError(f"{path}{reason}; {_LESS}")
    if written or error.errno in {*FULL, errno.EROFS}:
        return OutputError(f"{path}cannot be written: {reason}")
    return InputError(f"{path}cannot be read: {reason}")


def explained(error: Exception, written: bool = False) -> I2IError | None:
    """What `error` means for a user; None if it is a bug. `written` as in `of_system`."""
    if isinstance(error, I2IError):
        return error
    if isinstance(error, OSError):
        return of_system(error, written)
    if out_of_memory(error) or "can't start new thread" in str(error) or _SHARED.search(str(error)):
        return ResourceError(f"{str(error).strip() or 'not enough memory'}; {_LESS}")
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return UsageError(f"{error.object[:300]!a}: a name that is no UTF-8 cannot be written down; choose another")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UsageError("a path has a NUL character in it, which no path can have")
    return None


_LESS = "the machine has too little left: end other programs, or take fewer workers, smaller batches or pictures"
