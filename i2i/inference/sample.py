"""Pictures from noise by a trained generator: as files, as one grid, as a walk from each to the next."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Interval

from i2i import images
from i2i.config import checked
from i2i.errors import ImageError, ModelError, OutputError, UsageError, as_typed
from i2i.files import make_folders
from i2i.images import Pixels
from i2i.images.picture import split_alpha
from i2i.inference.options import OutputFormat
from i2i.models import styles
from i2i.models.info import DIRECTIONS, FROM_NOISE, ModelInfo
from i2i.terminal import counted
from i2i.urls import path_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LINE = 2  # pixels between the pictures of a grid
MOST = 1_000_000  # pictures
MOST_GRID_PIXELS = images.Limits().pixels


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The pictures to make, and where they go."""

    out: Path | None = None
    """The folder to write pictures to, each named after the seed that makes it again."""
    grid: Path | None = None
    """Write all pictures into this one file, alone or beside the folder."""
    count: Annotated[int, Interval(ge=1, le=MOST)] = 16
    """The number of pictures; with --walk, the number that the walk connects."""
    seed: Annotated[int, Interval(ge=0, lt=2**62)] = 0
    """The seed of the first picture; each further one has the next seed."""
    walk: Annotated[int, Interval(ge=0, le=10_000)] = 0
    """Walk in so many steps from each picture to the next, on the sphere on which their noise lies. A grid has a row
    for each way."""
    truncation: Annotated[float, Interval(ge=0.1, le=100)] | None = None
    """Draw numbers of the noise again while they are further from 0 than this: pictures become more alike, and more
    like the data."""
    columns: Annotated[int, Ge(1)] | None = None
    """The columns of the grid. Default: as many as rows."""
    format: OutputFormat = "png"
    """The format of the files in the folder."""
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    """Quality of JPEG, WebP and AVIF, 1 to 100. Default: visually lossless."""
    overwrite: bool = False
    """Replace files that exist."""

    def check(self) -> None:
        """Raises `UsageError` for options that contradict each other."""
        if self.out is None and self.grid is None:
            out, grid = as_typed("out"), as_typed("grid")
            raise UsageError(f"expected a folder for the pictures ({out}) or a file for all in one ({grid})")
        if self.walk and self.count < 2:
            raise UsageError(f"walk = {self.walk}: goes from one picture to the next; count = {self.count}")
        if self.walk * (self.count - 1) >= MOST:
            raise UsageError(f"walk = {self.walk}, count = {self.count}: together at most {MOST:,} pictures")
        if self.columns is not None and (self.grid is None or self.walk):
            raise UsageError(f"columns = {self.columns}: is for a grid that shows no walk")
        if self.grid is not None and self.grid.suffix.lower() not in images.WRITTEN:
            raise UsageError(f"grid {self.grid}: expected the name of a picture, such as grid.png")
        names = [f".{self.format}"] if self.out is not None else []
        names += [self.grid.suffix.lower()] if self.grid is not None else []
        if self.quality is not None and not any(images.WRITTEN[name] in images.LOSSY for name in names):
            raise UsageError(f"quality = {self.quality}: {names[0]} loses nothing, and has none")


class Sampler:
    """A generator that makes pictures from noise. `load_sampler` makes one.

    The constructor switches `network` to its mode of use, for good, and moves it to `device`. It raises `UsageError`
    for a network that translates pictures.
    """

    def __init__(self, network: "nn.Module", info: ModelInfo, device: "torch.device | str" = "cpu") -> None:
        from i2i.networks.blocks import for_translation

        if info.network not in FROM_NOISE:
            raise UsageError(f"its network ({info.network}) translates pictures, and is no GAN: use i2i translate")
        config = info.network_config()
        self.info, self.device = info, device
        self.numbers, self.channels = config.in_channels, config.out_channels
        self.size = config.size_multiple
        self.network = for_translation(network, info.statistics, info.dropout).to(device)

    def noise(self, seed: int, truncation: float | None = None) -> "Tensor":
        """(Z, 1, 1), a function of `seed`; no number of it is further from 0 than `truncation`."""
        from i2i.networks.dcgan import noise

        return noise(self.numbers, seed, truncation)

    def __call__(self, noise: "Tensor") -> "Tensor":
        """(Z, 1, 1) → (C, S, S) in [-1, 1], on the CPU. Raises `ModelError` if it is not finite.

        One at a time: in a batch convolutions round differently, and a seed should say which picture it is.
        """
        import torch

        with torch.inference_mode():
            picture: Tensor = self.network(noise[None].to(self.device))[0].cpu()
        if not bool(torch.isfinite(picture).all()):
            raise ModelError(f"{self.info.network} makes values that are not finite")
        return picture


def load_sampler(style: str | Path, device: str = "auto", *, download: bool = False) -> Sampler:
    """Loads the generator of a GAN, which makes pictures from noise. `style` is a run folder, a model file or a name.

    Raises `UsageError` for an unknown style and for a model that translates pictures, and `ModelError` for a model that
    cannot be used.
    """
    from i2i.device import choose_device
    from i2i.models import model_file

    try:
        path = styles.find(style, download=download)
    except UsageError:
        if all(styles.exists(path_of(style) / f"{direction}.safetensors") for direction in DIRECTIONS):
            raise UsageError(
                f"{style}: this run translates in two directions, and makes no pictures from noise: use i2i translate"
            ) from None
        raise
    network, info = model_file.open_model(path)
    try:
        return Sampler(network, info, choose_device(device))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def make_samples(
    sampler: Sampler,
    options: SampleOptions,
    progress: Callable[[int, int, Path], object] = lambda number, total, path: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Makes the pictures that `options` ask for, and returns the files.

    `progress` is called after each picture with their number, their total and its name. Once `stop()` is true, no more
    are made, and no grid. Raises `UsageError` for options that contradict each other or the generator, and
    for files that exist already, before any work; `OutputError` for what cannot be written.
    """
    from i2i.networks.dcgan import between

    points = _planned(sampler, options)
    if options.out is not None:
        make_folders(options.out)
    written: list[Path] = []
    shown: list[Pixels] = []
    for number, (name, seed, share) in enumerate(points, 1):
        if stop():
            return written
        noise = sampler.noise(seed, options.truncation)
        if share:
            noise = between(noise, sampler.noise(seed + 1, options.truncation), share)
        try:
            pixels = images.to_pixels(sampler(noise))
        except ImageError as error:
            raise ModelError(f"{name}: the generator makes {error}") from None
        if options.out is not None:
            images.write(options.out / name, split_alpha(pixels), options.quality, replace=options.overwrite)
            written.append(options.out / name)
        if options.grid is not None:
            shown.append(pixels)
        progress(number, len(points), Path(name))
    if options.grid is not None:
        lossy = images.WRITTEN[options.grid.suffix.lower()] in images.LOSSY
        whole = split_alpha(_grid(shown, options))
        images.write(options.grid, whole, options.quality if lossy else None, replace=options.overwrite)
        written.append(options.grid)
    return written


def _planned(sampler: Sampler, options: SampleOptions) -> list[tuple[str, int, float]]:
    """Returns the pictures to make: their names, and the share of the way from the noise of a seed to the next one's.

    Raises `UsageError` and `OutputError` as `make_samples`.
    """
    options = checked(options)
    options.check()
    suffixes = [f".{options.format}"] if options.out is not None else []
    for suffix in suffixes + ([options.grid.suffix] if options.grid is not None else []):
        if sampler.channels > 4 and images.WRITTEN[suffix.lower()] != "TIFF":
            raise UsageError(f"{suffix}: holds no picture of {sampler.channels} channels, which are made; use tif")
    if options.grid is not None:
        rows, columns = _shape(options)
        if rows * columns * (sampler.size + LINE) ** 2 > MOST_GRID_PIXELS:
            raise UsageError(f"grid: {rows} by {columns} pictures of {sampler.size} pixels are too many for one")
    points = [
        (f"seed-{seed:06}.{options.format}", seed, 0.0) for seed in range(options.seed, options.seed + options.count)
    ]
    if steps := options.walk:
        points = []
        for number in range(steps * (options.count - 1) + 1):
            way = min(number // steps, options.count - 2)
            seed = options.seed + way
            name = f"walk-{number:06}-seed-{seed}-to-{seed + 1}.{options.format}"
            points.append((name, seed, (number - way * steps) / steps))
    paths = [options.out / name for name, *_ in points] if options.out is not None else []
    if options.grid is not None:
        parent = options.grid.absolute().parent
        if not parent.is_dir() and parent != (options.out and options.out.absolute()):
            raise OutputError(f"{options.grid}: cannot be written: no such folder")
        if options.grid in paths:
            raise UsageError(f"grid {options.grid}: one of the pictures has this name")
        paths.append(options.grid)
    there = [] if options.overwrite else [path for path in paths if os.path.lexists(path)]
    if there:
        exist = counted(len(there), "output exists", "outputs exist")
        raise UsageError(f"{exist} already, first {there[0]}; {as_typed('overwrite', True)} replaces them")
    return points


def _shape(options: SampleOptions) -> tuple[int, int]:
    """Returns rows and columns of the grid."""
    if options.walk:
        return options.count - 1, options.walk + 1
    columns = min(options.columns or math.isqrt(options.count - 1) + 1, options.count)
    return -(-options.count // columns), columns


def _grid(pictures: list[Pixels], options: SampleOptions) -> Pixels:
    """Returns all pictures in one, on white, row by row; each way of a walk ends where the next one begins."""
    rows, columns = _shape(options)
    height, width, channels = pictures[0].shape
    whole = np.full((rows * (height + LINE) + LINE, columns * (width + LINE) + LINE, channels), 255, pictures[0].dtype)
    for row in range(rows):
        first = row * (columns - 1 if options.walk else columns)
        for column, picture in enumerate(pictures[first : first + columns]):
            top, left = LINE + row * (height + LINE), LINE + column * (width + LINE)
            whole[top : top + height, left : left + width] = picture
    return whole
