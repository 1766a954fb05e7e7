"""`--show`: the bytes that a terminal gets, decoded again, and which terminals are recognised."""

import base64
import os
import pty
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from i2i.images import Picture, Pixels, decode, write
from i2i.tools import show as shown
from i2i.tools.show import encoded, fitted, has_sixel, recognised


def picture(height: int = 31, width: int = 47) -> Pixels:
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]).astype(np.uint8)


def from_sixel(data: bytes) -> Pixels:
    """The pixels of a sixel picture, by its definition alone."""
    match = re.fullmatch(rb'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\', data, re.DOTALL)
    assert match
    width, height = int(match[1]), int(match[2])
    pixels, colours = np.full((height, width, 3), -1), {}
    x, top, colour = 0, 0, (0, 0, 0)
    for number, define, count, sixel, other in re.findall(rb"#(\d+)((?:;\d+){4})?|(?:!(\d+))?([?-~])|([$-])", match[3]):
        if define:
            kind, *percent = map(int, define[1:].split(b";"))
            assert kind == 2
            colours[int(number)] = tuple(round(p * 2.55) for p in percent)
        elif number:
            colour = colours[int(number)]
        elif other:
            x, top = 0, top + 6 * (other == b"-")
        else:
            bits, end = sixel[0] - 63, x + int(count or 1)
            for row in range(6):
                if bits >> row & 1:
                    pixels[top + row, x:end] = colour
            x = end
    return pixels


@pytest.mark.parametrize("size", [(31, 47), (1, 1), (6, 300), (120, 7)])
def test_sixel(size: tuple[int, int]) -> None:
    found = from_sixel(encoded(picture(*size), "sixel"))
    assert (found >= 0).all(), "every pixel has a colour"
    assert np.abs(found - picture(*size)).mean() < 6


def test_few_colours_are_exact_in_sixel() -> None:
    pixels = np.zeros((13, 20, 3), np.uint8)
    pixels[4:9, 5:15] = (255, 0, 51)
    np.testing.assert_array_equal(from_sixel(encoded(pixels, "sixel")), pixels)


def test_kitty() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    data = encoded(pixels, "kitty")
    parts = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", data)
    assert b"".join(b"\x1b_G%b;%b\x1b\\" % part for part in parts) == data
    assert len(parts) > 3 and all(len(part) <= 4096 for _, part in parts)
    controls = [dict(pair.split(b"=") for pair in control.split(b",")) for control, _ in parts]
    assert controls[0] == {b"a": b"T", b"f": b"100", b"q": b"2", b"m": b"1"}
    assert [control[b"m"] for control in controls[1:]] == [b"1"] * (len(parts) - 2) + [b"0"]
    np.testing.assert_array_equal(decode(base64.b64decode(b"".join(part for _, part in parts))).pixels, pixels)


def test_iterm() -> None:
    match = re.fullmatch(rb"\x1b\]1337;File=([^:]*):([^\a]*)\a", encoded(picture(), "iterm"))
    assert match
    png = base64.b64decode(match[2])
    assert match[1] == b"inline=1;size=%d;width=47px;height=31px" % len(png)
    np.testing.assert_array_equal(decode(png).pixels, picture())


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({}, None),
    ],
)
def test_terminals_are_recognised_by_the_environment(environment: dict[str, str], protocol: str | None) -> None:
    assert recognised(environment) == protocol


class Terminal:
    """A terminal that answers the question for its attributes with certain bytes."""

    def __init__(self, answer: bytes) -> None:
        self.here, self.there = pty.openpty()
        self.answer, self.asked = answer, b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.asked = os.read(self.here, 100)
        os.write(self.here, self.answer)

    @property
    def name(self) -> str:
        return os.ttyname(self.there)


@pytest.mark.parametrize(
    ("answer", "has"),
    [
        (b"\x1b[?62;4;22c", True),
        (b"\x1b[?64;1;2;14;4c", True),
        (b"\x1b[?62;22;14c", False),
        (b"\x1b[?1;2c", False),
        (b"\x1b[?6", False),
        (b"", False),
    ],
)
def test_another_terminal_is_asked(answer: bytes, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp())
    terminal = Terminal(answer)
    assert has_sixel(terminal.name, 0.3) == has
    assert terminal.asked == b"\x1b[c"


def test_a_job_in_the_background_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp() + 1)
    terminal = Terminal(b"\x1b[?62;4c")
    assert not has_sixel(terminal.name, 0.2) and terminal.asked == b""
    assert not has_sixel("/dev/null") and not has_sixel("/nowhere")


@pytest.mark.parametrize(
    ("size", "room", "expected"),
    [((4000, 3000), (800, 480), (640, 480)), ((100, 50), (800, 480), (100, 50)), ((9000, 1), (800, 480), (800, 1))],
)
def test_a_picture_is_scaled_to_the_room(
    size: tuple[int, int], room: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(*size, *room) == expected


def test_the_first_result_reaches_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", Picture(picture()))
    here, there = pty.openpty()
    monkeypatch.setattr("sys.stderr", os.fdopen(there, "w"))
    monkeypatch.setattr(shown, "recognised", lambda environment: "iterm")
    monkeypatch.setattr(shown, "room", lambda terminal: (20, 100))
    assert shown.show(tmp_path / "a.png") == ""
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(here, 1 << 16)
    assert b"width=20px;height=13px" in data
    (tmp_path / "b.png").write_bytes(b"junk")
    assert "not a picture" in shown.show(tmp_path / "b.png") or "text" in shown.show(tmp_path / "b.png")
    monkeypatch.setattr(shown, "recognised", lambda environment: None)
    monkeypatch.setattr(shown, "has_sixel", lambda: False)
    assert "shows no pictures" in shown.show(tmp_path / "a.png")


def test_without_a_terminal_a_line_says_so(tmp_path: Path) -> None:
    assert shown.show(tmp_path / "a.png") == "--show: no terminal to show it on"
