"""A disk whose file names differ by more than their case, as those of Windows and macOS: an image, mounted by a loop.

Either NTFS by `lowntfs-3g`, which also refuses the names that Windows reserves, or ext4 of a kernel with case folding.
Needs root, and one of the two.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
    """The disk, with 64 MB; None where this machine cannot have one."""
    image, at = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(1 << 26)
    at.mkdir()
    try:
        yield at if os.geteuid() == 0 and _mounted(image, at) else None
    finally:
        _did("umount", at)
