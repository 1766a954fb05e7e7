"""Paths that a user gives, and places in an object store, by their URLs: `s3://bucket/photos/a.png`.

These have the parts of a path, and nothing of them is on this machine. `i2i.folders.stores` reads and writes them.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Self, TypeGuard

from pydantic import BeforeValidator

from i2i.errors import UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
"""A scheme has at least two letters: C:// is a drive."""
_SECRET = re.compile(r"[^/]*:(?!\d+(?:/|$))|.*[?&](?:x-amz-|x-goog-|awsaccesskeyid|signature|sig=)", re.I | re.DOTALL)
"""Behind the scheme: `user:password@`, which may hold slashes, or a signature; `host:8020` has none."""
UNNAMED = {"", ".", ".."}
"""Parts of names that a store may have and a path may not."""
_CREDENTIALS = (
    "has a password or a signature in it, which would be seen by others; leave it out, and give credentials in the "
    "environment (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or in a file of the store's own library"
)


# to a type checker it is a `Path`, so that jobs, records and reports have one type for both kinds of places
if TYPE_CHECKING:
    _Base = Path
else:
    _Base = PurePosixPath


class StorePath(_Base):
    """A place in an object store. It is used as a pure path; `str` gives its URL."""

    __slots__ = ()

    @property
    def scheme(self) -> str:
        """The kind of store: `s3`."""
        return self.parts[0].removesuffix(":")

    def absolute(self) -> Self:
        """Itself: there are no relative places."""
        return self

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":")
        return f"{scheme}://{rest.removeprefix('/')}"


def is_url(value: object) -> TypeGuard[str]:
    """Whether a value is the text of a URL."""
    return isinstance(value, str) and _URL.fullmatch(value) is not None


def store_path(url: str) -> StorePath:
    """The place of a URL. Raises `UsageError` for one that holds credentials, or a part that no path can have."""
    check_secrets(url)
    scheme, _, rest = url.partition("://")
    parts = rest.removeprefix("/").removesuffix("/").split("/")
    if parts != [""] and not UNNAMED.isdisjoint(parts):
        raise UsageError(
            f"{url!r}: has an empty part, '.' or '..' in it, which no path can have; rename it in the store"
        )
    return StorePath(f"{scheme.lower()}:", *parts)


def as_path(text: str) -> Path:
    """The place of a URL, or the path, whose text was checked before."""
    if not is_url(text):
        return Path(text)
    scheme, _, rest = text.partition("://")
    return StorePath(f"{scheme}:", rest)


def path_of(value: str | os.PathLike[str]) -> Path:
    """`value` as a path. Raises `UsageError` for an empty text, which would mean the current folder, and for a NUL."""
    if value == "":
        raise UsageError("an empty path: is a variable unset? The current folder is '.'")
    if "\0" in os.fspath(value):
        raise UsageError(f"{os.fspath(value)!a}: no path has a NUL character")
    return Path(value)


def place_of(value: str | os.PathLike[str]) -> Path:
    """`value` as the place of a URL, or as a path, with the refusals of both."""
    if isinstance(value, StorePath):
        return value
    return store_path(value) if is_url(value) else path_of(value)


def real(path: Path) -> Path:
    """Where `path` leads through all links. Unlike pathlib's, it takes a link to itself; a store has no links."""
    return path if isinstance(path, StorePath) else Path(os.path.realpath(path))


def check_secrets(value: object, where: str = "") -> None:
    """Raises `UsageError`, which does not repeat it, for a URL that holds credentials."""
    if is_url(value) and _SECRET.match(value.partition("://")[2]):
        raise UsageError(f"{where}{value.partition('://')[0]}://… {_CREDENTIALS}")


def _as_place(value: object) -> object:
    return store_path(value) if is_url(value) else value


PathOrURL = Annotated[Path | StorePath, BeforeValidator(_as_place)]
"""The type of an option that takes a path on this machine, or the URL of a store."""
