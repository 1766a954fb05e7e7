"""GIF and animated WebP by Pillow: films without sound, and with transparency."""

import io
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from i2i.errors import ImageError
from i2i.films import Clock, Film, Frame, Reader
from i2i.images import Limits, Picture, Pixels, with_channels, with_depth
from i2i.images.encoding import DEFAULT_QUALITY
from i2i.images.formats import reasons

MAX_PIXELS = 1 << 27
"""The pixels of all frames of a GIF or WebP that is written: Pillow holds them in memory until the last."""
_MILLISECOND = Fraction(1, 1000)
_QUICK, _USUAL = 10, 100
"""Browsers show a frame of at most 10 milliseconds for 100."""
_FORMATS = {".gif": "GIF", ".webp": "WEBP"}


class AnimationReader(Reader):
    """A GIF or WebP, open; one without movement is a film of one frame. Raises `ImageError` for another file."""

    def __init__(self, path: Path) -> None:
        with reasons():
            # bounded by the limits below, frame by frame
            self._file = Image.open(path.open("rb"), formats=tuple(_FORMATS.values()))  # noqa: TID251
            image = self._file
            Limits().check_size(*image.size)
            frames = int(getattr(image, "n_frames", 1))
            duration = Fraction(_shown(image)) * _MILLISECOND
            self.film = Film(
                image.height,
                image.width,
                time_base=_MILLISECOND,
                rate=1 / duration,
                frames=frames,
                loop=int(image.info.get("loop", 0 if image.format == "WEBP" else 1)),
            )

    def frames(self) -> Iterator[Frame]:
        clock, time = Clock(_USUAL), 0
        with reasons():
            for image in ImageSequence.Iterator(self._file):
                pixels = np.array(image.convert("RGBA"))
                duration = _shown(image)
                alpha = pixels[..., 3].copy() if pixels[..., 3].min() < 255 else None
                yield Frame(Picture(np.ascontiguousarray(pixels[..., :3]), alpha), clock.next(time), duration)
                time += duration


def _shown(image: Image.Image) -> int:
    """For how many milliseconds a frame is shown."""
    duration = round(float(image.info.get("duration", 0)))
    return duration if duration > _QUICK else _USUAL


class AnimationWriter:
    """A GIF or animated WebP. Raises `ImageError` for a film that is too long for it."""

    def __init__(self, film: Film, suffix: str, quality: int | None, silent: bool) -> None:
        self._film, self._format = film, _FORMATS[suffix.lower()]
        self._quality = DEFAULT_QUALITY["WEBP"] if quality is None else quality
        colours = ["256 colours in each frame"] if self._format == "GIF" else []
        self.notes = (*colours, *([] if silent else ["sound left out"]), *(["reduced to 8 bits"] if film.deep else []))
        self.check(film.frames)

    def check(self, frames: int) -> None:
        """Raises `ImageError` for more frames than a GIF or WebP may have."""
        pixels = frames * self._film.height * self._film.width
        if pixels > MAX_PIXELS:
            raise ImageError(
                f"{pixels:,} pixels in all frames: a {self._format} may have {MAX_PIXELS:,}; give -o NAME.mp4, or "
                "a smaller --size"
            )

    def segment(self) -> "_Segment":
        return _Segment()

    def join(self, segments: Sequence[Path], path: Path, last: int) -> None:
        """Writes the animation whose segments these are. Raises `OSError`."""
        times = [time for segment in segments for time in _loaded(segment)["times"].tolist()]
        base = self._film.time_base / _MILLISECOND
        # rounded as a whole, so that no error adds up; a GIF counts in hundredths
        unit = 10 if self._format == "GIF" else 1
        ends = [round(time * base / unit) * unit for time in [*times, times[-1] + last]]
        durations = [max(unit, end - start) for start, end in itertools.pairwise(ends)]
        images = (_image(pixels) for segment in segments for pixels in _loaded(segment)["pixels"])
        options = {"duration": durations, **self._options()}
        with path.open("wb") as file:
            next(images).save(file, self._format, save_all=True, append_images=images, **options)

    def _options(self) -> dict[str, Any]:
        loop = {} if self._film.loop == 1 and self._format == "GIF" else {"loop": self._film.loop}
        if self._format == "GIF":
            return {**loop, "disposal": 2}
        # each frame whole: differences lose the transparency of lossy frames (libwebp 1.6)
        return {**loop, "quality": self._quality, "method": 4, "kmin": 1, "kmax": 1}


def _image(pixels: Pixels) -> Image.Image:
    opaque = bool((pixels[..., 3] == 255).all())
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]) if opaque else pixels)


def _loaded(segment: Path) -> dict[str, Pixels]:
    with np.load(segment, allow_pickle=False) as arrays:
        return dict(arrays)


class _Segment:
    """Frames as they are, packed."""

    def __init__(self) -> None:
        self._pixels: list[Pixels] = []
        self._times: list[int] = []

    def add(self, frame: Frame) -> None:
        colours = with_depth(with_channels(frame.picture.pixels, 3), np.uint8)
        alpha = frame.picture.alpha
        opaque = np.full(colours.shape[:2], 255, np.uint8)
        self._pixels.append(np.dstack([colours, opaque if alpha is None else with_depth(alpha, np.uint8)]))
        self._times.append(frame.time)

    def finish(self) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, pixels=np.stack(self._pixels), times=np.array(self._times))
        return file.getvalue()
