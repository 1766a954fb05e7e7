"""One GET over https: redirects lead to https or nowhere, and no wait is endless."""

import http.client
import ssl
import string
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from i2i.errors import DownloadError

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


def get(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    context: ssl.SSLContext | None = None,
    connect_timeout: float = 15.0,
    idle_timeout: float = 60.0,
) -> http.client.HTTPResponse:
    """The answer to a GET request, whatever its status, redirects followed; its body is not read yet.

    `idle_timeout` is the longest wait in seconds for the next bytes. The proxy of the environment is used.
    Raises `DownloadError` if the server cannot be reached, or leads anywhere but to https, or in circles.
    """
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "i2i")]
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler(context or ssl.create_default_context(), connect_timeout, idle_timeout))
    place = checked_url(url)
    for _ in range(MAX_REDIRECTS + 1):
        response = _opened(opener, place, dict(headers or {}))
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or not location:
            return response
        response.close()
        place = _redirected(url, place, quote(location, string.punctuation, "latin-1"))
    raise DownloadError(f"{url}: redirected more than {MAX_REDIRECTS} times")


def checked_url(url: str) -> str:
    """`url` if it is a plain https address. Raises `DownloadError` saying what it is instead."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{shown(url)}: not a URL: {error}") from None
    if parts.scheme != "https" or not host:
        raise DownloadError(f"{shown(url)}: only https://… is fetched")
    if parts.username is not None or parts.password is not None:
        raise DownloadError(f"https://{shown(host)}: a URL with a user name or a password is not accepted")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise DownloadError(f"{shown(url)}: not a URL: spaces and special characters have to be percent-encoded")
    return url


def shown(text: str) -> str:
    """Text from elsewhere, short and without control characters."""
    return text.encode("unicode_escape", "surrogatepass").decode()[:200]


def reason(error: BaseException) -> str:
    """What went wrong on the network, for one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return shown(cause.strerror)
    return shown(str(cause) or type(cause).__name__)


def _redirected(url: str, place: str, location: str) -> str:
    try:
        return checked_url(urljoin(place, location))
    except (DownloadError, ValueError) as error:
        raise DownloadError(f"{url}: redirected to an address that is refused ({shown(str(error))})") from None


def _opened(opener: urllib.request.OpenerDirector, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = opener.open(urllib.request.Request(url, headers=headers))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{url}: cannot be reached: {reason(error)}") from None
    return response


class _Handler(urllib.request.HTTPSHandler):
    """urllib has one timeout; here connecting and waiting for bytes have one each."""

    def __init__(self, context: ssl.SSLContext, connect_timeout: float, idle_timeout: float) -> None:
        super().__init__(context=context)
        self._settings: dict[str, Any] = {"context": context}
        self._connect_timeout, self._idle_timeout = connect_timeout, idle_timeout

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        idle_timeout = self._idle_timeout

        class Connection(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                self.sock.settimeout(idle_timeout)

        req.timeout = self._connect_timeout
        return self.do_open(Connection, req, **self._settings)
