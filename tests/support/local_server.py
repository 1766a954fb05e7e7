"""A server on this machine that speaks https and answers as a test tells it, well or badly."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class LocalServer:
    """`url`: its address, without a slash at the end. `context`: trusts it. `requests`: path and headers so far."""

    url: str
    context: ssl.SSLContext
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def serve(self, path: str, data: bytes, **options: object) -> str:
        """The URL of `data`; the options are those of `file`."""
        return self.answer(path, file(data, **options))  # type: ignore[arg-type]

    def answer(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.url + path


def file(
    data: bytes,
    *,
    etag: str | None = '"one"',
    modified: str | None = None,
    ranges: bool = True,
    stop: int | None = None,
    announced: int | None = None,
    status: int = 200,
    length: bool = True,
) -> Answer:
    """A good server of files. `stop`: ends after so many bytes; `announced`: another length than is sent."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        start = _start(request, etag, modified) if ranges else 0
        if start > len(data) - 1 and start:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(data)}")
            request.end_headers()
            return
        request.send_response(206 if start else status)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in (("ETag", etag), ("Last-Modified", modified)):
            if value:
                request.send_header(name, value)
        if length:
            request.send_header("Content-Length", str(len(data) - start if announced is None else announced))
        request.end_headers()
        request.wfile.write(data[start : len(data) if stop is None else start + stop])

    return answer


def _start(request: BaseHTTPRequestHandler, etag: str | None, modified: str | None) -> int:
    wanted = request.headers.get("Range", "")
    same = request.headers.get("If-Range") in (None, etag, modified)
    return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and same else 0


def redirect(to: str, status: int = 302) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", to)
        request.end_headers()

    return answer


def raw(data: bytes, wait: threading.Event | None = None) -> Answer:
    """These bytes instead of an answer, and then silence until `wait` is set."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        if wait is not None:
            wait.wait(10)

    return answer


@contextlib.contextmanager
def running() -> Iterator[LocalServer]:
    """The server at work; its certificate is for `localhost`."""
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    local = LocalServer("", context)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            local.requests.append((self.path, dict(self.headers)))
            known = local.answers.get(self.path)
            if known is None:
                self.send_error(404)
            else:
                known(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what some tests are about."""

    with Server(("localhost", 0), Handler) as server:
        # the handshake waits for the first byte, in the connection's own thread
        server.socket = server_side.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        local.url = f"https://localhost:{server.server_address[1]}"
        try:
            yield local
        finally:
            server.shutdown()
            thread.join()
