"""Object stores, such as S3: listing, fetching and storing by fsspec, of which no other file knows.

Credentials come from the environment and from the configuration of fsspec and of the store's own library. No message
repeats what such a library says, for it may hold an address with a password.

`fetch_folder` and `store_folder` keep a folder of this machine and one of a store equal. A hidden file of the folder
notes each file as both sides had it last. So little is listed, and nothing copied twice.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from i2i.data.walking import walk
from i2i.errors import FULL, ExistsError, I2IError, ImageError, InputError, OutputError, UsageError
from i2i.files import atomic_write, locked, make_folders, move_into_place
from i2i.terminal import printable
from i2i.urls import UNNAMED, StorePath

TOGETHER = 8
"""So many files are fetched or stored at once."""
_PIECE = 128 << 20
"""Files of twice that and more go to S3 in pieces of that size: of a killed process the pieces stay there, unseen."""
_NOTES, _LOCK, _COMING = ".i2i-store.json", ".i2i-store.lock", ".i2i-store"
_NOTED, _TIMES = 64, 32
"""The notes, which name all files, are written after so many files, but not more often than so many times."""
UNFIT = "has an empty part, '.' or '..', which no path can have; rename it in the store"
_REFUSED_ALL = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("AuthFailure", "InvalidSecurity", "RequestTimeTooSkewed", "UnrecognizedClientException"),
}
_BUSY = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "ThrottlingException", "503", "500"}
_TOO_LONG = {"KeyTooLongError", "KeyTooLong"}
_UNREACHABLE = {"ConnectionError", "HTTPClientError", "TimeoutError", "ClientConnectionError", "ClientPayloadError"}
"""Names of classes of the libraries' errors, as these are imported only where they are needed."""
_CREDENTIALS = ("Credential", "Profile", "Token", "SSO")
_GIVE = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment; FSSPEC_S3_ANON=1 for a "
    "public bucket"
)


class Entry(NamedTuple):
    """A file of a store: its size in bytes, and a text that changes with its content."""

    size: int
    tag: str


def files(place: StorePath, *, recursive: bool = True, kind: type[I2IError] = InputError) -> dict[str, Entry]:
    """The files below a place by their names from there on, sorted; the file at the place itself has the empty name.

    There are none where nothing has such a name, for a store has no folders. An error is of that `kind`.
    """
    if len(place.parts) < 2:
        raise UsageError(f"{place}: names no bucket; expected {place}bucket/folder")
    with _access(place, kind) as (system, root):
        found = system.find(root, detail=True, **({} if recursive else {"maxdepth": 1}))
    # programs that show folders make empty files whose names end in a slash
    entries = {name: e for name, e in found.items() if e["type"] == "file" and not name.endswith("/")}
    names = {name.removeprefix(root).removeprefix("/"): Entry(e["size"], _tag(e)) for name, e in entries.items()}
    return {name: names[name] for name in sorted(names)}


def _tag(entry: dict[str, Any]) -> str:
    """S3's is `ETag`, Google's `etag`; others have a time at least."""
    return str(next((entry[name] for name in ("ETag", "etag", "md5", "mtime", "created") if entry.get(name)), ""))


def is_fit(name: str) -> bool:
    """Whether a name of a store can be that of a path below a folder."""
    return "\0" not in name and UNNAMED.isdisjoint(name.split("/")) and Path(name).as_posix() == name


def fit(name: str) -> str:
    """The name, or one in its place by which it can be shown."""
    return name if is_fit(name) else quote(name, safe="")


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot."""
    return any(part.startswith(".") and part not in UNNAMED for part in name.split("/"))


def fetch(place: StorePath, path: Path) -> None:
    """Copies one file of a store to a path. Raises `ImageError` if that file cannot be had, `InputError` if none can,
    and `OutputError` if there is no room for it."""
    with _access(place, InputError, of_one=True) as (system, name):
        system.get_file(name, str(path))


def put(path: Path, place: StorePath, *, replace: bool) -> None:
    """Copies a file to a place in a store, whole or not at all.

    Without `replace`, raises `ExistsError` where a file of other bytes has come to that place. Raises `ImageError` if
    the store refuses that file, `OutputError` if it takes none.
    """
    at_once = {"chunksize": _PIECE} if place.scheme in ("s3", "s3a") else {}
    with _access(place, OutputError, of_one=True) as (system, name):
        try:
            system.put_file(str(path), name, mode="overwrite" if replace else "create", **at_once)
        except FileExistsError:
            # a request whose answer was lost is sent again, and a part of a lost worker is made again
            if system.info(name)["size"] != path.stat().st_size or system.cat_file(name) != path.read_bytes():
                raise ExistsError(
                    f"{printable(place)}: not written: something of this name has appeared there meanwhile"
                ) from None


def get_bytes(
    place: StorePath, kind: type[I2IError] = InputError, *, most: int | None = None, of_one: bool = False
) -> bytes:
    """The content of a small file of a store, or its first bytes. An error is of that `kind`, or `of_one` file."""
    first = {} if most is None else {"start": 0, "end": most}
    with _access(place, kind, of_one=of_one) as (system, name):
        content: bytes = system.cat_file(name, **first)
        return content


def put_bytes(data: bytes, place: StorePath) -> None:
    """Writes a file of a store, and replaces the one that is there. Raises `OutputError`."""
    with _access(place, OutputError) as (system, name):
        system.pipe_file(name, data)


def remove(place: StorePath) -> None:
    """Removes a file of a store. Raises `OutputError`."""
    with _access(place, OutputError) as (system, name):
        system.rm_file(name)


def check_writable(place: StorePath) -> None:
    """Raises `OutputError` unless a file can be stored at that place. An upload is begun there and given up."""
    with _access(place, OutputError) as (system, name):
        if not system.async_impl:  # other libraries than those of the great stores store at once
            return
        file = system.open(name, "wb", autocommit=False)
        try:
            file.write(b"\0")
            file.flush(force=True)
        finally:
            file.discard()
            file.closed = True  # or its destructor would store it


def _opened(place: StorePath) -> tuple[Any, str]:
    """The file system of a store, and the name in it of that place. Raises `UsageError`."""
    system = _system(place.scheme, os.getpid())
    return system, system._strip_protocol(str(place))


@cache
def _system(scheme: str, process: int) -> Any:
    """Each process has its own connections; all its threads share them."""
    if scheme in ("file", "local"):
        raise UsageError(f"{scheme}://: is no store; give the path alone, such as /data/photos")
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
    except ImportError:
        install = "pip install 'i2i[s3]'" if scheme in ("s3", "s3a") else f"install fsspec's library for {scheme}://"
        raise UsageError(f"{scheme}://: the library for this store is missing: {install}") from None
    except ValueError:
        raise UsageError(
            f"{scheme}://: no such store is known; expected s3://bucket/folder, or another one of fsspec's"
        ) from None
    if not hasattr(kind, "put_file") or scheme in ("http", "https", "data"):
        raise UsageError(f"{scheme}://: is no store; download the pictures, and give their folder")
    return kind(use_listings_cache=False, skip_instance_cache=True)


@contextmanager
def _access(place: StorePath, kind: type[I2IError], *, of_one: bool = False) -> Iterator[tuple[Any, str]]:
    """Gives the file system of the store, and the name of `place` in it.

    Errors of fsspec and its libraries become errors of `kind`; `of_one`: an `ImageError` about this file.
    """
    try:
        yield _opened(place)
    except I2IError:
        raise
    except Exception as error:
        raise _ours(error, place, kind, of_one) from None  # a traceback would show what those libraries say


def _ours(error: Exception, place: StorePath, kind: type[I2IError], of_one: bool) -> I2IError:
    writes = kind is OutputError
    shown, done = printable(place), "written" if writes else "read"
    one = ImageError if of_one else kind
    code, names = _code(error), {cls.__name__ for cls in type(error).__mro__}
    bucket = printable(StorePath(*place.parts[:2]))
    if code in _REFUSED_ALL:
        return kind(f"{bucket}: the store refuses these credentials ({code}); {_GIVE}")
    if any(word in name for word in _CREDENTIALS for name in names):
        return kind(f"{bucket}: no credentials, or unusable ones ({type(error).__name__}); {_GIVE}")
    if code in _BUSY or names & _UNREACHABLE:
        why = code or type(error).__name__
        return kind(f"{bucket}: the store does not answer ({why}); check the network and the address of the store")
    if code == "NoSuchBucket":
        return kind(f"{bucket}: no such bucket; check its name, and the address of the store")
    if isinstance(error, PermissionError):
        right = "s3:PutObject" if writes else "s3:GetObject" if of_one else "s3:ListBucket"
        all_of_it = kind if writes else one
        return all_of_it(f"{shown}: may not be {done} (no permission, such as {right}); {_GIVE}")
    if isinstance(error, FileNotFoundError):
        return one("is there no longer" if of_one and not writes else f"{shown}: is not there")
    if isinstance(error, UnicodeError):
        return one(f"{shown}: its name is no UTF-8, which a store needs")
    if isinstance(error, OSError) and not code and (error.errno in FULL or error.filename is not None):
        return OutputError(f"{shown}: cannot be kept on this machine: {error.strerror}")
    if code in _TOO_LONG:
        return one(f"{shown}: its name is too long for the store")
    if "ParamValidationError" in names:
        return kind(f"{shown}: is no name that the store can have; expected s3://bucket/folder")
    return one(f"{shown}: cannot be {done}: {code or type(error).__name__}")


def _code(error: BaseException | None) -> str:
    """The code in the store's answer, such as NoSuchBucket; empty if it has none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def each(function: Callable[..., object], *arguments: Iterable[Any]) -> None:
    """Calls it for each of some files, several at once. Raises the first error; calls that wait then are dropped."""
    with ThreadPoolExecutor(TOGETHER, "i2i-store") as threads:
        calls = [threads.submit(function, *one) for one in zip(*arguments, strict=True)]
        try:
            for call in calls:
                call.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


class _Note(NamedTuple):
    """A file as both sides have it: its size, the store's tag, and the time of its last change here."""

    size: int
    tag: str
    changed: int


def fetch_folder(place: StorePath, folder: Path) -> int:
    """Makes `folder` hold the files below a place of a store, and returns how many were fetched.

    Files that the store still has as they were fetched, or put there, are not fetched again, even if they were changed
    here. Files that came from the store and are there no longer are removed; files of other origin stay. Each file is
    whole or not there. Hidden names are left out. One process at a time; others wait, and find nothing left to do.

    Raises `InputError` if there is nothing, or names that no path can have, or if the store cannot be read, and
    `OutputError` if the folder cannot be written.
    """
    found = {name: entry for name, entry in files(place).items() if not is_hidden(name)}
    if not found or "" in found:
        raise InputError(f"{printable(place)}: no such folder in the store")
    if wrong := [name for name in found if not is_fit(name)]:
        raise InputError(f"{printable(place)}: the name {wrong[0]!a} {UNFIT}")
    with locked(folder / _LOCK):
        notes, coming = _read(folder, place), folder / _COMING
        shutil.rmtree(coming, ignore_errors=True)
        for name in notes.keys() - found.keys():
            with suppress(OSError):
                (folder / name).unlink()
            del notes[name]
        old = {name for name, note in notes.items() if note[:2] == found[name] and (folder / name).is_file()}
        new = {name: coming / str(number) for number, name in enumerate(name for name in found if name not in old)}

        def fetch_one(name: str) -> None:
            path, part = folder / name, new[name]
            fetch(place / name, part)
            make_folders(path.parent)
            move_into_place(part, path)
            notes[name] = _Note(*found[name], path.stat().st_mtime_ns)

        make_folders(coming)
        names, group = list(new), max(_NOTED, len(new) // _TIMES)
        try:
            for start in range(0, len(names), group):
                try:
                    each(fetch_one, names[start : start + group])
                finally:
                    _write(folder, place, notes)
        finally:
            shutil.rmtree(coming, ignore_errors=True)
    return len(new)


def store_folder(folder: Path, place: StorePath) -> int:
    """Puts the files of a folder to a place of a store, and returns how many were put.

    Files that did not change since they were fetched, or put there, are not put again. The one that was changed last is
    put last. Each replaces the store's, and nothing is removed there. Hidden files are left out.

    Raises `OutputError` if the store cannot be written.
    """
    with locked(folder / _LOCK):
        notes = _read(folder, place)
        paths = [path for path in map(Path, walk(folder)) if path.is_file()]
        stamps = {path.relative_to(folder).as_posix(): path.stat() for path in paths}
        known = {name: (note.size, note.changed) for name, note in notes.items()}
        new = [name for name, status in stamps.items() if known.get(name) != (status.st_size, status.st_mtime_ns)]
        try:
            for name in sorted(new, key=lambda name: stamps[name].st_mtime_ns):
                put(folder / name, place / name, replace=True)
                notes[name] = _Note(*files(place / name)[""], stamps[name].st_mtime_ns)
        except InputError as error:
            raise OutputError(str(error)) from None
        finally:
            _write(folder, place, notes)
    return len(new)


def is_noted(folder: Path, place: StorePath, name: str) -> bool:
    """Whether the store has that file as it was last fetched, or put there; or has none. Raises `OutputError`."""
    found, note = files(place / name, kind=OutputError), _read(folder, place).get(name)
    return not found or (note is not None and note[:2] == found.get(""))


def _read(folder: Path, place: StorePath) -> dict[str, _Note]:
    """The notes; none if they are of another place, or damaged, and then all is copied again."""
    try:
        found = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
        noted = found["files"] if found["place"] == str(place) else {}
        notes = {name: _Note(int(size), str(tag), int(changed)) for name, (size, tag, changed) in noted.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {name: note for name, note in notes.items() if is_fit(name)}


def _write(folder: Path, place: StorePath, notes: dict[str, _Note]) -> None:
    data = json.dumps({"place": str(place), "files": notes}).encode()
    atomic_write(folder / _NOTES, lambda file: file.write(data))
