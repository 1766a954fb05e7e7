"""Published checkpoints on this machine: fetched when asked for, or put there by hand; checked, converted, kept.

`$I2I_HOME/catalogue/FAMILY/NAME.safetensors` is the model file, `NAME.json` beside it says where it comes from.
That record outlives the model file: what was trusted once is what is expected the next time.
"""

import contextlib
import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from i2i.atomic import atomic_write
from i2i.download import Progress, download
from i2i.errors import DownloadError, ModelError, UsageError
from i2i.home import home
from i2i.partial import alone
from i2i.translation.catalogue import MAX_BYTES, NETWORKS, Entry
from i2i.translation.metadata import regular_file

if TYPE_CHECKING:
    from i2i.translation.model_info import ModelInfo

_MAX_RECORD_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where a model file comes from. `url` is empty for a checkpoint that was put there by hand."""

    style: str
    url: str
    sha256: str
    size: int
    licence: str
    paper: str
    date: str


def model_path(entry: Entry) -> Path:
    """Where its model file is, once it is there."""
    return home() / "catalogue" / entry.family / f"{entry.name}.safetensors"


def checkpoint_path(entry: Entry) -> Path:
    """Where its checkpoint can be put by hand."""
    return model_path(entry).with_suffix(".pth")


def read_record(entry: Entry) -> Record | None:
    """What was recorded when it was converted, if it was. Raises `ModelError` for a record that is damaged."""
    path = _record_path(entry)
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_RECORD_BYTES))
        record = Record(**values)
        valid = re.fullmatch("[0-9a-f]{64}", record.sha256)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError):
        valid = None
    if not valid:
        raise ModelError(f"{path}: a damaged record of a download; remove it to trust the next one anew")
    return record


def obtain(entry: Entry, *, fetch: bool = False, progress: Progress | None = None) -> Path:
    """The model file of a published checkpoint: the one that is kept, or a conversion of what was put by hand.

    Only with `fetch` is the network used. Raises `UsageError`, saying what would be fetched, where there is
    nothing yet, `ModelError` if fetching or converting fails, `OutputError` if the result cannot be kept.
    """
    path, checkpoint = model_path(entry), checkpoint_path(entry)
    if _exists(path):
        return path
    if not _exists(checkpoint) and not fetch:
        raise UsageError(
            f"style {entry.style!r} is not on this machine: --download fetches {entry.url} ({_terms(entry)}); "
            f"or put that file at {checkpoint}"
        )
    with alone(path):
        if _exists(path):
            return path
        if _exists(checkpoint):
            _convert(entry, checkpoint, _sha256(checkpoint), url="")
        else:
            _fetch(entry, checkpoint, progress)
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be looked for: {error.strerror}; I2I_HOME names another folder for styles"
        ) from None


def _sha256(checkpoint: Path) -> str:
    try:
        if (size := regular_file(checkpoint)) > MAX_BYTES:
            raise ModelError(f"{size:,} bytes; at most {MAX_BYTES:,} are accepted")
        with checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except ModelError as error:
        raise ModelError(f"{checkpoint}: {error}") from None
    except OSError as error:
        raise ModelError(f"{checkpoint}: cannot be read: {error.strerror}") from None


def _terms(entry: Entry) -> str:
    size = "size not stated" if entry.size is None else f"{entry.size:,} bytes"
    return f"{size}, licence {entry.licence or 'not stated'}"


def _fetch(entry: Entry, checkpoint: Path, progress: Progress | None) -> None:
    # not under the name of a checkpoint put by hand: what is left behind here is removed
    fetched = checkpoint.with_suffix(".download")
    try:
        found = download(
            entry.url, fetched, sha256=entry.sha256, size=entry.size, max_bytes=MAX_BYTES, progress=progress
        )
    except DownloadError as error:
        raise ModelError(f"{error}; by hand, put the file at {checkpoint}") from None
    try:
        _convert(entry, fetched, found, entry.url)
    except ModelError as error:
        raise ModelError(f"{entry.url}: fetched, refused and removed again: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            fetched.unlink(missing_ok=True)


def _convert(entry: Entry, checkpoint: Path, sha256: str, url: str) -> None:
    _compare(entry, checkpoint, sha256)
    from i2i.translation import model_file, pretrained

    network, info = pretrained.open_model(checkpoint, direction=entry.direction)
    _check_network(entry, checkpoint, info)
    training = replace(info.training, algorithm=entry.family, dataset=entry.dataset)
    info = replace(
        info,
        input_domain=entry.input_domain,
        output_domain=entry.output_domain,
        training=training,
        licence=entry.licence,
        paint_size=entry.paint_size,
    )
    _record(entry, url, sha256, checkpoint.stat().st_size)
    model_file.save(model_path(entry), network, info)


def _compare(entry: Entry, checkpoint: Path, sha256: str) -> None:
    record = read_record(entry)
    if entry.sha256 not in (None, sha256):
        raise ModelError(f"{checkpoint}: its SHA-256 is {sha256}; that of {entry.full_name} is {entry.sha256}")
    if record is not None and record.sha256 != sha256:
        raise ModelError(
            f"{checkpoint}: its SHA-256 is {sha256}, but {record.sha256} was used first ({record.date}); "
            f"to trust this one instead, remove {_record_path(entry)}"
        )


def _check_network(entry: Entry, checkpoint: Path, info: "ModelInfo") -> None:
    kind, options = NETWORKS[entry.family]
    found = {name: info.config.get(name) for name in options}
    if (info.network, found) != (kind, options):
        raise ModelError(f"{checkpoint}: a {info.network} with {found}; {entry.full_name} is a {kind} with {options}")


def _record(entry: Entry, url: str, sha256: str, size: int) -> None:
    if read_record(entry) is not None:
        return
    record = Record(
        style=entry.full_name,
        url=url,
        sha256=sha256,
        size=size,
        licence=entry.licence or "not stated",
        paper=entry.paper,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )
    text = json.dumps(asdict(record), indent=2) + "\n"
    atomic_write(_record_path(entry), lambda file: file.write(text.encode("ascii")))


def _record_path(entry: Entry) -> Path:
    return model_path(entry).with_suffix(".json")
