"""What can go wrong for a user, and the exit code that says so to a script.

0 all done · 1 unexpected (a bug) · 2 usage or configuration · 3 finished, some inputs failed ·
4 no usable input · 5 model or state unusable · 6 output not writable or disk full · 7 output locked ·
8 training diverged · 9 too little memory, or too few processes or open files · 75 preempted after a saved state ·
130 SIGINT · 141 nobody reads the results · 143 SIGTERM without a saved state.
"""


class I2IError(Exception):
    """A mistake or a fault that the message explains: what was wrong, where, what was expected, what to do."""

    exit_code = 1


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


class LockedError(I2IError):
    """Another process writes to the same run folder."""

    exit_code = 7


class DivergedError(I2IError):
    """Training produced non-finite numbers again and again."""

    exit_code = 8


class ResourceError(I2IError):
    """The machine has no more memory, processes, threads, shared memory or open files for this."""

    exit_code = 9


class Interrupted(I2IError):
    """A signal stopped the work in good order. `exit_code` says which and how."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
