"""The server of the page: its names, its port, silent connections, its temporary folder."""

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from i2i import files
from i2i.errors import UsageError
from i2i.tools.page import server
from i2i.tools.page.guard import is_loopback
from i2i.tools.page.server import remove_old
from i2i.tools.page.studio import used

pytestmark = pytest.mark.promise("R51")
SECONDS = 0.4


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.2", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_at_loopback_only_its_names_are_its_own() -> None:
    assert server.own_names("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
    more = ["I2I.example.org", "https://a.example:8443/", "b.example:80", "[fe80::1]", "fe80::2"]
    hosts = {"i2i.example.org", "a.example", "b.example", "fe80::1", "fe80::2"}
    assert server.own_names("::1", more) == {"127.0.0.1", "localhost", "::1"} | hosts


def test_in_the_network_the_addresses_of_the_machine_are_its_own() -> None:
    names = server.own_names("0.0.0.0")
    assert {"127.0.0.1", socket.gethostname().lower()} <= names and "evil.example" not in names


def test_a_port_in_use_is_said_with_the_way_out() -> None:
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert listening.getsockname()[0] == "127.0.0.1"
        with pytest.raises(
            UsageError, match=rf"--port {port}: Address already in use. Another port: --port {port + 1}"
        ):
            server.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no host", ""])
def test_a_host_that_is_no_address_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match=rf"--host {host}: no address of this machine"):
        server.listen(host, 0)


def test_the_address_is_one_to_type() -> None:
    assert server.address("127.0.0.1", 80, "") == "http://127.0.0.1:80/"
    assert server.address("::1", 80, "abc") == "http://[::1]:80/?token=abc"
    assert server.address("0.0.0.0", 80, "abc") == f"http://{socket.gethostname()}:80/?token=abc"


def test_the_temporary_folder_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError), server.temporary_folder() as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
        (folder / "a").mkdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_servers_go_and_those_in_use_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, other = tmp_path / ".i2i-page-killed.part", tmp_path / "other"
    for path in (killed, other):
        path.mkdir()
        (path / "picture.png").touch()
    (killed / files.LOCK).touch()  # which died with its process
    (tmp_path / ".i2i-page-link.part").symlink_to(other)
    long_ago = time.time() - 3600
    os.utime(killed, (long_ago, long_ago))
    with server.temporary_folder() as running:
        os.utime(running, (long_ago, long_ago))
        with server.temporary_folder():
            assert running.is_dir() and not killed.exists() and (other / "picture.png").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / ".i2i-page-trap.part"
    trap.mkdir()
    (trap / "picture.png").touch()
    os.chown(trap, 65534, 65534)
    os.utime(trap, (0, 0))
    with server.temporary_folder():
        assert (trap / "picture.png").exists()


def put(path: Path, size: int, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_old_files_go_and_empty_folders(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "old.png", 4, 7200)
    put(tmp_path / "a" / "new.png", 4, 0)
    put(tmp_path / ".lock", 4, 7200)
    remove_old(tmp_path, time.time() - 3600, 1 << 30)
    assert names(tmp_path) == [".lock", "a", "new.png"]


def test_the_oldest_go_where_all_take_too_much(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / f"order{number}" / f"{number}.png", 100, 100 - number)
    os.link(tmp_path / "order3" / "3.png", tmp_path / "order0" / "again.png")
    assert used(tmp_path) == 400, "a file with two names is one"
    remove_old(tmp_path, time.time() - 3600, 250)
    assert names(tmp_path) == ["2.png", "3.png", "again.png", "order0", "order2", "order3"]
    remove_old(tmp_path, time.time() - 3600, 250)
    assert used(tmp_path) == 200


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers after a time that is longer than that of a header."""
    if scope["type"] == "http":
        await asyncio.sleep(3 * SECONDS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def answer(port: int, *parts: bytes) -> bytes:
    """The bytes that a server answers to these, one after the other, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(SECONDS / 3)
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_who_sends_no_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason='comes with Gradio: pip install "i2i[web]"; see make test-page')
    monkeypatch.setattr(server, "HEADER_SECONDS", SECONDS)
    whole = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    again = whole.replace(b"Connection: close\r\n", b"")

    async def all_of_them() -> list[bytes]:
        config = uvicorn.Config(
            slow, port=0, http=server.patient_protocol(), lifespan="off", log_config=None, timeout_keep_alive=60
        )
        waiting = uvicorn.Server(config)
        serving = asyncio.create_task(waiting.serve())
        while not waiting.started:
            await asyncio.sleep(0.01)
        port = waiting.servers[0].sockets[0].getsockname()[1]
        found = await asyncio.gather(
            answer(port),
            answer(port, b"GET / HT", b"TP/1.1\r\n", b"Host: a\r\n"),
            answer(port, whole),
            answer(port, again),
        )
        waiting.should_exit = True
        await serving
        return list(found)

    silent, half, once, kept = asyncio.run(all_of_them())
    assert silent == b"" and half == b""
    assert once.endswith(b"\r\n\r\nok")
    assert kept.endswith(b"\r\n\r\nok"), "closed when no second request came"
