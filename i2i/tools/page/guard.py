"""The guard of the page: an ASGI application around another that refuses what the page itself would not ask for.

Every web site that is open in the same browser can reach a server on this machine. So a request must name this
server as its host (else a site could give its own name our address), and must come from this page (`Origin`,
`Sec-Fetch-Site`). With a token, only who knows it comes in. Only listed routes exist, and bodies have limits. No
request may name a file outside `Rules.folder`, neither in its path nor anywhere in its JSON.
"""

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

MAX_JSON_BYTES = 8 << 20
BODY_SECONDS = 60.0
"""How long the body of a request may take; of an upload each part of it."""
_LOOK_BYTES = 64 << 20  # after so many of an upload it is looked whether others have filled the folder meanwhile
_NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
        b"connect-src 'self' blob: data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The requests that come in.

    * `hosts`: the names of this server. Its port is free, as a tunnel may have another.
    * `folder`: the only folder whose files a request may name.
    * `routes`: for each method the paths that exist; one that ends with `*` stands for all that begin so.
    * `files`: the beginning of the paths that name a file.
    * `uploads`: the path that takes files; `max_upload()` is how many bytes one request may bring there now.
    * `joins`: the path that takes a place among the requests that wait. `waiting()` has the session of each of these,
      and `most_waiting` is their most. One session may take an eighth of the places, and one address half of them.
    * `token`: what visitors must know; empty lets all in.
    """

    hosts: frozenset[str]
    folder: Path
    routes: Mapping[str, tuple[str, ...]]
    files: str
    uploads: str
    max_upload: Callable[[], int]
    joins: str = ""
    waiting: Callable[[], Sequence[str]] = lambda: ()
    most_waiting: int = 1
    token: str = ""
    cookie: str = "i2i"


class Refused(Exception):
    """A request that does not come in: the status, and a text that says nothing of this machine."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """`application` behind `rules`."""

    def __init__(self, application: Application, rules: Rules) -> None:
        self._application, self._rules = application, rules
        self._addresses: dict[str, str] = {}  # addresses by session, also of those that wait

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._application(scope, receive, send)
        try:
            headers = _headers(scope)
            if answer := self._admit(scope, headers):
                return await _answer(send, 303, "", answer)
            receive = await self._bounded(scope, headers, receive)
        except Refused as refused:
            if scope["type"] == "websocket":
                return await send({"type": "websocket.close", "code": 1008})
            return await _answer(send, refused.status, str(refused), ((b"connection", b"close"),))
        await self._application(scope, receive, _with_headers(send))

    def _admit(self, scope: Message, headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
        """Raises `Refused`; returns the headers of a redirection for a visitor who brings the token in the address."""
        _check_host(headers, self._rules.hosts)
        path, method = scope["path"], scope.get("method", "WEBSOCKET")
        _check_origin(headers, is_entry=(method, path) == ("GET", "/"))
        if self._rules.token:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if (method, path) == ("GET", "/") and _same(given, self._rules.token):
                cookie = f"{self._rules.cookie}={self._rules.token}; Path=/; HttpOnly; SameSite=Lax"
                return (b"location", b"./"), (b"set-cookie", cookie.encode())
            if not _same(_cookie(headers, self._rules.cookie), self._rules.token):
                raise Refused(401, "This page needs its whole address, with the token, as i2i serve has printed it.")
        if not any(_matches(path, route) for route in self._rules.routes.get(method, ())):
            raise Refused(404, "There is nothing here.")
        if path.startswith(self._rules.files) and not self._is_ours(path.removeprefix(self._rules.files)):
            raise Refused(404, "There is nothing here.")
        return ()

    async def _bounded(self, scope: Message, headers: Mapping[str, str], receive: Receive) -> Receive:
        """`receive` with a limit to the body; a JSON body is read and checked. Raises `Refused`."""
        if scope.get("method") != "POST":
            return receive
        uploads = scope["path"] == self._rules.uploads
        most = self._rules.max_upload() if uploads else MAX_JSON_BYTES
        if int(headers.get("content-length", "0")) > most:
            raise Refused(413, _too_large(most))
        if uploads:
            return _counted(receive, most, self._rules.max_upload)
        body = await _whole(receive, most)
        document = self._checked_json(body)
        if scope["path"] == self._rules.joins and isinstance(document, dict):
            self._check_place(str(document.get("session_hash")), (scope.get("client") or ("", 0))[0])
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        return receive_again

    def _check_place(self, session: str, address: str) -> None:
        """Raises `Refused` for a visitor who has too many requests waiting.

        Behind a proxy on this machine all have its address, and only the session tells them apart.
        """
        waiting, most = self._rules.waiting(), self._rules.most_waiting
        if len(self._addresses) > 16 * most:  # and no sooner, as one that has come in waits a moment later
            self._addresses = {one: place for one, place in self._addresses.items() if one in waiting}
        same_address = [one for one in waiting if self._addresses.get(one) == address]
        if waiting.count(session) >= max(1, most // 8) or (len(same_address) >= most // 2 and not is_loopback(address)):
            raise Refused(503, "Too many requests of yours are waiting. Try again when they are done.")
        self._addresses[session] = address

    def _checked_json(self, body: bytes) -> Any:
        """The JSON of a body. Raises `Refused` for one that is none, or names a file that is not in the folder."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "Expected JSON.") from None
        for part in _objects(document):
            for key, is_ours in (("path", self._is_ours), ("url", self._is_our_address)):
                name = part.get(key)
                if not (name is None or (isinstance(name, str) and is_ours(name))):
                    raise Refused(403, "No such upload.")
        return document

    def _is_ours(self, name: str) -> bool:
        """Whether `name` is an absolute path in the folder, wherever links lead."""
        try:
            return Path(name).is_absolute() and Path(name).resolve().is_relative_to(self._rules.folder.resolve())
        except (OSError, ValueError):
            return False

    def _is_our_address(self, address: str) -> bool:
        try:
            path = unquote(urlsplit(address).path)
        except ValueError:
            return False
        return path.startswith(self._rules.files) and self._is_ours(path.removeprefix(self._rules.files))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_host(headers: Mapping[str, str], hosts: frozenset[str]) -> None:
    """Raises `Refused` unless the host that the request names, but for its port, is one of `hosts`."""
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        name = None
    if name not in hosts:
        raise Refused(
            421, "This page does not go by that name. Use the address that i2i serve has printed, or --allow-host NAME."
        )


def _check_origin(headers: Mapping[str, str], is_entry: bool) -> None:
    """Raises `Refused` for a request from another site, but for a link to the page itself."""
    own = {f"{scheme}://{headers['host']}" for scheme in ("http", "https")}
    linked = is_entry and all(headers.get(name) == value for name, value in _NAVIGATION.items())
    is_foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not linked
    if is_foreign or headers.get("origin") not in (None, *own):
        raise Refused(403, "Requests from other sites are refused.")


def _headers(scope: Message) -> dict[str, str]:
    """The headers by name. Raises `Refused` for two hosts, two origins, or a length that is no number."""
    headers: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in headers and name in ("host", "origin", "content-length", "sec-fetch-site"):
            raise Refused(400, f"Two headers {name}.")
        headers[name] = f"{headers[name]}; {value.decode('latin-1')}" if name in headers else value.decode("latin-1")
    if not headers.get("content-length", "0").isdecimal():
        raise Refused(400, "Content-Length is no number.")
    return headers


def _cookie(headers: Mapping[str, str], name: str) -> str:
    with suppress(CookieError):
        if found := SimpleCookie(headers.get("cookie", "")).get(name):
            return found.value
    return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _matches(path: str, route: str) -> bool:
    return path.startswith(route[:-1]) if route.endswith("*") else path == route


def _objects(document: object) -> Iterator[dict[str, Any]]:
    """Every JSON object in a document, however deep."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _too_large(most: int) -> str:
    return f"Too large: at most {most:,} bytes are accepted here now."


async def _whole(receive: Receive, most: int) -> bytes:
    """The body of a request. Raises `Refused` above `most` bytes, and for one that takes too long."""
    parts, size, end = [], 0, time.monotonic() + BODY_SECONDS
    while True:
        message = await _soon(receive, end - time.monotonic())
        if message["type"] != "http.request":
            raise Refused(400, "The request broke off.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413, _too_large(most))
        if not message.get("more_body"):
            return b"".join(parts)


def _counted(receive: Receive, most: int, room: Callable[[], int]) -> Receive:
    """A `receive` that breaks off above `most` bytes, where no `room` is left, and where nothing comes any more."""
    size = looked = 0

    async def receive_counted() -> Message:
        nonlocal size, looked
        message = await _soon(receive, BODY_SECONDS)
        size += len(message.get("body", b""))
        if size - looked > _LOOK_BYTES:
            looked = size
            if not room():
                return {"type": "http.disconnect"}
        return message if size <= most else {"type": "http.disconnect"}

    return receive_counted


async def _soon(receive: Receive, seconds: float) -> Message:
    """The next part of a request, or its end if none comes in time."""
    try:
        return await asyncio.wait_for(receive(), seconds)
    except TimeoutError:
        return {"type": "http.disconnect"}


def _with_headers(send: Send) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in _HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
            message = {**message, "headers": [*kept, *_HEADERS]}
        await send(message)

    return send_more


async def _answer(send: Send, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    body = text.encode()
    kind = (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())
    all_headers = [*kind, (b"cache-control", b"no-store"), *headers, *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})
