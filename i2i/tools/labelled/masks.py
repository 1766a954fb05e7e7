"""Masks: pictures in one folder, and masks with the same stems in a folder beside it, copied byte for byte."""

from collections.abc import Sequence
from pathlib import Path

from i2i import images
from i2i.errors import ImageError
from i2i.tools.labelled.layout import Item, Layout, by_stem, exchanged, is_picture, stem

PICTURES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "segmentationclass", "gt", "ground_truth")


class Masks(Layout):
    name = "masks"

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        super().__init__(folder)
        found = [path for path in files if is_picture(path)]
        names = {part for path in found for part in path.parts[:-1] if part.lower() in MASKS}
        masks = [path for path in found if _is_mask(path)]
        pictures = [path for path in found if path not in set(masks) and exchanged(path, PICTURES, "")]
        if not masks or not pictures:
            return
        of_stem = by_stem(masks, self.problems)
        by_stem(pictures, self.problems)
        used: set[Path] = set()
        for picture in pictures:
            places = [place for name in sorted(names) if (place := exchanged(picture, PICTURES, name))]
            own = tuple(of_stem[stem(place)] for place in places if stem(place) in of_stem)
            self.items.append(Item(picture, own))
            used.update(own)
            if not own:
                self.problems[picture] = "no mask has its name"
        for mask in masks:
            if mask not in used:
                self.problems.setdefault(mask, "a mask without a picture")

    def complaint(self, item: Item, width: int, height: int) -> str:
        return next(filter(None, (wrong_mask(self.folder, mask, width, height) for mask in item.labels)), "")


def _is_mask(path: Path) -> bool:
    """The folder nearest to the file decides: `labels/images/a.png` is a picture."""
    kinds = [part.lower() for part in path.parts[:-1] if part.lower() in (*PICTURES, *MASKS)]
    return bool(kinds) and kinds[-1] in MASKS


def wrong_mask(folder: Path, mask: Path, width: int, height: int) -> str:
    """What is wrong with the mask of a picture of that size."""
    try:
        size = images.probe(folder / mask)
    except ImageError as error:
        return f"{mask}: {error}"
    if size != (width, height):
        return f"{mask} has {size[0]}x{size[1]} pixels, its picture {width}x{height}"
    return ""
