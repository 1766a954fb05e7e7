"""The lines that say how far a translation is."""

from pathlib import Path
from typing import Any

import pytest
from rich import progress as bars
from rich.console import Console

from i2i.folders import report

CLIP = Path("clip\n.mp4")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("i2i.folders.report.time.monotonic", lambda: now[0])
    return now


def test_plain_lines_say_frames_a_second_and_the_time_left(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with report.progress() as show:
        for done in range(64, 264):  # as after a kill
            clock[0] += 0.25
            show.frames(done, 464, CLIP)
        assert capsys.readouterr().err == "clip\\n.mp4: 183/464 frames, 4.0 frames/s, 70 s left\n"
        clock[0] += 40
        show(1, 3, CLIP)
        assert capsys.readouterr().err == "1/3, 0.0 images/s, 180 s left\n"
        show.frames(1, 0, Path("other.mp4"))
        clock[0] += 40
        show.frames(81, 0, Path("other.mp4"))
        assert capsys.readouterr().err == "other.mp4: 81 frames, 2.0 frames/s\n"


def test_a_live_line_for_the_film_at_hand(clock: list[float]) -> None:
    columns: tuple[Any, ...] = (bars.TextColumn("{task.description}"), bars.TextColumn("{task.fields[speed]}"))
    bar = bars.Progress(*columns, console=Console(file=open("/dev/null", "w")))  # noqa: PTH123, SIM115
    show = report._Bar(bar)
    show.frames(10, 40, CLIP)
    clock[0] += 2
    show.frames(30, 40, CLIP)
    inputs, film = bar.tasks
    assert (film.description, film.completed, film.total) == ("clip\\n.mp4", 30, 40)
    assert film.fields["speed"] == "10.0 frames/s"
    show(1, 2, CLIP)
    assert bar.tasks == [inputs] and (inputs.completed, inputs.total) == (1, 2)
    show.frames(5, 0, Path("other.mp4"))
    assert bar.tasks[1].total is None
