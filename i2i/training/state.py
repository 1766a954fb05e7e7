"""Training states on disk: whole, checked, in order.

`state-<step>.pt` holds everything that a resumed run needs; `state-<step>.json`, its manifest, holds its size
and SHA-256 and is written last, so a state without one does not count. Each state has its own manifest: damage
to one costs that state alone, and the one before it is used.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from i2i.atomic import atomic_write
from i2i.errors import I2IError, ModelError

FORMAT_VERSION = 1


class _Hashing:
    """A file that hashes what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += memoryview(data).nbytes
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class States:
    """The states of the run folder `folder`."""

    def __init__(self, folder: Path, keep_last: int = 2, keep_every: int = 0) -> None:
        self.folder, self.keep_last, self.keep_every = folder, keep_last, keep_every
        self.damaged: dict[int, str] = {}

    def path(self, step: int) -> Path:
        return self.folder / f"state-{step:08d}.pt"

    def manifest(self, step: int) -> Path:
        return self.path(step).with_suffix(".json")

    def steps(self) -> list[int]:
        """The steps of which there is a manifest, ascending."""
        found = (re.fullmatch(r"state-(\d+)\.json", path.name) for path in self.folder.glob("state-*.json"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: dict[str, Any], metric: float | None = None) -> Path:
        """Write the state whole, then its manifest, then prune. `metric` (lower is better) marks the best.

        Raises `OutputError`; the states before are then untouched.
        """
        written: list[_Hashing] = []

        def write(file: BinaryIO) -> None:
            written.append(_Hashing(file))
            torch.save({"format_version": FORMAT_VERSION, **state}, written[-1])  # type: ignore[arg-type]

        path = self.path(step)
        self.manifest(step).unlink(missing_ok=True)  # a state of this step is about to be replaced
        atomic_write(path, write)
        entry = {
            "file": path.name,
            "size": written[-1].size,
            "sha256": written[-1].digest.hexdigest(),
            "step": step,
            "metric": metric,
        }
        atomic_write(self.manifest(step), lambda file: file.write(json.dumps(entry, indent=1).encode()))
        self.damaged.pop(step, None)
        self.prune()
        return path

    def prune(self) -> None:
        """Delete states beyond the last `keep_last`, the best and every `keep_every`-th; nothing else, ever."""
        steps = [step for step in self.steps() if step not in self.damaged]
        keep = set(steps[-self.keep_last :])
        if self.keep_every:
            keep |= {step for step in steps if step % self.keep_every == 0}
        if (best := self.best()) is not None:
            keep.add(best)
        for step in steps:
            if step not in keep:
                self.path(step).unlink(missing_ok=True)
                self.manifest(step).unlink(missing_ok=True)

    def best(self) -> int | None:
        """The step with the lowest metric, if any was measured."""
        metrics = {}
        for step in self.steps():
            entry = self._entry(step)
            if (
                step not in self.damaged
                and isinstance(entry, dict)
                and isinstance(entry.get("metric"), float)
            ):
                metrics[step] = entry["metric"]
        return min(metrics, key=lambda step: metrics[step]) if metrics else None

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest state that is whole; damaged ones are named on stderr and passed over.

        None if there never was one. Raises `ModelError` if there are states and none can be used.
        """
        self.damaged = {}
        for step, loaded in self._newest_first():
            if isinstance(loaded, dict):
                return step, loaded
            self.damaged[step] = loaded
            print(f"i2i: {self.path(step)} is passed over: {loaded}", file=sys.stderr)
        orphans = sorted(path.name for path in self.folder.glob("state-*.pt"))
        if not self.damaged and not orphans:
            return None
        reasons = [f"{self.path(step).name}: {reason}" for step, reason in self.damaged.items()]
        reasons += [f"{name}: its manifest is missing" for name in orphans if not self._has_manifest(name)]
        raise ModelError(
            f"{self.folder}: no usable training state ({'; '.join(reasons)}). Restore one, or remove the "
            "state-* files to start this run from the beginning."
        )

    def _has_manifest(self, name: str) -> bool:
        return (self.folder / name).with_suffix(".json").exists()

    def _newest_first(self) -> Iterator[tuple[int, dict[str, Any] | str]]:
        for step in reversed(self.steps()):
            try:
                yield step, self._load(step)
            except I2IError as error:
                if isinstance(error, _FromTheFuture):
                    raise
                yield step, str(error)

    def _entry(self, step: int) -> Any:
        try:
            return json.loads(self.manifest(step).read_bytes())
        except (OSError, ValueError):
            return None

    def _load(self, step: int) -> dict[str, Any]:
        path, entry = self.path(step), self._entry(step)
        if not isinstance(entry, dict) or entry.get("file") != path.name or entry.get("step") != step:
            raise ModelError(f"its manifest {self.manifest(step).name} is damaged")
        try:
            if path.stat().st_size != entry.get("size"):
                raise ModelError(f"{path.stat().st_size} bytes, not {entry.get('size')}")
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.get("sha256"):
                    raise ModelError("its contents do not match its SHA-256")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}") from None
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"not a training state: {error}") from None
        version = state.get("format_version") if isinstance(state, dict) else None
        if not isinstance(version, int):
            raise ModelError("not a training state of i2i")
        if version > FORMAT_VERSION:
            raise _FromTheFuture(f"{path}: written by a newer i2i (format {version}); upgrade i2i")
        return state


class _FromTheFuture(ModelError):
    pass
