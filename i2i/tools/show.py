"""A picture in a terminal, by the protocol that it knows: kitty's, iTerm2's, or sixel.

The environment names most terminals. Any other is asked for its device attributes (DA1, VT220's manual): 4 among them
is sixel. Within tmux or screen the environment is that of the terminal outside, so they are always asked.
"""

import base64
import io
import os
import re
import select
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from i2i.errors import ImageError
from i2i.files import write_all
from i2i.images import Picture, Pixels, encode, read
from i2i.terminal import printable
from i2i.tools.pictures import in_colour

Protocol = Literal["kitty", "iterm", "sixel"]

SECONDS = 0.5
"""A terminal has so long to answer."""
_NAMED: dict[str, Protocol] = {"iTerm.app": "iterm", "WezTerm": "iterm", "mintty": "iterm", "ghostty": "kitty"}
_QUERY, _ANSWER = b"\x1b[c", re.compile(rb"\x1b\[\?([\d;]*)c")
_CELL = 10, 20
_SHARE = 0.7  # a share of the terminal's height
_CHUNK = 4096
_COLOURS = 255


def show(path: Path) -> str:
    """Shows the picture in a file on the terminal; returns why it cannot, else an empty text."""
    stream = next((stream for stream in (sys.stderr, sys.stdout) if stream is not None and stream.isatty()), None)
    if stream is None:
        return "--show: no terminal to show it on"
    protocol = recognised(os.environ)
    if protocol is None and not has_sixel():
        return f"--show: this terminal shows no pictures (kitty, iTerm2 and sixel do); the first is {printable(path)}"
    try:
        pixels = in_colour(read(path))
    except ImageError as error:
        return f"--show: {printable(path)}: {error}"
    size = fitted(pixels.shape[1], pixels.shape[0], *room(stream.fileno()))
    pixels = np.ascontiguousarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    stream.flush()
    try:
        write_all(stream.fileno(), encoded(pixels, protocol or "sixel") + b"\n")
    except OSError as error:
        return f"--show: {error.strerror}"
    return ""


def recognised(environment: Mapping[str, str]) -> Protocol | None:
    """The protocol of a terminal that the environment names; none within tmux or screen."""
    term = environment.get("TERM", "")
    if environment.get("TMUX") or term.startswith(("tmux", "screen")):
        return None
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return _NAMED.get(environment.get("TERM_PROGRAM", ""))


def has_sixel(name: str = "/dev/tty", seconds: float = SECONDS) -> bool:
    """Whether the terminal answers, within that time, that it has sixel. False where there is none to ask."""
    try:
        import termios
        import tty

        terminal = os.open(name, os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError):
        return False
    try:
        before = termios.tcgetattr(terminal)
        if os.tcgetpgrp(terminal) != os.getpgrp():  # the system stops a job of the background that changes a terminal
            return False
        try:
            tty.setcbreak(terminal)
            return b"4" in _attributes(terminal, seconds).split(b";")
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)  # late answers are dropped
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)


def _attributes(terminal: int, seconds: float) -> bytes:
    """The numbers of the terminal's answer, with semicolons between; empty without one."""
    write_all(terminal, _QUERY)
    end, answer = time.monotonic() + seconds, b""
    while (left := end - time.monotonic()) > 0 and select.select([terminal], [], [], left)[0]:
        part = os.read(terminal, 256)
        answer += part
        if not part or (found := _ANSWER.search(answer)):
            return found[1] if part and found else b""
    return b""


def room(terminal: int) -> tuple[int, int]:
    """The pixels across and down that a picture may take: the width of a terminal, and a part of its height."""
    columns, rows = os.get_terminal_size(terminal)
    across, down = columns * _CELL[0], rows * _CELL[1]
    try:
        import fcntl
        import struct
        import termios

        sizes = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, b"\0" * 8))
        across, down = sizes[2] or across, sizes[3] or down
    except (ImportError, OSError):
        pass
    return max(1, across), max(1, int(down * _SHARE))


def fitted(width: int, height: int, across: int, down: int) -> tuple[int, int]:
    """The size of a picture within that room; never enlarged."""
    scale = min(1.0, across / width, down / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def encoded(pixels: Pixels, protocol: Protocol) -> bytes:
    """(H, W, 3) uint8 as the bytes that make a terminal show it."""
    if protocol == "sixel":
        return _sixel(pixels)
    png = encode(replace(Picture(pixels), format="PNG"), "PNG")
    data = base64.b64encode(png)
    if protocol == "iterm":
        height, width = pixels.shape[:2]
        sizes = f"size={len(png)};width={width}px;height={height}px".encode()
        return b"\x1b]1337;File=inline=1;" + sizes + b":" + data + b"\a"
    return b"".join(_kitty(data))


def _kitty(data: bytes) -> Iterator[bytes]:
    """PNG in base64, transmitted and shown (kitty's graphics protocol), in parts as it asks for."""
    parts = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    for number, part in enumerate(parts):
        control = b"a=T,f=100,q=2," if number == 0 else b""
        yield b"\x1b_G" + control + b"m=%d;" % (number < len(parts) - 1) + part + b"\x1b\\"


def _sixel(pixels: Pixels) -> bytes:
    """Sixel (VT330/VT340 manual, ch. 14): bands of six rows; in each, a line of bits for every colour in it."""
    image = Image.fromarray(pixels).quantize(_COLOURS, dither=Image.Dither.FLOYDSTEINBERG)
    palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
    numbers = np.asarray(image)
    height, width = numbers.shape
    out = io.BytesIO()
    out.write(b'\x1bPq"1;1;%d;%d' % (width, height))
    for number, colour in enumerate(palette):
        out.write(b"#%d;2;%d;%d;%d" % (number, *(round(int(value) * 100 / 255) for value in colour)))
    for top in range(0, height, 6):
        band = numbers[top : top + 6]
        places = (1 << np.arange(len(band)))[:, None]
        lines = (b"#%d" % c + _packed(((band == c) * places).sum(axis=0) + 63) for c in np.unique(band))
        out.write(b"$".join(lines) + b"-")
    out.write(b"\x1b\\")
    return out.getvalue()


def _packed(line: Pixels) -> bytes:
    """A line of sixels with runs of more than three as `!count`."""
    runs = ((bytes([value]), len(list(same))) for value, same in groupby(line.tolist()))
    return b"".join(b"!%d" % count + value if count > 3 else value * count for value, count in runs)
