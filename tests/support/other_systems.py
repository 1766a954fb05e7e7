"""Windows or macOS as far as Linux can play it, for i2i alone, in a child process and in all that it starts.

No test runs on these systems. A child whose `sitecustomize` calls `play` (see `environment`) plays one:

* modules and attributes of `os`, `signal` and others that Python documents as missing there are missing for i2i, whose
  `sys.platform` and `os.name` are the system's;
* no file of /proc or /sys can be opened by its path;
* data workers and other children are spawned;
* text files need their encoding named, and the standard streams speak cp1252.

On Windows in addition: a file that this process has open or mapped, or a folder with such a file, is neither replaced
nor removed; a folder cannot be opened; a file that is open for reading alone cannot be synced; what is written by
`os.write`, or by `io.FileIO`, to a file that was not opened as binary gets line ends of Windows.
"""

import builtins
import errno
import io
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FACTS = {"win32": ("win32", "nt"), "darwin": ("darwin", "posix")}
MODULES = {
    "win32": {
        "crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog",
        "termios", "tty",
    },
    "darwin": {"spwd", "nis"},
}  # fmt: skip
LINUX = {
    "os": """
        O_DIRECT O_NOATIME O_PATH O_TMPFILE copy_file_range eventfd fdatasync getrandom getresgid getresuid getxattr
        listxattr memfd_create pipe2 posix_fadvise posix_fallocate preadv pwritev removexattr sched_getaffinity
        sched_setaffinity sendfile setxattr splice
    """,
    "signal": """
        SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo
    """,
    "select": """
        epoll
    """,
}
"""The names that are missing by Python's documentation on macOS, or on some of its versions."""
UNIX = {
    "os": """
        EX_OK EX_USAGE O_ASYNC O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WIFSIGNALED
        WNOHANG WTERMSIG chown chroot confstr ctermid fchdir fchmod fchown fork forkpty fpathconf fstatvfs fwalk
        get_blocking getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid getuid
        initgroups killpg lchown lockf major makedev minor mkfifo mknod nice openpty pathconf posix_openpt
        posix_spawn posix_spawnp pread pwrite readv register_at_fork sched_yield set_blocking setegid seteuid setgid
        setgroups setpgid setpriority setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait
        wait3 wait4 waitid writev
    """,
    "signal": """
        ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGIOT SIGKILL SIGPIPE SIGPROF SIGQUIT
        SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ
        SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt
        sigpending sigwait
    """,
    "select": """
        kqueue poll
    """,
    "socket": """
        AF_UNIX fromfd recv_fds send_fds socketpair
    """,
    "time": """
        clock_gettime clock_settime pthread_getcpuclockid tzset
    """,
    "mmap": """
        MAP_ANONYMOUS MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE
    """,
}
"""The names that it calls missing on Windows."""
O_BINARY = 0x8000


def environment(system: str, folder: Path) -> dict[str, str]:
    """The variables of a child that is to play `system`; `folder` gets its `sitecustomize`."""
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        f"import other_systems\nother_systems.play({system!r})\n",
        encoding="utf-8",
    )
    path = os.pathsep.join((str(folder), str(Path(__file__).parents[2])))
    added = {"PYTHONPATH": path, "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **added, "PYTHONWARNDEFAULTENCODING": "1", "CUDA_VISIBLE_DEVICES": ""}


def hidden(system: str, module: str) -> set[str]:
    """The names that `module` lacks on `system`."""
    words = LINUX.get(module, "") + (f" {UNIX.get(module, '')}" if system == "win32" else "")
    return set(words.split())


class _Elsewhere(ModuleType):
    """A module as another system has it."""

    def __init__(self, module: ModuleType, missing: set[str], other: dict[str, Any]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _missing=missing, _other=other)

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on this system")
        return self._other[name] if name in self._other else getattr(self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._module, name, value)


def play(system: str) -> None:
    """From now on this process plays `system`."""
    platform, name = FACTS[system]
    other: dict[str, dict[str, Any]] = {"sys": {"platform": platform}, "os": {"name": name}, "signal": {}}
    if system == "win32":
        other["os"] |= _files_of_windows()
        other["io"] = {"FileIO": _file_written_by(other["os"]["write"])}
        other["signal"] |= {"SIGBREAK": signal.SIGUSR2, "set_wakeup_fd": _set_wakeup_fd}
    modules = {
        module: _Elsewhere(__import__(module), hidden(system, module), other.get(module, {}))
        for module in ("sys", "io", *UNIX)
    }
    really = builtins.__import__

    def importing(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:
        if str((globals or {}).get("__name__", "")).partition(".")[0] == "i2i":
            if name in MODULES[system]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name in modules:
                return modules[name]
        return really(name, globals, *rest, **options)

    builtins.__import__ = importing
    io.open = _without_proc(io.open)
    warnings.filterwarnings("ignore", category=EncodingWarning)
    warnings.filterwarnings("error", category=EncodingWarning, module=r"i2i\.")
    multiprocessing.set_start_method("spawn")


def _file_written_by(write: Callable[[int, Any], int]) -> type[io.FileIO]:
    class FileIO(io.FileIO):
        def write(self, data: Any) -> int:
            return write(self.fileno(), data)

    return FileIO


def _set_wakeup_fd(descriptor: int, **options: Any) -> int:
    """Windows takes one that blocks."""
    if descriptor >= 0:
        os.set_blocking(descriptor, False)
    return signal.set_wakeup_fd(descriptor, **options)


def _without_proc(opening: Callable[..., Any]) -> Callable[..., Any]:
    """`io.open`, which `Path.open` and `Path.read_text` call, and psutil does not."""

    def opened(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        return opening(file, *rest, **options)

    return opened


def _in_use(path: Any, dir_fd: int | None = None) -> bool:
    """Whether this process has the file at `path`, or one below it, open or mapped."""
    above = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")  # noqa: PTH115
    whole = os.path.join(above, os.fsdecode(path))  # noqa: PTH118
    place = os.path.join(os.path.realpath(os.path.dirname(whole)), os.path.basename(whole))  # noqa: PTH118, PTH119, PTH120
    names = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            names.add(os.readlink(f"/proc/self/fd/{entry}"))  # noqa: PTH115
        except OSError:
            continue
    with open("/proc/self/maps", "rb") as lines:  # noqa: PTH123
        names |= {os.fsdecode(line.split(maxsplit=5)[5]).strip() for line in lines if line.count(b"/")}
    files = {name for name in names if not os.path.isdir(name)}  # noqa: PTH112
    return place in files or any(name.startswith(f"{place}/") for name in files)


def _files_of_windows() -> dict[str, Any]:
    """The `os` that i2i sees; the functions that `pathlib` calls are exchanged for all."""
    text: set[int] = set()
    really = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "rename", "unlink", "remove")}

    def refuse(path: Any) -> None:
        raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", os.fspath(path))

    def opened(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if os.path.isdir(path):  # noqa: PTH112
            refuse(path)
        descriptor: int = really["open"](path, flags & ~O_BINARY, *rest, **options)
        (text.discard if flags & O_BINARY else text.add)(descriptor)
        return descriptor

    def written(descriptor: int, data: Any) -> int:
        if descriptor in text:
            really["write"](descriptor, bytes(data).replace(b"\n", b"\r\n"))
            return len(data)
        return int(really["write"](descriptor, data))

    def synced(descriptor: int) -> None:
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        really["fsync"](descriptor)

    def moving(name: str) -> Callable[..., None]:
        def moved(source: Any, target: Any, **options: Any) -> None:
            for path in (source, target):
                if _in_use(path):
                    refuse(path)
            if name == "rename" and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(source))
            really[name](source, target, **options)

        return moved

    def removing(name: str) -> Callable[..., None]:
        def removed(path: Any, *, dir_fd: int | None = None) -> None:
            if _in_use(path, dir_fd):
                refuse(path)
            really[name](path, dir_fd=dir_fd)

        return removed

    exchanged = {"replace": moving("replace"), "rename": moving("rename")}
    exchanged |= {"unlink": removing("unlink"), "remove": removing("remove")}
    for name, function in exchanged.items():
        setattr(os, name, function)
    os.supports_dir_fd.update((os.unlink, os.remove))  # which `shutil.rmtree` looks at
    return {"O_BINARY": O_BINARY, "open": opened, "write": written, "fsync": synced, **exchanged}
