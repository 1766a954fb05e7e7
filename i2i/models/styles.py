"""Styles: everything that `--style` can name, and the list of them.

That is a path (run folder, folder with `config.json`, model file, checkpoint of the reference), a model on the Hugging
Face Hub, or a name: of the user's own styles in `$I2I_HOME/styles`, the bundled ones, and the published checkpoints.

Nothing here needs torch, but for converting a checkpoint. The network is used only where the user asks for it.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from i2i.download import Progress
from i2i.errors import ModelError, UsageError, as_typed, check_word, nearest
from i2i.files import home, is_reserved, make_folders
from i2i.models import published
from i2i.models.info import CONFIG_NAME, DIRECTIONS, WEIGHTS_NAME, Direction, read_info
from i2i.terminal import printable
from i2i.urls import path_of

STYLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL_SUFFIXES = {".safetensors", ".pth", ".pt"}
BUNDLED = Path(__file__).parent.parent / "styles"
exists, is_file = os.path.exists, os.path.isfile
"""Unlike pathlib's, they never raise: a path with a zero byte, too long or in a closed folder is not there."""


def model_at(path: Path, direction: str | None = None) -> Path:
    """Returns the model in a run folder, in the direction that is asked for; any other path as it is.

    Raises `UsageError` if there is no such path or direction, `ModelError` for a folder without a model.
    """
    if not exists(path):
        shown = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}…"
        hint = nearest(path.name, names_in(path.parent))
        raise UsageError(f"style {shown!r}: no such run folder or model file.{hint}")
    if not path.is_dir() or all(exists(path / name) for name in (CONFIG_NAME, WEIGHTS_NAME)):
        return path
    files = {name: path / f"{name}.safetensors" for name in DIRECTIONS}
    there = {name: file for name, file in files.items() if exists(file)}
    if not there:
        checkpoints = ", ".join(map(str, sorted(path.glob("*.pth"))[:3]))
        hint = f"; of its checkpoints, give one: {checkpoints}" if checkpoints else ""
        names = " or ".join(file.name for file in files.values())
        raise ModelError(f"{path}: no model file ({names}) is in this folder{hint}")
    if direction is None and len(there) > 1:
        which = " or ".join(read_info(file).arrow for file in there.values())
        raise UsageError(f"{path} translates in two directions; choose one, {as_typed('direction')} {which}")
    if direction is not None and direction not in there:
        raise UsageError(f"{path} has no {direction}; it has {', '.join(there)}")
    return there[direction or next(iter(there))]


def names_in(folder: Path) -> list[str]:
    """Returns the names in a folder, none if it cannot be read."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        return []


def installed_folder() -> Path:
    """Returns the folder of the styles that the user has installed."""
    return home() / "styles"


def model_files(folder: Path) -> dict[str, Path]:
    """Returns the model files in a folder by the name of their style."""
    try:
        return {path.stem: path for path in sorted(folder.glob("*.safetensors")) if STYLE_NAME.fullmatch(path.stem)}
    except OSError:
        return {}


def install(
    file: str | Path,
    name: str,
    *,
    direction: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Keeps a copy of the model at a path under `name`, so that `--style name` finds it; returns the path of the copy.

    `file` is a path as for `styles.find`. A checkpoint is converted.

    Raises `UsageError` for a name that is taken (unless `overwrite`) or has more than letters, digits, `-`, `_`, `.`;
    `ModelError` for a model that cannot be used, `OutputError` if it cannot be kept.
    """
    if not STYLE_NAME.fullmatch(name) or Path(name).suffix in MODEL_SUFFIXES:
        raise UsageError(f"{name!r} cannot be the name of a style: expected letters, digits, '-', '_', '.'")
    if is_reserved(name):
        raise UsageError(f"{name!r} cannot be the name of a style: Windows reserves it; choose another")
    target = installed_folder() / f"{name}.safetensors"
    if target.exists() and not overwrite:
        raise UsageError(f"a style {name!r} is installed already ({target}); {as_typed('overwrite', True)} replaces it")
    source = model_at(Path(file), direction)
    from i2i.models import model_file

    network, info = model_file.open_model(source, direction=direction)
    make_folders(target.parent)
    model_file.save(target, network, info, replace=overwrite)
    return target


Source = Literal["run", "installed", "bundled", "catalogue"]


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
    style: str | os.PathLike[str],
    direction: str | None = None,
    *,
    download: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Returns the path of the model that `style` names, for `model_file.open_model`.

    `style` is `hub:owner/name` (or `hub:owner/name@revision`), or the name of a style: installed, bundled,
    published (`catalogue`), in this order; or a path: a run folder, a folder with `config.json` and
    `model.safetensors`, a model file, a checkpoint of the reference. A bare name that is both a style and a
    file or folder here means the style, so that a run or a data set never shadows one; `./name` means the path.
    A run folder with two directions needs `direction`. A `Path` is always taken for a path.

    `hub:` uses the network; a published checkpoint is fetched only with `download` (`progress` is that of
    `i2i.download.download`). Raises `UsageError` for what does not exist or is not
    here yet, `ModelError` for what cannot be used.
    """
    check_word("direction", direction, Direction | None)
    if not isinstance(style, str | os.PathLike):
        raise UsageError(f"style = {style!r}: expected a name, a path, or hub:owner/name")
    if isinstance(style, str):
        if style.startswith("hub:"):
            repository, _, revision = style.removeprefix("hub:").partition("@")
            return published.from_hub(repository, revision or None)
        try:
            named = _named(style, direction, download, progress)
        except UsageError as error:
            meant = f"; ./{style} means what lies here under that name" if exists(Path(style)) else ""
            raise UsageError(f"{error}{meant}") from None
        if named is not None:
            return named
        if is_name(style) and not exists(Path(style)):
            hint = f"{_suggestions(style)} {as_typed('list_styles')} lists all names; hub:owner/name fetches a model"
            raise UsageError(f"style {style!r}: no such style, and no such run folder or model file.{hint}")
    return model_at(path_of(style) if isinstance(style, str) else Path(style), direction)


def check(style: str | os.PathLike[str], direction: str | None = None, *, download: bool = False) -> None:
    """Raises as `find`, and fetches nothing: what that would fetch is looked for when it is loaded.

    Commands call it before they look at inputs and outputs, so that a mistake in a name is the first thing that they
    say.
    """
    fetched = isinstance(style, str) and (style.startswith("hub:") or (download and published.find(style) is not None))
    if not fetched:
        find(style, direction)


def is_name(style: str) -> bool:
    """Returns whether this may be the name of a style, and not only a path."""
    return bool(STYLE_NAME.fullmatch(style)) and Path(style).suffix not in MODEL_SUFFIXES


def _named(style: str, direction: str | None, download: bool, progress: Progress | None) -> Path | None:
    if STYLE_NAME.fullmatch(style):
        for folder in (installed_folder(), BUNDLED):
            if is_file(path := folder / f"{style}.safetensors"):
                return path
    elif exists(Path(style)):
        return None
    entry = published.find(style)
    if entry is None:
        return None
    if direction not in (None, entry.direction):
        raise UsageError(f"style {style!r} translates {entry.arrow}, not {direction}; leave the direction out")
    return published.obtain(entry, fetch=download, progress=progress)


def _suggestions(style: str) -> str:
    known = [*model_files(installed_folder()), *model_files(BUNDLED), *(entry.style for entry in published.ENTRIES)]
    within = [name for name in known if len(style) > 2 and style.lower() in name.lower()]
    if within:
        return f" Did you mean {' or '.join(map(repr, within[:3]))}?"
    return nearest(style, known + names_in(Path()))


def list_styles(runs: Sequence[str | Path] | None = None) -> list[Style]:
    """Lists everything that `--style` can name: runs, then installed, bundled and published styles.

    `runs` are run folders; by default those in `runs/` of the current folder. Only runs with a model file are listed.
    This function reads only the headers of model files, and does not use the internet.
    """
    folders = sorted(Path("runs").glob("*")) if runs is None else [Path(run) for run in runs]
    files = [(folder, folder / f"{name}.safetensors") for folder in folders for name in DIRECTIONS]
    # `find` takes the name of a run for a path, and not for that of a style
    found = [
        style_at(str(run) if len(run.parts) > 1 else f"./{run}", "run", file) for run, file in files if is_file(file)
    ]
    found += [style_at(name, "installed", file) for name, file in model_files(installed_folder()).items()]
    found += [style_at(name, "bundled", file) for name, file in model_files(BUNDLED).items()]
    return found + [_published(entry) for entry in published.ENTRIES]


def style_at(name: str, source: Source, file: Path) -> Style:
    """Returns the style whose model is at `file`, by its header; `problem` says why it cannot be used, if so."""
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


def _published(entry: published.Entry) -> Style:
    path = entry.model if is_file(entry.model) else None
    return Style(
        name=entry.style,
        source="catalogue",
        direction=entry.direction,
        input_domain=entry.input_domain,
        output_domain=entry.output_domain,
        size=entry.size if path is None else path.stat().st_size,
        path=path,
        url=entry.url,
        paper=entry.paper,
    )


def table(styles: Sequence[Style], cards: bool = False) -> str:
    """A group of lines for each source, without control characters; with `cards`, what is said of each under it."""
    titles: dict[Source, str] = {
        "run": "runs of your own",
        "installed": f"installed in {installed_folder()}",
        "bundled": f"bundled, in {BUNDLED}",
        "catalogue": "published by the authors; --download fetches what is (not here) when it is used",
    }
    rows = [[printable(text) for text in _row(style)] for style in styles]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    lines = []
    for source, title in titles.items():
        group = [(style, row) for style, row in zip(styles, rows, strict=True) if style.source == source]
        lines += [printable(title)] if group else []
        for style, row in group:
            lines.append("  " + "  ".join(map(str.ljust, row, widths)).rstrip())
            lines += [f"      {printable(fact)}" for fact in (_card(style) if cards else ())]
        lines += [""] if group else []
    lines.append("--style also takes a run folder, a model file, a checkpoint, and hub:owner/name")
    return "\n".join(lines)


def as_json(styles: Sequence[Style]) -> str:
    """A JSON list with an object for each style, ASCII alone, so that any path can be in it."""
    records = [asdict(style) | {"path": None if style.path is None else str(style.path)} for style in styles]
    return json.dumps(records, indent=2)


def _row(style: Style) -> list[str]:
    if style.problem:
        return [style.name, "", f"cannot be used: {style.problem}", "", ""]
    size = "" if style.size is None else f"{style.size / 1e6:.1f} MB"
    size = size if style.path else f"({size or 'not here'})"
    arrow = f"{style.input_domain} → {style.output_domain}"
    return [style.name, style.direction, arrow, size, style.licence or "not stated"]


def _card(style: Style) -> list[str]:
    facts = {"paper": style.paper, "from": style.url, "file": style.path}
    return [*style.card, *(f"{name}: {fact}" for name, fact in facts.items() if fact)]
