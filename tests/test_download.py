"""Downloads from a server on this machine that answers well, badly, or with malice."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_server import LocalServer, raw, redirect, running

from i2i.download import BrokeOffError, download
from i2i.errors import DownloadError, OutputError
from i2i.files import home

DATA = bytes(range(256)) * 400
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[LocalServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared_server: LocalServer) -> LocalServer:
    shared_server.answers.clear()
    shared_server.requests.clear()
    return shared_server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fetch(server: LocalServer, tmp_path: Path) -> Any:
    def fetch(url: str, **options: Any) -> str:
        return download(url, tmp_path / "file", context=server.context, **options)

    return fetch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def part(folder: Path) -> Path:
    """The one part that is kept in a folder, and nothing beside it."""
    (found,) = folder.iterdir()
    assert found.name.startswith("file.") and found.suffix == ".part"
    return found


def ranges(server: LocalServer) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


@pytest.mark.promise("R50")
def test_the_whole_file_and_its_hash(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    url = server.serve("/file", DATA)
    assert fetch(url, sha256=SHA256.upper(), size=len(DATA), progress=lambda *p: seen.append(p)) == SHA256
    assert (tmp_path / "file").read_bytes() == DATA
    assert names(tmp_path) == ["file"]
    assert seen[0] == (0, len(DATA)) and seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_folders_are_made_and_an_earlier_file_is_replaced(server: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for data in (b"one", b"two"):
        download(server.serve("/file", data), path, context=server.context)
        assert path.read_bytes() == data


def test_a_file_without_bytes(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    assert fetch(server.serve("/file", b"")) == hashlib.sha256(b"").hexdigest()
    assert names(tmp_path) == ["file"]


@pytest.mark.promise("R50")
@pytest.mark.parametrize(
    "options", [{"etag": '"one"'}, {"etag": None, "modified": formatdate(1e9, usegmt=True)}], ids=["etag", "date"]
)
def test_a_short_answer_is_kept_and_goes_on(server: LocalServer, fetch: Any, tmp_path: Path, options: Any) -> None:
    url = server.serve("/file", DATA, stop=1000, **options)
    for done in ("1,000", "2,000"):
        with pytest.raises(DownloadError, match=f"broke off after {done} of 102,400 bytes"):
            fetch(url)
    assert part(tmp_path).stat().st_size == 2000
    server.serve("/file", DATA, **options)
    assert fetch(url) == SHA256
    assert ranges(server) == [None, None, "bytes=1000-", None, "bytes=2000-"]
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == DATA


def test_where_ranges_are_ignored_it_starts_again(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000, ranges=False)
    with pytest.raises(DownloadError):
        fetch(url)
    server.serve("/file", DATA, ranges=False)
    assert fetch(url) == SHA256
    assert (tmp_path / "file").read_bytes() == DATA and names(tmp_path) == ["file"]


@pytest.mark.parametrize("options", [{"etag": None}, {"etag": 'W/"one"'}])
def test_where_going_on_is_impossible_nothing_is_kept_or_promised(
    server: LocalServer, fetch: Any, tmp_path: Path, options: Any
) -> None:
    with pytest.raises(
        DownloadError, match=r"broke off after 1,000 of 102,400 bytes \(the server ended early\)$"
    ) as caught:
        fetch(server.serve("/file", DATA, stop=1000, **options))
    assert not isinstance(caught.value, BrokeOffError) and names(tmp_path) == []


def test_only_its_own_parts_are_removed(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    others = ["file.zip.0123456789ab.part", "file.new.new.part", "file.zip.part", "a.file.new.part"]
    for name in [*others, "file.0123456789ab.part", "file.new.part"]:
        (tmp_path / name).touch()
    fetch(server.serve("/file", DATA))
    assert names(tmp_path) == sorted(["file", *others])


@pytest.mark.promise("R50")
def test_another_file_at_the_same_address_is_not_mixed_in(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    other = bytes(len(DATA))
    server.serve("/file", other, etag='"two"')
    assert fetch(url) == hashlib.sha256(other).hexdigest()
    assert (tmp_path / "file").read_bytes() == other


@pytest.mark.parametrize(
    "span, tag",
    [
        (f"bytes 500-{len(DATA) - 1}/{len(DATA)}", '"one"'),
        (f"bytes 1000-1005/{len(DATA)}", '"one"'),
        ("bytes 1000-1005/1006", '"one"'),
        (f"bytes 1000-{len(DATA) - 1}/{len(DATA)}", '"two"'),
        ("lines 1-2/3", '"one"'),
    ],
    ids=["another start", "another end", "another length", "another file", "nonsense"],
)
def test_a_wrong_rest_is_not_appended(server: LocalServer, fetch: Any, span: str, tag: str) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    wrong = f"HTTP/1.0 206 x\r\nContent-Range: {span}\r\nETag: {tag}\r\nContent-Length: 6\r\n\r\nabcdef".encode()

    def answer(request: Any) -> None:
        if "Range" in request.headers:
            raw(wrong)(request)
        else:
            good(request)

    server.serve("/file", DATA)
    good = server.answers["/file"]
    server.answer("/file", answer)
    assert fetch(url) == SHA256
    assert ranges(server) == [None, None, "bytes=1000-", None]


def test_a_part_longer_than_the_file_is_not_used(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    part(tmp_path).write_bytes(DATA + b"more")
    server.serve("/file", DATA)
    assert fetch(url) == SHA256
    assert ranges(server) == [None, None, f"bytes={len(DATA) + 4}-", None]


def test_a_part_of_another_address_is_not_used(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        fetch(server.serve("/other", bytes(len(DATA)), stop=1000))
    assert fetch(server.serve("/file", DATA)) == SHA256
    assert ranges(server) == [None, None] and names(tmp_path) == ["file"]


def test_with_a_hash_a_part_goes_on_from_another_address(server: LocalServer, fetch: Any) -> None:
    with pytest.raises(DownloadError):
        fetch(server.serve("/first", DATA, stop=1000), sha256=SHA256)
    assert fetch(server.serve("/second", DATA, etag='"two"'), sha256=SHA256) == SHA256
    assert ranges(server) == [None, None, "bytes=1000-"]


def test_killed_just_before_the_end_it_fetches_nothing_again(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    part(tmp_path).write_bytes(DATA)
    server.serve("/file", DATA)
    assert fetch(url, sha256=None) == SHA256
    assert ranges(server) == [None, None] and names(tmp_path) == ["file"]


@pytest.mark.promise("R50")
def test_a_wrong_hash_leaves_nothing(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"its SHA-256 is {SHA256}, expected {'0' * 64}"):
        fetch(server.serve("/file", DATA), sha256="0" * 64)
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
def test_a_wrong_hash_after_a_resume_leaves_nothing(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url, sha256=SHA256)
    server.serve("/file", b"x" * len(DATA))  # the tag claims that it is the same file
    with pytest.raises(DownloadError, match="not the expected file"):
        fetch(url, sha256=SHA256)
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
@pytest.mark.parametrize(
    "serving, asked, message",
    [
        ({}, {"size": 5}, "has 102,400 bytes, expected 5"),
        ({}, {"max_bytes": 1000}, "has 102,400 bytes; at most 1,000 are accepted"),
        ({"length": False}, {}, "does not say how long"),
        ({"announced": 1000}, {"sha256": SHA256}, "not the expected file"),
    ],
)
def test_a_wrong_length(
    server: LocalServer, fetch: Any, tmp_path: Path, serving: Any, asked: Any, message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch(server.serve("/file", DATA, **serving), **asked)
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
def test_an_announcement_too_long_is_a_file_too_short(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"broke off after 102,400 of 200,000 bytes \(the server ended early\)"):
        fetch(server.serve("/file", DATA, announced=200_000))
    assert part(tmp_path).stat().st_size == len(DATA)


def test_chunks_have_no_length(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with pytest.raises(DownloadError, match="does not say how long"):
        fetch(server.answer("/file", raw(chunked)))
    assert names(tmp_path) == []


def test_an_encoding_that_nobody_asked_for(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    with pytest.raises(DownloadError, match="encoded"):
        fetch(server.answer("/file", raw(zipped)))
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_https_are_followed(server: LocalServer, fetch: Any, status: int) -> None:
    server.serve("/b%20c", DATA)
    server.answer("/a", redirect("/b c", status))
    assert fetch(server.answer("/", redirect(f"{server.url}/a", status))) == SHA256


@pytest.mark.promise("R50")
@pytest.mark.parametrize(
    "to", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x", "data:,x", "https://me:s3cret@localhost/x"]
)
def test_redirects_to_anything_else_are_refused(server: LocalServer, fetch: Any, tmp_path: Path, to: str) -> None:
    with pytest.raises(DownloadError, match="redirected to an address that is refused") as caught:
        fetch(server.answer("/file", redirect(to)))
    assert "s3cret" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
def test_redirects_end(server: LocalServer, fetch: Any) -> None:
    with pytest.raises(DownloadError, match="redirected more than 5 times"):
        fetch(server.answer("/file", redirect("/file")))
    assert len(server.requests) == 6


@pytest.mark.promise("R50")
@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/x",
        "file:///etc/passwd",
        "ftp://localhost/x",
        "/etc/passwd",
        "https:///x",
        "https://me:s3cret@localhost/x",
        "https://localhost/a b",
        "https://localhost/a\nb",
        "https://localhost:port/",
        "https://[::1/x",
        "https://localhost/é",
    ],
)
def test_only_plain_https_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected"))
    with pytest.raises(DownloadError) as caught:
        download(url, tmp_path / "file")
    assert "\n" not in str(caught.value) and "s3cret" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [404, 500, 403])
def test_an_error_of_the_server(server: LocalServer, fetch: Any, tmp_path: Path, status: int) -> None:
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        fetch(server.serve("/file", DATA, status=status))
    assert names(tmp_path) == []


def test_an_error_of_the_server_costs_no_byte_that_is_there(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    server.serve("/file", DATA, status=503, ranges=False)
    with pytest.raises(DownloadError, match="503"):
        fetch(url)
    server.serve("/file", DATA)
    assert fetch(url) == SHA256
    assert ranges(server)[-1] == "bytes=1000-"


@pytest.mark.promise("R52")
def test_words_of_the_server_do_not_steer_a_terminal(server: LocalServer, fetch: Any) -> None:
    answers = [
        b"HTTP/1.0 500 \x1b[2J\r\n\r\n",
        b"HTTP/1.0 302 x\r\nLocation: http://\x1b[2J/\r\n\r\n",
        b"\x1b[2J\r\n\r\n",
    ]
    for answer in answers:
        with pytest.raises(DownloadError) as caught:
            fetch(server.answer("/file", raw(answer)))
        assert str(caught.value).isprintable()


@pytest.mark.promise("R50")
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nab"], ids=["silent", "stalls"])
def test_a_server_that_says_nothing_more(server: LocalServer, fetch: Any, begun: bytes) -> None:
    done, started = threading.Event(), time.monotonic()
    with pytest.raises(DownloadError, match="no answer in time"):
        fetch(server.answer("/file", raw(begun, done)), timeout=0.5)
    done.set()
    assert time.monotonic() - started < 5


def test_the_timeout_of_the_promise() -> None:
    assert download.__kwdefaults__["timeout"] == 60


def test_no_server(fetch: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="https://localhost:1/file: cannot be reached: Connection refused"):
        fetch("https://localhost:1/file")
    assert names(tmp_path) == []


@pytest.mark.promise("R50")
def test_an_unknown_certificate_is_refused(server: LocalServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot be reached: .*certificate"):
        download(server.serve("/file", DATA), tmp_path / "file")
    assert server.requests == []


def test_the_proxy_of_the_environment(server: LocalServer, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.serve("/file", DATA)
    monkeypatch.setenv("https_proxy", "http://localhost:1")
    with pytest.raises(DownloadError, match="Connection refused"):
        fetch(url)
    monkeypatch.setenv("no_proxy", "localhost")
    assert fetch(url) == SHA256


def test_a_full_disk(server: LocalServer, fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match="102,400 bytes are needed, 10 are free"):
        fetch(server.serve("/file", DATA))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        download("https://localhost:1/", tmp_path / "file" / "x")


def test_a_part_that_is_a_link_or_a_pipe_is_not_written_to(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    url = server.serve("/file", DATA, stop=1000)
    with pytest.raises(DownloadError):
        fetch(url)
    begun = part(tmp_path)
    begun.unlink()
    (tmp_path / "other").write_text("mine")
    begun.symlink_to("other")
    with pytest.raises(OutputError):
        fetch(url)
    assert (tmp_path / "other").read_text() == "mine"
    begun.unlink()
    os.mkfifo(begun)
    with pytest.raises(OutputError):
        fetch(url)


@pytest.mark.promise("R50")
def test_interrupted_it_keeps_what_it_has(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.serve("/file", DATA), progress=interrupt)
    size = part(tmp_path).stat().st_size
    assert 0 < size < len(DATA)
    assert fetch(server.url + "/file") == SHA256
    assert ranges(server) == [None, None, f"bytes={size}-"]


@pytest.mark.promise("R50")
def test_several_at_once_fetch_it_once(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    found: list[str] = []
    begun = threading.Event()

    def slowly(done: int, _: int) -> None:
        begun.set()
        time.sleep(0.02)

    url = server.serve("/file", DATA)
    threads = [threading.Thread(target=lambda: found.append(fetch(url, progress=slowly)))]
    threads[0].start()
    begun.wait()
    threads += [threading.Thread(target=lambda: found.append(fetch(url))) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA256] * 4
    assert len(server.requests) == 1
    assert names(tmp_path) == ["file"]


def test_another_process_is_waited_for(server: LocalServer, fetch: Any, tmp_path: Path) -> None:
    holding = (
        "import sys; from pathlib import Path; from i2i.files import locked\n"
        "path = Path(sys.argv[1])\n"
        "with locked(path.with_name('file.lock')):\n"
        "    print(flush=True); sys.stdin.read(1); path.write_bytes(b'theirs')"
    )
    command = [sys.executable, "-c", holding, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        threading.Timer(0.1, process.stdin.close).start()
        assert fetch(server.serve("/file", DATA)) == hashlib.sha256(b"theirs").hexdigest()
    assert server.requests == []


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("I2I_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home().name == "i2i"
