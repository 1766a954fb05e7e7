"""Tiny films, made by PyAV and Pillow: a texture that moves, and a tone."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from i2i.images import Pixels

RATE = 48_000


def pyav() -> Any:
    """PyAV, or the test is skipped."""
    return pytest.importorskip("av", reason="PyAV is not installed: pip install 'i2i[video]'")


def moving(count: int = 12, height: int = 48, width: int = 64, step: tuple[float, float] = (2, 1)) -> list[Pixels]:
    """A texture that goes `step` pixels to the left and up from frame to frame."""
    noise = np.random.default_rng(5).integers(0, 256, (height + 2 * count + 8, width + 4 * count + 8, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)
    texture = np.clip((texture - 127) * 4 + 127, 0, 255)
    frames = []
    for number in range(count):
        shift = np.array([[1, 0, -step[0] * number], [0, 1, -step[1] * number]], np.float32)
        frames.append(np.rint(cv2.warpAffine(texture, shift, (width, height))).astype(np.uint8))
    return frames


def video(
    path: Path,
    frames: Sequence[Pixels] | None = None,
    *,
    times: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 30_000),
    codec: str = "",
    sound: str | None = "",
    pixels: str = "yuv420p",
    tags: tuple[int, int, int] = (2, 2, 2),
    **options: str,
) -> Path:
    """A film of these frames at 30 a second or at `times`, with a tone. `tags`: matrix, primaries, transfer."""
    av = pyav()
    frames = moving() if frames is None else frames
    times = [1000 * number for number in range(len(frames))] if times is None else times
    webm = path.suffix == ".webm"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec or ("libvpx-vp9" if webm else "libx264"), rate=30)
        stream.options = {"crf": "8"}
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.time_base = stream.time_base = base
        context.colorspace, context.color_primaries, context.color_trc = tags
        if sound is not None:
            _tone(av, out, sound or ("libopus" if webm else "aac"), max(1, len(frames)) / 30)
        for frame, time in zip(frames, times, strict=True):
            kind = "rgb24" if frame.dtype == np.uint8 else "rgb48le"
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            picture.pts, picture.time_base = time, base
            out.mux(stream.encode(picture.reformat(format=pixels, dst_colorspace=5)))
        out.mux(stream.encode())
    return path


def _tone(av: Any, out: Any, codec: str, seconds: float) -> None:
    stream = out.add_stream(codec, rate=RATE, layout="mono")
    wave = (np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * 440 / RATE) * 8000).astype(np.int16)
    for start in range(0, len(wave), 960):
        part = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = RATE, start, Fraction(1, RATE)
        out.mux(stream.encode(part))
    out.mux(stream.encode(None))


def sound_only(path: Path) -> Path:
    av = pyav()
    with av.open(str(path), "w") as out:
        _tone(av, out, "aac", 0.5)
    return path


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and bytes of each packet of the first stream of that kind."""
    with pyav().open(str(path)) as film:
        found = [packet for packet in film.demux(getattr(film.streams, kind)[0]) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in found]


def decoded(path: Path) -> list[tuple[Fraction, Pixels]]:
    """Time and pixels of each frame, as another program reads them."""
    with pyav().open(str(path)) as film:
        return [(frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]


def animation(path: Path, frames: Sequence[Pixels] | None = None, durations: int | list[int] = 40, **more: Any) -> Path:
    """A GIF or WebP of these frames."""
    images = [Image.fromarray(frame) for frame in (moving(4) if frames is None else frames)]
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, **more)
    return path


def shown(path: Path) -> list[tuple[int, Pixels]]:
    """Duration and pixels (H, W, 4) of each frame of a GIF or WebP."""
    found = []
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            found.append((round(image.info.get("duration", 0)), np.array(image.convert("RGBA"))))
    return found


def join_by_segments(frames: Sequence[Any], writer: Any, target: Path, suffix: str, per_segment: int) -> None:
    """Writes frames to `target` by segments of so many."""
    parts = []
    for start in range(0, len(frames), per_segment):
        segment = writer.segment()
        for frame in frames[start : start + per_segment]:
            segment.add(frame)
        parts.append(target.with_name(f"{start}{suffix}"))
        parts[-1].write_bytes(segment.finish())
    writer.join(parts, target, frames[-1].duration)
