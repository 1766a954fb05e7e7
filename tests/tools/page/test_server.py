"""The server of the page: its names, its port, its temporary folder."""

import os
import socket
import time
from pathlib import Path

import pytest

from i2i.errors import UsageError
from i2i.tools.page import server
from i2i.tools.page.guard import is_loopback

pytestmark = pytest.mark.promise("R51")


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


def test_tokens_are_long_and_never_the_same() -> None:
    assert len(server.new_token()) >= 20 and server.new_token() != server.new_token()


def test_the_temporary_folder_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RuntimeError), server.temporary_folder() as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
        (folder / "a").mkdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_servers_go_and_those_in_use_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, other = tmp_path / "i2i-page-killed", tmp_path / "other"
    for path in (killed, other):
        path.mkdir()
        (path / "picture.png").touch()
    (tmp_path / "i2i-page-link").symlink_to(other)
    long_ago = time.time() - 3600
    os.utime(killed, (long_ago, long_ago))
    with server.temporary_folder() as running:
        os.utime(running, (long_ago, long_ago))
        with server.temporary_folder():
            assert running.is_dir() and not killed.exists() and (other / "picture.png").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / "i2i-page-trap"
    trap.mkdir()
    (trap / "picture.png").touch()
    os.chown(trap, 65534, 65534)
    os.utime(trap, (0, 0))
    with server.temporary_folder():
        assert (trap / "picture.png").exists()
