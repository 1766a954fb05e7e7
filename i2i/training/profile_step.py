"""A few real steps of a training, measured: what `i2i.training.estimate` runs in a process of its own.

python -m i2i.training.profile_step < request.json

The request names the algorithm, its options, and for how long to measure; the answer is the last line of stdout. A
process of its own has a peak of memory of its own, and gives all of it back. Nothing is written but temporary files.
"""

import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import torch

from i2i import machine
from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.config import from_mapping
from i2i.data.loader import batches
from i2i.data.options import batch_size
from i2i.data.pair import ImagePair
from i2i.errors import I2IError, out_of_memory
from i2i.training.launch import build_algorithm, enable_determinism, open_data
from i2i.training.options import RunOptions, options_class
from i2i.training.state_store import tensors
from i2i.training.step import ProcessGroup
from i2i.training.trainer import Trainer

ROOM_FOR_CUDA = 3  # steps in which libraries choose their kernels


def measure(algorithm: type[AnyAlgorithm], options: RunOptions, steps: int, seconds: float) -> dict[str, Any]:
    """Train for `steps` steps, fewer if they take more than `seconds` but never fewer than two, after a warm-up."""
    data, channels = open_data(algorithm, options)
    if options.deterministic:
        enable_determinism()
    group = ProcessGroup(options.device)
    built = build_algorithm(algorithm, options, channels, group.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(built, data, dataclasses.replace(options, run=Path(folder) / "run"), group)
        took, waited, shape, extra = _train(trainer, steps, seconds)
        began = time.perf_counter()
        trainer.monitor.samples.rows(trainer.checkpointer.networks(), 1)
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


def _train(trainer: Trainer, steps: int, limit: float) -> tuple[list[float], list[float], list[int], int]:
    """Seconds of each step, those of them in which it waited for its batch, the batch's shape, the workers' bytes."""
    device = trainer.group.device
    warm_up = ROOM_FOR_CUDA if device.type == "cuda" else 1
    stream = _batches(trainer, warm_up + steps)
    took: list[float] = []
    waited: list[float] = []
    shape: list[int] = []
    extra = 0
    with contextlib.closing(cast(Any, stream)):
        for step in range(warm_up + steps):
            began = time.perf_counter()
            batch = next(stream)
            loaded = time.perf_counter()
            _one_step(trainer, batch, step)
            ended = time.perf_counter()
            if step >= warm_up:
                took.append(ended - began)
                waited.append(loaded - began)
            if step == 0:
                shape, extra = list(batch.b.shape), _private_bytes_of_children()
            if len(took) >= 2 and sum(took) > limit:
                break
    return took, waited, shape, extra


def _batches(trainer: Trainer, count: int) -> Iterator[ImagePair]:
    options, cuda = trainer.options, trainer.group.device.type == "cuda"
    size = batch_size(options)
    return batches(trainer.data.train, 0, count * size, size, options.workers, pin_memory=cuda)


def _one_step(trainer: Trainer, batch: ImagePair, step: int) -> None:
    """As the trainer does it; waits for the device."""
    device = trainer.group.device
    trainer.train_step(trainer.prepared(batch), step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _state_bytes(trainer: Trainer) -> int:
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
        answer = measure(algorithm, options, request["steps"], request["seconds"])
    except I2IError as error:
        answer = {"error": list(map(str, error.args)), "exit_code": error.exit_code}
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        answer = {"out_of_memory": True}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
