"""Disks that are full or fold the case of names, and what lies on one."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def _did(*command: object) -> bool:
    if shutil.which(str(command[0])) is None:
        return False
    return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0


def _mounted(image: Path, at: Path) -> bool:
    if _did("mkntfs", "-F", "-Q", "-q", image) and _did("lowntfs-3g", "-o", "ignore_case,windows_names", image, at):
        return True
    return (
        _did("mkfs.ext4", "-q", "-F", "-O", "casefold", "-E", "encoding=utf8", image)
        and _did("mount", "-o", "loop", image, at)
        and _did("chattr", "+F", at)
    )


@contextmanager
def folded_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of 64 MB whose file names differ by more than their case, as those of Windows and macOS.

    An image, mounted by a loop: NTFS by `lowntfs-3g`, which also refuses the names that Windows reserves, or ext4 of a
    kernel with case folding. Needs root, and one of the two: None where this machine lacks them.
    """
    image, at = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 26)
    at.mkdir()
    try:
        yield at if os.geteuid() == 0 and _mounted(image, at) else None
    finally:
        _did("umount", at)


@dataclass(frozen=True)
class FilesUpTo:
    """A disk that takes no file larger than this many bytes: what a full disk does, without root."""

    limit: int

    def __call__(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def listed(folder: Path) -> list[str]:
    """The names of all files and links below a folder, as paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
