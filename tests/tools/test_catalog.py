"""The public data sets: the facts are well formed, and fetching one ends whole or with nothing."""

import dataclasses
import hashlib
import io
import json
import socket
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from local_server import file, redirect, running

from i2i.errors import InputError, UsageError
from i2i.tools.datasets.catalog import SETS, PublicSet, find_set
from i2i.tools.datasets.fetch import fetch

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def zipped(names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, PICTURE)
    return data.getvalue()


def tarred(names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PICTURE)
            archive.addfile(info, io.BytesIO(PICTURE))
    return data.getvalue()


NAMES = ["toys/trainA/1.png", "toys/trainB/1.png", "toys/license.txt"]
DATA = zipped(NAMES)
TOYS = PublicSet("cyclegan/toys", "unpaired", ("a", "b"), "a paper", "a licence")


def toys(*urls, **changes):
    return dataclasses.replace(TOYS, urls=urls, **changes)


@pytest.fixture(scope="module")
def server():
    with running() as local:
        yield local


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_facts_are_well_formed(entry):
    assert entry.layout and entry.domains and entry.paper and entry.licence and entry.shown_size
    assert bool(entry.urls) != bool(entry.instead)
    for url in entry.urls:
        parts = urlsplit(url)
        assert parts.scheme == "https" and parts.hostname.endswith("berkeley.edu") and not parts.query
        assert parts.path.endswith(f"/{entry.folder}" + (".tar.gz" if entry.name.startswith("pix2pix/") else ".zip"))
    assert entry.sha256 is None or (len(entry.sha256) == 64 and int(entry.sha256, 16) and entry.size)
    assert all(count > 0 for count in entry.counts.values())


@pytest.mark.parametrize("entry", SETS, ids=lambda entry: entry.name)
def test_the_table_in_the_documentation(entry):
    table = (Path(__file__).parents[2] / "datasets" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in table.splitlines() if f"`{entry.name}`" in line and line.startswith("|"))
    if entry.urls:
        assert entry.layout in line and entry.shown_size.split(" GiB")[0] in line
        assert line.endswith("| known |" if entry.sha256 else "| unknown |")
        assert all(f"{count:,}" in line for count in entry.counts.values())


def test_what_is_there():
    known = {entry.name for entry in SETS}
    assert len(known) == len(SETS) == 19
    cyclegan = (
        "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps"
    )
    cyclegan += " cityscapes facades iphone2dslr_flower ae_photos"
    assert {f"cyclegan/{name}" for name in cyclegan.split()} <= known
    pix2pix = "facades cityscapes maps edges2shoes edges2handbags night2day"
    assert {f"pix2pix/{name}" for name in pix2pix.split()} <= known
    assert len({entry.sha256 for entry in SETS if entry.sha256}) == 10


def test_names():
    assert find_set("horse2zebra") is find_set("cyclegan/horse2zebra")
    with pytest.raises(UsageError, match=r"maps: there are two .* cyclegan/maps \(unpaired\) or pix2pix/maps"):
        find_set("maps")
    with pytest.raises(UsageError, match="Did you mean 'horse2zebra'"):
        find_set("horse2zebras")


@pytest.mark.promise("R50")
@pytest.mark.parametrize("suffix, data", [(".zip", DATA), (".tar.gz", tarred(NAMES))])
def test_fetch(server, tmp_path, suffix, data):
    url = server.serve(f"/good/toys{suffix}", data)
    entry = toys(url, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    fetched = fetch(entry, tmp_path / "sets" / "toys", context=server.context)
    assert names(tmp_path) == [f"sets/toys/{name}" for name in ("SOURCE.json", "trainA/1.png", "trainB/1.png")]
    source = json.loads((tmp_path / "sets/toys/SOURCE.json").read_bytes())
    assert (source["url"], source["sha256"], source["pinned"]) == (url, entry.sha256, True)
    assert (fetched.unpacked.pictures, fetched.unpacked.left_out) == (2, 1)


@pytest.mark.promise("R50")
def test_a_hash_that_nobody_stated_is_recorded(server, tmp_path):
    fetched = fetch(toys(server.serve("/toys.zip", DATA)), tmp_path / "t", keep_archive=True, context=server.context)
    assert fetched.sha256 == hashlib.sha256(DATA).hexdigest()
    assert json.loads((tmp_path / "t/SOURCE.json").read_bytes())["pinned"] is False
    assert (tmp_path / "t.zip").read_bytes() == DATA


@pytest.mark.promise("R49", "R50")
@pytest.mark.parametrize("facts", [{"sha256": "00" * 32}, {"size": len(DATA) + 1}, {"size": len(DATA) - 1}])
def test_a_wrong_archive_leaves_nothing(server, tmp_path, facts):
    entry = toys(server.serve("/wrong/toys.zip", DATA), **facts)
    with pytest.raises(InputError, match=r"expected(.|\n)*put it at"):
        fetch(entry, tmp_path / "toys", context=server.context)
    assert not (tmp_path / "toys").exists() and not (tmp_path / "toys.zip").exists()


@pytest.mark.promise("R49", "R50")
def test_a_hostile_archive_leaves_nothing(server, tmp_path):
    url = server.serve("/hostile/toys.zip", zipped(["../1.png"]))
    with pytest.raises(InputError, match=r"with \.\."):
        fetch(toys(url), tmp_path / "toys", context=server.context)
    assert not list(tmp_path.iterdir())


def test_the_second_place_is_tried(server, tmp_path):
    urls = server.url + "/missing/toys.zip", server.serve("/second/toys.zip", DATA)
    assert fetch(toys(*urls), tmp_path / "toys", context=server.context).url == urls[1]


def test_what_broke_off_goes_on_at_the_same_place(server, tmp_path):
    url = server.answer("/slow/toys.zip", file(DATA, stop=len(DATA) // 2))
    entry = toys(url, server.serve("/other/toys.zip", DATA))
    with pytest.raises(InputError, match="broke off"):
        fetch(entry, tmp_path / "toys", context=server.context)
    server.serve("/slow/toys.zip", DATA)
    assert fetch(entry, tmp_path / "toys", context=server.context).url == url
    assert server.requests[-1][1]["Range"] == f"bytes={len(DATA) // 2}-"
    assert names(tmp_path) == ["toys/SOURCE.json", "toys/trainA/1.png", "toys/trainB/1.png"]


@pytest.mark.promise("R50")
def test_no_redirect_to_anything_but_https(server, tmp_path):
    url = server.answer("/moved/toys.zip", redirect(server.url.replace("https", "http") + "/toys.zip"))
    with pytest.raises(InputError, match="redirected to an address that is refused"):
        fetch(toys(url), tmp_path / "toys", context=server.context)
    with pytest.raises(InputError, match="only https"):
        fetch(toys("http://localhost/toys.zip"), tmp_path / "toys")


@pytest.fixture
def no_network(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.promise("R50")
def test_an_archive_put_there_by_hand_needs_no_network(no_network, tmp_path):
    (tmp_path / "toys.zip").write_bytes(DATA)
    entry = toys("https://localhost/toys.zip", sha256=hashlib.sha256(DATA).hexdigest())
    assert fetch(entry, tmp_path / "toys").unpacked.pictures == 2
    assert (tmp_path / "toys.zip").exists(), "it is not ours to remove"
    (tmp_path / "again.zip").write_bytes(DATA)
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch(toys("https://localhost/toys.zip", sha256="00" * 32), tmp_path / "again")


def test_what_is_not_fetched(no_network, tmp_path):
    with pytest.raises(UsageError, match="Register at"):
        fetch(find_set("pix2pix/cityscapes"), tmp_path / "cityscapes")
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        fetch(toys("https://localhost/toys.zip"), tmp_path / "toys")
