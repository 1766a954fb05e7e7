"""The masks of `--mask`: which file belongs to which picture, and its pixels."""

from collections import defaultdict
from pathlib import Path
from typing import Literal

from i2i.config import nearest, real
from i2i.data.walking import exists, inside, is_folder
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

    def __init__(self, mask: Path | Literal["alpha"] | None) -> None:
        self.path = mask if isinstance(mask, Path) else None
        self._names: dict[Path, dict[str, list[Path]]] = {}
        if self.path is not None and not exists(self.path):
            near = [path.name for path in inside(self.path.parent)] if is_folder(self.path.parent) else []
            raise UsageError(f"mask {printable(self.path)}: no such file or folder.{nearest(self.path.name, near)}")
        self.folder = None if self.path is None or not is_folder(self.path) else real(self.path)

    def of(self, name: Path) -> Path | None:
        """The mask of the picture at that path within the inputs.

        Raises `ImageError` if the folder of masks has none, or several.
        """
        if self.path is None or self.folder is None:
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

    def is_for_all(self, path: Path) -> bool:
        """Whether a file is the one mask of all pictures, and so no picture to translate."""
        if self.path is None or self.folder is not None or path.name != self.path.name:
            return False
        return real(path) == real(self.path)

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._names:
            names: dict[str, list[Path]] = defaultdict(list)
            for path in inside(folder) if is_folder(folder) else []:
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
