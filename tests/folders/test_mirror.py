"""A folder here and one in a store: what has changed goes over, each file whole, and nothing twice."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from object_store import content, endpoint, new_bucket, put, use_s3

from i2i.errors import InputError, OutputError
from i2i.folders import mirror, stores
from i2i.folders.mirror import fetch_folder, store_folder
from i2i.urls import StorePath


@pytest.fixture
def bucket() -> StorePath:
    return new_bucket("memory")


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the notes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_only_what_has_changed_is_fetched(tmp_path: Path, bucket: StorePath) -> None:
    for name in ("a.png", "deep/b c%.png", ".hidden/x", "gone.png"):
        put(bucket, name, name.encode())
    folder = tmp_path / "new" / "data"
    assert fetch_folder(bucket, folder) == 3
    assert fetch_folder(bucket, folder) == 0
    (folder / "own.txt").write_bytes(b"mine")
    put(bucket, "a.png", b"A.PNG")
    stores._opened(bucket)[0].rm_file(stores._opened(bucket / "gone.png")[1])
    assert fetch_folder(bucket, folder) == 1
    assert visible(folder) == {"a.png": b"A.PNG", "deep/b c%.png": b"deep/b c%.png", "own.txt": b"mine"}
    (folder / "a.png").unlink()
    assert fetch_folder(bucket, folder) == 1
    (folder / ".i2i-store.json").write_bytes(b"damaged")
    assert fetch_folder(bucket, folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == [".i2i-store.json", "a.png", "deep", "own.txt"]


def test_many_files_are_linear_work(tmp_path: Path, bucket: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes name all files, so they may not be written again for each few of them."""
    for number in range(200):
        put(bucket, f"{number}.png", b"x")
    monkeypatch.setattr(mirror, "_NOTED", 1)
    monkeypatch.setattr(mirror, "_TIMES", 4)
    written, write = [], mirror._write
    monkeypatch.setattr(mirror, "_write", lambda *arguments: (written.append(1), write(*arguments)))
    assert fetch_folder(bucket, tmp_path) == 200
    assert len(written) == 4


def test_only_what_has_changed_is_put_the_newest_last(
    tmp_path: Path, bucket: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, time in (("state.pt", 3), ("log.jsonl", 2), (".lock", 1), ("deep/x", 1)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, (time, time))
    order: list[str] = []
    store = stores.put

    def noted(path: Path, place: StorePath, **options: Any) -> None:
        order.append(path.name)
        store(path, place, **options)

    monkeypatch.setattr(stores, "put", noted)
    assert store_folder(tmp_path, bucket / "run") == 3
    assert order == ["x", "log.jsonl", "state.pt"]
    assert store_folder(tmp_path, bucket / "run") == 0
    assert fetch_folder(bucket / "run", tmp_path) == 0
    assert store_folder(tmp_path, bucket / "copy") == 3
    assert fetch_folder(bucket / "run", tmp_path) == 3
    (tmp_path / "state.pt").write_bytes(b"next")
    (tmp_path / "log.jsonl").write_bytes(b"next")
    assert store_folder(tmp_path, bucket / "run", names=["state.pt"]) == 1
    assert content(bucket / "run") == {"deep/x": b"deep/x", "log.jsonl": b"log.jsonl", "state.pt": b"next"}
    assert fetch_folder(bucket / "run", tmp_path / "elsewhere") == 3
    assert fetch_folder(bucket / "run", tmp_path) == 0  # changed here, and not there
    assert (tmp_path / "log.jsonl").read_bytes() == b"next"


def test_a_file_is_whole_or_not_there_and_a_fetch_goes_on(
    tmp_path: Path, bucket: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_NOTED", 2)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        put(bucket, name, name.encode())
    fetch = stores.fetch

    def broken(place: StorePath, path: Path) -> None:
        fetch(place, path)
        if place.name == "3.png":
            path.write_bytes(b"3")
            raise InputError("lost")

    monkeypatch.setattr(stores, "fetch", broken)
    with pytest.raises(InputError, match="lost"):
        fetch_folder(bucket, tmp_path)
    there = visible(tmp_path)
    assert {"0.png", "1.png"} <= there.keys() < set(names)
    assert all(data == name.encode() for name, data in there.items())
    monkeypatch.setattr(stores, "fetch", fetch)
    assert fetch_folder(bucket, tmp_path) == 6 - len(there)
    assert visible(tmp_path) == {name: name.encode() for name in names}
    assert not (tmp_path / ".i2i-store").exists()


def test_names_that_no_path_can_have_are_refused_before_anything_is_fetched(tmp_path: Path, bucket: StorePath) -> None:
    put(bucket, "in/a.png", b"1")
    put(bucket, "in/../b.png", b"1")
    with pytest.raises(InputError, match=r"'\.\./b\.png' has an empty part"):
        fetch_folder(bucket / "in", tmp_path / "data")
    with pytest.raises(InputError, match="no such folder in the store"):
        fetch_folder(bucket / "none", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").write_bytes(b"a file")
    put(bucket, "fit/a.png", b"1")
    with pytest.raises(OutputError):
        fetch_folder(bucket / "fit", tmp_path / "data")


def test_damaged_notes_lead_nowhere_else(tmp_path: Path, bucket: StorePath) -> None:
    put(bucket, "a.png", b"1")
    (tmp_path / "kept").write_bytes(b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".i2i-store.json").write_text(
        json.dumps({"place": str(bucket), "files": {"../kept": [1, "", 0]}})
    )
    fetch_folder(bucket, tmp_path / "data")
    assert (tmp_path / "kept").exists()


def test_with_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, endpoint())
    bucket = new_bucket("s3")
    (tmp_path / "run").mkdir()
    for name in ("a b.pt", "c.json"):
        (tmp_path / "run" / name).write_bytes(name.encode())
    assert store_folder(tmp_path / "run", bucket / "run") == 2
    assert fetch_folder(bucket / "run", tmp_path / "run") == 0
    assert fetch_folder(bucket / "run", tmp_path / "other") == 2
    assert visible(tmp_path / "other") == visible(tmp_path / "run")
    with pytest.raises(OutputError, match="no such bucket"):
        store_folder(tmp_path / "other", StorePath("s3:", "no-such-bucket"))
