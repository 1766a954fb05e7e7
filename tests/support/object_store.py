"""Object stores for tests: a stand-in for S3 on this machine, and fsspec's store in the memory of this process."""

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path

import pytest

from i2i.folders import stores
from i2i.urls import StorePath, store_path

KEY, SECRET = "AKIAEXAMPLE", "not/to+be/seen"
_started: list[str] = []


def endpoint() -> str:
    """The address of a server in a thread of this process, the same for all tests."""
    if not _started:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        _started.append("http://{}:{}".format(*server.get_host_and_port()))
    return _started[0]


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let S3 be at that address, with some credentials, for this process and its children."""
    given = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    stores._system.cache_clear()


def new_bucket(scheme: str) -> StorePath:
    """An empty bucket of its own."""
    place = store_path(f"{scheme}://bucket-{secrets.token_hex(6)}")
    system, name = stores._opened(place)
    system.mkdir(name)
    return place


def fill(place: StorePath, folder: Path) -> None:
    """Puts all files of a folder there, under their names."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(place, path.relative_to(folder).as_posix(), path.read_bytes())


def put(place: StorePath, name: str, data: bytes) -> None:
    """A file with any name, also one that no path can have."""
    system, root = stores._opened(place)
    system.pipe_file(f"{root}/{name}", data)


def content(place: StorePath) -> Mapping[str, bytes]:
    """All files below a place, hidden ones too."""
    system, root = stores._opened(place)
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


def unfinished(place: StorePath) -> list[object]:
    """Uploads in a bucket of S3 that were begun and neither ended nor given up."""
    system, name = stores._opened(place)
    return list(system.list_multipart_uploads(name))
