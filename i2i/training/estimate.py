"""The cost of a training on this machine, before it starts: time, memory, disk; and the largest batch that fits.

A few steps are measured in a process of their own, which has a peak of memory of its own, and gives all of it back:

python -m i2i.training.estimate < request.json

The request names the algorithm, its options, and for how long to measure; the answer is the last line of stdout.
Nothing is written but temporary files. The rest is computed for the whole training.

Batches of one and of two show what each further image takes. The largest power of two that ought to fit is tried, and
halved until it does. The number found belongs into the options of a run: another batch size is another training.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from i2i import machine
from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.config import RUN_CONFIG, from_mapping, read_options, to_mapping
from i2i.data.options import batch_size, of_one_size
from i2i.data.pair import batches
from i2i.device import choose_device
from i2i.errors import I2IError, ResourceError, UsageError, out_of_memory
from i2i.machine import place
from i2i.terminal import say
from i2i.training.options import RunOptions, less_memory, options_class
from i2i.training.state_store import StateStore, tensors
from i2i.training.step import ProcessGroup

if TYPE_CHECKING:
    from i2i.training.trainer import Trainer

ROOM_FOR_CUDA = 3  # steps in which libraries choose their kernels
LARGEST = 64
MARGIN = 0.9
"""The share of the memory that a training may take: its peak differs a little from step to step."""


class OutOfMemory(ResourceError):
    """A step did not fit into this machine."""


class Cost:
    """`measured` is the answer of `profile`; all else is computed from it.

    A picture of a validation is taken to cost what a row of a sample grid did. The run folder holds its states at the
    end, one of which is being replaced, and its model files. `peak_bytes` is the most memory at a time: of the training
    process, or of the accelerator.
    """

    def __init__(self, options: RunOptions, measured: dict[str, Any]) -> None:
        self.measured = m = measured
        self.seconds_per_step, self.peak_bytes = float(m["seconds_per_step"]), int(m["peak_bytes"])
        self.steps = math.ceil(m["total_images"] / m["images_per_step"])
        validates = bool(options.validate_every and m["validation_images"])
        validations = self._validations(options.validate_every * m["epoch_images"]) if validates else 0
        grids = 1 + self.steps // options.sample_every + validations  # with the first step, and each validation
        self.training_hours = self.steps * self.seconds_per_step / 3600
        self.validation_hours = validations * m["validation_images"] * m["seconds_per_look"] / 3600
        self.sample_hours = grids * m["sample_rows"] * m["seconds_per_look"] / 3600
        self.hours = self.training_hours + self.validation_hours + self.sample_hours
        kept = self.steps // options.keep_every if options.keep_every else 0
        states = options.keep_last + validates + kept + 1
        self.disk_bytes = int(states * m["state_bytes"] + (1 + validates) * m["model_bytes"])

    def _validations(self, period: int) -> int:
        """How many there are, with the one after the last step. A step that is longer than the period ends in one."""
        count, before = (steps * self.measured["images_per_step"] // period for steps in (self.steps, self.steps - 1))
        return min(int(count + (count == before)), self.steps)

    def to_mapping(self) -> dict[str, Any]:
        """Everything, as plain values."""
        names = ("steps", "training_hours", "validation_hours", "sample_hours", "hours", "disk_bytes")
        return {"measured": self.measured, "computed": {name: getattr(self, name) for name in names}}


def estimate(algorithm: type[AnyAlgorithm], options: RunOptions, steps: int = 5, seconds: float = 15.0) -> Cost:
    """Train `steps` steps in a process of its own, fewer if they take longer than `seconds`, at least two.

    `options` are those of a training; its data must be there, its run folder is neither needed nor made, its cache
    not filled. Raises what the training would raise before it starts, `OutOfMemory` if a step does not fit.
    """
    wanted = to_mapping(replace(options, run=None, cache=None, init_from=(), check="off"))
    request = {"algorithm": algorithm.name, "options": wanted, "steps": steps, "seconds": seconds}
    # it measures alone
    environment = {name: value for name, value in os.environ.items() if name not in machine.VARIABLES}
    here = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "i2i.training.estimate"],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode == -9:  # the kernel kills when no memory is left
        raise OutOfMemory("the measurement was killed, which happens when memory runs out")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise I2IError(f"the measurement ended with {done.returncode}:", *done.stderr.strip()[-2000:].splitlines())
    answer = json.loads(lines[-1])
    if answer.get("out_of_memory"):
        raise OutOfMemory("memory ran out")
    if "error" in answer:
        error = I2IError(*answer["error"])
        error.exit_code = answer["exit_code"]
        raise error
    return Cost(options, answer)


Measure = Callable[[type[AnyAlgorithm], RunOptions], Cost]
_shortest = partial(estimate, steps=2, seconds=1.0)


def resolve_batch_size(algorithm: type[AnyAlgorithm], options: RunOptions, measure: Measure = _shortest) -> RunOptions:
    """`options` with a number for `batch_size` where that is auto: the run's own if it is resumed, else what fits.

    The sizes that are tried are printed on stderr. Raises `UsageError` where none can be found, else as
    `find_batch_size`.
    """
    if options.batch_size != "auto":
        return options
    if not of_one_size(options.preprocess):  # pictures of all sizes make no batch
        return replace(options, batch_size=1)
    if options.micro_batches > 1:
        raise UsageError(
            f"batch_size = auto: finds the largest whole batch; leave out micro_batches = {options.micro_batches}"
        )
    if options.run is not None and StateStore(options.run).steps():  # it is resumed
        return replace(options, batch_size=read_options(options.run / RUN_CONFIG).get("batch_size", 1))
    if place().world_size > 1:
        raise UsageError(
            "batch_size = auto: several processes cannot find it; run one first, and give its number to all"
        )
    device = choose_device(options.device)
    room: int | None = None
    if device.type != "mps":
        room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.available_memory()
    if room is None:
        raise UsageError("batch_size = auto: the free memory of this system is not known; name a number")
    found, peaks = find_batch_size(algorithm, options, room, measure=measure)
    tried = (f"{n}: {'does not fit' if peak is None else f'{peak / 1e9:.2f} GB'}" for n, peak in peaks.items())
    say(f"batch_size = auto: {found} of {', '.join(tried)}")
    return replace(options, batch_size=found)


def find_batch_size(
    algorithm: type[AnyAlgorithm],
    options: RunOptions,
    room: int,
    largest: int = LARGEST,
    measure: Measure = _shortest,
) -> tuple[int, dict[int, int | None]]:
    """The largest power of two, up to `largest`, that ought to fit by the first two trials, and does; and of each size
    that was tried the peak of memory, None where it did not fit.

    Its batches take at most `MARGIN` of `room` bytes. `options` are those of a training; their batch size does not
    matter. Each batch is measured in one part. Raises `ResourceError` with the way out if not even one image fits;
    whatever the training would raise before it starts.
    """
    peaks: dict[int, int | None] = {}

    def fits(size: int) -> bool:
        peaks[size] = None
        with contextlib.suppress(OutOfMemory):
            peaks[size] = measure(algorithm, replace(options, batch_size=size, micro_batches=1)).peak_bytes
        return (peaks[size] or math.inf) <= MARGIN * room

    if not fits(1):
        found = "more than there is" if peaks[1] is None else f"{peaks[1] / 1e9:.2f} GB"
        raise ResourceError(
            f"batch_size = auto: one image of {options.crop_size}x{options.crop_size} takes {found} of the "
            f"{MARGIN * room / 1e9:.2f} GB that may be used. Take less with: {', '.join(less_memory(options, 1))}"
        )
    if largest < 2 or not fits(2):
        return 1, peaks
    one, two = peaks[1], peaks[2]
    assert one is not None and two is not None
    count = min(largest, 1 + (MARGIN * room - one) / max(1, two - one))
    size = 1 << (int(count).bit_length() - 1)
    while size > 2 and not fits(size):
        size //= 2
    return max(size, 2), peaks


def profile(algorithm: type[AnyAlgorithm], options: RunOptions, steps: int, seconds: float) -> dict[str, Any]:
    """Train for `steps` steps, fewer if they take more than `seconds` but never fewer than two, after a warm-up."""
    from i2i.training.launch import build_algorithm, enable_determinism, open_data  # which resolve the batch size here
    from i2i.training.trainer import Trainer

    data, channels = open_data(algorithm, options)
    if options.deterministic:
        enable_determinism()
    group = ProcessGroup(options.device)
    built = build_algorithm(algorithm, options, channels, group.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(built, data, replace(options, run=Path(folder) / "run"), group)
        took, waited, shape, extra = _train(trainer, steps, seconds)
        began = time.perf_counter()
        trainer.monitor.rows(trainer.checkpointer.networks(), 1)
        look = time.perf_counter() - began
        state = _state_bytes(trainer)
    return {
        "device": _named(group.device),
        "threads": torch.get_num_threads(),
        "seconds_per_step": statistics.median(took),
        "slowest_step": max(took),
        "seconds_waiting": statistics.median(waited),
        "steps_measured": len(took),
        "shape": shape,
        "seconds_per_look": look,
        "peak_bytes": memory_peak(group.device),
        "worker_bytes": extra,
        "state_bytes": state,
        "model_bytes": sum(t.nbytes for net in built.translators().values() for t in net.state_dict().values()),
        "models": len(built.translators()),
        "images_per_step": trainer.progress.images_per_step,
        "total_images": trainer.progress.total_images,
        "epoch_images": trainer.progress.epoch_length,
        "sample_rows": min(options.samples, len(data.validation or data.train)),
        "validation_images": min(options.validate_images, len(data.validation)) if data.validation else 0,
    }


def _train(trainer: "Trainer", steps: int, limit: float) -> tuple[list[float], list[float], list[int], int]:
    """Seconds of each step, those of them in which it waited for its batch, the batch's shape, the workers' bytes."""
    device, options = trainer.group.device, trainer.options
    cuda, size = device.type == "cuda", batch_size(options)
    warm_up = ROOM_FOR_CUDA if cuda else 1
    count = warm_up + steps
    took, waited, shape, extra = list[float](), list[float](), list[int](), 0
    stream = batches(trainer.data.train, 0, count * size, size, options.workers, pin_memory=cuda)
    with contextlib.closing(stream):
        for step in range(count):
            began = time.perf_counter()
            batch = next(stream)
            loaded = time.perf_counter()
            trainer.train_step(trainer.prepared(batch), step)
            if cuda:
                torch.cuda.synchronize(device)
            elif device.type == "mps":
                torch.mps.synchronize()
            ended = time.perf_counter()
            if step >= warm_up:
                took.append(ended - began)
                waited.append(loaded - began)
            if step == 0:
                shape, extra = list(batch.b.shape), _private_bytes_of_children()
            if len(took) >= 2 and sum(took) > limit:
                break
    return took, waited, shape, extra


def _state_bytes(trainer: "Trainer") -> int:
    """The size of a state on the disk, once the image pools are full."""
    total = sum(t.nbytes for t in tensors(trainer.checkpointer.state()))
    for pool in trainer.algorithm.pools().values():
        if pool.images:
            total += (pool.size - len(pool.images)) * pool.images[0].nbytes
    return total


def memory_peak(device: torch.device) -> int:
    """The most memory at a time: what torch reserved of an accelerator, else resident in this process."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else machine.peak_memory()


def _private_bytes_of_children() -> int:
    """The memory that the data workers do not share with this process; 0 where that is unknown."""
    total = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            total += child.memory_full_info().uss
    return total


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = machine.cpu_info("model name") if device.type == "cpu" else ""
    return f"cpu ({processor})" if processor else device.type


def main() -> None:
    machine.end_with_parent()
    request = json.load(sys.stdin)
    algorithm = ALGORITHMS[request["algorithm"]]
    answer: dict[str, Any]
    try:
        options = from_mapping(options_class(algorithm), request["options"])
        answer = profile(algorithm, options, request["steps"], request["seconds"])
    except I2IError as error:
        answer = {"error": list(map(str, error.args)), "exit_code": error.exit_code}
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        answer = {"out_of_memory": True}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
