"""The masks of `--mask`: which file belongs to which picture, and its pixels."""

import os
from collections import defaultdict
from pathlib import Path

from i2i.config import nearest, path_of, real
from i2i.errors import ImageError, UsageError
from i2i.images import SUFFIXES, Pixels, read
from i2i.inference.blend import Blend, Mask
from i2i.inference.options import ALPHA, FolderOptions
from i2i.inference.values import checked_mask
from i2i.terminal import printable


class MaskFiles:
    """The files of masks that an option names: one picture for all, or a folder with one for each.

    Raises `UsageError` for a path that leads to nothing.
    """

    def __init__(self, mask: str | None) -> None:
        if mask == "":
            raise UsageError("mask: expected a picture, a folder of them, or alpha")
        self.path = None if mask is None or mask == ALPHA else path_of(mask)
        self._names: dict[Path, dict[str, list[Path]]] = {}
        if self.path is not None and not os.path.exists(self.path):  # noqa: PTH110 - pathlib's raises for odd names
            near = os.listdir(self.path.parent) if os.path.isdir(self.path.parent) else []  # noqa: PTH112, PTH208
            raise UsageError(f"mask {printable(self.path)}: no such file or folder.{nearest(self.path.name, near)}")
        self.is_folder = self.path is not None and self.path.is_dir()

    def of(self, name: Path) -> Path | None:
        """The mask of the picture at that path within the inputs.

        Raises `ImageError` if the folder of masks has none, or several.
        """
        if self.path is None or not self.is_folder:
            return self.path
        folder = self.path / name.parent
        found = self._in(folder).get(name.stem, [])
        if len(found) > 1:
            found = [path for path in found if path.name == name.name] or found
        if not found:
            raise ImageError(f"has no mask; expected {printable(folder / name.stem)}.png, or with another suffix")
        if len(found) > 1:
            raise ImageError(f"has several masks: {', '.join(printable(path) for path in found)}; leave one")
        return found[0]

    def holds(self, path: Path) -> bool:
        """Whether a file is one of these masks, and so no picture to translate."""
        if self.path is None:
            return False
        there = real(path)
        return there.is_relative_to(real(self.path)) if self.is_folder else there == real(self.path)

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._names:
            names: dict[str, list[Path]] = defaultdict(list)
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.suffix.lower() in SUFFIXES:
                    names[path.stem].append(path)
            self._names[folder] = names
        return self._names[folder]


def blend_of(options: FolderOptions, mask: Mask | None = None) -> Blend:
    """Returns the blend that `options` ask for, where `mask` is that of the picture, unless its alpha is."""
    return Blend(options.strength, ALPHA if options.mask == ALPHA else mask, options.keep)


def read_mask(path: Path) -> Pixels:
    """The mask in a file, (H, W). Raises `ImageError`, which names it."""
    try:
        return checked_mask(read(path))
    except ImageError as error:
        raise ImageError(f"its mask {printable(path)}: {error}") from None
