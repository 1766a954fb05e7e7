"""The options of a translation, with the same names on the command line, in `load_translator` and in
`translate_folder`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from i2i.config import DeviceName
from i2i.errors import UsageError, as_typed
from i2i.models.info import MAX_SIDE, NOT_PAINTED, ModelInfo
from i2i.urls import PathOrURL

Precision = Literal["auto", "fp32", "bf16", "fp16"]
RuntimeName = Literal["auto", "torch", "openvino", "onnx"]
OutputFormat = Literal["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "avif", "ppm", "npy"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How the network is used."""

    direction: Literal["a2b", "b2a"] | None = None
    """a2b translates from domain A to B, b2a from B to A. A model of one direction needs no --direction."""
    norm_stats: Literal["batch", "running"] | None = None
    """Statistics of batch norm: of each picture (batch) or of the training (running). Default: as the model file
    says."""
    dropout: bool | None = None
    """Keep the noise of dropout on, as the published pix2pix does. Default: as the model file says."""
    paint_size: Annotated[int, Interval(ge=0, le=MAX_SIDE)] | None = None
    """Translate larger pictures at this shorter side, in pixels, and scale the result back, so that strokes stay
    visible; 0: at their own size. Default: as the model file says."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """The seed of dropout's noise. Each picture has its own noise, whatever the order and the batch."""
    device: DeviceName = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Arithmetic. auto: bf16 where the hardware has it, else fp32. fp16 needs a GPU. bf16 and fp16 round more."""
    runtime: RuntimeName = "auto"
    """The library that runs the network. auto: the fastest installed one for this device, OpenVINO or torch."""
    compile: bool = False
    """Compile the network (torch.compile). It takes up to minutes for the first two sizes, and pays for many pictures
    on a GPU. Pictures that are translated in bands of rows gain nothing."""
    download: bool = False
    """Download the style if the catalogue has it."""

    def paint_size_of(self, info: ModelInfo) -> int:
        """The paint size asked for, or else that of the model. Raises `UsageError` for a model that paints nothing."""
        if self.paint_size and not info.plain:
            raise UsageError(f"paint_size = {self.paint_size}: {NOT_PAINTED}; leave it out")
        return info.paint_size if self.paint_size is None else self.paint_size


Side = Annotated[int, Interval(ge=1, le=MAX_SIDE)]
BatchSize = Annotated[int, Interval(ge=1, le=4096)] | Literal["auto"]
Strength = Annotated[float, Interval(ge=0, le=1)]
Keep = Literal["luminance", "colour"]
ALPHA: Literal["alpha"] = "alpha"
"""The mask that is the alpha of the picture itself."""


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """The options of one call of a translator."""

    size: Side | tuple[Side, Side] | None = None
    batch_size: BatchSize = "auto"
    strength: Strength = 1.0
    keep: Keep | None = None


@dataclass(frozen=True, kw_only=True)
class FolderOptions(ModelOptions):
    """How a folder is translated."""

    mix: str = ""
    """Several styles in place of --style, each with its weight: monet:0.6,vangogh:0.4. Their results are mixed in
    linear light; the weights are divided by their sum."""
    strength: Strength = 1.0
    """How much to change the picture: 0 leaves it, 1 is the whole translation. Between them both are blended in linear
    light."""
    mask: PathOrURL | Literal["alpha"] | None = None
    """Where to translate: a mask that is white there, black where the picture stays, grey for a blend; a folder of
    masks named as the pictures; or alpha, the picture's own transparency. ./alpha is a file."""
    keep: Keep | None = None
    """luminance keeps the picture's light and dark, and takes the translation's colours; colour does the reverse."""
    size: Side | None = None
    """Scale the shorter side to this many pixels first. Default: the picture keeps its size."""
    format: OutputFormat | None = None
    """Write all pictures in this format. Default: each keeps the format of its input."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Quality of JPEG, WebP, AVIF and films, 1 to 100. Default: visually lossless."""
    alpha: Literal["keep", "white", "black"] = "keep"
    """Keep transparency, or put a white or black background behind the picture first."""
    smooth: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """For films: the share of the result before, moved along, that is blended into a frame where the film shows the
    same. 0: none, 0.5: much less flicker, and less sharpness."""
    large: bool = False
    """Also take pictures of more than 178,956,970 pixels, in bands of rows. Needs pyvips and free disk space."""
    overwrite: bool = False
    """Replace outputs that exist, but no input."""
    skip_existing: bool = False
    """Write only missing outputs."""
    in_place: bool = False
    """Replace the inputs by their translations. This cannot be undone."""
    on_collision: Literal["error", "suffix"] = "error"
    """If two inputs have the same output path: stop (error), or add their suffix to the name (a_jpg.png)."""
    recursive: bool = True
    """Search subfolders too."""
    follow_links: bool = False
    """Search folders behind symbolic links too, each once."""
    shard: str = "1/1"
    """i/n: do only part i of n, for several machines."""
    shard_by: Literal["index", "hash"] = "index"
    """Divide by position in the sorted list (index, even parts) or by name (hash, stable when files come or go)."""
    cluster: str = ""
    """The cluster that does the work: ray (started here), ray:HOST:6379, ray://HOST:10001 or dask://HOST:8786. Its
    machines need the same i2i, and must see the same files at the same paths."""
    gpu_share: Annotated[float, Interval(ge=0, le=1)] | None = None
    """The part of a GPU that each worker on Ray takes: 0.5 puts two on each, 0 needs none. Default: 1 where the cluster
    has GPUs."""
    strict: bool = False
    """Stop at the first picture that fails."""
    batch_size: BatchSize = "auto"
    """Pictures of equal size in one batch. auto: 1 on a CPU, else 16."""
    workers: Annotated[int, Interval(ge=1, le=256)] | Literal["auto"] = "auto"
    """Threads that read pictures, and as many that write. auto: 1 on a CPU, else up to 8. Results do not depend on
    it."""

    @property
    def replaces(self) -> bool:
        """Returns whether a result may take the place of a file that is there."""
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
        if self.mask == ALPHA and self.alpha != "keep":
            raise UsageError(f"mask alpha and alpha {self.alpha} contradict each other: the background hides the mask")
        if self.gpu_share is not None and not self.cluster.startswith("ray"):
            raise UsageError(
                f"gpu_share = {self.gpu_share:g}: it is for workers on Ray; give cluster = ray, or leave it out"
            )
        if self.overwrite and self.skip_existing:
            raise UsageError("overwrite and skip_existing contradict each other")

    def check_style(self, style: object) -> None:
        """Raises `UsageError` unless there is a style or a mix of styles, and not both."""
        if bool(style) == bool(self.mix):
            one, several = as_typed("style", "monet"), as_typed("mix", "monet:0.6,vangogh:0.4")
            raise UsageError(f"expected one of {as_typed('style')} and {as_typed('mix')}, such as {one} or {several}")
        if self.mix:
            parse_mix(self.mix)


def parse_mix(mix: Mapping[str, float | str] | str) -> dict[str, float]:
    """Returns the weights in `monet:0.6,vangogh:0.4`, or in a mapping of the same.

    Raises `UsageError` for those that are no shares of a whole.
    """
    if isinstance(mix, str):
        parts = [part.strip().rpartition(":") for part in mix.split(",")]
        named = {style: number for style, _, number in parts}
        if "" in named or len(named) < len(parts):
            raise UsageError(f"mix = {mix!r}: expected a weight for each style, such as monet:0.6,vangogh:0.4")
        mix = named
    if not isinstance(mix, Mapping):
        raise UsageError(f"mix = {mix!r}: expected a weight for each style, such as {{'monet': 0.6, 'vangogh': 0.4}}")
    if not mix:
        raise UsageError("mix: no styles; expected a weight for each, such as monet:0.6,vangogh:0.4")
    weights = {}
    for style, given in mix.items():
        try:
            weight = float(given)
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 < weight < math.inf:
            raise UsageError(f"mix: {style} has the weight {given!r}; expected a number above 0")
        weights[str(style)] = weight
    return weights


def mix_as_text(mix: Mapping[str, float]) -> str:
    """The inverse of `parse_mix`."""
    return ",".join(f"{style}:{weight!r}".removesuffix(".0") for style, weight in mix.items())
