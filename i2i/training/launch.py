"""From options to a running training: everything is checked before anything is created."""

import os
from typing import Any

import torch
from torch import nn

from i2i.algorithms.algorithm import Algorithm
from i2i.data.datasets import Datasets, check_sizes, open_datasets
from i2i.errors import UsageError
from i2i.training import goal
from i2i.training.distributed import Processes
from i2i.training.initial import initialise
from i2i.training.state import States
from i2i.training.step import check_micro_batches
from i2i.training.trainer import Trainer


def train(algorithm: type[Algorithm], options: Any) -> None:
    """Train `algorithm` as `options` (its own options and `RunOptions`) say; everything is checked first."""
    if options.run is None:
        raise UsageError("run: a run folder is needed: --run runs/NAME")
    check_micro_batches(options.batch_size, options.micro_batches)
    if options.n_epochs + options.n_epochs_decay == 0:
        raise UsageError("n_epochs = 0, n_epochs_decay = 0: nothing to train")
    goal.parse(options.stop_when)
    channels = (options.channels_a, options.channels_b)
    if options.direction == "b2a":
        channels = channels[::-1]
    multiple, minimum = options.size_limits(*channels)
    check_sizes(options, multiple, minimum)
    data = open_datasets(options, paired=algorithm.paired, multiple=multiple, minimum=minimum)
    check_validation(options, data)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    processes = Processes(options.device)
    try:
        torch.manual_seed(options.seed)
        players = algorithm(options, *channels)
        if options.deterministic:
            check_deterministic(players, processes.device)
        if not States(options.run).steps():  # a resumed run has weights of its own
            initialise(players, options.init_from, options.direction)
        Trainer(players, data, options, processes).fit()
    finally:
        processes.close()


def check_validation(options: Any, data: Datasets) -> None:
    """Raises `UsageError` if something is to follow a validation that never comes."""
    following = {
        "lr_policy": options.lr_policy == "plateau",
        "stop_when": bool(options.stop_when.strip()),
        "stop_patience": options.stop_patience > 0,
    }
    for name in (name for name, follows in following.items() if follows):
        what = f"{name} = {getattr(options, name)!r}: follows the validation"
        if not options.validate_every:
            raise UsageError(f"{what}, but validate_every = 0 turns it off")
        if data.validation is None:
            raise UsageError(f"{what}, but {options.data} has no val or test split")


def check_deterministic(algorithm: Algorithm, device: torch.device) -> None:
    """Raises `UsageError` for padding by reflection on CUDA: torch has no deterministic gradient of it there."""
    if device.type != "cuda":
        return
    modules = [module for network in algorithm.networks().values() for module in network.modules()]
    if any(isinstance(module, nn.Conv2d) and module.padding_mode == "reflect" for module in modules):
        raise UsageError(
            "deterministic: padding by reflection has no deterministic gradient on CUDA; "
            "use --padding replicate, or leave out --deterministic"
        )
