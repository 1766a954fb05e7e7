"""Download a file: https only, bounded in size, resumed where it broke off, whole or not at all.

Bytes go to `NAME.KEY.part` beside the file. KEY follows from the expected SHA-256, or else from the address
and the ETag or date that the server states. So the bytes of two different files never meet in one part.
"""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import ssl
import string
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from i2i import files
from i2i.errors import DownloadError, OutputError

Progress = Callable[[int, int], object]
MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 1 << 18


class BrokeOffError(DownloadError):
    """The bytes so far are kept; the next call goes on from there."""


def download(
    url: str,
    path: Path | str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    max_bytes: int = 20 << 30,
    progress: Progress | None = None,
    context: ssl.SSLContext | None = None,
    timeout: float = 60.0,
) -> str:
    """Fetch `url` to `path` and return its SHA-256; a file that is there is replaced.

    The file appears when all bytes are there and `size` and `sha256`, if given, match. If several processes
    fetch the same file, one does and the others wait. `progress(done, total)` gets numbers of bytes. The server may be
    silent for `timeout` seconds.

    Raises `DownloadError` (no network, an error of the server, anything but https, more than `max_bytes`, another size
    or hash) or `OutputError` (the disk).
    """
    path = Path(path)
    show = progress or (lambda done, total: None)
    job = _Download(checked_url(url), path, sha256 and sha256.lower(), size, max_bytes, show, context, timeout)
    before = _identity(path)
    with files.locked(path.with_name(f"{path.name}.lock")):
        if _identity(path) not in (None, before):  # another process has just fetched it
            with _disk(path):
                found = files.sha256(path)
            if sha256 is None or found == sha256.lower():
                return found
        return job.run()


@dataclass(frozen=True)
class _Download:
    """One file to fetch; the fields are the arguments of `download`."""

    url: str
    path: Path
    sha256: str | None
    size: int | None
    max_bytes: int
    progress: Progress
    context: ssl.SSLContext | None
    timeout: float

    def run(self) -> str:
        with self._get() as response:
            total, key = self._length(response), self._key(response)
            part = self.path.with_name(f"{self.path.name}.{key or 'new'}.part")
            start = part.stat().st_size if key and part.is_file() else 0
            if start == 0:
                self._receive(response, part, 0, total)
        if start != 0 and start != total:
            self._go_on(part, start, total, key)
        return self._finish(part)

    def _go_on(self, part: Path, start: int, total: int, key: str) -> None:
        with self._get(start) as response:
            span = f"bytes {start}-{total - 1}/{total}"
            if response.headers.get("Content-Range") == span and self._key(response) == key:
                return self._receive(response, part, start, total)
        with self._get() as response:
            return self._receive(response, part, 0, self._length(response))

    def _get(self, start: int = 0) -> http.client.HTTPResponse:
        """The answer to a request for the bytes from `start` on, redirects followed, its body not read yet.

        Raises `DownloadError` for an error.
        """
        opener = urllib.request.OpenerDirector()  # without the handlers of http, ftp and files
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(urllib.request.HTTPSHandler(context=self.context or ssl.create_default_context()))
        headers = {"User-Agent": "i2i", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        place = self.url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = opener.open(urllib.request.Request(place, headers=headers), timeout=self.timeout)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise DownloadError(f"{self.url}: cannot be reached: {_reason(error)}") from None
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return self._accepted(response, (200, 206, 416) if start else (200,))
            response.close()
            place = self._redirected(place, location)
        raise DownloadError(f"{self.url}: redirected more than {MAX_REDIRECTS} times")

    def _redirected(self, place: str, location: str) -> str:
        try:
            return checked_url(urljoin(place, quote(location, string.punctuation, "latin-1")))
        except (DownloadError, ValueError) as error:
            reason = _shown(str(error))
            raise DownloadError(f"{self.url}: redirected to an address that is refused ({reason})") from None

    def _accepted(self, response: http.client.HTTPResponse, statuses: Sequence[int]) -> http.client.HTTPResponse:
        reason = ""
        if response.status not in statuses:
            reason = f"the server answers {response.status} {_shown(response.reason)}".rstrip()
        elif response.headers.get("Content-Encoding", "identity") != "identity":
            reason = "the server sends the file encoded in a way that was not asked for"
        if reason:
            response.close()
            raise DownloadError(f"{self.url}: {reason}")
        return response

    def _length(self, response: http.client.HTTPResponse) -> int:
        """The bytes of the file. Raises `DownloadError` if the server does not say, or for another size."""
        text = response.headers.get("Content-Length", "")
        if response.chunked or not re.fullmatch("[0-9]{1,18}", text):
            raise DownloadError(f"{self.url}: the server does not say how long the file is")
        if self.size is not None and int(text) != self.size:
            raise DownloadError(f"{self.url}: has {int(text):,} bytes, expected {self.size:,}")
        if int(text) > self.max_bytes:
            raise DownloadError(f"{self.url}: has {int(text):,} bytes; at most {self.max_bytes:,} are accepted")
        return int(text)

    def _key(self, response: http.client.HTTPResponse) -> str:
        """Different for different files; empty where the server states nothing that tells them apart."""
        tag = response.headers.get("ETag", "")
        strong = tag.startswith('"')  # a weak one, W/"…", does not promise the same bytes
        stated = tag if strong else response.headers.get("Last-Modified", "")
        if not stated and not self.sha256:
            return ""
        return hashlib.sha256((self.sha256 or f"{self.url}\n{stated}").encode()).hexdigest()[:12]

    def _receive(self, response: http.client.HTTPResponse, part: Path, done: int, total: int) -> None:
        """Add what comes to a part that has `done` bytes. After an error it is removed if empty or without a key."""
        kept = bool(self._key(response))
        files.check_regular(part)
        try:
            with _disk(self.path), open(part, "ab", buffering=0, opener=_no_link) as file:
                free = shutil.disk_usage(part.parent).free
                if total - done > free:
                    raise OutputError(f"{self.path}: {total - done:,} bytes are needed, {free:,} are free")
                file.truncate(done)
                self.progress(done, total)
                while done < total:
                    data = self._read(response, done, total, kept)
                    files.write_all(file.fileno(), data)
                    done += len(data)
                    self.progress(done, total)
                os.fsync(file.fileno())
        except BaseException:
            if not kept or done == 0:
                part.unlink(missing_ok=True)
            raise

    def _read(self, response: http.client.HTTPResponse, done: int, total: int, kept: bool) -> bytes:
        """The next bytes. Raises `DownloadError`, which is a `BrokeOffError` where those so far are `kept`."""
        reason = "the server ended early"
        try:
            if data := response.read1(min(_CHUNK, total - done)):
                return data
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _reason(error)
        failure = f"{self.url}: broke off after {done:,} of {total:,} bytes ({reason})"
        raise BrokeOffError(f"{failure}; the next attempt goes on from there") if kept else DownloadError(failure)

    def _finish(self, part: Path) -> str:
        """Give the part its name. Raises `DownloadError` if it has another SHA-256."""
        with _disk(self.path):
            found = files.sha256(part)
        if self.sha256 not in (None, found):
            part.unlink()
            raise DownloadError(
                f"{self.url}: not the expected file: its SHA-256 is {found}, expected {self.sha256}; it was removed"
            )
        with _disk(self.path):
            files.rename_over(part, self.path)
            parts = re.compile(re.escape(self.path.name) + r"\.([0-9a-f]{12}|new)\.part")
            for earlier in self.path.parent.iterdir():
                if parts.fullmatch(earlier.name):  # a part of another version
                    earlier.unlink()
        return found


def _no_link(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise files.refused(path, error) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def checked_url(url: str) -> str:
    """`url` if it is a plain https address. Raises `DownloadError` that says why it is none."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DownloadError(f"{_shown(url)}: not a URL: {error}") from None
    if parts.scheme != "https" or not host:
        raise DownloadError(f"{_shown(url)}: only https://… is fetched")
    if parts.username is not None or parts.password is not None:
        raise DownloadError(f"https://{_shown(host)}: a URL with a user name or a password is not accepted")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise DownloadError(f"{_shown(url)}: not a URL: spaces and special characters have to be percent-encoded")
    return url


def _shown(text: str) -> str:
    """Text from elsewhere, short and without control characters."""
    return text.encode("unicode_escape", "surrogatepass").decode()[:200]


def _reason(error: BaseException) -> str:
    """The cause of an error of the network, in one line."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return _shown(cause.strerror)
    return _shown(str(cause) or type(cause).__name__)
