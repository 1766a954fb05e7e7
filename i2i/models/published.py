"""The checkpoints that the authors of CycleGAN and pix2pix have published: where they lie, and their copies here.

The names are theirs, as in the download scripts of junyanz/pytorch-CycleGAN-and-pix2pix, and so are the networks:
`resnet_9blocks` with instance norm and no dropout for CycleGAN, `unet_256` with batch norm and dropout for pix2pix, all
trained on crops of 256 × 256. Directions are those of the data sets (`monet2photo` has the paintings as A). Licences
and hashes, which the authors do not state, are left empty.

A checkpoint is fetched when it is asked for, or put here by hand; it is checked and converted.
`$I2I_HOME/catalogue/FAMILY/NAME.safetensors` is the model file, `NAME.json` beside it says where it comes from. That
record outlives the model file: its hash is expected the next time.
"""

import contextlib
import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from i2i.download import Progress, download
from i2i.errors import DownloadError, ModelError, UsageError
from i2i.files import atomic_write, home, locked, sha256
from i2i.models.info import Direction
from i2i.models.metadata import naming, regular_file

if TYPE_CHECKING:
    from i2i.models.info import ModelInfo


Family = Literal["cyclegan", "pix2pix"]

TRAINING_SIZE = 256
PAINT_SIZE = 3 * TRAINING_SIZE // 2
"""For painters: where strokes and picture were both to be seen, of the sizes that were looked at (docs/lab-book.md)."""
MAX_BYTES = 1 << 30
"""More than four times the largest of these files."""

PAPERS: dict[Family, str] = {
    "cyclegan": "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial "
    "Networks. ICCV 2017. arXiv:1703.10593",
    "pix2pix": "Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks. "
    "CVPR 2017. arXiv:1611.07004",
}
NETWORKS: dict[Family, tuple[str, dict[str, Any]]] = {
    "cyclegan": ("resnet", {"blocks": 9, "width": 64, "norm": "instance", "dropout": False}),
    "pix2pix": ("unet", {"depth": 8, "width": 64, "norm": "batch", "dropout": True}),
}
_FOLDERS: dict[Family, str] = {
    "cyclegan": "https://efrosgans.eecs.berkeley.edu/cyclegan/pretrained_models",
    "pix2pix": "https://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch",
}


@dataclass(frozen=True)
class Entry:
    """A published checkpoint. `size` in bytes, `sha256` and `licence` are those of the file, as far as stated.

    `paint_size` is not the authors': see `ModelInfo`.
    """

    family: Family
    name: str
    dataset: str
    direction: Direction
    input_domain: str
    output_domain: str
    size: int | None = None
    sha256: str | None = None
    licence: str = ""
    paint_size: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.family}/{self.name}"

    @property
    def style(self) -> str:
        """The name for `--style`: the plain name where only one family has it."""
        return self.name if sum(other.name == self.name for other in ENTRIES) == 1 else self.full_name

    @property
    def url(self) -> str:
        return f"{_FOLDERS[self.family]}/{self.name}.pth"

    @property
    def paper(self) -> str:
        return PAPERS[self.family]


ENTRIES: tuple[Entry, ...] = (
    Entry("cyclegan", "style_monet", "monet2photo", "b2a", "photo", "Monet", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_cezanne", "cezanne2photo", "b2a", "photo", "Cézanne", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_ukiyoe", "ukiyoe2photo", "b2a", "photo", "ukiyo-e", paint_size=PAINT_SIZE),
    Entry("cyclegan", "style_vangogh", "vangogh2photo", "b2a", "photo", "Van Gogh", paint_size=PAINT_SIZE),
    Entry("cyclegan", "monet2photo", "monet2photo", "a2b", "Monet", "photo"),
    Entry("cyclegan", "horse2zebra", "horse2zebra", "a2b", "horse", "zebra"),
    Entry("cyclegan", "zebra2horse", "horse2zebra", "b2a", "zebra", "horse"),
    Entry("cyclegan", "apple2orange", "apple2orange", "a2b", "apple", "orange"),
    Entry("cyclegan", "orange2apple", "apple2orange", "b2a", "orange", "apple"),
    Entry("cyclegan", "summer2winter_yosemite", "summer2winter_yosemite", "a2b", "summer", "winter"),
    Entry("cyclegan", "winter2summer_yosemite", "summer2winter_yosemite", "b2a", "winter", "summer"),
    Entry("cyclegan", "sat2map", "maps", "a2b", "satellite", "map"),
    Entry("cyclegan", "map2sat", "maps", "b2a", "map", "satellite"),
    Entry("cyclegan", "cityscapes_photo2label", "cityscapes", "a2b", "photo", "label"),
    Entry("cyclegan", "cityscapes_label2photo", "cityscapes", "b2a", "label", "photo"),
    Entry("cyclegan", "facades_photo2label", "facades", "a2b", "photo", "label"),
    Entry("cyclegan", "facades_label2photo", "facades", "b2a", "label", "photo"),
    Entry("cyclegan", "iphone2dslr_flower", "iphone2dslr_flower", "a2b", "iPhone", "DSLR"),
    Entry("pix2pix", "edges2shoes", "edges2shoes", "a2b", "edges", "shoes"),
    Entry("pix2pix", "sat2map", "maps", "a2b", "satellite", "map", size=217_704_720),
    Entry("pix2pix", "map2sat", "maps", "b2a", "map", "satellite"),
    Entry("pix2pix", "facades_label2photo", "facades", "b2a", "label", "photo"),
    Entry("pix2pix", "day2night", "night2day", "b2a", "day", "night"),
)


def find(name: str) -> Entry | None:
    """Returns the checkpoint called `name` or `family/name`.

    Raises `UsageError` naming both if the two families have one of that plain name.
    """
    found = [entry for entry in ENTRIES if name in (entry.name, entry.full_name)]
    if len(found) > 1:
        choices = " or ".join(entry.full_name for entry in found)
        raise UsageError(f"style {name!r} is published for both families; choose {choices}")
    return found[0] if found else None


_MAX_RECORD_BYTES = 1 << 16


def model_path(entry: Entry) -> Path:
    """Returns the path of its model file, which may not exist yet."""
    return home() / "catalogue" / entry.family / f"{entry.name}.safetensors"


def checkpoint_path(entry: Entry) -> Path:
    """Returns the path at which a user may put its checkpoint by hand."""
    return model_path(entry).with_suffix(".pth")


def read_record(entry: Entry) -> tuple[str, str] | None:
    """Returns the SHA-256 and the date in the record of its conversion, if there was one.

    Raises `ModelError` for a record that is damaged.
    """
    path = _record_path(entry)
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(_MAX_RECORD_BYTES))
        digest, date = values["sha256"], values["date"]
        valid = isinstance(date, str) and re.fullmatch("[0-9a-f]{64}", digest)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        valid = None
    if not valid:
        raise ModelError(f"{path}: a damaged record of a download; remove it to trust the next one anew")
    return digest, date


def obtain(entry: Entry, *, fetch: bool = False, progress: Progress | None = None) -> Path:
    """Returns the model file of a published checkpoint: the one that is kept, or a conversion of a file put by hand.

    Only with `fetch` is the network used. Raises `UsageError`, saying what would be fetched, where there is
    nothing yet, `ModelError` if fetching or converting fails, `OutputError` if the result cannot be kept.
    """
    path, checkpoint = model_path(entry), checkpoint_path(entry)
    if _exists(path):
        return path
    if not _exists(checkpoint) and not fetch:
        size = "size not stated" if entry.size is None else f"{entry.size:,} bytes"
        raise UsageError(
            f"style {entry.style!r} is not on this machine: --download fetches {entry.url} ({size}, licence "
            f"{entry.licence or 'not stated'}); or put that file at {checkpoint}"
        )
    with locked(path.with_name(f"{path.name}.lock")):
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
    with naming(checkpoint):
        regular_file(checkpoint, MAX_BYTES)
        try:
            return sha256(checkpoint)
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}") from None


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
    from i2i.models import model_file, pretrained

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
    if record is not None and record[0] != sha256:
        raise ModelError(
            f"{checkpoint}: its SHA-256 is {sha256}, but {record[0]} was used first ({record[1]}); "
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
    record = {"style": entry.full_name, "url": url, "sha256": sha256, "size": size}
    record |= {"licence": entry.licence or "not stated", "paper": entry.paper}
    text = json.dumps(record | {"date": time.strftime("%Y-%m-%d", time.gmtime())}, indent=2) + "\n"
    atomic_write(_record_path(entry), lambda file: file.write(text.encode("ascii")))


def _record_path(entry: Entry) -> Path:
    return model_path(entry).with_suffix(".json")
