"""From options to a running training: everything is checked before anything is created."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from i2i.acceleration.exchange import check_compiler
from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import AnyAlgorithm, described, own_options
from i2i.algorithms.cut import PatchProjection
from i2i.config import narrowed
from i2i.data.datasets import open_datasets
from i2i.data.folders import searched
from i2i.data.options import check_mixing, check_one_domain, check_sizes
from i2i.data.own import OwnDatasets, open_own
from i2i.data.pair import Datasets
from i2i.data.walking import identity
from i2i.errors import ModelError, UsageError, as_typed
from i2i.machine import place
from i2i.models import junyanz, styles
from i2i.models.model_file import is_checkpoint, open_model
from i2i.networks import NetworkConfig, OwnConfig, config_of
from i2i.networks.blocks import BlurDownsample
from i2i.terminal import fetching
from i2i.training.estimate import resolve_batch_size
from i2i.training.options import RunOptions
from i2i.training.run_folder import fetch_data, fetch_run
from i2i.training.schedule import CONTENT, check, floor_conditions, follows_validation, stop_conditions
from i2i.training.state_store import StateStore
from i2i.training.step import ProcessGroup, Progress
from i2i.training.trainer import Trainer
from i2i.training.validation import LABEL_METRICS, SWD
from i2i.urls import real


def train(algorithm: str | type[AnyAlgorithm], options: RunOptions, own: OwnDatasets | None = None) -> None:
    """Train `algorithm`, a class or its name, as `options` (of `options_class`) say; everything is checked first.

    `own` are data sets from Python, which stand in for files.
    """
    algorithm = ALGORITHMS[algorithm] if isinstance(algorithm, str) else algorithm
    if (run := options.run) is None:
        raise UsageError(f"run: a run folder is needed: {as_typed('run', 'runs/NAME')}")
    check_place(options)
    place()  # contradictions are said before the data are read
    fetch_run(run)
    if options.batch_size == "auto" and (own or options.own):
        raise UsageError("batch_size = auto: cannot be measured with data or networks from Python; give a number")
    options = resolve_batch_size(algorithm, options)
    data, channels = open_data(algorithm, options, own)
    if options.deterministic:
        enable_determinism()
    group = ProcessGroup(options.device)
    try:
        built = build_algorithm(algorithm, options, channels, group.device)
        if not StateStore(run).steps():  # a resumed run has weights of its own
            initialise(built, options.init_from, options.direction, options.download)
        Trainer(built, data, options, group).fit()
    finally:
        group.close()


def check_place(options: RunOptions) -> None:
    """Raises `UsageError` if the run folder lies within the data, where its sample grids would become pictures of
    them, or the data within its sample grids."""
    assert options.run is not None
    run = real(options.run)
    for name in ("data", "paired_data"):
        data = getattr(options, name)
        if data is None:
            continue
        around = set(map(identity, (run, *run.parents))) - {None}
        if any(identity(folder) in around for folder in searched(data)):  # none of toys, and of tables
            raise UsageError(
                f"run = {options.run}: lies within {name} = {data}, where its sample grids would be taken for pictures "
                f"of the data set; give a folder elsewhere, such as {as_typed('run', 'runs/NAME')}"
            )
        if real(data).is_relative_to(run / "samples"):
            raise UsageError(
                f"{name} = {data}: lies among the sample grids of run = {options.run}; give another {as_typed('run')}"
            )


def open_data(
    algorithm: type[AnyAlgorithm], options: RunOptions, own: OwnDatasets | None = None
) -> tuple[Datasets, tuple[int, int]]:
    """Opens the data and checks everything before a training starts. Returns the data, and the channels of inputs and
    outputs. `own` as in `train`."""
    fetch_data(options)
    check(options, needs_data=own is None)
    check_compile(algorithm, options)
    check_mixing(options, algorithm.supports_pairs)
    single_domain = algorithm.uses_single_domain(options)
    if single_domain:
        check_one_domain(options)
    channels = algorithm.channels(options)
    multiple, minimum = options.size_limits(*channels)
    check_sizes(options, multiple, minimum)
    check_metrics(algorithm, options, channels)
    make_pair = partial(algorithm.make_pair, narrowed(options, own_options(algorithm))) if single_domain else None
    if own is None:
        data = open_datasets(options, algorithm.paired, multiple, minimum, make_pair)
    else:
        data = open_own(own, options, algorithm.paired, multiple, minimum, make_pair)
    check_validation(options, data)
    return data, channels


def enable_determinism() -> None:
    """Let torch take only algorithms that give the same numbers again. CUDA must not have started."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def build_algorithm(
    algorithm: type[AnyAlgorithm], options: RunOptions, channels: tuple[int, int], device: torch.device
) -> AnyAlgorithm:
    """The algorithm with its networks as the seed draws them. Raises `UsageError` for what `device` has not."""
    if options.compile:
        check_compiler(device)
    torch.manual_seed(options.seed)
    players: AnyAlgorithm = algorithm(options, *channels)
    if options.own.get("generator"):  # the modes of batch norm and dropout are those of `eval()`
        players.test_statistics, players.test_dropout = "running", False
    if options.deterministic:
        check_deterministic(players, device)
    return players


def check_validation(options: RunOptions, data: Datasets) -> None:
    """Raises `UsageError` if something is to follow a validation that never comes, or a new run that one is to stop
    ends before the first."""
    if (name := follows_validation(options)) and data.validation is None:
        value, where = getattr(options, name), options.data or "validation="
        raise UsageError(f"{name} = {value!r}: follows the validation, but {where} has no val or test split")
    name = "stop_when" if options.stop_when.strip() else "stop_patience" if options.stop_patience else ""
    if not name or (options.run is not None and StateStore(options.run).steps()):  # how far a state is, it says
        return
    total = Progress(options, len(data.train), place().world_size).total_images
    if (first := options.validate_every * len(data.train)) > total:
        raise UsageError(
            f"{name} = {getattr(options, name)!r}: the first validation comes after {first} images "
            f"({options.validate_every} epochs), and the run ends after {total}; lower {as_typed('validate_every')}"
        )


def check_metrics(algorithm: type[AnyAlgorithm], options: RunOptions, channels: tuple[int, int]) -> None:
    """Raises `UsageError` for conditions that cannot be read, and for a metric by which this run cannot be measured."""
    asked: list[tuple[str, str]] = [("best_metric", options.best_metric)]
    asked += [("best_floor", condition.metric) for condition in floor_conditions(options.best_floor)]
    asked += [("stop_when", condition.metric) for condition in stop_conditions(options.stop_when)]
    labels = [bool(options.classes_a), bool(options.classes_b)]
    targets = [labels[1 if options.direction == "a2b" else 0]] if algorithm.paired else labels
    for name, metric in asked:
        if metric == SWD and not algorithm.shows_targets(options):
            reason = (
                "compares outputs with pictures of the domain that they should be of, and this run has none; use l1, "
                f"psnr or ssim, or give {as_typed('lambda_gan')} and data of two domains"
            )
        elif metric != SWD and algorithm.from_noise:
            reason = (
                f"compares a picture with the one that it should be, and {algorithm.name} makes none in particular; "
                f"use {SWD}"
            )
        elif metric == CONTENT and any(labels):
            reason = "compares pictures with their inputs, and these are labels"
        elif metric == CONTENT and not algorithm.single_domain and (bands := set(channels) - {1, 3}):
            reason = f"compares pictures of 1 or 3 channels, and these have {max(bands)}"
        elif metric in LABEL_METRICS and not any(targets):
            reason = "measures labels, and this run makes pictures; use l1, psnr, ssim or swd"
        elif metric in ("psnr", "ssim") and all(targets):
            reason = "measures pictures, and this run makes labels; use mean_iou"
        else:
            continue
        raise UsageError(f"{name} = {getattr(options, name)!r}: {metric} {reason}")


def check_compile(algorithm: type[AnyAlgorithm], options: RunOptions) -> None:
    """Raises `UsageError` if `compile` contradicts another option, or is of no use to the algorithm."""
    if options.compile and not algorithm.compiles:
        raise UsageError(f"compile = True: {algorithm.name} runs its generator layer by layer; leave it out")
    if options.compile and options.low_memory:
        raise UsageError(
            "compile = True: a compiled network chooses what it keeps, and would not heed low_memory = True; "
            "leave out one of the two"
        )


def check_deterministic(algorithm: AnyAlgorithm, device: torch.device) -> None:
    """Raises `UsageError` for padding by reflection on CUDA: torch has no deterministic gradient of it there."""
    if device.type != "cuda":
        return
    modules = [module for network in algorithm.networks().values() for module in network.modules()]
    none = "deterministic: padding by reflection has no deterministic gradient on CUDA"
    if any(isinstance(module, BlurDownsample) for module in modules):
        raise UsageError(f"{none}, and anti-aliased networks halve by it; use others, or leave it out")
    if any(isinstance(module, nn.Conv2d) and module.padding_mode == "reflect" for module in modules):
        raise UsageError(f"{none}; use {as_typed('padding', 'replicate')}, or leave it out")


# The reference names a discriminator after the generator that it plays against: its D_A judges images of B.
REFERENCE_NAMES = {"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A", "G": "G", "D": "D"}


def initialise(algorithm: AnyAlgorithm, paths: Sequence[Path], direction: str = "a2b", download: bool = False) -> None:
    """Load each file, or the style of that name, into its network. `direction` is the one in which `algorithm` sees the
    data. A published style is fetched only with `download`.

    Raises `ModelError` for a file that cannot be read, fits no network, or fits one of another configuration.
    """
    for given in paths:
        name = given.as_posix() if str(given).startswith("hub:") else str(given)
        named = name.startswith("hub:") or styles.is_name(name)
        path = styles.find(name, download=download, progress=fetching()) if named else Path(name)
        if isinstance(F := algorithm.networks().get("F"), PatchProjection) and path.stem.endswith("net_F"):
            _load_embedding(F, path)
            continue
        network, name, config, weights = _read(algorithm, path, direction)
        _check(path, name, network, config)
        network.load_state_dict(weights)


def _load_embedding(F: PatchProjection, path: Path) -> None:
    weights, own = junyanz.load_embedding(path), F.state_dict()
    shapes, expected = ({name: tuple(value.shape) for name, value in state.items()} for state in (weights, own))
    if shapes != expected:
        wrong = next(name for name in expected | shapes if shapes.get(name) != expected.get(name))
        here = f"{wrong} is {shapes.get(wrong, 'missing')}, here {expected.get(wrong, 'missing')}"
        raise ModelError(
            f"{path}: another patch embedding: {here}; {as_typed('nce_layers')} and {as_typed('ngf')} must agree"
        )
    F.load_state_dict(weights)


_Weights = tuple[nn.Module, str, NetworkConfig | OwnConfig, dict[str, Tensor]]
"""A network of the training and its name there; of the file the configuration and the weights."""


def _read(algorithm: AnyAlgorithm, path: Path, direction: str) -> _Weights:
    if not is_checkpoint(path):
        loaded, info = open_model(path)
        targets = algorithm.translators()
        name = info.direction if direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[info.direction]
        if len(targets) == 1:  # a file's direction is that of its own data set
            (name,) = targets
        return targets[name], name, config_of(loaded), loaded.state_dict()
    config, weights = junyanz.load(path)
    networks = algorithm.networks()
    own = next((own for ending, own in REFERENCE_NAMES.items() if path.stem.endswith(f"net_{ending}")), None)
    if own not in networks:
        known = ", ".join(f"*_net_{r}.pth ({o})" for r, o in REFERENCE_NAMES.items() if o in networks)
        raise ModelError(f"{path}: its name does not say which network it is; expected {known}")
    return networks[own], own, config, weights


def _check(path: Path, name: str, network: nn.Module, config: NetworkConfig | OwnConfig) -> None:
    """Dropout and padding hold no weights; everything else must agree."""
    before, now = described(config), described(config_of(network))
    free = {"dropout", "padding"}
    keys = ["kind"] if before["kind"] != now["kind"] else [key for key in now if key not in free]
    wrong = [key for key in keys if before[key] != now[key]]
    if wrong:
        differences = "; ".join(f"{key} is {before[key]!r}, {name} has {now[key]!r}" for key in wrong)
        names = {"width": "ndf" if name.startswith("D") else "ngf", "norm": "norm", "bias": "bias"}
        options = [as_typed(names[key], before[key], is_switch=False) for key in wrong if key in names]
        hint = f"; start the run with {' '.join(options)}" if len(options) == len(wrong) else ""
        raise ModelError(f"{path}: does not fit {name}: {differences}{hint}")
