"""What a run leaves for use and for looking at: model files and sample grids."""

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from i2i import images
from i2i.algorithms.algorithm import Algorithm
from i2i.data.options import classes
from i2i.models import model_file
from i2i.training.ema import Averages
from i2i.training.options import RunOptions
from i2i.training.validation import Validation


def source_commit(root: Path) -> str:
    """The commit that is checked out at `root`; empty if `root` is no git checkout."""
    try:
        git = root / ".git"
        if git.is_file():  # a linked worktree
            git = root / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            head = _resolved(git, head.removeprefix("ref: "))
    except (OSError, ValueError):
        return ""
    return head if re.fullmatch(r"[0-9a-f]{40,64}", head) else ""


def _resolved(git: Path, ref: str) -> str:
    link = git / "commondir"  # of a linked worktree, where the branches are
    common = git / link.read_text().strip() if link.exists() else git
    if (common / ref).is_file():
        return (common / ref).read_text().strip()
    packed = (line.split(" ") for line in (common / "packed-refs").read_text().splitlines())
    return next((words[0] for words in packed if words[1:] == [ref]), "")


# on import, as the code is then: by the time a model file is written, something else may be checked out
COMMIT = source_commit(Path(__file__).resolve().parents[2])


def save_model_files(
    algorithm: Algorithm,
    networks: dict[str, nn.Module],
    options: RunOptions,
    step: int,
    images_seen: int,
    metrics: dict[str, float],
    best: bool = False,
) -> None:
    """Write `<direction>.safetensors`, or `<direction>-best.safetensors`, for each of the generators to be kept.

    Raises `OutputError`.
    """
    assert options.run is not None
    training = model_file.Training(
        algorithm=algorithm.name,
        dataset=dataset_name(options.data) if options.data else "",
        steps=step,
        images_seen=images_seen,
        commit=COMMIT,
        teacher=algorithm.teacher,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
    )
    known = algorithm.domains if options.direction == "a2b" else algorithm.domains[::-1]
    domains = {"a": options.domain_a or known[0], "b": options.domain_b or known[1]}
    palettes = dict(zip("ab", classes(options), strict=True))
    for name, network in networks.items():
        direction: Any = name if options.direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[name]
        info = model_file.describe(
            network,
            direction=direction,
            input_domain=domains[direction[0]],
            output_domain=domains[direction[2]],
            licence=options.licence,
            statistics=algorithm.test_statistics,
            dropout=algorithm.test_dropout,
            training=training,
            input_palette=palettes[direction[0]],
            output_palette=palettes[direction[2]],
            instance_edges=options.instance_edges,
            encoding=algorithm.encoding,
            paint_size=algorithm.paint_size,
        )
        model_file.save(options.run / f"{direction}{'-best' if best else ''}.safetensors", network, info)


class ModelFiles:
    """The generators to keep, averaged if EMA is on, and their files."""

    def __init__(
        self, algorithm: Algorithm, averages: Averages | None, options: RunOptions, validation: Validation
    ) -> None:
        self.algorithm, self.averages, self.options, self.validation = algorithm, averages, options, validation

    def networks(self) -> dict[str, nn.Module]:
        """Direction, as the algorithm sees it → generator."""
        return self.averages.networks() if self.averages else self.algorithm.translators()

    def write(self, step: int, images_seen: int, best: bool = False) -> None:
        """Write them as of `step`, with the metrics of its validation if it had one. Raises `OutputError`."""
        metrics = self.validation.named_at(step)
        save_model_files(self.algorithm, self.networks(), self.options, step, images_seen, metrics, best)


def dataset_name(data: Path) -> str:
    """What a model file calls the data set: its folder's or table's name, without what would make it a path."""
    name = data.stem if data.suffix.lower() == ".csv" else data.name
    return name.replace("/", "_").replace("\\", "_")


def save_grid(path: Path, picture: Tensor) -> None:
    """Write a grid, (3, H, W) in [0, 1], as PNG, whole or not at all; what is not finite is black."""
    path.parent.mkdir(exist_ok=True)
    images.write(path, images.Picture(pixels=images.to_pixels(picture.nan_to_num() * 2 - 1)))
