"""Models on the Hugging Face Hub: a folder with `config.json` and `model.safetensors`, and nothing else of it.

The only file that knows huggingface_hub, which keeps what it has fetched in its own cache and goes on where a
download broke off. Its environment variables hold: `HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i2i.errors import ModelError, UsageError
from i2i.models.info import CONFIG_NAME, WEIGHTS_NAME, read_info
from i2i.models.metadata import MAX_FILE_BYTES, MAX_INFO_BYTES

LIMITS = {CONFIG_NAME: MAX_INFO_BYTES, WEIGHTS_NAME: MAX_FILE_BYTES}
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def fetch(repository: str, revision: str | None = None) -> Path:
    """Returns the folder of the model `owner/name`, fetched unless it is in the cache.

    `revision` is a branch, a tag or a commit. Sizes are asked for before anything is fetched. Without network the
    cache is used. Raises `ModelError` for a repository that is not there or holds no such model, `UsageError` for
    a name that is none or if huggingface_hub is not installed.
    """
    library = _library(repository)
    with _explained(library, f"hub:{repository}"):
        try:
            commit = _checked(library.HfApi().model_info(repository, revision=revision, files_metadata=True))
        except library.errors.HfHubHTTPError:
            raise
        except _network_errors(library):
            commit = None
        folder = Path(
            library.snapshot_download(
                repository,
                revision=commit or revision,
                allow_patterns=list(LIMITS),
                local_files_only=commit is None,
            )
        )
    if missing := [name for name in LIMITS if not (folder / name).is_file()]:
        raise ModelError(f"hub:{repository}: {' and '.join(missing)} cannot be had, as the network cannot be used")
    return folder


def push(folder: Path | str, repository: str, *, private: bool = False) -> str:
    """Publishes the two files that `save_pretrained` wrote as `owner/name`, and returns the URL of the commit.

    The repository is made if need be, `private` if so wanted. Raises `ModelError` if there is no such model in
    `folder` or the Hub refuses it, `UsageError` as `fetch` does.
    """
    read_info(folder)
    if not (Path(folder) / WEIGHTS_NAME).is_file():
        raise ModelError(f"{folder}: has no {WEIGHTS_NAME}")
    library = _library(repository)
    with _explained(library, f"hub:{repository}"):
        hub = library.HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        result = hub.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(LIMITS))
    return str(result.commit_url)


def _library(repository: str) -> Any:
    if not _REPOSITORY.fullmatch(repository):
        raise UsageError(f"hub:{repository}: expected hub:owner/name")
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UsageError("models on the Hugging Face Hub need one more library: pip install 'i2i[hub]'") from None
    return huggingface_hub


def _network_errors(library: Any) -> tuple[type[Exception], ...]:
    """Returns the errors that the library raises without network: the system's, or its https library's."""
    return OSError, getattr(library.errors, "HTTPError", OSError)


def _checked(info: Any) -> str:
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    for name, limit in LIMITS.items():
        if name not in sizes:
            raise ModelError(f"has no {name}: not a model of i2i")
        if sizes[name] is None or sizes[name] > limit:
            raise ModelError(f"{name} has {sizes[name] or 'unknown'} bytes; at most {limit:,} are accepted")
    return str(info.sha)


@contextmanager
def _explained(library: Any, what: str) -> Iterator[None]:
    errors = library.errors
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from None
    except errors.LocalEntryNotFoundError:
        raise ModelError(f"{what}: not in the cache, and the network cannot be used") from None
    except errors.GatedRepoError:
        raise ModelError(f"{what}: its owner asks for consent first; see its page, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"{what}: no such repository, or a private one (HF_TOKEN says who asks)") from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{what}: no such revision") from None
    except _network_errors(library) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ModelError(f"{what}: {reason}") from None
