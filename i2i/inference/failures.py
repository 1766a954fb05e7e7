"""The meaning of an error in the work on one picture: for that picture, for the next ones, for the batch."""

import errno

from i2i.errors import I2IError, ImageError, OutputError, out_of_memory
from i2i.files import WINDOWS
from i2i.images.spool import SpoolError

_OF_ONE = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, *((errno.EACCES, errno.ENOENT) if WINDOWS else ())}
"""A name that is too long, or that NTFS (EINVAL) or APFS (EILSEQ) refuses. On Windows also a file that a program has
open, and a path that is too long."""

__all__ = ["out_of_memory", "reason", "reason_of_one", "refuses_all"]


def reason(error: Exception) -> str:
    """Returns why a picture failed. Raises `error` again if the next picture would fail for the same reason."""
    if isinstance(error, ImageError):
        return str(error)
    if isinstance(error, I2IError):
        raise error
    if out_of_memory(error):
        return "not enough memory to translate it at this size"
    return f"unexpected error, please report it: {type(error).__name__}: {error}"


def reason_of_one(error: Exception) -> str:
    """As `reason`; where there is no room for the spool of one picture, there may be for the others."""
    return str(error) if isinstance(error, SpoolError) else reason(error)


def not_finite(network: str, precision: str) -> str:
    """Returns the message for a network whose values are no picture, with what may help."""
    hint = "" if precision == "fp32" else "; --precision fp32 may help"
    return f"{network} makes values that are not finite of it in {precision}{hint}"


def refuses_all(error: OutputError) -> bool:
    """Returns whether the system refused to write one, so that it will refuse the next one too."""
    cause = error.__cause__
    of_one = isinstance(cause, OSError) and cause.errno in _OF_ONE
    return isinstance(cause, OSError | RuntimeError) and not of_one
