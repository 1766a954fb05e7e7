"""Films: pictures in time, which are read, changed and written frame by frame.

Here are the parts of a film, the suffixes of films, the two sides that every kind of film has (`Reader`, `Writer`), the
finished segments of a film that is being made, and one kind: GIF and animated WebP, without sound, by Pillow. Suffixes
decide which files of a folder are films, and how a film is written. Video files are PyAV's (`video`). Nothing here
imports PyAV before a film is opened.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from PIL import Image, ImageSequence

from i2i.errors import ImageError, LockedError, OutputError, as_typed
from i2i.files import atomic_write, locked
from i2i.images import Limits, Picture, Pixels, with_channels, with_depth
from i2i.images.containers import gif
from i2i.images.encoding import DEFAULT_QUALITY
from i2i.images.formats import reasons

WRITTEN_VIDEO = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})
_READ_ONLY = {".avi", ".mpg", ".mpeg", ".m2ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv"}
VIDEO = WRITTEN_VIDEO | _READ_ONLY
"""Suffixes of video files."""
ANIMATED = frozenset({".gif", ".webp"})
"""Suffixes of pictures that may move."""
READ = VIDEO | ANIMATED
WRITTEN = WRITTEN_VIDEO | ANIMATED
NEEDS_PYAV = "a film needs PyAV: pip install 'i2i[video]'"


@dataclass(frozen=True)
class Film:
    """A film without its frames.

    * `height`, `width`: of an upright frame.
    * `time_base`: the unit of all times, in seconds. `rate`: frames a second, on average.
    * `frames`: their number as far as the file says it, else 0.
    * `deep`: more than 8 bits.
    * `matrix`, `primaries`, `transfer`: the colours, by the numbers of ITU-T H.273; 2 is unspecified.
    * `aspect`: width of a pixel through its height.
    * `loop`: how often an animation is shown; 0 is for ever.
    * `notes`: parts of the file that are not read.
    """

    height: int
    width: int
    time_base: Fraction
    rate: Fraction
    frames: int = 0
    deep: bool = False
    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    aspect: Fraction = Fraction(1)
    loop: int = 0
    notes: tuple[str, ...] = ()


class Frame(NamedTuple):
    """One picture, from when it is shown and for how long, in units of the film's `time_base`."""

    picture: Picture
    time: int
    duration: int


class Reader:
    """A film that is open: a context manager.

    `frames` gives them once, and raises `ImageError` where the film is damaged. After them, `film.notes` also has what
    is missing.
    """

    film: Film
    _file: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def frames(self) -> Iterator[Frame]:
        raise NotImplementedError


class Segment(Protocol):
    """Some frames on their way to bytes that stand for themselves."""

    def add(self, frame: Frame) -> None: ...
    def finish(self) -> bytes: ...


class Writer(Protocol):
    """The way to a file: frames by segments, then the film out of all of them, of whose frames the `last` is shown so
    long. `notes` name the losses. `check` raises `ImageError` for more frames than the file may have."""

    notes: tuple[str, ...]

    def check(self, frames: int) -> None: ...
    def segment(self) -> Segment: ...
    def join(self, segments: Sequence[Path], path: Path, last: int) -> None: ...


@dataclass
class Clock:
    """Times that only go forward, whatever a damaged or odd file says."""

    step: int
    last: int | None = None

    def next(self, time: int | None) -> int:
        if self.last is not None and (time is None or time <= self.last):
            time = self.last + (self.step if time is None else 1)
        self.last = time or 0
        return self.last


def written_suffix(suffix: str) -> str:
    """The suffix of the result for a film with `suffix`: the same where that is written, else ".mkv"."""
    return suffix if suffix.lower() in WRITTEN else ".mkv"


def is_video(path: Path) -> bool:
    """Whether its name says that it is a video file."""
    return path.suffix.lower() in VIDEO


def has_pyav() -> bool:
    return find_spec("av") is not None


def is_animated(path: Path) -> bool:
    """Whether a GIF or WebP has several frames, as its first bytes (WebP) or its blocks (GIF) say."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(21)
            if head[:4] == b"RIFF":
                return head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)
            file.seek(0)
            return head[:4] == b"GIF8" and gif(file).has_more_frames
    except (OSError, ImageError):
        return False  # the error is reported when its turn comes


State = Mapping[str, Pixels]
"""Arrays from which the next segment goes on."""
_BUSY = "another process is translating this film"
_LOCK = "lock"


class Segments:
    """Segments 0 to `count` - 1 are there, each whole, with the state behind the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        while self._segment(self.count).is_file():
            self.count += 1

    @property
    def paths(self) -> list[Path]:
        return [self._segment(number) for number in range(self.count)]

    def state(self) -> dict[str, Pixels]:
        """The state behind the last segment. One that is lost costs all segments."""
        if self.count:
            with contextlib.suppress(OSError, ValueError, EOFError), np.load(self._state(self.count - 1)) as arrays:
                return dict(arrays)
        self.count = 0
        return {}

    def add(self, data: bytes, state: State) -> None:
        """Keeps the next segment, with the state behind it, whole or not at all. Raises `OutputError`."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **state)
        # the state first: a segment that is there has its state
        atomic_write(self._state(self.count), lambda out: out.write(file.getvalue()))
        atomic_write(self._segment(self.count), lambda out: out.write(data))
        if self.count:
            self._state(self.count - 1).unlink(missing_ok=True)
        self.count += 1

    def remove(self) -> None:
        """Removes all of them: the film is done, or never will be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _segment(self, number: int) -> Path:
        return self.folder / f"{number:06}.segment"

    def _state(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"


@contextmanager
def segments(target: Path, facts: Mapping[str, Any]) -> Iterator[Segments]:
    """The segments of the film at `target` that follows from `facts`; those of the same film by others are removed.

    They lie in a hidden folder beside it, whose name is a digest of `facts`. So the same work finds them again after a
    kill, and other work never does.

    Raises `LockedError` if another process is at work on them, `OutputError` if the folder cannot be made.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = target.with_name(f"{_stem(target)}{digest}.film")
    remove_segments(target, but=folder)
    with locked(folder / _LOCK, _BUSY):
        yield Segments(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()  # if there is nothing in it


def remove_segments(target: Path, but: Path | None = None) -> None:
    """Removes all segments of the film at `target` but those in the folder `but`, and those that a process works on."""
    for other in target.parent.glob(f"{_stem(target)}*.film"):
        if other != but:
            with contextlib.suppress(LockedError, OutputError), locked(other / _LOCK, _BUSY):
                shutil.rmtree(other, ignore_errors=True)


def _stem(target: Path) -> str:
    return f".i2i-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"


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
                f"{pixels:,} pixels in all frames: a {self._format} may have {MAX_PIXELS:,}; give "
                f"{as_typed('out', 'NAME.mp4')}, or a smaller {as_typed('size')}"
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
