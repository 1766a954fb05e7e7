"""What this machine's processor offers. Nothing here needs torch."""

import os
import sys
from functools import cache
from pathlib import Path

from i2i.process import cores

_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux calls it: on x86, and last on Arm."""
CPUINFO = Path("/proc/cpuinfo")


@cache
def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself, so that it is faster than float32; False where nobody tells."""
    return not _BF16.isdisjoint(told("flags", "Features").split())


def told(*names: str) -> str:
    """What Linux says of the first processor under one of these names; empty where nobody tells."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def threads() -> int:
    """How many threads are to compute: `OMP_NUM_THREADS`, as `torchrun` sets it, or what this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return cores()


def may_have_gpu() -> bool:
    """Whether torch has to be asked for a GPU; asking it costs its import."""
    return sys.platform == "darwin" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
