"""A process that may open no socket to anywhere: the kernel kills it, whoever in it tries.

A filter of system calls (seccomp) is inherited by all threads and children, and sees what libraries do that are not
written in Python. Asking for the address of a name begins with such a socket too.
"""

import ctypes
import platform
import signal
import struct
import sys

KILLED = -signal.SIGSYS
"""The exit code of a process that tried."""
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_FAMILIES = 2, 10  # AF_INET, AF_INET6
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_NUMBER, _ARCHITECTURE, _FAMILY = 0, 4, 16  # where they stand in what a filter sees


def available() -> bool:
    return sys.platform == "linux" and platform.machine() in _SOCKET


def forbid() -> None:
    """From now on; there is no way back. Raises `OSError` where the kernel has no such filters."""
    architecture, number = _SOCKET[platform.machine()]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 6, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _FAMILY),
        (_EQUAL, 1, 0, _FAMILIES[0]),
        (_EQUAL, 0, 1, _FAMILIES[1]),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SECCOMP, _FILTER, filters, 0, 0)):
        if library.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")
