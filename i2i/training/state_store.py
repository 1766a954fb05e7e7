"""Training states on disk: whole, checked, in order.

`state-<step>.pt` holds everything that a resumed run needs; `state-<step>.json`, its manifest, holds its size
and SHA-256 and is written last, so a state without one does not count. Each state has its own manifest: damage
to one costs that state alone, and the one before it is used. While a state is being written its manifest says
so (`pending`): what a kill then leaves behind is neither damage nor a file of somebody else's.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from pydantic import BaseModel, ConfigDict, InstanceOf, Strict
from torch import Tensor

from i2i.errors import ModelError, OutputError, as_typed
from i2i.files import atomic_write, sha256
from i2i.terminal import say

FORMAT_VERSION = 2
Text = InstanceOf[str]  # pydantic's own takes no names that are no UTF-8
Count = Annotated[int, Interval(ge=0, le=1 << 53)]
AList = Strict(False)
"""A tuple that a state may hold as a list."""


class Kept(BaseModel):
    """Plain values that a part of a training keeps in its states, by these names and of these types."""

    model_config = ConfigDict(strict=True)


def tensors(state: object) -> Iterator[Tensor]:
    """Every tensor in a state, however deep in dicts and lists."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensors(value)


class StateStore:
    """The states of the run folder `folder`."""

    def __init__(self, folder: Path, keep_last: int = 2, keep_every: int = 0) -> None:
        self.folder, self.keep_last, self.keep_every = folder, keep_last, keep_every
        self.damaged: dict[int, str] = {}

    def path(self, step: int) -> Path:
        return self.folder / f"state-{step:08d}.pt"

    def manifest(self, step: int) -> Path:
        return self.path(step).with_suffix(".json")

    def steps(self) -> list[int]:
        """The steps whose state was once written to its end, ascending."""
        return [step for step in self._numbered(".json") if not self._pending(step)]

    def save(self, step: int, state: dict[str, Any], metric: float | None = None) -> Path:
        """Write the state whole, then its manifest, then prune. `metric` (lower is better) marks the best.

        Raises `OutputError`; the states before are then untouched.
        """
        whole, path, replaces = {"format_version": FORMAT_VERSION, **state}, self.path(step), step in self.steps()
        if not replaces:
            self._put_aside(step)
            self._write_manifest(step, pending=True)
        try:
            atomic_write(path, lambda file: torch.save(whole, file))
            self._write_manifest(step, size=path.stat().st_size, sha256=sha256(path), metric=metric)
        except BaseException:
            if not replaces:
                self._delete(step)
            raise
        self.damaged.pop(step, None)
        self.prune()
        return path

    def add_metric(self, step: int, metric: float | None) -> None:
        """Note the metric of a state that is there already. Raises `OutputError`."""
        entry = self._entry(step)
        if metric is not None and "sha256" in entry:
            self._write_manifest(step, size=entry["size"], sha256=entry["sha256"], metric=metric)

    def prune(self) -> None:
        """Delete states beyond the last `keep_last`, the best and every `keep_every`-th; nothing else, ever."""
        steps = [step for step in self.steps() if step not in self.damaged]
        keep = set(steps[-self.keep_last :])
        if self.keep_every:
            keep |= {step for step in steps if step % self.keep_every == 0}
        if (best := self.best()) is not None:
            keep.add(best)
        unfinished = [step for step in self._numbered(".json") if self._pending(step)]
        for step in (*steps, *unfinished):
            if step not in keep:
                self._delete(step)

    def best(self) -> int | None:
        """The step with the lowest metric, if any was measured."""
        entries = {step: self._entry(step) for step in self.steps() if step not in self.damaged}
        metrics = {step: entry["metric"] for step, entry in entries.items() if isinstance(entry.get("metric"), float)}
        return min(metrics, key=lambda step: metrics[step]) if metrics else None

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest state that is whole; damaged ones are named on stderr and passed over.

        None if there never was one. Raises `ModelError` if there are states and none can be used, or if the
        newest has another format.
        """
        self.damaged = {}
        found = {*self.steps(), *(step for step in self._numbered(".pt") if not self._pending(step))}
        for step in sorted(found, reverse=True):
            try:
                return step, self._load(step)
            except _OtherVersion:
                raise
            except ModelError as error:
                self.damaged[step] = str(error)
                say(f"{self.path(step)} is passed over: {error}")
        if not self.damaged:
            return None
        reasons = "; ".join(f"{self.path(step).name}: {reason}" for step, reason in self.damaged.items())
        raise ModelError(
            f"{self.folder}: no usable training state ({reasons}). Restore one, or remove the "
            "state-* files to start this run from the beginning."
        )

    def _numbered(self, suffix: str) -> list[int]:
        found = (re.fullmatch(rf"state-(\d+)\{suffix}", path.name) for path in self.folder.glob(f"state-*{suffix}"))
        numbers = sorted(int(match[1]) for match in found if match)
        return [n for n in numbers if self.path(n).with_suffix(suffix).exists()]

    def _put_aside(self, step: int) -> None:
        """A file of that name without a manifest may be somebody's: it is kept under another name."""
        path = self.path(step)
        if self.manifest(step).exists() or not path.exists():
            return
        numbers = itertools.count(1)
        free = next(name for n in numbers if not (name := path.with_name(f"{path.name}.{n}.kept")).exists())
        try:
            path.rename(free)
        except OSError as error:
            raise OutputError(f"{path}: is in the way, and cannot be renamed: {error.strerror}") from None
        say(f"{path} was not written by this run; it is now {free.name}")

    def _delete(self, step: int) -> None:
        with contextlib.suppress(OSError):  # a state that cannot be deleted is kept
            self.path(step).unlink(missing_ok=True)
            self.manifest(step).unlink(missing_ok=True)

    def _write_manifest(self, step: int, **facts: Any) -> None:
        text = json.dumps({"file": self.path(step).name, "step": step, **facts}, indent=1)
        atomic_write(self.manifest(step), lambda file: file.write(text.encode()))

    def _pending(self, step: int) -> bool:
        return self._entry(step).get("pending") is True

    def _entry(self, step: int) -> dict[str, Any]:
        """The manifest; empty if it is missing or damaged."""
        try:
            if not (manifest := self.manifest(step)).is_file():  # from a pipe nothing may ever come
                return {}
            entry = json.loads(manifest.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        mine = isinstance(entry, dict) and entry.get("file") == self.path(step).name and entry.get("step") == step
        return entry if mine else {}

    def _load(self, step: int) -> dict[str, Any]:
        path, entry = self.path(step), self._entry(step)
        if not entry:
            what = "damaged" if self.manifest(step).exists() else "missing"
            raise ModelError(f"its manifest {self.manifest(step).name} is {what}")
        try:
            if path.stat().st_size != entry.get("size"):
                raise ModelError(f"{path.stat().st_size} bytes, not {entry.get('size')}")
            if sha256(path) != entry.get("sha256"):
                raise ModelError("its contents do not match its SHA-256")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise ModelError(f"cannot be read: {error.strerror}") from None
        except ModelError:
            raise
        except Exception as error:  # without torch's advice to load it unsafely
            raise ModelError(f"not a training state ({type(error).__name__})") from None
        version = state.get("format_version") if isinstance(state, dict) else None
        if not isinstance(version, int):
            raise ModelError("not a training state of i2i")
        if version > FORMAT_VERSION:
            raise _OtherVersion(f"{path}: written by a newer i2i (format {version}); upgrade i2i")
        if version < FORMAT_VERSION:
            raise _OtherVersion(
                f"{path}: written by an older i2i (format {version}, expected {FORMAT_VERSION}); use "
                f"another {as_typed('run')}, "
                f"and {as_typed('init_from')} for the weights of this one"
            )
        return state


class _OtherVersion(ModelError):
    pass
