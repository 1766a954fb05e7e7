"""Places in a store: parts of a path, and the text of a URL; a URL with credentials in it is refused unseen."""

import pickle

import pytest

from i2i.errors import UsageError
from i2i.urls import StorePath, is_url, place_of, store_path

URL = "s3://bucket/photos/ä b%20+#.png"


def test_a_place_has_the_parts_of_a_path_and_the_text_of_a_url() -> None:
    place = store_path(URL)
    assert str(place) == URL
    assert str(place.parent) == "s3://bucket/photos"
    assert str(place.with_name("x")) == str(place.parent / "x") == "s3://bucket/photos/x"
    assert (place.scheme, place.suffix, place.stem) == ("s3", ".png", "ä b%20+#")
    assert place.is_relative_to(store_path("s3://bucket/photos/"))
    assert pickle.loads(pickle.dumps(place)) == place  # noqa: S301
    assert str(store_path("S3://bucket")) == "s3://bucket"
    assert str(store_path("memory://")) == "memory://"


def test_a_url_is_never_a_path_and_a_path_never_a_url() -> None:
    assert isinstance(place_of(URL), StorePath)
    assert place_of(store_path(URL)) == store_path(URL)
    for path in ("C://x", "a/b", "s3:/bucket/x", "./s3://bucket", "://x"):
        assert not is_url(path)
        assert not isinstance(place_of(path), StorePath)


@pytest.mark.parametrize("name", ["a//b", "a/../b", "./a", "a/."])
def test_a_name_that_no_path_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="empty part"):
        store_path(f"s3://bucket/{name}")


@pytest.mark.parametrize(
    "rest",
    [
        "me:HIDDEN@bucket/x",
        "ME:HID/DEN@bucket",
        "bucket/x?X-Amz-Signature=HIDDEN",
        "bucket/x?a=1&x-amz-credential=HIDDEN",
        "bucket/x?AWSAccessKeyId=HIDDEN",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_shown(rest: str) -> None:
    with pytest.raises(UsageError) as refused:
        store_path(f"s3://{rest}")
    assert "HID" not in str(refused.value)
    assert "AWS_PROFILE" in str(refused.value)


@pytest.mark.parametrize("url", ["hdfs://host:8020/x", "abfs://container@account.dfs/x", "s3://bucket/what?/x"])
def test_what_looks_like_credentials_and_is_none(url: str) -> None:
    assert str(store_path(url)) == url
