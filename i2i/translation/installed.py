"""Styles that the user keeps by name: model files in `$I2I_HOME/styles`."""

import re
from pathlib import Path

from i2i.config import nearest
from i2i.errors import OutputError, UsageError
from i2i.home import home
from i2i.translation.model_info import Statistics
from i2i.translation.style_path import model_at

STYLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL_SUFFIXES = {".safetensors", ".pth", ".pt"}


def installed_folder() -> Path:
    """Where styles that the user has installed are kept."""
    return home() / "styles"


def model_files(folder: Path) -> dict[str, Path]:
    """The model files in a folder by the name of their style."""
    try:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors")) if STYLE_NAME.fullmatch(path.stem)}
    except OSError:
        return {}


def install(
    file: str | Path,
    name: str,
    *,
    direction: str | None = None,
    dropout: bool | None = None,
    statistics: Statistics | None = None,
    overwrite: bool = False,
) -> Path:
    """Keep the model at a path under `name`, so that `--style name` finds it; the path of the copy.

    What `styles.find` takes as a path is taken here; a checkpoint of the reference is converted, and the options
    are those of `pretrained.open_model`. Raises `UsageError` for a name that is taken (unless `overwrite`) or has
    more than letters, digits, `-`, `_`, `.`; `ModelError` for a model that cannot be used, `OutputError` if it
    cannot be kept.
    """
    if not STYLE_NAME.fullmatch(name) or Path(name).suffix in MODEL_SUFFIXES:
        raise UsageError(f"{name!r} cannot be the name of a style: expected letters, digits, '-', '_', '.'")
    target = installed_folder() / f"{name}.safetensors"
    if target.exists() and not overwrite:
        raise UsageError(f"a style {name!r} is installed already ({target}); --overwrite replaces it")
    source = model_at(Path(file), direction)
    from i2i.translation import model_file, pretrained

    network, info = pretrained.open_model(source, direction=direction, dropout=dropout, statistics=statistics)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}") from None
    model_file.save(target, network, info, replace=overwrite)
    return target


def uninstall(name: str) -> None:
    """Remove an installed style. Raises `UsageError` if there is none of that name, `OutputError` if it stays."""
    known = model_files(installed_folder())
    if name not in known:
        raise UsageError(f"no style {name!r} is installed.{nearest(name, known)}")
    try:
        known[name].unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{known[name]}: cannot be removed: {error.strerror}") from None
