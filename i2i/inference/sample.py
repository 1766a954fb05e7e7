"""Pictures from noise by a trained generator: as files, as one grid, as a walk from each to the next."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Interval

from i2i import images
from i2i.config import checked
from i2i.errors import ImageError, ModelError, OutputError, UsageError
from i2i.files import make_folders
from i2i.images import Picture, Pixels
from i2i.inference.options import OutputFormat
from i2i.models import styles
from i2i.models.info import FROM_NOISE, ModelInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LINE = 2  # pixels between the pictures of a grid
MOST = 1_000_000  # pictures
MOST_GRID_PIXELS = images.Limits().pixels
ALPHA = (2, 4)  # channels of which the last is alpha, as `Picture.channels` has it


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The pictures to make, and where they go."""

    out: Path | None = None
    """The folder to write pictures to, each named after the seed that makes it again."""
    grid: Path | None = None
    """Write all pictures into this one file, alone or beside the folder."""
    count: Annotated[int, Interval(ge=1, le=MOST)] = 16
    """The number of pictures; for a walk, the number that it passes."""
    seed: Annotated[int, Interval(ge=0, lt=2**62)] = 0
    """The seed of the first picture; each further one has the next seed."""
    walk: Annotated[int, Interval(ge=0, le=10_000)] = 0
    """Steps from each picture to the next, on the sphere on which their noise lies. A grid has a row for each way."""
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
            raise UsageError("expected a folder for the pictures (--out) or a file for all in one (--grid)")
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


@dataclass(frozen=True)
class NoisePoint:
    """The noise of the picture `name`: that of `seed`, or `share` of the way to that of the next seed."""

    name: str
    seed: int
    share: float = 0.0


class Sampler:
    """A generator that makes pictures from noise. `load_sampler` makes one.

    The constructor switches `network` to its mode of use, for good, and moves it to `device`. It raises `UsageError`
    for a network that translates pictures.
    """

    def __init__(self, network: "nn.Module", info: ModelInfo, device: "torch.device | str" = "cpu") -> None:
        from i2i.networks.blocks import for_translation

        if info.network not in FROM_NOISE:
            raise UsageError(f"{info.network} translates pictures, and is no GAN: use i2i translate")
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
    from i2i.models import pretrained

    path = styles.find(style, download=download)
    network, info = pretrained.open_model(path)
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
    work = plan(sampler, options)
    if options.out is not None:
        make_folders(options.out)
    written: list[Path] = []
    shown: list[Pixels] = []
    for number, point in enumerate(work, 1):
        if stop():
            return written
        try:
            pixels = images.to_pixels(sampler(_noise_of(point, sampler, options)))
        except ImageError as error:
            raise ModelError(f"{point.name}: the generator makes {error}") from None
        if options.out is not None:
            path = options.out / point.name
            images.write(path, _picture(pixels), options.quality, replace=options.overwrite)
            written.append(path)
        if options.grid is not None:
            shown.append(pixels)
        progress(number, len(work), Path(point.name))
    if options.grid is not None:
        lossy = images.WRITTEN[options.grid.suffix.lower()] in images.LOSSY
        whole = _picture(_grid(shown, options))
        images.write(options.grid, whole, options.quality if lossy else None, replace=options.overwrite)
        written.append(options.grid)
    return written


def plan(sampler: Sampler, options: SampleOptions) -> list[NoisePoint]:
    """Returns the pictures to make. Raises `UsageError` and `OutputError` as `sample`."""
    options = checked(options)
    options.check()
    suffix = f".{options.format}"
    for path in filter(None, (options.out and Path(f"x{suffix}"), options.grid)):
        if sampler.channels > 4 and images.WRITTEN[path.suffix.lower()] != "TIFF":
            raise UsageError(f"{path.suffix}: holds no picture of {sampler.channels} channels, which are made; use tif")
    if options.grid is not None:
        rows, columns = _shape(options)
        if rows * columns * (sampler.size + LINE) ** 2 > MOST_GRID_PIXELS:
            raise UsageError(f"grid: {rows} by {columns} pictures of {sampler.size} pixels are too many for one")
    work = list(_points(options, suffix))
    paths = [options.out / point.name for point in work] if options.out is not None else []
    if options.grid is not None:
        parent = options.grid.absolute().parent
        if not parent.is_dir() and parent != (options.out and options.out.absolute()):
            raise OutputError(f"{options.grid}: cannot be written: no such folder")
        if options.grid in paths:
            raise UsageError(f"grid {options.grid}: one of the pictures has this name")
        paths.append(options.grid)
    there = [] if options.overwrite else [path for path in paths if os.path.lexists(path)]
    if there:
        raise UsageError(f"{len(there)} outputs exist already, first {there[0]}; --overwrite replaces them")
    return work


def _points(options: SampleOptions, suffix: str) -> Iterator[NoisePoint]:
    seeds = range(options.seed, options.seed + options.count)
    if not options.walk:
        yield from (NoisePoint(f"seed-{seed:06}{suffix}", seed) for seed in seeds)
        return
    number = 0
    for seed in seeds[:-1]:
        last = seed == seeds[-2]
        for step in range(options.walk + last):
            yield NoisePoint(f"walk-{number:06}-seed-{seed}-to-{seed + 1}{suffix}", seed, step / options.walk)
            number += 1


def _noise_of(point: NoisePoint, sampler: Sampler, options: SampleOptions) -> "Tensor":
    from i2i.networks.dcgan import between

    begin = sampler.noise(point.seed, options.truncation)
    return between(begin, sampler.noise(point.seed + 1, options.truncation), point.share) if point.share else begin


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


def _picture(pixels: Pixels) -> Picture:
    if pixels.shape[2] not in ALPHA:
        return Picture(pixels)
    return Picture(np.ascontiguousarray(pixels[..., :-1]), alpha=np.ascontiguousarray(pixels[..., -1]))
