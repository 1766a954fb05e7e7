"""The checkpoints that the authors of CycleGAN and pix2pix have published: what they are and where they lie.

The names are theirs, as in the download scripts of junyanz/pytorch-CycleGAN-and-pix2pix, and so are the networks:
for CycleGAN `resnet_9blocks` with instance norm and no dropout, for pix2pix `unet_256` with batch norm and dropout.
All were trained on crops of 256 × 256. Directions are those of the data sets (`monet2photo` has the paintings as
A). What the authors do not state, such as licences and hashes, is left empty.
"""

from dataclasses import dataclass
from typing import Any, Literal

from i2i.errors import UsageError
from i2i.translation.model_info import Direction

Family = Literal["cyclegan", "pix2pix"]

TRAINING_SIZE = 256
PAINT_SIZE = 3 * TRAINING_SIZE // 2
"""For painters: where strokes and picture were both to be seen, of the sizes that were looked at (docs/lab-book.md)."""
MAX_BYTES = 1 << 30
"""More than four times the largest of these files."""

PAPERS: dict[Family, str] = {
    "cyclegan": "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial "
    "Networks. ICCV 2017. arXiv:1703.10593",
    "pix2pix": "Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks. "
    "CVPR 2017. arXiv:1611.07004",
}
NETWORKS: dict[Family, tuple[str, dict[str, Any]]] = {
    "cyclegan": ("resnet", {"blocks": 9, "width": 64, "norm": "instance", "dropout": False}),
    "pix2pix": ("unet", {"depth": 8, "width": 64, "norm": "batch", "dropout": True}),
}
_FOLDERS: dict[Family, str] = {
    "cyclegan": "https://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models",
    "pix2pix": "https://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch",
}


@dataclass(frozen=True)
class Entry:
    """A published checkpoint. `size` in bytes, `sha256` and `licence` are those of the file, as far as stated.

    `paint_size` is not the authors': see `ModelInfo`.
    """

    family: Family
    name: str
    dataset: str
    direction: Direction
    input_domain: str
    output_domain: str
    size: int | None = None
    sha256: str | None = None
    licence: str = ""
    paint_size: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.family}/{self.name}"

    @property
    def style(self) -> str:
        """What `--style` takes: the plain name where only one family has it."""
        return self.name if sum(other.name == self.name for other in ENTRIES) == 1 else self.full_name

    @property
    def url(self) -> str:
        return f"{_FOLDERS[self.family]}/{self.name}.pth"

    @property
    def paper(self) -> str:
        return PAPERS[self.family]


ENTRIES: tuple[Entry, ...] = (
    Entry("cyclegan", "style_monet", "monet2photo", "b2a", "photo", "Monet", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_cezanne", "cezanne2photo", "b2a", "photo", "Cézanne", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_ukiyoe", "ukiyoe2photo", "b2a", "photo", "ukiyo-e", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_vangogh", "vangogh2photo", "b2a", "photo", "Van Gogh", paint_size=PAINT_SIZE),
    Entry("cyclegan", "monet2photo", "monet2photo", "a2b", "Monet", "photo"),
    Entry("cyclegan", "horse2zebra", "horse2zebra", "a2b", "horse", "zebra"),
    Entry("cyclegan", "zebra2horse", "horse2zebra", "b2a", "zebra", "horse"),
    Entry("cyclegan", "apple2orange", "apple2orange", "a2b", "apple", "orange"),
    Entry("cyclegan", "orange2apple", "apple2orange", "b2a", "orange", "apple"),
    Entry("cyclegan", "summer2winter_yosemite", "summer2winter_yosemite", "a2b", "summer", "winter"),
    Entry("cyclegan", "winter2summer_yosemite", "summer2winter_yosemite", "b2a", "winter", "summer"),
    Entry("cyclegan", "sat2map", "maps", "a2b", "satellite", "map"),
    Entry("cyclegan", "map2sat", "maps", "b2a", "map", "satellite"),
    Entry("cyclegan", "cityscapes_photo2label", "cityscapes", "a2b", "photo", "label"),
    Entry("cyclegan", "cityscapes_label2photo", "cityscapes", "b2a", "label", "photo"),
    Entry("cyclegan", "facades_photo2label", "facades", "a2b", "photo", "label"),
    Entry("cyclegan", "facades_label2photo", "facades", "b2a", "label", "photo"),
    Entry("cyclegan", "iphone2dslr_flower", "iphone2dslr_flower", "a2b", "iPhone", "DSLR"),
    Entry("pix2pix", "edges2shoes", "edges2shoes", "a2b", "edges", "shoes"),
    Entry("pix2pix", "sat2map", "maps", "a2b", "satellite", "map", size=217_704_720),
    Entry("pix2pix", "map2sat", "maps", "b2a", "map", "satellite"),
    Entry("pix2pix", "facades_label2photo", "facades", "b2a", "label", "photo"),
    Entry("pix2pix", "day2night", "night2day", "b2a", "day", "night"),
)


def find(name: str) -> Entry | None:
    """The checkpoint called `name` or `family/name`.

    Raises `UsageError` naming both if the two families have one of that plain name.
    """
    found = [entry for entry in ENTRIES if name in (entry.name, entry.full_name)]
    if len(found) > 1:
        choices = " or ".join(entry.full_name for entry in found)
        raise UsageError(f"style {name!r} is published for both families; choose {choices}")
    return found[0] if found else None
