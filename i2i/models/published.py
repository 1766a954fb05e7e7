"""Models that others have published: the checkpoints of the authors of CycleGAN and pix2pix, and the Hugging Face Hub.

The checkpoints' names are those of the download scripts of junyanz/pytorch-CycleGAN-and-pix2pix, and so are the
networks: `resnet_9blocks` with instance norm and no dropout for CycleGAN, `unet_256` with batch norm and dropout for
pix2pix, all trained on crops of 256 × 256. Directions are those of the data sets (`monet2photo` has the paintings as
A). The authors state neither licences nor hashes.

A checkpoint is fetched when it is asked for, or put here by hand; it is checked and converted.
`$I2I_HOME/catalogue/FAMILY/NAME.safetensors` is the model file, `NAME.json` beside it says where it comes from. That
record outlives the model file: its hash is expected the next time.

A model on the Hub is a folder with `config.json` and `model.safetensors`, and nothing else of it is fetched. Its
library keeps that in its own cache and goes on where a download broke off. Its environment variables hold:
`HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN`.
"""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from i2i.download import Progress, download
from i2i.errors import DownloadError, ModelError, UsageError, as_typed
from i2i.files import atomic_write, home, locked, sha256
from i2i.models.info import CONFIG_NAME, WEIGHTS_NAME, Direction, read_info
from i2i.models.metadata import MAX_FILE_BYTES, MAX_INFO_BYTES, naming, regular_file

Family = Literal["cyclegan", "pix2pix"]

PAINT_SIZE = 384
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
    """A published checkpoint. `size` in bytes and `sha256` are those of the file, as far as stated."""

    family: Family
    name: str
    dataset: str
    direction: Direction
    input_domain: str
    output_domain: str
    size: int | None = None
    sha256: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.family}/{self.name}"

    @property
    def style(self) -> str:
        """The name for `--style`: the plain name where only one family has it."""
        return self.name if sum(other.name == self.name for other in ENTRIES) == 1 else self.full_name

    @property
    def arrow(self) -> str:
        """The direction with its domains: `a2b (horse → zebra)`."""
        return f"{self.direction} ({self.input_domain} → {self.output_domain})"

    @property
    def url(self) -> str:
        return f"{_FOLDERS[self.family]}/{self.name}.pth"

    @property
    def paper(self) -> str:
        return PAPERS[self.family]

    @property
    def paint_size(self) -> int:
        return PAINT_SIZE if self.name.startswith("style_") else 0

    @property
    def model(self) -> Path:
        """The path of its model file, which may not exist yet."""
        return home() / "catalogue" / self.family / f"{self.name}.safetensors"


ENTRIES: tuple[Entry, ...] = (
    Entry("cyclegan", "style_monet", "monet2photo", "b2a", "photo", "Monet"),
    Entry("cyclegan", "style_cezanne", "cezanne2photo", "b2a", "photo", "Cézanne"),
    Entry("cyclegan", "style_ukiyoe", "ukiyoe2photo", "b2a", "photo", "ukiyo-e"),
    Entry("cyclegan", "style_vangogh", "vangogh2photo", "b2a", "photo", "Van Gogh"),
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


def obtain(entry: Entry, *, fetch: bool = False, progress: Progress | None = None) -> Path:
    """Returns the model file of a published checkpoint: the one that is kept, or a conversion of a file put by hand.

    Only with `fetch` is the network used. Raises `UsageError`, saying what would be fetched, where there is
    nothing yet, `ModelError` if fetching or converting fails, `OutputError` if the result cannot be kept.
    """
    path = entry.model
    checkpoint = path.with_suffix(".pth")  # a user may put it there by hand
    if _exists(path):
        return path
    if not _exists(checkpoint) and not fetch:
        size = "size not stated" if entry.size is None else f"{entry.size:,} bytes"
        raise UsageError(
            f"style {entry.style!r} is not on this machine: {as_typed('download', True)} fetches {entry.url} ({size}, "
            f"licence not stated); or put that file at {checkpoint}"
        )
    with locked(path.with_name(f"{path.name}.lock")):
        if _exists(path):
            return path
        if not _exists(checkpoint):
            _fetch(entry, checkpoint, progress)
            return path
        with naming(checkpoint):
            regular_file(checkpoint, MAX_BYTES)
            try:
                digest = sha256(checkpoint)
            except OSError as error:
                raise ModelError(f"cannot be read: {error.strerror}") from None
        _convert(entry, checkpoint, digest, url="")
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be looked for: {error.strerror}; I2I_HOME names another folder for styles"
        ) from None


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


def _convert(entry: Entry, checkpoint: Path, digest: str, url: str) -> None:
    """Writes the model file of a checkpoint with that SHA-256, and the record of its first use."""
    record, known = entry.model.with_suffix(".json"), _recorded(entry.model.with_suffix(".json"))
    if entry.sha256 not in (None, digest):
        raise ModelError(f"{checkpoint}: its SHA-256 is {digest}; that of {entry.full_name} is {entry.sha256}")
    if known is not None and known[0] != digest:
        raise ModelError(
            f"{checkpoint}: its SHA-256 is {digest}, but {known[0]} was used first ({known[1]}); "
            f"to trust this one instead, remove {record}"
        )
    from i2i.models import model_file

    network, info = model_file.open_model(checkpoint, direction=entry.direction)
    kind, options = NETWORKS[entry.family]
    found = {name: info.config.get(name) for name in options}
    if (info.network, found) != (kind, options):
        raise ModelError(f"{checkpoint}: a {info.network} with {found}; {entry.full_name} is a {kind} with {options}")
    if known is None:
        facts = {"style": entry.full_name, "url": url, "sha256": digest, "size": checkpoint.stat().st_size}
        facts |= {"licence": "not stated", "paper": entry.paper, "date": time.strftime("%Y-%m-%d", time.gmtime())}
        atomic_write(record, lambda file: file.write((json.dumps(facts, indent=2) + "\n").encode("ascii")))
    info = replace(
        info,
        input_domain=entry.input_domain,
        output_domain=entry.output_domain,
        training=replace(info.training, algorithm=entry.family, dataset=entry.dataset),
        paint_size=entry.paint_size,
    )
    model_file.save(entry.model, network, info)


_MAX_RECORD_BYTES = 1 << 16


def _recorded(path: Path) -> tuple[str, str] | None:
    """Returns the SHA-256 and the date in the record of a first conversion, if there was one.

    Raises `ModelError` for a record that is damaged.
    """
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


_LIMITS = {CONFIG_NAME: MAX_INFO_BYTES, WEIGHTS_NAME: MAX_FILE_BYTES}
"""The files of a model on the Hub."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def from_hub(repository: str, revision: str | None = None) -> Path:
    """Returns the folder of the model `owner/name`, fetched unless it is in the cache.

    `revision` is a branch, a tag or a commit. Sizes are asked for before anything is fetched. Without network the
    cache is used. Raises `ModelError` for a repository that is not there or holds no such model, `UsageError` for
    a name that is none or if huggingface_hub is not installed.
    """
    with _hub(repository) as library:
        info = None
        try:
            info = library.HfApi().model_info(repository, revision=revision, files_metadata=True)
        except library.errors.HfHubHTTPError:
            raise
        except _network_errors(library):
            pass  # the cache may have it
        if info is not None:
            revision, sizes = str(info.sha), {file.rfilename: file.size for file in info.siblings or []}
            for name, limit in _LIMITS.items():
                if name not in sizes:
                    raise ModelError(f"has no {name}: not a model of i2i")
                if sizes[name] is None or sizes[name] > limit:
                    raise ModelError(f"{name} has {sizes[name] or 'unknown'} bytes; at most {limit:,} are accepted")
        options = {"allow_patterns": list(_LIMITS), "local_files_only": info is None}
        folder = Path(library.snapshot_download(repository, revision=revision, **options))
        if missing := [name for name in _LIMITS if not (folder / name).is_file()]:
            raise ModelError(f"{' and '.join(missing)} cannot be had, as the network cannot be used")
    return folder


def push_to_hub(folder: Path | str, repository: str, *, private: bool = False) -> str:
    """Publishes the two files that `save_pretrained` wrote as `owner/name`, and returns the URL of the commit.

    The repository is made if need be, `private` if so wanted. Raises `ModelError` if there is no such model in
    `folder` or the Hub refuses it, `UsageError` as `from_hub` does.
    """
    read_info(folder)
    if not (Path(folder) / WEIGHTS_NAME).is_file():
        raise ModelError(f"{folder}: has no {WEIGHTS_NAME}")
    with _hub(repository) as library:
        hub = library.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        result = hub.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(_LIMITS))
    return str(result.commit_url)


def _network_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Returns the errors that the library raises without network: the system's, or its https library's."""
    return OSError, getattr(library.errors, "HTTPError", OSError)


@contextlib.contextmanager
def _hub(repository: str) -> Iterator[Any]:
    """The Hub's library. Its errors become a `ModelError` that names the repository."""
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"hub:{repository}: expected hub:owner/name")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UsageError("models on the Hugging Face Hub need one more library: pip install 'i2i[hub]'") from None
    reasons = {
        errors.LocalEntryNotFoundError: "not in the cache, and the network cannot be used",
        errors.GatedRepoError: "its owner asks for consent first; see its page, then set HF_TOKEN",
        errors.RepositoryNotFoundError: "no such repository, or a private one (HF_TOKEN says who asks)",
        errors.RevisionNotFoundError: "no such revision",
    }
    refusals: tuple[type[Exception], ...] = (ModelError, *_network_errors(huggingface_hub))
    try:
        yield huggingface_hub
    except refusals as error:
        found = next((reason for kind, reason in reasons.items() if isinstance(error, kind)), "")
        reason = found or str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ModelError(f"hub:{repository}: {reason}") from None
