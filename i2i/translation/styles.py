"""What `--style` names: a path, a model on the Hugging Face Hub, or a style by its name.

Nothing here needs torch, but for converting a checkpoint; the network is used only where the user asks for it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from i2i.config import nearest
from i2i.download import Progress
from i2i.errors import ModelError, OutputError, UsageError
from i2i.home import home
from i2i.translation import catalogue, published
from i2i.translation.model_info import (
    CONFIG_NAME,
    DIRECTIONS,
    WEIGHTS_NAME,
    ModelInfo,
    Statistics,
    read_info,
)

Source = Literal["run", "installed", "bundled", "catalogue"]
BUNDLED = Path(__file__).parent.parent / "styles"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MODEL_SUFFIXES = {".safetensors", ".pth", ".pt"}


@dataclass(frozen=True, kw_only=True)
class Style:
    """One thing that `--style` can name, in one direction.

    `size` is in bytes, of the model file or, before a download, of the checkpoint; `None` is not stated.
    `path` is `None` for what is not on this machine; it is then fetched from `url`. `problem` says why a
    model file cannot be used, else it is empty. An empty `licence` is not stated.
    """

    name: str
    source: Source
    direction: str = ""
    input_domain: str = ""
    output_domain: str = ""
    size: int | None = None
    licence: str = ""
    path: Path | None = None
    url: str = ""
    paper: str = ""
    problem: str = ""


def find(
    style: str | Path, direction: str | None = None, *, download: bool = False, progress: Progress | None = None
) -> Path:
    """Where the model that `style` names lies: a path for `pretrained.open_model`.

    `style` is `hub:owner/name` (or `hub:owner/name@revision`), or the name of a style: installed, bundled,
    published (`catalogue`), in this order; or a path: a run folder, a folder with `config.json` and
    `model.safetensors`, a model file, a checkpoint of the reference. A bare name that is both a style and a
    file or folder here means the style, so that a run or a data set never shadows one; `./name` means the path.
    A run folder with two directions needs `direction`. A `Path` is always taken for a path.

    Of the network: `hub:` is the user's asking for it; a published checkpoint is fetched only with `download`
    (`progress` is that of `i2i.download.download`). Raises `UsageError` for what does not exist or is not
    here yet, `ModelError` for what cannot be used.
    """
    if direction not in (None, *DIRECTIONS):
        raise UsageError(f"direction {direction!r}: expected {' or '.join(DIRECTIONS)}")
    if isinstance(style, str):
        if style.startswith("hub:"):
            from i2i.translation import hub

            repository, _, revision = style.removeprefix("hub:").partition("@")
            return hub.fetch(repository, revision or None)
        if (named := _named(style, direction, download, progress)) is not None:
            return named
    return _at(Path(style), direction)


def _named(style: str, direction: str | None, download: bool, progress: Progress | None) -> Path | None:
    if _NAME.fullmatch(style):
        for folder in (installed_folder(), BUNDLED):
            if (path := folder / f"{style}.safetensors").is_file():
                return path
    elif _exists(Path(style)):
        return None
    entry = catalogue.find(style)
    if entry is None:
        return None
    if direction not in (None, entry.direction):
        arrow = f"{entry.direction} ({entry.input_domain} → {entry.output_domain})"
        raise UsageError(f"style {style!r} translates {arrow}, not {direction}")
    return published.obtain(entry, fetch=download, progress=progress)


def _at(path: Path, direction: str | None) -> Path:
    if not _exists(path):
        raise _unknown(path)
    if not path.is_dir() or _is_pretrained(path):
        return path
    files = {name: path / f"{name}.safetensors" for name in DIRECTIONS}
    there = {name: file for name, file in files.items() if file.exists()}
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


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name, a zero byte in it, a folder that may not be read
        return False


def _is_pretrained(folder: Path) -> bool:
    return (folder / CONFIG_NAME).exists() and (folder / WEIGHTS_NAME).exists()


def _checkpoints_in(folder: Path) -> str:
    checkpoints = sorted(folder.glob("*.pth"))[:3]
    return f"; of its checkpoints, give one: {', '.join(map(str, checkpoints))}" if checkpoints else ""


def _arrow(info: ModelInfo) -> str:
    return f"{info.direction} ({info.input_domain} → {info.output_domain})"


def _unknown(path: Path) -> UsageError:
    style = str(path)
    if _NAME.fullmatch(style) and path.suffix not in _MODEL_SUFFIXES:
        hint = f"{_suggestions(style)} --list-styles shows all that have a name; hub:owner/name is fetched"
        return UsageError(f"style {style!r}: no such style, and no such run folder or model file.{hint}")
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        beside = []
    shown = style if len(style) < 300 else f"{style[:300]}…"
    return UsageError(f"style {shown!r}: no such run folder or model file.{nearest(path.name, beside)}")


def _suggestions(style: str) -> str:
    known = [*_files(installed_folder()), *_files(BUNDLED), *(entry.style for entry in catalogue.ENTRIES)]
    within = [name for name in known if style.lower() in name.lower()]
    if within:
        return f" Did you mean {' or '.join(map(repr, within[:3]))}?"
    return nearest(style, known + [path.name for path in Path().iterdir()])


def installed_folder() -> Path:
    """Where styles that the user has installed are kept."""
    return home() / "styles"


def _files(folder: Path) -> dict[str, Path]:
    try:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors")) if _NAME.fullmatch(path.stem)}
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

    What `find` takes as a path is taken here; a checkpoint of the reference is converted, and the options are
    those of `pretrained.open_model`. Raises `UsageError` for a name that is taken (unless `overwrite`) or out
    of letters, digits, `-`, `_`, `.`; `ModelError` for a model that cannot be used.
    """
    if not _NAME.fullmatch(name) or Path(name).suffix in _MODEL_SUFFIXES:
        raise UsageError(f"{name!r} cannot be the name of a style: expected letters, digits, '-', '_', '.'")
    target = installed_folder() / f"{name}.safetensors"
    if target.exists() and not overwrite:
        raise UsageError(f"a style {name!r} is installed already ({target}); --overwrite replaces it")
    source = _at(Path(file), direction)
    from i2i.translation import model_file, pretrained

    network, info = pretrained.open_model(source, direction=direction, dropout=dropout, statistics=statistics)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent}: cannot be made: {error.strerror}") from None
    model_file.save(target, network, info)
    return target


def uninstall(name: str) -> None:
    """Remove an installed style. Raises `UsageError` if there is none of that name."""
    known = _files(installed_folder())
    if name not in known:
        raise UsageError(f"no style {name!r} is installed.{nearest(name, known)}")
    known[name].unlink(missing_ok=True)


def list_styles(runs: Sequence[str | Path] | None = None) -> list[Style]:
    """Everything that `--style` can name: runs, installed, bundled and published styles, in this order.

    `runs` are run folders, by default those in `runs/` of the current folder; a run counts once it has a model
    file. Reads the headers of model files, never their weights, and never the network.
    """
    folders = sorted(Path("runs").glob("*")) if runs is None else [Path(run) for run in runs]
    files = [(_as_style(folder), folder / f"{name}.safetensors") for folder in folders for name in DIRECTIONS]
    found = [_style(name, "run", file) for name, file in files if file.is_file()]
    found += [_style(name, "installed", file) for name, file in _files(installed_folder()).items()]
    found += [_style(name, "bundled", file) for name, file in _files(BUNDLED).items()]
    return found + [_published(entry) for entry in catalogue.ENTRIES]


def _as_style(path: Path) -> str:
    """`path` so that `find` takes it for one."""
    return str(path) if len(path.parts) > 1 else f"./{path}"


def _style(name: str, source: Source, file: Path) -> Style:
    try:
        info = read_info(file)
        size = file.stat().st_size
    except (ModelError, OSError) as error:
        return Style(name=name, source=source, path=file, problem=str(error))
    return Style(
        name=name,
        source=source,
        direction=info.direction,
        input_domain=info.input_domain,
        output_domain=info.output_domain,
        size=size,
        licence=info.licence,
        path=file,
    )


def _published(entry: catalogue.Entry) -> Style:
    path = published.model_path(entry)
    here = path.is_file()
    return Style(
        name=entry.style,
        source="catalogue",
        direction=entry.direction,
        input_domain=entry.input_domain,
        output_domain=entry.output_domain,
        size=path.stat().st_size if here else entry.size,
        licence=entry.licence,
        path=path if here else None,
        url=entry.url,
        paper=entry.paper,
    )
