"""The options of an augmentation: the same names on the command line and in `augment_folder`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, Le

from i2i.errors import UsageError
from i2i.inference.options import ModelOptions

LayoutName = Literal["auto", "yolo", "voc", "coco", "masks"]


@dataclass(frozen=True, kw_only=True)
class AugmentOptions(ModelOptions):
    """How a labelled folder is augmented."""

    layout: LayoutName = "auto"
    """The kind of labels; auto looks for it, and says what it found."""
    names: str = ""
    """Names for the copies of each style, with commas between: photo_NAME.jpg. Default: the names of the styles."""
    copies: Annotated[int, Ge(1)] | None = None
    """Translate each picture by so many of the styles, drawn at random. Default: all."""
    fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    """The share of the pictures that is translated, drawn at random."""
    split: str = ""
    """Translate only this split: pictures in a folder train/ or train2017/, ImageSets/*/train.txt, or *_train.json."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Another number, other draws (and another noise where dropout stays on); the same number, the same."""
    copies_only: bool = False
    """Write the copies and their labels alone, without the originals."""
    on_bad: Literal["error", "skip"] = "error"
    """Labels that do not match: refuse before any work, or leave those pictures out."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Quality of JPEG, WebP and AVIF copies, 1 to 100. Default: visually lossless."""
    overwrite: bool = False
    """Replace outputs that exist."""
    skip_existing: bool = False
    """Write only missing outputs; lists (COCO .json, ImageSets) are written anew."""
    batch_size: Annotated[int, Interval(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Pictures of equal size that go through the network together; auto is 1 on a CPU, else 16."""
    workers: Annotated[int, Interval(ge=1, le=256)] | Literal["auto"] = "auto"
    """Threads that read, and as many that write; auto is 1 on a CPU, else up to 8. They change no result."""

    def check(self, styles: int) -> None:
        """Raises `UsageError` for options that contradict each other, or the number of styles."""
        if self.overwrite and self.skip_existing:
            raise UsageError("overwrite and skip_existing contradict each other")
        if self.copies is not None and self.copies > styles:
            raise UsageError(
                f"copies = {self.copies}: with {styles} styles there are {styles} translations of a picture"
            )
