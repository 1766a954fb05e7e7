"""How the GNU C library's allocator treats large blocks that are freed; with another C library nothing is done here.

It gives each back to the system, which clears its pages anew when the next one asks for as much. A training asks for
the same blocks at every step: where they are large (pix2pix's U-Net, on a CPU) that is up to a quarter of its time
(docs/lab-book.md). Blocks whose sizes vary are better given back: kept, they would leave gaps that fit nothing.
"""

import ctypes
import sys

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MOST = 65_536
_LARGE = 32 << 20  # what it comes to by itself, at most


def keep_freed_memory() -> None:
    """From now on the process keeps what memory it frees, for blocks to come."""
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def give_freed_memory_back() -> None:
    """Undo `keep_freed_memory`, as in a process that has been forked from one."""
    _set({_M_MMAP_MAX: _MOST, _M_MMAP_THRESHOLD: _LARGE, _M_TRIM_THRESHOLD: 2 * _LARGE})


def _set(options: dict[int, int]) -> None:
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for option, value in options.items():
            library.mallopt(option, value)
