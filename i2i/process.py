"""Every process that imports i2i is prepared before anything else: nothing reports to anyone, forks and resumes work.

* Some libraries report to their makers, or ask whether there is a newer version, as soon as they are imported or used.
  docs/reliability.md says what each would do; here their switches are set.
* The OpenMP library that torch computes with on Linux (GNU's) keeps its threads between computations. They do not
  survive a fork, and the child would wait for them without end.
* MKL may share a product of matrices among its threads in another way at each run, and then its last digits differ.
  Asked for it, it gives the same bytes for the same number of threads (oneMKL, "Conditional Numerical
  Reproducibility").
"""

import os
import signal
import sys
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
_MAPS = Path("/proc/self/maps")
_PAUSE_HARD = 2  # of omp.h
_PR_SET_PDEATHSIG = 1  # of sys/prctl.h

_threads_ended = True


def prepare() -> None:
    """To be called once in a process, by `i2i` itself."""
    os.environ.update(SILENT)
    os.environ.setdefault("MKL_CBWR", "AUTO")
    # OpenVINO does without this package where it cannot be imported, and has no other switch
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_end_threads, after_in_child=_make_do)


def _end_threads() -> None:
    """Have OpenMP end the threads that this one keeps; here and in the child it starts others when it needs them."""
    global _threads_ended
    ended = [_ended(path) for path in (_openmp() if "torch" in sys.modules else ())]
    _threads_ended = all(ended)


def _openmp() -> set[str]:
    """GNU's OpenMP libraries in this process; there can be several. Those of others see to forks themselves."""
    try:
        fields = [line.split(maxsplit=5) for line in os.fsdecode(_MAPS.read_bytes()).splitlines()]
    except OSError:
        return set()
    paths = {found[5] for found in fields if len(found) > 5}
    return {path for path in paths if os.path.basename(path).startswith("libgomp")}  # noqa: PTH119 (as text)


def _ended(path: str) -> bool:
    import ctypes

    try:
        return int(ctypes.CDLL(path).omp_pause_resource_all(_PAUSE_HARD)) == 0
    except (OSError, AttributeError):  # older than OpenMP 5
        return False


def _make_do() -> None:
    if not _threads_ended:
        sys.modules["torch"].set_num_threads(1)
    for session in list(_sessions):
        session.leave()


class Session:
    """Holds something of another library that computes with threads of its own, `held`; they do not survive a fork.

    A child makes another by `start` when it computes. The one of its parent is left as it is and never ended: ending
    it would wait for those threads, or abort.
    """

    def __init__(self) -> None:
        self._made: Any = None
        self.alone = Lock()
        _sessions.add(self)

    def start(self) -> Any:
        raise NotImplementedError

    @property
    def held(self) -> Any:
        if self._made is None:
            self._made = self.start()
        return self._made

    def leave(self) -> None:
        """To be called in a child, where another thread of the parent may have held the lock."""
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._made))
        self._made, self.alone = None, Lock()


_sessions: "WeakSet[Session]" = WeakSet()


def end_with_parent() -> None:
    """Have the system end this process when the one that started it ends, however that does; on Linux alone."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
