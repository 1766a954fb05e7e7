"""Files of a store: listed, fetched and put, and every refusal in our own words."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import SECRET, content, endpoint, new_bucket, put, unfinished, use_s3

from i2i.errors import ExistsError, I2IError, ImageError, InputError, OutputError, UsageError
from i2i.folders import stores
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
