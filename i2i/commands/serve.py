"""`serve`: a page in the browser that translates pictures."""

import secrets
import webbrowser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval

from i2i.commands.options import POSITIONAL
from i2i.errors import ModelError, UsageError
from i2i.inference.options import ModelOptions, Precision, RuntimeName
from i2i.signals import STOPPING
from i2i.terminal import say_plain

if TYPE_CHECKING:
    from i2i.models.styles import Style

FIRST = "monet"
"""The style that the page begins with."""


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    styles: Annotated[tuple[str, ...], POSITIONAL] = ()
    """The styles to offer: names, run folders, model files. Default: all that are on this machine."""
    host: str = "127.0.0.1"
    """Who can open the page: 127.0.0.1 is this machine alone, 0.0.0.0 the whole network. Visitors from the network need
    the token that is printed."""
    port: Annotated[int, Interval(ge=0, le=65_535)] = 7860
    """The number behind the colon in the address; 0 takes a free one."""
    allow_host: tuple[str, ...] = ()
    """Further names of this server, as visitors type them, such as that of a proxy before it."""
    token: bool = False
    """Ask for a token on 127.0.0.1 too, where other users of this machine may reach the page."""
    open: bool = False
    """Open the page in this machine's browser."""
    max_megabytes: Annotated[float, Interval(gt=0, le=1000)] = 64
    """Refuse larger files, in megabytes."""
    max_megapixels: Annotated[float, Interval(gt=0, le=178)] = 50
    """Refuse larger pictures, in megapixels."""
    max_pictures: Annotated[int, Interval(ge=1, le=1000)] = 200
    """Refuse more pictures in one request."""
    time_limit: Annotated[float, Ge(1)] = 600
    """The seconds that one visitor's request may take; it then ends with the pictures done so far."""
    device: str = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Arithmetic, as for `translate`."""
    runtime: RuntimeName = "auto"
    """The library that computes, as for `translate`."""


def serve(options: ServeCommand) -> None:
    from i2i.tools.page import server
    from i2i.tools.page.guard import is_loopback

    server.check_installed()
    styles = offered(options.styles)
    token = secrets.token_urlsafe(16) if options.token or not is_loopback(options.host) else ""
    with server.listen(options.host, options.port) as listening:
        _serve(options, styles, token, listening)


def offered(names: Sequence[str]) -> "dict[str, Style]":
    """The styles to offer, by the names that the page shows. Raises `I2IError` for one that cannot be used.

    Without `names` all that are on this machine, but for models of values in units; generators of pictures from noise
    take no picture.
    """
    from i2i.models.styles import list_styles

    if names:
        found = list({style.path: style for name in names for style in _named(name)}.values())
    else:
        found = [style for style in list_styles() if style.path is not None and not style.problem]
        found.sort(key=lambda style: style.name != FIRST)
    found = [style for style in found if style.input_domain != "noise"]
    in_units = [style for style in found if _is_in_units(style)]
    if names and in_units:
        raise UsageError(
            f"{in_units[0].name} is a model of values in units, which a page cannot show; "
            "use i2i translate, or give styles of pictures"
        )
    found = [style for style in found if style not in in_units]
    if problem := next((style for style in found if style.problem), None):
        raise ModelError(f"{problem.name}: {problem.problem}")
    if twice := [name for name, count in Counter((s.name, s.direction) for s in found).items() if count > 1]:
        raise UsageError(f"two styles are called {twice[0][0]!r}: install one under another name, or give one of them")
    if not found:
        raise UsageError("no style that takes pictures is on this machine; give one: i2i serve STYLE")
    counts = Counter(style.name for style in found)
    return {style.name if counts[style.name] == 1 else f"{style.name} {style.direction}": style for style in found}


def _is_in_units(style: "Style") -> bool:
    """Whether its file says so; that of a checkpoint says nothing."""
    from i2i.models.info import read_info

    if style.path is None or style.path.suffix != ".safetensors" or style.problem:
        return False
    return read_info(style.path).in_units


def _named(name: str) -> "list[Style]":
    """The style of that name, or both directions of a run. Visitors see no path of this machine."""
    from i2i.models import styles

    path = Path(name)
    if path.is_dir() and (runs := [style for style in styles.list_styles([path]) if style.source == "run"]):
        return [replace(style, name=path.resolve().name) for style in runs]
    found = styles.find(name)
    shown = name if styles.is_name(name) else path.stem
    if found.suffix in (".pth", ".pt"):  # it tells its network when it is loaded
        return [styles.Style(name=shown, source="run", path=found)]
    return [styles.style_at(shown, "run", found)]


def _serve(options: ServeCommand, styles: "dict[str, Style]", token: str, listening: socket) -> None:
    """Serve until a signal comes."""
    from i2i.signals import BOTH, Signals, interrupted
    from i2i.tools.page import server
    from i2i.tools.page.studio import Bounds, Studio

    bounds = Bounds(
        file_bytes=int(options.max_megabytes * 1e6),
        pixels=int(options.max_megapixels * 1e6),
        pictures=options.max_pictures,
        seconds=options.time_limit,
    )
    computing = ModelOptions(device=options.device, precision=options.precision, runtime=options.runtime)
    studio = Studio(styles, computing, bounds)
    hosts, port = server.own_names(options.host, options.allow_host), listening.getsockname()[1]
    with Signals(BOTH, STOPPING, impatient=BOTH) as signals, server.temporary_folder() as folder:
        page = server.Server(studio, folder, hosts, token, port)
        address = server.address(options.host, port, token)
        print(address, flush=True)
        say_plain("Ctrl-C ends the page. " + ("" if token else "Only this machine can open it."))
        if options.open:
            webbrowser.open(address)
        page.run(listening, signals)
    if signals.received:
        raise interrupted(signals.received, "the page is closed; its temporary files are gone", terminated=143)
