"""Files from the network: https only, bounded, resumed where they broke off, whole or not at all."""

import http.client
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from i2i import https
from i2i.errors import DownloadError
from i2i.partial import Part, Source, digest

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
        return https.get(url, headers, context=context, connect_timeout=connect_timeout, idle_timeout=idle_timeout)

    https.checked_url(url)
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
            reason = https.shown(response.reason)
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
                raise self._broken_off(done, total, https.reason(error)) from None
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
    if tag.startswith('"') and https.shown(tag) == tag:  # a weak one (W/"…") does not promise the same bytes
        return tag
    date = response.headers.get("Last-Modified", "")
    return date if https.shown(date) == date else ""


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) and not response.chunked else None
