"""Files and folders of a store: listed, fetched and put, nothing twice, and every refusal in our own words."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import SECRET, content, endpoint, new_bucket, put, unfinished, use_s3

from i2i.errors import ExistsError, I2IError, ImageError, InputError, OutputError, UsageError
from i2i.folders import stores
from i2i.folders.stores import fetch_folder, store_folder
from i2i.urls import StorePath, store_path


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorePath]:
    if request.param == "s3":
        use_s3(monkeypatch, endpoint())
    yield new_bucket(request.param)
    stores._system.cache_clear()


ODD = ["a b.png", "a%20b+c#d.png", "é\u0301😀.png", "A.png", "a.png", "x?y*[z].png", "deep/er/" + 250 * "n" + ".png"]


def test_odd_names_come_and_go_as_they_are(bucket: StorePath, tmp_path: Path) -> None:
    place = bucket / "in"
    (tmp_path / "file").write_bytes(b"data")
    for name in ODD:
        stores.put(tmp_path / "file", place / name, replace=False)
    assert list(stores.files(place)) == sorted(ODD)
    for name in ODD:
        stores.fetch(place / name, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"data"


def test_listing(bucket: StorePath) -> None:
    for name in ("in/a.png", "in/deep/b.png", "in/x//y.png", "input/c.png"):
        put(bucket, name, b"1")
    if bucket.scheme == "s3":
        put(bucket, "in/folder/", b"")
        put(bucket, "in/", b"")
    assert [name for name in stores.files(bucket / "in") if stores.is_fit(name)] == ["a.png", "deep/b.png"]
    assert not stores.is_fit("x//y.png")
    assert list(stores.files(bucket / "in", recursive=False)) == ["a.png"]
    assert list(stores.files(bucket / "in" / "a.png")) == [""]
    assert stores.files(bucket / "nothing") == {}
    before = stores.files(bucket / "in")["a.png"]
    put(bucket, "in/a.png", b"2")
    after = stores.files(bucket / "in")["a.png"]
    assert (before.size, after.size) == (1, 1)
    assert before.tag != after.tag


def test_a_second_writer_is_refused_unless_it_brings_the_same_bytes(bucket: StorePath, tmp_path: Path) -> None:
    place = bucket / "out.png"
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    stores.put(tmp_path / "one", place, replace=False)
    stores.put(tmp_path / "one", place, replace=False)
    with pytest.raises(ExistsError, match="has appeared there meanwhile"):
        stores.put(tmp_path / "two", place, replace=False)
    assert content(bucket) == {"out.png": b"1"}
    stores.put(tmp_path / "two", place, replace=True)
    assert content(bucket) == {"out.png": b"2"}


def test_a_check_leaves_nothing_behind(bucket: StorePath) -> None:
    stores.check_writable(bucket / "a" / "b.png")
    assert content(bucket) == {}
    if bucket.scheme == "s3":
        assert unfinished(bucket) == []


def test_large_files_go_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_s3(monkeypatch, endpoint())
    bucket = new_bucket("s3")
    monkeypatch.setattr(stores, "_PIECE", 5 << 20)
    data = bytes(11 << 20)
    (tmp_path / "large").write_bytes(data)
    stores.put(tmp_path / "large", bucket / "large", replace=False)
    assert content(bucket)["large"] == data
    assert unfinished(bucket) == []


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_s3(monkeypatch, endpoint())
    bucket = new_bucket("s3")
    (tmp_path / "file").write_bytes(b"1")
    nowhere = store_path("s3://no-such-bucket/x")
    with pytest.raises(InputError, match=r"^s3://no-such-bucket: no such bucket"):
        stores.files(nowhere)
    with pytest.raises(OutputError, match=r"^s3://no-such-bucket: no such bucket"):
        stores.check_writable(nowhere)
    with pytest.raises(OutputError, match="no such bucket"):
        stores.put(tmp_path / "file", nowhere, replace=False)
    with pytest.raises(ImageError, match="is there no longer"):
        stores.fetch(bucket / "x", tmp_path / "back")
    with pytest.raises(UsageError, match="names no bucket"):
        stores.files(store_path("s3://"))
    with pytest.raises(InputError, match="is no name that the store can have"):
        stores.files(store_path("s3://bad_bu!cket/x"))


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, f"http://user:{SECRET.replace('/', '')}@127.0.0.1:9")
    with pytest.raises(InputError) as refused:
        stores.files(store_path("s3://bucket/x"))
    assert "does not answer" in str(refused.value)
    assert "user" not in str(refused.value)


class Refusing:
    """A store whose every call fails with the same error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def _strip_protocol(self, url: str) -> str:
        return url

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object, **options: object) -> None:
            raise self.error

        return call


def of_store(code: str, kind: type[OSError] = OSError) -> OSError:
    """An error as s3fs raises it."""
    from botocore.exceptions import ClientError

    error = kind(f"says {SECRET}")
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": SECRET}}, "PutObject")
    return error


def test_a_full_disk_here_ends_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stores, "_system", lambda *_: Refusing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OutputError, match="cannot be kept on this machine: No space left"):
        stores.fetch(store_path("s3://bucket/x.png"), tmp_path / "x")


def no_credentials() -> Exception:
    from botocore.exceptions import NoCredentialsError

    return NoCredentialsError()


REFUSALS = [
    (of_store("AccessDenied", PermissionError), "s3:ListBucket", ImageError, OutputError),
    (of_store("InvalidAccessKeyId", PermissionError), "refuses these credentials", InputError, OutputError),
    (of_store("ExpiredToken", PermissionError), "refuses these credentials", InputError, OutputError),
    (no_credentials(), "no credentials", InputError, OutputError),
    (of_store("SlowDown"), "does not answer", InputError, OutputError),
    (TimeoutError(SECRET), "does not answer", InputError, OutputError),
    (of_store("InvalidObjectState"), "InvalidObjectState", ImageError, ImageError),
    (of_store("KeyTooLongError"), "too long", ImageError, ImageError),
    (RuntimeError(SECRET), "RuntimeError", ImageError, ImageError),
]


@pytest.mark.parametrize(("error", "words", "reading", "writing"), REFUSALS, ids=[words for _, words, *_ in REFUSALS])
def test_refusals(
    error: Exception,
    words: str,
    reading: type[I2IError],
    writing: type[I2IError],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(stores, "_system", lambda *_: Refusing(error))
    place = store_path("s3://bucket/x.png")
    with pytest.raises(InputError) as listed:
        stores.files(place)
    with pytest.raises(InputError) as read:
        stores.fetch(place, tmp_path / "x")
    with pytest.raises(I2IError) as written:
        stores.put(tmp_path / "x", place, replace=True)
    assert (type(listed.value), type(read.value), type(written.value)) == (InputError, reading, writing)
    assert words in str(listed.value)
    for refused in (listed, read, written):
        assert SECRET not in str(refused.value)
        assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/x", "library"),
        ("nothing://bucket/x", "no such store"),
        ("file:///x", "give the path alone"),
        ("https://host/x", "is no store"),
    ],
)
def test_stores_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stores.files(store_path(url))


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(scheme: str) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    stores._system.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'i2i\[s3\]'"):
        stores.files(store_path("s3://bucket/x"))


# folders


@pytest.fixture
def memory() -> StorePath:
    return new_bucket("memory")


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the notes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_only_what_has_changed_is_fetched(tmp_path: Path, memory: StorePath) -> None:
    for name in ("a.png", "deep/b c%.png", ".hidden/x", "gone.png"):
        put(memory, name, name.encode())
    folder = tmp_path / "new" / "data"
    assert fetch_folder(memory, folder) == 3
    assert fetch_folder(memory, folder) == 0
    (folder / "own.txt").write_bytes(b"mine")
    put(memory, "a.png", b"A.PNG")
    stores._opened(memory)[0].rm_file(stores._opened(memory / "gone.png")[1])
    assert fetch_folder(memory, folder) == 1
    assert visible(folder) == {"a.png": b"A.PNG", "deep/b c%.png": b"deep/b c%.png", "own.txt": b"mine"}
    (folder / "a.png").unlink()
    assert fetch_folder(memory, folder) == 1
    (folder / ".i2i-store.json").write_bytes(b"damaged")
    assert fetch_folder(memory, folder) == 2
    assert sorted(path.name for path in folder.iterdir()) == [".i2i-store.json", "a.png", "deep", "own.txt"]


def test_many_files_are_linear_work(tmp_path: Path, memory: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes name all files, so they may not be written again for each few of them."""
    for number in range(200):
        put(memory, f"{number}.png", b"x")
    monkeypatch.setattr(stores, "_NOTED", 1)
    monkeypatch.setattr(stores, "_TIMES", 4)
    written, write = [], stores._write
    monkeypatch.setattr(stores, "_write", lambda *arguments: (written.append(1), write(*arguments)))
    assert fetch_folder(memory, tmp_path) == 200
    assert len(written) == 4


def test_only_what_has_changed_is_put_the_newest_last(
    tmp_path: Path, memory: StorePath, monkeypatch: pytest.MonkeyPatch
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
    assert store_folder(tmp_path, memory / "run") == 3
    assert order == ["x", "log.jsonl", "state.pt"]
    assert store_folder(tmp_path, memory / "run") == 0
    assert fetch_folder(memory / "run", tmp_path) == 0
    assert store_folder(tmp_path, memory / "copy") == 3
    assert fetch_folder(memory / "run", tmp_path) == 3
    (tmp_path / "state.pt").write_bytes(b"next")
    assert store_folder(tmp_path, memory / "run") == 1
    assert content(memory / "run") == {"deep/x": b"deep/x", "log.jsonl": b"log.jsonl", "state.pt": b"next"}
    assert fetch_folder(memory / "run", tmp_path / "elsewhere") == 3
    (tmp_path / "log.jsonl").write_bytes(b"next")
    assert fetch_folder(memory / "run", tmp_path) == 0  # changed here, and not there
    assert (tmp_path / "log.jsonl").read_bytes() == b"next"


def test_a_file_is_whole_or_not_there_and_a_fetch_goes_on(
    tmp_path: Path, memory: StorePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_NOTED", 2)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        put(memory, name, name.encode())
    fetch = stores.fetch

    def broken(place: StorePath, path: Path) -> None:
        fetch(place, path)
        if place.name == "3.png":
            path.write_bytes(b"3")
            raise InputError("lost")

    monkeypatch.setattr(stores, "fetch", broken)
    with pytest.raises(InputError, match="lost"):
        fetch_folder(memory, tmp_path)
    there = visible(tmp_path)
    assert {"0.png", "1.png"} <= there.keys() < set(names)
    assert all(data == name.encode() for name, data in there.items())
    monkeypatch.setattr(stores, "fetch", fetch)
    assert fetch_folder(memory, tmp_path) == 6 - len(there)
    assert visible(tmp_path) == {name: name.encode() for name in names}
    assert not (tmp_path / ".i2i-store").exists()


def test_names_that_no_path_can_have_are_refused_before_anything_is_fetched(tmp_path: Path, memory: StorePath) -> None:
    put(memory, "in/a.png", b"1")
    put(memory, "in/../b.png", b"1")
    with pytest.raises(InputError, match=r"'\.\./b\.png' has an empty part"):
        fetch_folder(memory / "in", tmp_path / "data")
    with pytest.raises(InputError, match="no such folder in the store"):
        fetch_folder(memory / "none", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").write_bytes(b"a file")
    put(memory, "fit/a.png", b"1")
    with pytest.raises(OutputError):
        fetch_folder(memory / "fit", tmp_path / "data")


def test_damaged_notes_lead_nowhere_else(tmp_path: Path, memory: StorePath) -> None:
    put(memory, "a.png", b"1")
    (tmp_path / "kept").write_bytes(b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".i2i-store.json").write_text(
        json.dumps({"place": str(memory), "files": {"../kept": [1, "", 0]}})
    )
    fetch_folder(memory, tmp_path / "data")
    assert (tmp_path / "kept").exists()


def test_a_folder_of_s3_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
