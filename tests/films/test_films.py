"""Which files are films, and times that only go forward."""

from pathlib import Path

import numpy as np
import pytest
from film_samples import animation, moving
from PIL import Image

from i2i.films import Clock, is_animated, is_video, written_suffix


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_several_frames_are_an_animation(tmp_path: Path, suffix: str) -> None:
    assert is_animated(animation(tmp_path / f"a{suffix}"))
    Image.fromarray(moving(1)[0]).save(tmp_path / f"b{suffix}")
    assert not is_animated(tmp_path / f"b{suffix}")
    Image.fromarray(np.dstack([moving(1)[0], moving(1)[0][..., 0]])).save(tmp_path / f"c{suffix}")
    assert not is_animated(tmp_path / f"c{suffix}")


def test_whatever_a_file_holds_there_is_an_answer(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"RIFF", b"RIFF\0\0\0\0WEBPVP8X", b"GIF89a", bytes(99))):
        path = tmp_path / f"{number}.gif"
        path.write_bytes(data)
        assert not is_animated(path)
    assert not is_animated(tmp_path) and not is_animated(tmp_path / "missing.gif")


def test_suffixes() -> None:
    assert [written_suffix(suffix) for suffix in (".MP4", ".mov", ".webm", ".gif")] == [".MP4", ".mov", ".webm", ".gif"]
    assert written_suffix(".avi") == written_suffix(".mts") == ".mkv"
    assert is_video(Path("a.AVI")) and not is_video(Path("a.webp"))


def test_a_clock_only_goes_forward() -> None:
    clock = Clock(40)
    assert [clock.next(time) for time in (None, 30, 30, 10, None, 200, None)] == [0, 30, 31, 32, 72, 200, 240]
    assert Clock(40).next(-80) == -80
