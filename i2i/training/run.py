"""Training from Python: `i2i.train` runs the code of `i2i train`, and returns the run."""

import contextlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from i2i.algorithms import ALGORITHMS
from i2i.algorithms.algorithm import AnyAlgorithm
from i2i.config import ALGORITHM, RUN_CONFIG, has_config, layered, of_run, option_names, read_options
from i2i.data.options import FolderOrURL, local, of_one_size
from i2i.data.own import OwnData, OwnDatasets, first_picture
from i2i.errors import UsageError, nearest
from i2i.evaluation.training_log import Log, read_log
from i2i.machine import place
from i2i.models import styles
from i2i.models.info import DIRECTIONS
from i2i.networks import Own, OwnModule
from i2i.terminal import say
from i2i.training import launch
from i2i.training.options import RunOptions, options_class
from i2i.training.run_folder import fetch_run
from i2i.urls import path_of, place_of

if TYPE_CHECKING:
    from i2i.inference.translator import Translator


def train(
    algorithm: str | os.PathLike[str] | type[AnyAlgorithm],
    data: str | os.PathLike[str] | OwnData | None = None,
    *,
    run: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    validation: OwnData | None = None,
    generator: str | OwnModule | None = None,
    discriminator: str | OwnModule | None = None,
    **options: Any,
) -> "Run":
    """Starts or resumes a training: `i2i.train("cyclegan", "photos", run="runs/x", steps=2000)`.

    * `algorithm`: a name (`cyclegan`, `pix2pix`, …), a subclass of `Algorithm`, or a configuration (`FILE.yaml`).
    * `data`: a path as for `--data`, or your own data set: any `torch.utils.data.Dataset` or list. For algorithms of
      pairs its items are pairs (input, target). Algorithms of two unpaired domains take two data sets,
      `data=(pictures_of_A, pictures_of_B)`; algorithms of one domain take one data set of pictures. i2i resizes, crops,
      flips and augments pictures that are uint8 or uint16 arrays, uint8 tensors or PIL images. It takes float tensors
      (C, H, W) in [-1, 1] as they are.
    * `run`: the run folder. Default: `runs/` and the name of the algorithm. An existing run is resumed exactly.
    * `steps`: the number of the last step; the same as `max_steps`.
    * `validation`: a data set in the form of `data` for validation and sample grids. It is not trained on.
    * `generator`, `discriminator`: a name, an `nn.Module`, or a function without arguments that returns one. A copy of
      the module is trained, and starts with its weights.
    * Any option of `i2i train ALGORITHM --help-all`, with underscores: `crop_size=128`, `lr=1e-4`.

    Raises `UsageError` for options that are unknown or out of range, and the other errors of `i2i train`. Each
    `I2IError` has the exit code of the command as `exit_code`.
    """
    chosen, file = _algorithm(algorithm)
    given = _given(options, run, steps)
    networks = {"generator": generator, "discriminator": discriminator}
    own = {name: Own.of(one) for name, one in networks.items() if one is not None and not isinstance(one, str)}
    given |= {name: own[name].name if name in own else one for name, one in networks.items() if one is not None}
    if own and chosen.from_noise:
        raise UsageError(f"{chosen.name} makes pictures from noise by its own networks; name one of them")
    datasets = _own_data(data, validation, given)
    kind = options_class(chosen, own=own, run=(FolderOrURL | None, Path("runs") / chosen.name))
    if "run" in given:
        fetch_run(given["run"])
    resolved, notes = layered(kind, given, file)
    assert resolved.run is not None
    if datasets is not None:
        first = first_picture(datasets, chosen.paired, chosen.uses_single_domain(resolved))
        goes_on = has_config(resolved.run)
        named = option_names(kind) if goes_on else {*given, *(read_options(file) if file else ())}
        resolved = _for_samples(resolved, named, first)
    for note in notes if place().rank == 0 else ():
        say(note)
    launch.train(chosen, resolved, datasets)
    assert resolved.run is not None
    return Run(resolved.run, own["generator"].make if "generator" in own else None, chosen)


def _algorithm(algorithm: str | os.PathLike[str] | type[AnyAlgorithm]) -> tuple[type[AnyAlgorithm], Path | None]:
    """The algorithm, and the configuration that names it, if it is one."""
    if isinstance(algorithm, type):
        return algorithm, None
    name, file = os.fspath(algorithm), None
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
        name = str(read_options(file).get(ALGORITHM, ""))
    if name not in ALGORITHMS:
        where = f"{file}: " if file else ""
        raise UsageError(
            f"{where}unknown algorithm {name!r}.{nearest(name, ALGORITHMS)} Known: {', '.join(ALGORITHMS)}."
        )
    return ALGORITHMS[name], file


def _given(options: Mapping[str, Any], run: str | os.PathLike[str] | None, steps: int | None) -> dict[str, Any]:
    given = dict(options)
    if run is not None:
        given["run"] = local(place_of(run))
    if steps is not None:
        if "max_steps" in given:
            raise UsageError("steps and max_steps are one option; give one of them")
        given["max_steps"] = steps
    return given


def _own_data(
    data: str | os.PathLike[str] | OwnData | None, validation: OwnData | None, given: dict[str, Any]
) -> OwnDatasets | None:
    """The data sets from Python, if `data` is no path."""
    if data is None or isinstance(data, str | os.PathLike):
        if data is not None:
            given["data"] = local(place_of(data))
        if validation is not None:
            raise UsageError("validation: goes with a data set from Python; the folder of data has a val or test split")
        return None
    return OwnDatasets(data, validation)


def _for_samples(options: RunOptions, named: Collection[str], first: object) -> RunOptions:
    """The options; for float tensors, which are used unchanged, with the sizes of the first tensor.

    Raises `UsageError` for an option among `named` that would change the tensors.
    """
    is_sample = isinstance(first, Tensor) and first.dim() == 3 and first.is_floating_point()
    if not is_sample or not of_one_size(options.preprocess):
        return options
    height, width = first.shape[-2:]  # type: ignore[attr-defined]
    side = min(height, width)
    sizes = {"preprocess": "crop", "load_size": side, "crop_size": side}
    fixed: dict[str, Any] = {**sizes, "flip": False, "random_zoom": 1.0, "augment": ""}
    for name, value in fixed.items():
        if name in named and (given := getattr(options, name)) != value:
            raise UsageError(
                f"{name}: float tensors are taken as they are, here {width}x{height}; {name} = {given} would change "
                "them"
            )
    follows = options.following({name: getattr(options, name) for name in named} | fixed)
    return replace(options, **fixed | follows)


class Run:
    """A training and its folder. `i2i.train` returns a `Run`; `i2i.Run("runs/x")` opens an existing run folder.

    Give `generator` if the run trained your own module, and `algorithm` if it used your own subclass of `Algorithm`. A
    notebook shows the last sample grid of a run.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        generator: OwnModule | None = None,
        algorithm: type[AnyAlgorithm] | None = None,
    ) -> None:
        self.folder = path_of(folder)
        if not has_config(self.folder):
            raise UsageError(f"{self.folder}: no run folder; expected the folder of a training, with its config.yaml")
        self._generator, self._class = generator, algorithm or _algorithm(self.folder / RUN_CONFIG)[0]

    @property
    def algorithm(self) -> str:
        """The name of its algorithm."""
        return self._class.name

    @property
    def options(self) -> RunOptions:
        """Its options: `run.options.crop_size`."""
        return of_run(options_class(self._class), self.folder)

    @property
    def status(self) -> str:
        """running, finished, stopped, interrupted, preempted, diverged or failed."""
        return str(self._status().get("status", "unknown"))

    @property
    def steps(self) -> int:
        """The step in `status.json`: the last one, or during a training that of the last saved state."""
        return int(self._status().get("step", 0))

    @property
    def model_files(self) -> dict[str, Path]:
        """Direction → the last model file."""
        files = {direction: self.folder / f"{direction}.safetensors" for direction in DIRECTIONS}
        return {direction: file for direction, file in files.items() if file.exists()}

    @property
    def model_file(self) -> Path:
        """The last model file. Raises `UsageError` where there are two; `model_files` names them."""
        return styles.model_at(self.folder)

    @property
    def history(self) -> Log:
        """Losses and metrics by name, as series of steps and values: `run.history.losses["G_L1"].values`."""
        return read_log(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers of the last validation by name, such as `fake_B/l1`; empty if there was none."""
        validations = read_log(self.folder, ["validation"]).validations
        return dict(validations[-1].metrics) if validations else {}

    @property
    def samples(self) -> list[Path]:
        """The sample grids, the oldest first."""
        return sorted((self.folder / "samples").glob("step-*.png"))

    def translator(
        self, direction: Literal["a2b", "b2a"] | None = None, *, best: bool = False, **options: Any
    ) -> "Translator":
        """Its generator as a function from picture to picture; `options` are those of `i2i.load_translator`.

        With `best`, it is that of the best model file instead of the last one. Raises as `i2i.load_translator`.
        """
        from i2i.inference.translator import load_translator

        path = styles.model_at(self.folder, direction)
        if best:
            path = path.with_stem(f"{path.stem}-best")
        if self._generator is not None and "generator" not in options:
            own = self._generator
            with torch.random.fork_rng():
                options["generator"] = own if isinstance(own, nn.Module) else own()
        return load_translator(path, **options)

    def _status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.folder / "status.json").read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    def __repr__(self) -> str:
        numbers = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
        return f"<i2i.Run {str(self.folder)!r}: {self.algorithm}, {self.status} at step {self.steps}{numbers}>"

    def _repr_png_(self) -> bytes | None:
        return self.samples[-1].read_bytes() if self.samples else None
