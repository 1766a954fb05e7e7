"""GIF and animated WebP: frames, durations and transparency."""

from pathlib import Path

import numpy as np
import pytest
from film_samples import animation, join_by_segments, moving, shown
from PIL import Image

from i2i import films as module
from i2i.errors import ImageError
from i2i.films import AnimationReader, AnimationWriter, Frame


def frames_of(path: Path) -> list[Frame]:
    with AnimationReader(path) as reader:
        return list(reader.frames())


def copied(source: Path, target: Path, per_segment: int = 3) -> AnimationWriter:
    with AnimationReader(source) as reader:
        writer = AnimationWriter(reader.film, target.suffix, 95, silent=True)
        frames = list(reader.frames())
    join_by_segments(frames, writer, target, ".part", per_segment)
    return writer


@pytest.mark.parametrize("source", [".gif", ".webp"])
@pytest.mark.parametrize("target", [".gif", ".webp"])
def test_frames_durations_and_loops_stay(tmp_path: Path, source: str, target: str) -> None:
    path = animation(tmp_path / f"a{source}", durations=[40, 200, 100, 70])
    copied(path, tmp_path / f"b{target}")
    before, after = shown(path), shown(tmp_path / f"b{target}")
    assert [time for time, _ in after] == [40, 200, 100, 70]
    assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(before, after, strict=True)) < 12
    with Image.open(tmp_path / f"b{target}") as image:
        assert image.info["loop"] == 0


def test_a_gif_that_is_shown_once(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in moving(3)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=50)
    copied(tmp_path / "a.gif", tmp_path / "b.gif")
    with Image.open(tmp_path / "b.gif") as image:
        assert "loop" not in image.info


def test_a_frame_of_no_duration_is_shown_as_browsers_do(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif", durations=0)
    assert [(frame.time, frame.duration) for frame in frames_of(path)] == [(0, 100), (100, 100), (200, 100), (300, 100)]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_transparency_stays(tmp_path: Path, suffix: str) -> None:
    frames = [np.dstack([frame, np.full((48, 64), 255, np.uint8)]) for frame in moving(3)]
    for number, frame in enumerate(frames):
        frame[:, : 10 * (number + 1), 3] = 0
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=50, lossless=True)
    assert [frame.picture.alpha is not None for frame in frames_of(tmp_path / "a.webp")] == [True] * 3
    copied(tmp_path / "a.webp", tmp_path / f"b{suffix}")
    for number, (_, pixels) in enumerate(shown(tmp_path / f"b{suffix}")):
        expected = np.where(np.arange(64) < 10 * (number + 1), 0, 255)
        assert np.abs(pixels[..., 3].astype(int) - expected).mean() < 4


def test_one_that_does_not_move_is_a_film_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(moving(1)[0]).save(tmp_path / "a.gif")
    assert len(frames_of(tmp_path / "a.gif")) == 1
    copied(tmp_path / "a.gif", tmp_path / "b.webp")
    assert len(shown(tmp_path / "b.webp")) == 1


def test_a_film_that_is_too_long_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 3 * 48 * 64)
    with pytest.raises(ImageError, match=r"12,288 pixels in all frames: a GIF may have 9,216; give out='NAME\.mp4'"):
        copied(animation(tmp_path / "a.gif"), tmp_path / "b.gif")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"no film" * 9], ids=["empty", "cut short", "text"])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(ImageError):
        frames_of(tmp_path / "a.gif")


def test_a_damaged_frame_is_refused(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.webp")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(ImageError):
        frames_of(path)
