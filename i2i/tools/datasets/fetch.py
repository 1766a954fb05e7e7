"""Get a public data set: find it by name, download its archive, unpack the pictures, note where they came from.

`catalog.yaml` has the public data sets of CycleGAN, pix2pix and CUT: the address of each, and its known facts.
"""

import contextlib
import errno
import json
import lzma
import re
import shutil
import ssl
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from i2i import images
from i2i.data.folders import SPLITS
from i2i.download import BrokeOffError, Progress, download
from i2i.errors import DownloadError, InputError, UsageError, nearest
from i2i.files import WINDOWS, atomic_write, is_reserved, locked, make_folders, refused, sha256
from i2i.plain_yaml import read_yaml
from i2i.tools.datasets.shape import is_there
from i2i.urls import real

SOURCE = "SOURCE.json"
MAX_MEMBERS = 200_000
MAX_BYTES = 50 << 30
_LAYOUT = {*SPLITS, *(split + side for split in SPLITS for side in "AB"), "A", "B"}
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError
)  # fmt: skip


@dataclass(frozen=True)
class PublicSet:
    """One public data set.

    `layout`: side by side, unpaired, or test only. `urls`: the archive and places where it was earlier, tried in order;
    empty for a set that is not fetched, of which `instead` says how to get it. `size`: bytes of the archive; `about`:
    in words where `size` is unknown. `counts`: pictures by folder. Unknown facts are None or empty.
    """

    name: str
    layout: str
    domains: tuple[str, ...]
    paper: str
    licence: str
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    about: str = ""
    instead: str = ""

    @property
    def folder(self) -> str:
        """The name without its family."""
        return self.name.partition("/")[2]

    @property
    def shown_size(self) -> str:
        return f"{self.size / 1e6:,.1f} MB" if self.size else self.about or "of unknown size"


def _catalog() -> Iterator[PublicSet]:
    facts = read_yaml(Path(__file__).with_name("catalog.yaml"))
    for name, own in facts["sets"].items():
        family, _, folder = name.partition("/")
        shared, licence = facts["families"][family], own["licence"]
        instead = facts["instead"].get(licence, "")
        yield PublicSet(
            name,
            own.get("layout", shared["layout"]),
            tuple(own["domains"]),
            "; ".join(filter(None, (shared["paper"], own.get("more")))),
            facts["licences"].get(licence, licence),
            () if instead else tuple(url.format(folder) for url in shared["urls"]),
            instead=instead,
            **{fact: own[fact] for fact in ("size", "sha256", "counts", "about") if fact in own},
        )


SETS = tuple(_catalog())


def find_set(name: str) -> PublicSet:
    """The set that a name means, with its family (`pix2pix/maps`) or, where only one has it, without.

    Raises `UsageError` for an unknown name and for one that two families have.
    """
    found = [entry for entry in SETS if name in (entry.name, entry.folder)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(f"{entry.name} ({entry.layout})" for entry in found)
        raise UsageError(f"{name}: there are two of this name; say {choices}")
    known = sorted({entry.name for entry in SETS} | {entry.folder for entry in SETS})
    raise UsageError(
        f"{name}: no public data set of this name.{nearest(name, known)} i2i prepare-dataset list shows all."
    )


@dataclass(frozen=True)
class Fetched:
    """The pictures that were unpacked, the other files that were left out, the archive's address, and its SHA-256."""

    pictures: int
    left_out: int
    url: str
    sha256: str


def fetch(
    entry: PublicSet,
    target: Path,
    *,
    keep_archive: bool = False,
    progress: Progress | None = None,
    context: ssl.SSLContext | None = None,
) -> Fetched:
    """Download a public set to the new folder `target`; `SOURCE.json` in it says where the set came from.

    The archive lies beside `target` and is removed afterwards unless `keep_archive` is set. An archive that you put
    there is taken instead of a download, and stays. Its SHA-256 must be the one in the catalogue, if that has one.
    Raises `InputError` if the set cannot be downloaded or unpacked, `UsageError` for a set that is not fetched or a
    `target` that exists, `OutputError` for the disk.
    """
    if not entry.urls:
        raise UsageError(f"{entry.name}: {entry.instead}")
    _check_free(target)
    target = real(target)
    archive = target.with_name(target.name + (".tar.gz" if entry.urls[0].endswith(".tar.gz") else ".zip"))
    with _folders_above(archive):
        if brought := archive.exists():
            url, found = _brought(entry, archive)
        else:
            url, found = _download(entry, archive, progress, context)
        try:
            pictures, left_out = unpack(archive, target)
        except InputError:
            if not brought:
                archive.unlink()
            raise
        source = {"name": entry.name, "url": url, "sha256": found, "pinned": entry.sha256 is not None}
        source |= {"pictures": pictures, "licence": entry.licence, "paper": entry.paper}
        text = json.dumps(source, indent=2) + "\n"
        atomic_write(target / SOURCE, lambda file: file.write(text.encode("ascii")))
        if not (keep_archive or brought):
            archive.unlink()
    return Fetched(pictures, left_out, url, found)


def _check_free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(f"{target}: exists already; remove it or choose another folder with --out")


def _brought(entry: PublicSet, archive: Path) -> tuple[str, str]:
    if not archive.is_file():
        raise InputError(f"{archive}: not a regular file")
    if (found := sha256(archive)) != (entry.sha256 or found):
        raise InputError(f"{archive}: its SHA-256 is {found}, expected {entry.sha256}")
    return f"found as {archive.name}", found


def _download(
    entry: PublicSet, archive: Path, progress: Progress | None, context: ssl.SSLContext | None
) -> tuple[str, str]:
    failures = []
    for url in entry.urls:
        try:
            return url, download(url, archive, sha256=entry.sha256, size=entry.size, progress=progress, context=context)
        except DownloadError as error:
            failures.append(str(error))
            if isinstance(error, BrokeOffError):
                break  # another place would start again from nothing
    raise InputError("; ".join(failures), f"Or get the archive in another way and put it at {archive}.")


@contextlib.contextmanager
def _folders_above(path: Path) -> Iterator[None]:
    """Create the folders above `path`; those that are empty at the end, and were not there, go again."""
    missing = [parent for parent in path.absolute().parents if not is_there(parent)]
    make_folders(path.parent)
    try:
        yield
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()


def unpack(archive: Path, target: Path) -> tuple[int, int]:
    """Unpack the pictures of a zip or tar archive into the new folder `target`, whole or not at all.

    Returns how many pictures there are, and how many other files were left out.
    Hidden files and other files are left out. A single folder around everything is taken away. An archive is refused
    for a link, a device, or a name that leads out of the folder, and beyond `MAX_MEMBERS` or `MAX_BYTES`.

    Raises `InputError` for an archive that is refused or damaged, `UsageError` if `target` exists, `OutputError` if it
    cannot be written, `LockedError` if another process unpacks there.
    """
    _check_free(target)
    target = real(target)
    folder, lock = (target.with_name(f".i2i-{target.name}.{what}") for what in ("unpacking", "lock"))
    with _folders_above(target), locked(lock, busy=f"another process unpacks to {target.name}"):
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        try:
            folder.mkdir()
            found = _unpack(archive, folder)
            (first, *others) = folder.iterdir()
            alone = not others and first.is_dir() and first.name not in _LAYOUT
            (first if alone else folder).rename(target)
        except InputError as error:
            raise InputError(f"{archive}: {error}; nothing of it was kept") from None
        except OSError as error:
            raise refused(target, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def _unpack(archive: Path, folder: Path) -> tuple[int, int]:
    pictures = left_out = total = 0
    try:
        for count, (name, size, content) in enumerate(_members(archive), 1):
            total += size
            if count > MAX_MEMBERS or total > MAX_BYTES:
                raise InputError(f"more than {MAX_MEMBERS:,} files or {MAX_BYTES:,} bytes when unpacked")
            parts = _parts(name)
            if any(part.startswith(".") for part in parts) or Path(parts[-1]).suffix.lower() not in images.SUFFIXES:
                left_out += 1
                continue
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
            pictures += 1
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{Path(error.filename).relative_to(folder)}: a name that occurs twice") from None
    except _DAMAGE as error:
        raise InputError(f"damaged: {error or 'it ends early'}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{Path(error.filename).name[:300]!r}: a name that is too long") from None
        if error.errno is None:  # gzip and bz2 say so of a damaged file
            raise InputError(f"damaged: {error}") from None
        raise
    if not pictures:
        raise InputError(f"no pictures in it, {left_out} other files")
    return pictures, left_out


def _special(name: str) -> InputError:
    return InputError(f"{name!r}: a link or a special file, which is not accepted")


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The name, the size and the content of each regular file. Raises `InputError` for a member of another kind."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _special(info.filename)
                if not info.is_dir():
                    with packed.open(info) as content:
                        yield info.filename, info.file_size, content
    else:
        try:
            opened = tarfile.open(archive, tarinfo=_Member)  # noqa: SIM115 - closed below
        except (tarfile.ReadError, FileNotFoundError, IsADirectoryError):
            raise InputError("not a zip or tar archive") from None
        with opened as unpacked:
            while member := unpacked.next():
                unpacked.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _special(member.name)
                if (data := unpacked.extractfile(member)) is not None:
                    yield member.name, member.size, data
            assert unpacked.fileobj is not None
            while unpacked.fileobj.read(1 << 20):  # so that the checksum at the end is compared
                pass


class _Member(tarfile.TarInfo):
    """A member of a tar archive; a bad header is an error, which `tarfile` takes for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next member. Raises `ReadError` for a bad header after the first."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if archive.offset == 0 or isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(str(error)) from None


def _parts(name: str) -> list[str]:
    """The folders and the name of a member. Raises `InputError` for a name that is not harmless everywhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    leads_out = name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name)
    if not parts or leads_out or re.search(r"[\x00-\x1f\x7f-\x9f\\]", name):
        raise InputError(f"{name[:300]!r}: a name that leads out of the folder, or with odd characters")
    if WINDOWS and any(map(is_reserved, parts)):
        raise InputError(f"{name[:300]!r}: a name that Windows reserves; unpack the archive on another system")
    return parts
