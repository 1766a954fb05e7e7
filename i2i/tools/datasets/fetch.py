"""Getting a public data set: download its archive, unpack it under our rules, note where it came from."""

import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from i2i.config import real
from i2i.download import download
from i2i.errors import DownloadError, InputError, UsageError
from i2i.files import atomic_write
from i2i.tools.datasets.archive import Unpacked, unpack
from i2i.tools.datasets.catalog import PublicSet
from i2i.tools.datasets.outputs import folders_above

SOURCE = "SOURCE.json"


@dataclass(frozen=True)
class Fetched:
    """What came out of which archive, and the SHA-256 of that."""

    unpacked: Unpacked
    url: str
    sha256: str


def fetch(
    entry: PublicSet,
    target: Path,
    *,
    keep_archive: bool = False,
    progress: Callable[[int, int | None], object] | None = None,
    context: ssl.SSLContext | None = None,
) -> Fetched:
    """Download a public set to the new folder `target`; `SOURCE.json` in it tells where it came from.

    The archive lies beside `target` and is removed afterwards unless `keep_archive` is set; one that was put there
    by hand is taken instead of a download, and stays. A hash that the catalogue knows must be met; another is recorded.
    Raises `InputError` for what cannot be downloaded or unpacked, `UsageError` for a set that is not fetched or a
    `target` that is there, `OutputError` for the disk.
    """
    if not entry.urls:
        raise UsageError(f"{entry.name}: {entry.instead}")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(f"{target}: is there already; remove it or choose another folder with --out")
    target = real(target)
    archive = archive_of(entry, target)
    with folders_above(archive):
        return _fetched(entry, target, archive, keep_archive, progress, context)


def _fetched(
    entry: PublicSet,
    target: Path,
    archive: Path,
    keep_archive: bool,
    progress: Callable[[int, int | None], object] | None,
    context: ssl.SSLContext | None,
) -> Fetched:
    brought = archive.exists()
    if brought:
        url, sha256 = f"found as {archive.name}", _hash(archive)
    else:
        url, sha256 = _download(entry, archive, progress, context)
    try:
        unpacked = unpack(archive, target, sha256=entry.sha256 or sha256)
    except InputError:
        if not brought:
            archive.unlink()
        raise
    fetched = Fetched(unpacked, url, sha256)
    _note(entry, target, fetched)
    if not (keep_archive or brought):
        archive.unlink()
    return fetched


def archive_of(entry: PublicSet, target: Path) -> Path:
    """Where the archive lies: beside `target`."""
    suffix = ".tar.gz" if entry.urls[0].endswith(".tar.gz") else ".zip"
    return target.with_name(target.name + suffix)


def _download(
    entry: PublicSet,
    archive: Path,
    progress: Callable[[int, int | None], object] | None,
    context: ssl.SSLContext | None,
) -> tuple[str, str]:
    failures = []
    for url in entry.urls:
        try:
            sha256 = download(url, archive, sha256=entry.sha256, size=entry.size, progress=progress, context=context)
            return url, sha256
        except DownloadError as error:
            failures.append(str(error))
        part = archive.with_name(archive.name + ".part")
        if part.exists() and part.stat().st_size:
            break  # another place would start again from nothing
    raise InputError("; ".join(failures), f"Or get the archive in another way and put it at {archive}.")


def _hash(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: not a regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(entry: PublicSet, target: Path, fetched: Fetched) -> None:
    source = {
        "name": entry.name,
        "url": fetched.url,
        "sha256": fetched.sha256,
        "pinned": entry.sha256 is not None,
        "pictures": fetched.unpacked.pictures,
        "licence": entry.licence,
        "paper": entry.paper,
    }
    text = json.dumps(source, indent=2) + "\n"
    atomic_write(target / SOURCE, lambda file: file.write(text.encode("ascii")))
