"""Paths to models: run folders, folders with `config.json`, model files, checkpoints of the reference."""

from pathlib import Path

from i2i.config import nearest
from i2i.errors import ModelError, UsageError
from i2i.translation.model_info import CONFIG_NAME, DIRECTIONS, WEIGHTS_NAME, ModelInfo, read_info


def model_at(path: Path, direction: str | None = None) -> Path:
    """The model in a run folder, in the direction that is asked for; any other path as it is.

    Raises `UsageError` if there is no such path or direction, `ModelError` for a folder without a model.
    """
    if not exists(path):
        shown = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}…"
        hint = nearest(path.name, names_in(path.parent))
        raise UsageError(f"style {shown!r}: no such run folder or model file.{hint}")
    if not path.is_dir() or _is_pretrained(path):
        return path
    files = {name: path / f"{name}.safetensors" for name in DIRECTIONS}
    there = {name: file for name, file in files.items() if exists(file)}
    if not there:
        raise ModelError(
            f"{path}: no model file ({' or '.join(f.name for f in files.values())}) is in this folder"
            + _checkpoints_in(path)
        )
    if direction is None and len(there) > 1:
        which = "; ".join(_arrow(read_info(file)) for file in there.values())
        raise UsageError(f"{path} translates in two directions; choose one with direction: {which}")
    if direction is not None and direction not in there:
        raise UsageError(f"{path} has no {direction}; it has {', '.join(there)}")
    return there[direction or next(iter(there))]


def exists(path: Path) -> bool:
    """Whether something is there; a path that cannot be one is not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a zero byte in it, a folder that may not be read
        return False


def names_in(folder: Path) -> list[str]:
    """The names in a folder, none if it cannot be read."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        return []


def _is_pretrained(folder: Path) -> bool:
    return exists(folder / CONFIG_NAME) and exists(folder / WEIGHTS_NAME)


def _checkpoints_in(folder: Path) -> str:
    checkpoints = sorted(folder.glob("*.pth"))[:3]
    return f"; of its checkpoints, give one: {', '.join(map(str, checkpoints))}" if checkpoints else ""


def _arrow(info: ModelInfo) -> str:
    return f"{info.direction} ({info.input_domain} → {info.output_domain})"
