"""The server of the page: its address, who may ask it, its temporary folder, its end."""

import asyncio
import contextlib
import errno
import importlib.metadata
import ipaddress
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from i2i.errors import UsageError
from i2i.files import remove_strays, shared_folder
from i2i.signals import Signals
from i2i.tools.page.guard import Guard, Rules, is_loopback
from i2i.tools.page.studio import Studio, files_in, used

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
KEPT_SECONDS = 3600
"""How long a picture stays here that nobody uses; uploads and results of a page that is closed go sooner or then."""
MAX_REQUEST_BYTES = 1 << 30
"""The most that one request may upload: a dropped folder comes in one."""
MAX_FOLDER_BYTES = 8 << 30
"""The most that all visitors' files may take when one uploads more."""
MAX_KEPT_BYTES = 4 << 30
"""The most that stays: each minute the oldest files beyond go."""
HEADER_SECONDS = 20.0
"""How long a connection may take to send the header of a request."""
CONNECTIONS = 512
"""Connections at once, at most."""
_NAME = "page"
_NEW_SECONDS = 60  # in which another server may not have locked its folder yet
_LEAST = (6, 20)


def check_installed() -> None:
    """Raises `UsageError` where Gradio is missing or too old."""
    how = 'pip install "i2i[web]", in an environment of its own, as Gradio needs a Pillow below 13'
    if find_spec("gradio") is None:
        raise UsageError(f"the page needs Gradio, which is not installed: {how}")
    version = importlib.metadata.version("gradio")
    if tuple(int(part) for part in version.split(".")[:2]) < _LEAST:
        raise UsageError(f"the page needs Gradio {'.'.join(map(str, _LEAST))} or newer, this is {version}: {how}")


def own_names(host: str, more: Sequence[str] = ()) -> frozenset[str]:
    """The names by which this server may be asked when it listens at `host`."""
    names = {*LOOPBACK, host, *map(_host, more)}
    if not is_loopback(host):
        import psutil

        names |= {socket.gethostname()}
        names |= {a.address.partition("%")[0] for found in psutil.net_if_addrs().values() for a in found}
    return frozenset(name.lower().strip("[]") for name in names)


def _host(name: str) -> str:
    """The host in what may be a whole address, as it is copied from a browser."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return urlsplit(name if "//" in name else f"//{name}").hostname or name


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises `UsageError` where that cannot be."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OverflowError:
        raise UsageError(f"--port {port}: expected 0 to 65535") from None
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"--host {host}: no address of this machine; 127.0.0.1 is this machine alone") from None
        reason = str(error.strerror or error).partition(" (while")[0]  # the address stands there once more
        raise UsageError(
            f"--host {host} --port {port}: {reason}. Another port: --port {port + 1}, or --port 0 for a free one"
        ) from None


def address(host: str, port: int, token: str) -> str:
    """The address to type into a browser on this machine, or on another where `host` is for all."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


class Server:
    """The page on a socket, until `stop`. Its files are in `folder`."""

    def __init__(self, studio: Studio, folder: Path, hosts: frozenset[str], token: str, port: int) -> None:
        os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_EXAMPLES_CACHE": str(folder / "examples")}
        tempfile.tempdir = str(folder)
        self._studio, self._folder = studio, folder
        threading.Thread(target=self._warm_up, name="i2i-warm-up", daemon=True).start()
        import uvicorn  # while the first style is being loaded: this takes seconds

        from i2i.tools.page import page

        app, waiting = page.build_app(studio, folder)
        rules = Rules(
            hosts=hosts,
            folder=folder,
            routes=page.ROUTES,
            files=page.FILES,
            uploads=page.UPLOADS,
            max_upload=lambda: min(MAX_REQUEST_BYTES, max(0, MAX_FOLDER_BYTES - used(folder))),
            joins=page.JOINS,
            waiting=waiting,
            most_waiting=page.QUEUE,
            token=token,
            cookie=f"i2i-{port}",  # cookies are shared by all ports
        )
        guard: Any = Guard(app, rules)
        config = uvicorn.Config(
            guard,
            http=patient_protocol(),
            limit_concurrency=CONNECTIONS,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    def _warm_up(self) -> None:
        """Make the thumbnails, while no visitor waits; the first style stays loaded."""
        for name in self._studio.styles:
            with contextlib.suppress(Exception):  # choosing the style shows the error
                self._studio.example(name, self._folder)
        with contextlib.suppress(Exception):
            self._studio.translator(next(iter(self._studio.styles)))

    def run(self, listening: socket.socket, signals: Signals) -> None:
        """Serves until a signal comes; then ends after the picture at hand."""
        thread = threading.Thread(target=self._server.run, args=([listening],), name="i2i-page")
        thread.start()
        try:
            swept = time.monotonic()
            while thread.is_alive() and not signals.received:
                thread.join(0.2)
                if time.monotonic() - swept > KEPT_SECONDS / 60:
                    swept = time.monotonic()
                    remove_old(self._folder, time.time() - KEPT_SECONDS, MAX_KEPT_BYTES)
        finally:
            self._studio.close()
            self._server.should_exit = True
            thread.join()


def patient_protocol() -> type[Any]:
    """HTTP by uvicorn, where no connection waits for ever: one that sends no whole request in time is closed.

    Else a few programs that open connections and stay silent would keep all others out (Slowloris, 2009). The guard
    bounds the time of a body.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        """A connection, which is looked at each second while it is open."""

        _since = 0.0

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._since = self.loop.time()
            self._close_if_late()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._since = self.loop.time()

        def _close_if_late(self) -> None:
            if self.transport.is_closing():
                return
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if not is_answering and self.loop.time() - self._since > HEADER_SECONDS:
                self.transport.abort()
            else:
                self.loop.call_later(min(1, HEADER_SECONDS / 2), self._close_if_late)

    return Protocol


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for this user alone, removed at the end; those that killed servers have left go now."""
    before, parent = tempfile.tempdir, Path(tempfile.gettempdir())
    remove_strays(parent, time.time() - _NEW_SECONDS, _NAME)
    try:
        with shared_folder(_NAME, parent, 0o700) as folder:
            yield folder.resolve()
    finally:
        tempfile.tempdir = before


def remove_old(folder: Path, before: float, most: int) -> None:
    """Remove files in folders of `folder` that were last changed before that time, and the oldest until all take at
    most so many bytes; then the folders that are empty."""
    size = used(folder)
    for path, status in sorted(files_in(folder, "*/**/*"), key=lambda found: found[1].st_mtime):
        if size <= most and status.st_mtime >= before:
            break
        with contextlib.suppress(OSError):
            is_last = path.lstat().st_nlink == 1
            path.unlink()
            size -= status.st_size if is_last else 0
    for path in sorted(folder.glob("*/**/"), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()
