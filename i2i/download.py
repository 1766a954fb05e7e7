"""Files from the network: https only, bounded, resumed where they broke off, whole or not at all.

`get` makes one GET request. Redirects lead to https or nowhere, and no wait is endless. `Part` is the file until it is
whole: `NAME.part`, locked, with a note beside it of the file that it is a part of.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import stat
import string
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urljoin, urlsplit

from i2i.errors import FULL, DownloadError, OutputError
from i2i.files import write_all

_MAX_NOTE_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """Where bytes come from. `validator` is an ETag or a date, empty if the server gives neither."""

    url: str = ""
    validator: str = ""
    total: int | None = None


class Part:
    """The part of `path` that is there. One process has it at a time; others wait.

    Every method raises `OutputError` if the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._target = path
        self._path = path.with_name(path.name + ".part")
        self._note = path.with_name(path.name + ".part.json")
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _locked(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self._file.closed:
                return
            if self.size() == 0:
                self.remove()
            self._file.close()

    def size(self) -> int:
        """The number of bytes that are there."""
        return os.fstat(self._file.fileno()).st_size

    def source(self) -> Source:
        """What the bytes are a part of, as far as it is known."""
        try:
            with self._note.open("rb") as file:
                values = json.loads(file.read(_MAX_NOTE_BYTES))
            source = Source(**values)
        except (OSError, ValueError, TypeError, RecursionError):
            return Source()
        known = isinstance(source.url, str) and isinstance(source.validator, str)
        return source if known and isinstance(source.total, int | None) else Source()

    def restart(self, source: Source) -> None:
        """Empty, from now on a part of `source`."""
        with _disk(self._target):
            self._file.truncate(0)  # before the note, so that no old byte is ever taken for one of `source`
            self._note.write_text(json.dumps(asdict(source)), encoding="ascii")

    def append(self, data: bytes) -> None:
        with _disk(self._target):
            write_all(self._file.fileno(), data)

    def need(self, size: int) -> None:
        """Raises `OutputError` if there is no room for `size` more bytes."""
        with _disk(self._target):
            free = shutil.disk_usage(self._path.parent).free
        if size > free:
            raise OutputError(f"{self._target}: {size:,} bytes are needed, {free:,} are free")

    def digest(self) -> str:
        """The SHA-256 of the bytes on the disk."""
        return digest(self._path)

    def finish(self) -> None:
        """Let the file appear under its name."""
        with _disk(self._target):
            os.fsync(self._file.fileno())
            self._path.replace(self._target)
            self._note.unlink(missing_ok=True)
            self._file.close()

    def remove(self) -> None:
        """Nothing of it is of use."""
        with _disk(self._target):
            self._note.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            self._file.close()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time work on `path`; the others wait. Raises `OutputError` if the disk refuses."""
    lock = path.with_name(path.name + ".lock")
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        file.close()


def digest(path: Path) -> str:
    """The SHA-256 of a file. Raises `OutputError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _locked(path: Path) -> BinaryIO:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            # `flock` also keeps two threads of one process apart
            fcntl.flock(file, fcntl.LOCK_EX)
            if _same(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # the process that had it has renamed or removed it


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in FULL:
            cause += f"; {shutil.disk_usage(path.parent).free:,} bytes are free"
        raise OutputError(f"{path}: cannot be written: {cause}") from error


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


Progress = Callable[[int, int | None], object]
Ask = Callable[[Mapping[str, str]], http.client.HTTPResponse]
_CHUNK = 1 << 18


def download(
    url: str,
    path: Path | str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    max_bytes: int = 20 << 30,
    progress: Progress | None = None,
    context: ssl.SSLContext | None = None,
    connect_timeout: float = 15.0,
    idle_timeout: float = 60.0,
) -> str:
    """Fetch `url` to `path` and return its SHA-256; a file that is there is replaced.

    Bytes go to `NAME.part` beside `path`, which takes that name only when all of them are there and `size` and
    `sha256`, if given, are met. What breaks off is kept, and the next call goes on from there if the server
    still has the same file; a part that turns out wrong is removed. Of several processes that fetch the same
    file, one does and the others wait for it. `progress(done, total)` is told bytes; `total` is `None` while it
    is unknown. The timeouts are in seconds.

    Raises `DownloadError` (no network, an error of the server, anything but https, more than `max_bytes`,
    another size or hash) or `OutputError` (the disk).
    """

    def ask(headers: Mapping[str, str]) -> http.client.HTTPResponse:
        return get(url, headers, context=context, connect_timeout=connect_timeout, idle_timeout=idle_timeout)

    checked_url(url)
    path = Path(path)
    earlier = _identity(path)
    with Part(path) as part:
        if _identity(path) not in (None, earlier):  # another process has just fetched it
            found = digest(path)
            if found == (sha256 or found).lower():
                return found
        _Transfer(url, part, sha256, size, max_bytes, progress).run(ask)
        return _finished(part, url, sha256)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _finished(part: Part, url: str, sha256: str | None) -> str:
    found = part.digest()
    if sha256 is not None and found != sha256.lower():
        part.remove()
        raise DownloadError(f"{url}: not the expected file: its SHA-256 is {found}, expected {sha256}; it was removed")
    part.finish()
    return found


class _Transfer:
    """The bytes of `url` that `part` lacks."""

    def __init__(
        self,
        url: str,
        part: Part,
        sha256: str | None,
        size: int | None,
        max_bytes: int,
        progress: Progress | None,
    ) -> None:
        self.url, self.part, self.progress = url, part, progress
        self.sha256, self.size, self.max_bytes = sha256, size, max_bytes

    def run(self, ask: Ask) -> None:
        source, start = self.part.source(), self.part.size()
        known = source.url == self.url and start > 0
        if known and source.total == start and self.size in (None, start):
            return  # all there, and only its name was missing
        if known and source.validator:
            with ask(_headers({"Range": f"bytes={start}-", "If-Range": source.validator})) as response:
                if total := _rest(response, start, source):
                    return self._receive(response, start, total)
                if response.status == 200:
                    return self._from_the_start(response)
        with ask(_headers({})) as response:
            self._from_the_start(response)

    def _from_the_start(self, response: http.client.HTTPResponse) -> None:
        if response.status != 200:
            reason = shown(response.reason)
            raise DownloadError(f"{self.url}: the server answers {response.status} {reason}".rstrip())
        total = _length(response)
        if total is None and not response.chunked and self.size is None and self.sha256 is None:
            raise DownloadError(f"{self.url}: the server does not say how long the file is")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{self.url}: the server sends the file encoded in a way that was not asked for")
        self.part.restart(Source(self.url, _validator(response), total))
        self._receive(response, 0, total)

    def _receive(self, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
        expected = self.size if total is None else total
        if self.size is not None and expected != self.size:
            raise self._refused(f"has {expected:,} bytes, expected {self.size:,}")
        if expected is not None and expected > self.max_bytes:
            raise self._refused(f"has {expected:,} bytes; at most {self.max_bytes:,} are accepted")
        limit = self.max_bytes if expected is None else expected
        self.part.need((expected or 0) - start)
        done = self._read(response, start, limit, total)
        if expected is not None and done < expected:
            raise self._broken_off(done, expected, "the server ended early")
        if done > limit:
            raise self._refused(f"is longer than the {limit:,} bytes that are accepted")

    def _read(self, response: http.client.HTTPResponse, done: int, limit: int, total: int | None) -> int:
        """Bytes until the end, or until one is too many where the server did not announce the end."""
        end = limit + 1 if total is None else total
        while done < end:
            self._tell(done, total)
            try:
                data = response.read1(min(_CHUNK, end - done))
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._broken_off(done, total, reason(error)) from None
            if not data:
                break
            self.part.append(data)
            done += len(data)
        self._tell(done, total)
        return done

    def _tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def _refused(self, reason: str) -> DownloadError:
        self.part.remove()
        return DownloadError(f"{self.url}: {reason}; nothing of it was kept")

    def _broken_off(self, done: int, total: int | None, reason: str) -> DownloadError:
        whole = "" if total is None else f" of {total:,}"
        return DownloadError(f"{self.url}: broke off after {done:,}{whole} bytes ({reason}); again goes on from there")


def _headers(more: Mapping[str, str]) -> dict[str, str]:
    return {"Accept-Encoding": "identity", **more}


def _rest(response: http.client.HTTPResponse, start: int, source: Source) -> int | None:
    """The file's length if an answer is its rest; the rest may be refused, and another file answered."""
    if response.status != 206 or _validator(response) not in ("", source.validator):
        return None
    span = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""), re.ASCII)
    if span is None:
        return None
    first, last, total = map(int, span.groups())
    return total if first == start and last == total - 1 and source.total in (None, total) else None


def _validator(response: http.client.HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    if tag.startswith('"') and shown(tag) == tag:  # a weak one (W/"…") does not promise the same bytes
        return tag
    date = response.headers.get("Last-Modified", "")
    return date if shown(date) == date else ""


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) and not response.chunked else None
