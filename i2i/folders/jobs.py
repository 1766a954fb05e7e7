"""The jobs of a folder's translation: pictures and films among the inputs, and the mask of each.

They are found from names alone, but for GIF and WebP files, which may be films.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from i2i.data.folders import near_to
from i2i.data.walking import exists, inside, is_folder, prefix_of, suffix_of, walk
from i2i.errors import ImageError, InputError, UsageError
from i2i.films import ANIMATED, NEEDS_PYAV, VIDEO, has_pyav, is_animated
from i2i.films import written_suffix as written_film_suffix
from i2i.folders import stores
from i2i.images import SUFFIXES, UNREAD, Pixels, read, written_suffix
from i2i.inference.blend import Blend, Mask, checked_mask
from i2i.inference.options import ALPHA, FolderOptions
from i2i.terminal import printable
from i2i.urls import StorePath, as_path, is_url, place_of, real

STDIN = "-"
_HEAD = 32
"""The bytes of a WebP file that say whether it is a film."""


@dataclass(frozen=True, slots=True)
class SourceAndTarget:
    """Two paths, of this machine or in a store. They are kept as texts: there may be a million."""

    source_text: str
    target_text: str

    @property
    def source(self) -> Path:
        return as_path(self.source_text)

    @property
    def target(self) -> Path:
        return as_path(self.target_text)


@dataclass(frozen=True, slots=True)
class Job(SourceAndTarget):
    """One picture or `film` to translate, and where the result goes; `refused` says why it cannot be read, if so.

    `name` is the path within the output folder that it would have had alone, the same on every machine. `mask` is the
    file of its mask, if it has one.
    """

    name_text: str
    refused: str = ""
    film: bool = False
    mask_text: str = ""

    @property
    def name(self) -> Path:
        return Path(self.name_text)

    @property
    def mask(self) -> Path | None:
        return as_path(self.mask_text) if self.mask_text else None


def blend_of(options: FolderOptions, mask: Mask | None = None) -> Blend:
    """Returns the blend that `options` ask for, where `mask` is that of the picture, unless its alpha is."""
    return Blend(options.strength, ALPHA if options.mask == ALPHA else mask, options.keep)


def read_mask(path: Path) -> Pixels:
    """The mask in a file, (H, W). Raises `ImageError`, which names it."""
    try:
        return checked_mask(read(path))
    except ImageError as error:
        raise ImageError(f"its mask {printable(path)}: {error}") from None


class MaskFiles:
    """The files of masks that an option names: one picture for all, or a folder with one for each.

    Raises `UsageError` for a path that leads to nothing.
    """

    def __init__(self, mask: Path | Literal["alpha"] | None) -> None:
        self.path = None if mask == ALPHA else mask
        self.folder: Path | None = None
        self._names: dict[str, dict[str, tuple[str, ...]]] = {}
        if isinstance(self.path, StorePath):
            self._list(self.path)
        elif self.path is not None and not exists(self.path):
            raise UsageError(f"mask {printable(self.path)}: no such file or folder.{near_to(self.path)}")
        elif self.path is not None and is_folder(self.path):
            self.folder = real(self.path)

    def of(self, name: str) -> str:
        """The mask of the picture at that path within the inputs; empty if none is needed.

        Raises `ImageError` if the folder of masks has none, or several.
        """
        if self.path is None or self.folder is None:
            return str(self.path or "")
        below, file = os.path.split(name)
        stem = file.removesuffix(suffix_of(file))
        folder = self.path / below
        if below not in self._names and not isinstance(folder, StorePath):
            self._add(below, sorted(path.name for path in inside(folder)) if is_folder(folder) else [])
        found = self._names.get(below, {}).get(stem, ())
        if len(found) > 1:
            found = tuple(mask for mask in found if mask == file) or found
        if not found:
            raise ImageError(f"has no mask; expected {printable(folder / stem)}.png, or with another suffix")
        if len(found) > 1:
            raise ImageError(f"has several masks: {', '.join(printable(folder / mask) for mask in found)}; leave one")
        return prefix_of(folder) + found[0]

    def is_for_all(self, path: str) -> bool:
        """Whether a file is the one mask of all pictures, and so no picture to translate."""
        if self.path is None or self.folder is not None or not path.endswith(self.path.name):
            return False
        return real(as_path(path)) == real(self.path)

    def _list(self, place: StorePath) -> None:
        """Finds all masks of a store by one listing."""
        names = [name for name in stores.files(place) if not name or stores.is_fit(name)]
        if not names:
            raise UsageError(f"mask {printable(place)}: no such file or folder in the store")
        if names == [""]:
            return
        self.folder = place
        for name in names:
            below, file = os.path.split(name)
            self._add(below, [file])

    def _add(self, below: str, files: Sequence[str]) -> None:
        """Notes the masks among the files of one folder, by their stem."""
        names = self._names.setdefault(below, {})
        for file in files:
            ending = suffix_of(file)
            if ending.lower() in SUFFIXES:
                stem = file.removesuffix(ending)
                names[stem] = (*names.get(stem, ()), file)


class Found:
    """Turns inputs into jobs whose results go to `out`. A picture that is named twice is one job.

    `folders` are the inputs that are folders, `special` the jobs of pipes, sockets and devices. `films` counts the
    films that need PyAV, `other` all files that are neither.
    """

    def __init__(self, options: FolderOptions, out: Path, masks: MaskFiles) -> None:
        self.options, self.out, self.masks = options, out, masks
        self.other = self.films = 0
        self.folders: set[Path] = set()
        self.special: list[Job] = []
        self._moving: set[Path] = set()
        self._jobs: dict[str | tuple[str, Path], Job] = {}
        self._before = prefix_of(out)

    def jobs(self) -> list[Job]:
        return list(self._jobs.values())

    def notices(self) -> tuple[str, ...]:
        return (f"{self.films} films were left alone: {NEEDS_PYAV}",) if self.films else ()

    def add(self, source: Path) -> None:
        if str(source) != STDIN:
            self._input(source, None)
            return
        for name in _standard_input():
            path = place_of(name)
            # a relative name keeps its folders, so that files of one name from several folders can be told apart
            whole = isinstance(path, StorePath) or path.is_absolute() or ".." in path.parts
            self._input(path, None if whole else path)

    def _input(self, path: Path, name: Path | None) -> None:
        if isinstance(path, StorePath):
            self._store(path)
            return
        kind = _kind(path)
        if stat.S_ISDIR(kind):
            self.folders.add(path)
            self._folder(path, name or Path())
        else:
            self._add(str(path), str(name or path.name), special=kind != 0 and not stat.S_ISREG(kind))

    def _store(self, place: StorePath) -> None:
        """Adds the file of a store at a place, or those below it; names that begin with a dot are hidden."""
        others = tuple(map(prefix_of, self._others(place)))
        names = [name for name in stores.files(place, recursive=self.options.recursive) if not stores.is_hidden(name)]
        if not names:
            raise InputError(f"{printable(place)}: no such file or folder in the store")
        if names == [""]:
            self._moving |= moving([place])
            self._add(str(place), place.name)
            return
        self.folders.add(place)
        before = prefix_of(place)
        found = [name for name in names if not (before + name).startswith(others)]
        self._moving |= moving([place / stores.fit(n) for n in found if suffix_of(n).lower() in ANIMATED])
        for name in found:
            path = before + stores.fit(name)
            if not self.masks.is_for_all(path):
                reason = "" if stores.is_fit(name) else f"its name {name!a} {stores.UNFIT}"
                self._file(path, stores.fit(name), reason)

    def _folder(self, folder: Path, below: Path) -> None:
        others = self._others(folder)
        passed: dict[str, bool] = {}
        odd: set[str] = set()

        def refused(error: OSError) -> None:
            path = Path(error.filename)
            self._add(str(path), str(below / path.relative_to(folder)), f"cannot be listed: {error.strerror}")

        recursive, follow_links = self.options.recursive, self.options.follow_links
        start, begin = len(prefix_of(folder)), prefix_of(below)
        for path in walk(folder, refused, recursive=recursive, follow_links=follow_links, irregular=odd.add):
            parent = os.path.dirname(path)  # noqa: PTH120
            if parent not in passed:
                passed[parent] = any(real(Path(parent)).is_relative_to(other) for other in others)
            if not (passed[parent] or self.masks.is_for_all(path)):
                self._file(path, begin + path[start:], special=path in odd)

    def _file(self, path: str, name: str, refused: str = "", special: bool = False) -> None:
        """Adds a file of a folder, if it is a picture or a film."""
        ending = suffix_of(path).lower()
        if ending in VIDEO and not has_pyav():
            self.films += 1
            self.other += 1
        elif ending in SUFFIXES or ending in UNREAD or ending in VIDEO:
            self._add(path, name, refused, special and _is_special(path))
        else:
            self.other += 1

    def _others(self, folder: Path) -> list[Path]:
        """Folders whose files are no inputs, whatever links lead there: that of the masks, and that of the results,
        unless the input is a part of it."""
        here, masks = real(folder), self.masks.folder
        if masks is not None and here.is_relative_to(masks):
            raise UsageError(f"{printable(folder)} holds the masks, and no pictures to translate; choose another input")
        others = [] if masks is None else [masks]
        if not self.options.in_place:
            target = real(self.out)
            if here == target:
                raise UsageError(f"{printable(self.out)} is the input folder; choose another output folder")
            if not here.is_relative_to(target):
                others.append(target)
        return others

    def _add(self, source: str, name: str, refused: str = "", special: bool = False) -> None:
        before = suffix_of(name)
        film = not refused and self._is_film(source, before.lower())
        if film:
            after = written_film_suffix(before)
        else:
            after = f".{self.options.format}" if self.options.format else written_suffix(before)
        if not refused and after.lower() != before.lower():
            name = name.removesuffix(before) + after
        job = Job(source, self._before + name, name, refused, film)
        if special:
            self.special.append(job)
            return
        first = self._jobs.setdefault(job.target_text, job)
        if first is not job and first.source.absolute() != job.source.absolute():
            self._jobs.setdefault((job.target_text, job.source.absolute()), job)

    def _is_film(self, source: str, suffix: str) -> bool:
        if suffix in VIDEO:
            return True
        # with a format of pictures, or with another one, the first frame is meant
        moves = suffix in ANIMATED and self.options.format in (None, suffix.removeprefix("."))
        if is_url(source):
            return moves and as_path(source) in self._moving
        return moves and is_animated(Path(source))


def moving(places: Sequence[StorePath]) -> set[StorePath]:
    """Those of some GIF and WebP files of a store that have several frames. A file that cannot be read has none."""
    candidates = [place for place in places if place.suffix.lower() in ANIMATED]
    found: set[StorePath] = set()
    if not candidates:
        return found
    with TemporaryDirectory(prefix="i2i-") as folder:

        def look(number: int, place: StorePath) -> None:
            path = Path(folder, str(number))
            with suppress(ImageError):  # it is reported when its turn comes
                if place.suffix.lower() == ".webp":
                    path.write_bytes(stores.get_bytes(place, most=_HEAD, of_one=True))
                else:
                    stores.fetch(place, path)
                if is_animated(path):
                    found.add(place)
            path.unlink(missing_ok=True)

        stores.each(look, range(len(candidates)), candidates)
    return found


def _kind(path: Path) -> int:
    """The `st_mode` of an input through its links; 0 where they lead to nothing that can be looked at.

    Raises `InputError` if nothing is there.
    """
    with suppress(OSError):
        return path.stat().st_mode
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{printable(path)}: no such file or folder.{near_to(path)}") from None
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be opened: {error.strerror}") from None
    return 0


def _standard_input() -> Iterator[str]:
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        return map(os.fsdecode, data.removesuffix(b"\0").split(b"\0"))
    names = (os.fsdecode(name) for name in data.split(b"\n") if name.strip())
    # a list that was written on Windows
    return (name[:-1] if name.endswith("\r") and not os.path.lexists(name) else name for name in names)


def _is_special(path: str) -> bool:
    """A FIFO, a socket, a device: opening it could wait for ever or do something."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return False  # reading it will say why
    return not stat.S_ISREG(mode)
