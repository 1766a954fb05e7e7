"""What `--style` names: a path, a model on the Hugging Face Hub, or a style by its name.

Nothing here needs torch, but for converting a checkpoint; the network is used only where the user asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from i2i.config import nearest, path_of
from i2i.download import Progress
from i2i.errors import ModelError, UsageError
from i2i.translation import catalogue, published
from i2i.translation.installed import MODEL_SUFFIXES, STYLE_NAME, install, installed_folder, model_files, uninstall
from i2i.translation.model_info import DIRECTIONS, read_info
from i2i.translation.style_path import exists, model_at, names_in

__all__ = ["Style", "find", "install", "installed_folder", "list_styles", "uninstall"]

Source = Literal["run", "installed", "bundled", "catalogue"]
BUNDLED = Path(__file__).parent.parent / "styles"


@dataclass(frozen=True, kw_only=True)
class Style:
    """One thing that `--style` can name, in one direction.

    `size` is in bytes, of the model file or, before a download, of the checkpoint; `None` is not stated.
    `path` is `None` for what is not on this machine; it is then fetched from `url`. `problem` says why a
    model file cannot be used, else it is empty. An empty `licence` is not stated. `card` is what its makers say
    of it, line by line.
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
    card: tuple[str, ...] = ()


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
        try:
            named = _named(style, direction, download, progress)
        except UsageError as error:
            meant = f"; ./{style} means what lies here under that name" if exists(Path(style)) else ""
            raise UsageError(f"{error}{meant}") from None
        if named is not None:
            return named
        if _is_name(style) and not exists(Path(style)):
            hint = f"{_suggestions(style)} --list-styles shows all that have a name; hub:owner/name is fetched"
            raise UsageError(f"style {style!r}: no such style, and no such run folder or model file.{hint}")
    return model_at(path_of(style), direction)


def _is_file(path: Path) -> bool:
    """Whether a file is there; what lies in a folder that may not be read is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_name(style: str) -> bool:
    return bool(STYLE_NAME.fullmatch(style)) and Path(style).suffix not in MODEL_SUFFIXES


def _named(style: str, direction: str | None, download: bool, progress: Progress | None) -> Path | None:
    if STYLE_NAME.fullmatch(style):
        for folder in (installed_folder(), BUNDLED):
            if _is_file(path := folder / f"{style}.safetensors"):
                return path
    elif exists(Path(style)):
        return None
    entry = catalogue.find(style)
    if entry is None:
        return None
    if direction not in (None, entry.direction):
        arrow = f"{entry.direction} ({entry.input_domain} → {entry.output_domain})"
        raise UsageError(f"style {style!r} translates {arrow}, not {direction}")
    return published.obtain(entry, fetch=download, progress=progress)


def _suggestions(style: str) -> str:
    known = [*model_files(installed_folder()), *model_files(BUNDLED), *(entry.style for entry in catalogue.ENTRIES)]
    within = [name for name in known if len(style) > 2 and style.lower() in name.lower()]
    if within:
        return f" Did you mean {' or '.join(map(repr, within[:3]))}?"
    return nearest(style, known + names_in(Path()))


def list_styles(runs: Sequence[str | Path] | None = None) -> list[Style]:
    """Everything that `--style` can name: runs, installed, bundled and published styles, in this order.

    `runs` are run folders, by default those in `runs/` of the current folder; a run counts once it has a model
    file. Reads the headers of model files, never their weights, and never the network.
    """
    folders = sorted(Path("runs").glob("*")) if runs is None else [Path(run) for run in runs]
    files = [(_as_style(folder), folder / f"{name}.safetensors") for folder in folders for name in DIRECTIONS]
    found = [_style(name, "run", file) for name, file in files if _is_file(file)]
    found += [_style(name, "installed", file) for name, file in model_files(installed_folder()).items()]
    found += [_style(name, "bundled", file) for name, file in model_files(BUNDLED).items()]
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
        card=info.card,
    )


def _published(entry: catalogue.Entry) -> Style:
    path = published.model_path(entry)
    here = _is_file(path)
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
