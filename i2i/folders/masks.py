"""The masks of `--mask`: which file belongs to which picture, and its pixels."""

import os
from pathlib import Path
from typing import Literal

from i2i.config import nearest, real
from i2i.data.walking import exists, inside, is_folder, prefix_of, suffix_of
from i2i.errors import ImageError, UsageError
from i2i.folders import stores
from i2i.images import SUFFIXES, Pixels, read
from i2i.inference.blend import Blend, Mask
from i2i.inference.options import ALPHA, FolderOptions
from i2i.inference.values import checked_mask
from i2i.terminal import printable
from i2i.urls import StorePath, as_path


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
            near = [path.name for path in inside(self.path.parent)] if is_folder(self.path.parent) else []
            raise UsageError(f"mask {printable(self.path)}: no such file or folder.{nearest(self.path.name, near)}")
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
        found = self._in(below).get(stem, ())
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
        for below, file in map(os.path.split, names):
            self._add(self._names.setdefault(below, {}), file)

    @staticmethod
    def _add(names: dict[str, tuple[str, ...]], file: str) -> None:
        ending = suffix_of(file)
        if ending.lower() in SUFFIXES:
            stem = file.removesuffix(ending)
            names[stem] = (*names.get(stem, ()), file)

    def _in(self, below: str) -> dict[str, tuple[str, ...]]:
        """The names of the masks in one folder, by their stem."""
        if isinstance(self.path, StorePath):
            return self._names.get(below, {})
        if below not in self._names:
            assert self.path is not None
            folder = self.path / below
            names: dict[str, tuple[str, ...]] = {}
            for file in sorted(path.name for path in inside(folder)) if is_folder(folder) else ():
                self._add(names, file)
            self._names[below] = names
        return self._names[below]


def blend_of(options: FolderOptions, mask: Mask | None = None) -> Blend:
    """Returns the blend that `options` ask for, where `mask` is that of the picture, unless its alpha is."""
    return Blend(options.strength, ALPHA if options.mask == ALPHA else mask, options.keep)


def read_mask(path: Path) -> Pixels:
    """The mask in a file, (H, W). Raises `ImageError`, which names it."""
    try:
        return checked_mask(read(path))
    except ImageError as error:
        raise ImageError(f"its mask {printable(path)}: {error}") from None
