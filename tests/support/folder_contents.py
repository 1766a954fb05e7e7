"""The contents of a folder."""

from pathlib import Path


def listed(folder: Path) -> list[str]:
    """The names of all files and links below a folder, as paths in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
