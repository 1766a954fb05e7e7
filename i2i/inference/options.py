"""What one may ask of a translation; the same names on the command line and in `translate_folder`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from i2i.errors import UsageError
from i2i.models.info import MAX_SIDE

Precision = Literal["auto", "fp32", "bf16", "fp16"]
RuntimeName = Literal["auto", "torch", "openvino", "onnx"]
OutputFormat = Literal["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "avif", "ppm"]
_LOSSY = ("jpg", "jpeg", "webp", "avif")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How the network is used."""

    direction: Literal["a2b", "b2a"] | None = None
    """Needed for a run folder that has both."""
    norm_stats: Literal["batch", "running"] | None = None
    """Batch norm by the statistics of each picture or by those of the training; by default as the model says."""
    dropout: bool | None = None
    """Whether the noise of dropout stays on, as in the published pix2pix; by default as the model says."""
    paint_size: Annotated[int, Interval(ge=0, le=MAX_SIDE)] | None = None
    """Translate a larger picture with its shorter side scaled down to so many pixels, and bring the result back to the
    picture's size, so that strokes are to be seen; 0: translate each at its own size; by default as the model says."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Another noise; it is drawn from this and from each picture, so that neither order nor batch matter."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """auto is bf16 where the hardware computes it itself, else fp32; fp16 needs a GPU. bf16 and fp16 round more."""
    runtime: RuntimeName = "auto"
    """What computes: auto is the fastest on this device, OpenVINO (if it is installed) or torch."""
    compile: bool = False
    """Have torch compile the network, up to minutes at the first size and at the second, for many pictures on a GPU.
    On a CPU auto is faster without. Pictures that go by bands of rows gain nothing."""
    download: bool = False
    """Fetch the style if it is one of the catalogue."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions(ModelOptions):
    """How a folder is translated."""

    size: Annotated[int, Interval(ge=1, le=MAX_SIDE)] | None = None
    """Scale the shorter side to so many pixels first; without it the size stays."""
    format: OutputFormat | None = None
    """Write everything in this format; without it each picture keeps its own."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Of JPEG, WebP and AVIF; by default one at which the loss is hard to see."""
    alpha: Literal["keep", "white", "black"] = "keep"
    """Keep transparency, or lay the picture on a background before it is translated."""
    large: bool = False
    """Take pictures above the limit of 178,956,970 pixels too, by bands of rows; needs pyvips and room on a disk."""
    overwrite: bool = False
    """Replace outputs that exist (an input never is)."""
    skip_existing: bool = False
    """Do only what is missing."""
    in_place: bool = False
    """Replace the inputs themselves by their translations; there is no way back."""
    on_collision: Literal["error", "suffix"] = "error"
    """Inputs with one output path: refuse, or name them all after their former suffix (a_jpg.png)."""
    recursive: bool = True
    """Search the folders in folders too."""
    follow_links: bool = False
    """Search folders behind symbolic links too, each once."""
    shard: str = "1/1"
    """i/n: only the i-th of n parts of the work, which together are all of it."""
    shard_by: Literal["index", "hash"] = "index"
    """By place in the sorted list (even parts), or by name (other files coming or going move nothing)."""
    strict: bool = False
    """Stop at the first picture that fails."""
    batch_size: Annotated[int, Interval(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Pictures of equal size that go through the network together; auto is 1 on a CPU, else 16."""
    workers: Annotated[int, Interval(ge=1, le=256)] | Literal["auto"] = "auto"
    """Threads that read, and as many that write; auto is 1 on a CPU, else up to 8. They change no result."""

    @property
    def replaces(self) -> bool:
        """Whether a result may take the place of a file that is there."""
        return self.overwrite or self.in_place

    def part(self) -> tuple[int, int]:
        """`shard` as (number from 0, parts). Raises `UsageError`."""
        number, _, parts = self.shard.partition("/")
        if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            raise UsageError(f"shard = {self.shard!r}: expected i/n with i from 1 to n, such as 1/4")
        return int(number) - 1, int(parts)

    def check(self) -> None:
        """Raises `UsageError` for options that contradict each other."""
        self.part()
        for name in ("overwrite", "skip_existing", "format"):
            if self.in_place and getattr(self, name):
                raise UsageError(f"in_place and {name} contradict each other")
        if self.quality is not None and self.format not in (None, *_LOSSY):
            raise UsageError(f"quality = {self.quality}: {self.format} loses nothing, and has none")
        if self.overwrite and self.skip_existing:
            raise UsageError("overwrite and skip_existing contradict each other")
