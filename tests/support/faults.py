"""Faults that a test plants in a child process: what is passed as `prepare` and called there before the script.

They replace functions of the library or of `os` in that process; the product has no hooks for them.
"""

import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch


@dataclass(frozen=True)
class AtCall:
    """At the `number`-th call of one of these functions of `os`, counted from 1, call `act` first.

    They are what atomic writing and pruning are made of: each file passes all of them in this order.
    """

    number: int
    act: Callable[[], Any]
    functions: tuple[str, ...] = ("open", "fsync", "replace", "unlink")

    def __call__(self) -> None:
        calls, pid = [0], os.getpid()
        for name in self.functions:
            setattr(os, name, self._counted(getattr(os, name), calls, pid))

    def _counted(self, original: Callable[..., Any], calls: list[int], pid: int) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if os.getpid() == pid:
                calls[0] += 1
                if calls[0] == self.number:
                    self.act()
            return original(*arguments, **options)

        return counted


def die() -> None:
    """As a power cut would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class BeforeFile:
    """Before a file of that name is put in its place for the `number`-th time, call `act`."""

    name: str
    act: Callable[[], Any]
    number: int = 1

    def __call__(self) -> None:
        left, replace, pid = [self.number], os.replace, os.getpid()

        def replacing(source: Any, target: Any) -> None:
            if os.getpid() == pid and Path(target).name == self.name:
                left[0] -= 1
                if left[0] == 0:
                    self.act()
            replace(source, target)

        os.replace = replacing


@dataclass(frozen=True)
class DieAfterValidation:
    """Killed as soon as a validation is logged; with `stop_first`, asked to stop as the first one begins."""

    stop_first: bool = False

    def __call__(self) -> None:
        from i2i.training.log import RunLog
        from i2i.training.validation import HeldOut

        if self.stop_first:
            validate = HeldOut.measure

            def interrupted(*arguments: Any) -> Any:
                os.kill(os.getpid(), signal.SIGTERM)
                return validate(*arguments)

            HeldOut.measure = interrupted  # type: ignore[method-assign]
            return
        log = RunLog.validation

        def logged(this: RunLog, *arguments: Any) -> None:
            log(this, *arguments)
            this.sync()
            die()

        RunLog.validation = logged  # type: ignore[method-assign]


@dataclass(frozen=True)
class Refuse:
    """The first `times` files with that suffix cannot be put in their place: no space left."""

    suffix: str
    times: int

    def __call__(self) -> None:
        left, replace = [self.times], os.replace

        def refusing(source: Any, target: Any) -> None:
            if str(target).endswith(self.suffix) and left[0]:
                left[0] -= 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        os.replace = refusing


class RefuseLog:
    """Between steps 3 and 7 the log takes half a line at most."""

    def __call__(self) -> None:
        from i2i.training.log import LogFile

        write = LogFile.write

        def refusing(this: LogFile) -> OSError | None:
            if not any(b'"step": %d,' % step in b"".join(this._waiting) for step in range(3, 7)) or this._waiting[7:]:
                return write(this)
            file, this._file = this._file, _Half(this._file)  # type: ignore[assignment]
            try:
                return write(this)
            finally:
                this._file = file

        LogFile.write = refusing  # type: ignore[method-assign]


class _Half:
    def __init__(self, file: Any) -> None:
        self.file, self.fileno = file, file.fileno

    def write(self, data: bytes) -> int:
        return int(self.file.write(data[: len(data) // 2]))


def _before(owner: Any, name: str, call: int, act: Callable[[], Any]) -> None:
    """Do `act` at the `call`-th call (from 1) of `owner.name` in this process, before what it does."""
    original, calls, pid = getattr(owner, name), [0], os.getpid()

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if os.getpid() == pid:
            calls[0] += 1
            if calls[0] == call:
                act()
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


@dataclass(frozen=True)
class SignalAt:
    """Signals that come in a step, in the first write of a state, while processes agree, or while data are opened."""

    place: str
    step: int
    number: int
    group: bool = False
    times: int = 1

    def __call__(self) -> None:
        from i2i.training import launch, state_store
        from i2i.training.step import ProcessGroup, TrainingStep

        if self.place == "step":
            _before(TrainingStep, "__call__", self.step, self._send)
        elif self.place == "data":
            _before(launch, "open_datasets", 1, self._send)
        elif self.place == "save":
            save = state_store.StateStore.save

            def saving(this: Any, step: int, *arguments: Any) -> Any:
                if step == self.step:
                    _before(torch, "save", 1, self._send)
                return save(this, step, *arguments)

            state_store.StateStore.save = saving  # type: ignore[method-assign]
        else:
            agree, calls = ProcessGroup.agree, [0]

            def agreeing(this: ProcessGroup, flags: list[int]) -> list[int]:
                flags = agree(this, flags)
                calls[0] += 1
                if calls[0] == self.step:
                    self._send()
                return flags

            ProcessGroup.agree = agreeing  # type: ignore[method-assign]

    def _send(self) -> None:
        for _ in range(self.times):
            if self.group:
                os.killpg(os.getpgrp(), self.number)
            else:
                signal.raise_signal(self.number)  # in this thread, at once


def _until_asleep(process: psutil.Process) -> None:
    """Waits until a process has waited for half a second, and not for a processor."""
    asleep, used = 0, -1.0
    while asleep < 5:
        time.sleep(0.1)
        before, used = used, sum(process.cpu_times()[:2])
        asleep = asleep + 1 if used == before and process.status() == psutil.STATUS_SLEEPING else 0


@dataclass(frozen=True)
class SignalWhileLoading:
    """The whole process group gets a signal while sample `t` is being prepared, and waited for."""

    t: int
    number: int
    marks: Path

    def __call__(self) -> None:
        from i2i.data.toy import ToyUnpaired

        original = ToyUnpaired.__getitem__

        def slow(this: ToyUnpaired, t: int) -> Any:
            if t == self.t and this.train and os.getpgrp() != os.getpid():
                _until_asleep(psutil.Process(os.getpgrp()))  # every other batch is used up
                os.killpg(os.getpgrp(), self.number)
                time.sleep(0.5)
                with self.marks.open("a") as file:
                    file.write("x")
            return original(this, t)

        ToyUnpaired.__getitem__ = slow  # type: ignore[method-assign]


@dataclass(frozen=True)
class FailAt:
    """An exception in the `step`-th step."""

    step: int
    text: str

    def __call__(self) -> None:
        from i2i.training.step import TrainingStep

        _before(TrainingStep, "__call__", self.step, self._fail)

    def _fail(self) -> None:
        if self.text.endswith(": cuda"):
            raise torch.OutOfMemoryError(self.text)
        raise RuntimeError(self.text.replace(": cpu", ": DefaultCPUAllocator: can't allocate memory"))


@dataclass(frozen=True)
class NotANumber:
    """Samples `first` to `last` of the toys hold a NaN."""

    first: int
    last: int

    def __call__(self) -> None:
        from i2i.data.pair import ImagePair
        from i2i.data.toy import ToyUnpaired

        original = ToyUnpaired.__getitem__

        def damaged(this: ToyUnpaired, t: int) -> ImagePair:
            pair = original(this, t)
            if this.train and self.first <= t <= self.last:
                pair.a[0, 0, 0] = float("nan")
            return pair

        ToyUnpaired.__getitem__ = damaged  # type: ignore[method-assign]


@dataclass(frozen=True)
class BreakWeights:
    """A weight becomes infinite after so many steps, as no step should make it."""

    after: int

    def __call__(self) -> None:
        from i2i.training.step import TrainingStep

        original, calls = TrainingStep.__call__, [0]

        def breaking(this: TrainingStep, *arguments: Any) -> Any:
            losses = original(this, *arguments)
            calls[0] += 1
            if calls[0] == self.after:
                with torch.no_grad():
                    next(iter(this.players.values())).parameters[0].fill_(float("inf"))
            return losses

        TrainingStep.__call__ = breaking  # type: ignore[method-assign]


@dataclass(frozen=True)
class KillAtStep:
    """Killed at the beginning of the `step`-th step."""

    step: int

    def __call__(self) -> None:
        from i2i.training.step import TrainingStep

        _before(TrainingStep, "__call__", self.step, die)


@dataclass(frozen=True)
class KillInStep:
    """Killed within a step, as processes average their gradients for the `call`-th time."""

    call: int

    def __call__(self) -> None:
        from i2i.training.step import ProcessGroup

        _before(ProcessGroup, "average_", self.call, die)


@dataclass(frozen=True)
class HangAt:
    """Hangs before the `call`-th step, or before processes agree for the `call`-th time."""

    place: str
    call: int

    def __call__(self) -> None:
        from i2i.training.step import ProcessGroup, TrainingStep

        owner, name = (TrainingStep, "__call__") if self.place == "step" else (ProcessGroup, "agree")
        _before(owner, name, self.call, lambda: time.sleep(3600))


@dataclass(frozen=True)
class Timeout:
    """Others are waited for so many seconds."""

    seconds: float

    def __call__(self) -> None:
        from i2i.training import step

        step.TIMEOUT = timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class TellArithmetic:
    """The settings of torch for its algorithms, as the first step begins."""

    file: Path

    def __call__(self) -> None:
        from i2i.training.step import TrainingStep

        _before(TrainingStep, "__call__", 1, self._tell)

    def _tell(self) -> None:
        told = torch.are_deterministic_algorithms_enabled(), "CUBLAS_WORKSPACE_CONFIG" in os.environ
        self.file.write_text(f"{told} {torch.backends.cudnn.benchmark}")


@dataclass(frozen=True)
class SlowSave:
    """A disk that takes its time."""

    seconds: float

    def __call__(self) -> None:
        from i2i.training.state_store import StateStore

        save = StateStore.save

        def slow(this: StateStore, *arguments: Any) -> Path:
            time.sleep(self.seconds)
            return save(this, *arguments)

        StateStore.save = slow  # type: ignore[method-assign]


@dataclass(frozen=True)
class Distances:
    """The numbers that the validations measure, one after the other: these L1 distances, and all else alike."""

    values: tuple[float, ...]

    def __call__(self) -> None:
        from i2i.training.validation import HeldOut

        values = iter(self.values)

        def validate(*_: Any) -> dict[str, float]:
            return {"fake_B/l1": next(values), "fake_B/psnr": 10.0, "fake_B/ssim": 0.5}

        HeldOut.measure = validate  # type: ignore[method-assign,assignment]


@dataclass(frozen=True)
class SkipStep:
    """The gradients of that step, counted from 1, are not finite."""

    step: int

    def __call__(self) -> None:
        from i2i.data.pair import ImagePair
        from i2i.training.step import TrainingStep

        original = TrainingStep.__call__

        def poisoned(this: TrainingStep, batch: ImagePair, step: int) -> Any:
            if step + 1 == self.step:
                batch.a.fill_(float("nan"))
            return original(this, batch, step)

        TrainingStep.__call__ = poisoned  # type: ignore[method-assign]
