"""Looking and measuring while training: sample grids of fixed inputs, validation on the held-out split."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.utils import make_grid

from i2i.algorithms.algorithm import Algorithm
from i2i.data.datasets import Datasets
from i2i.data.pair import ImagePair
from i2i.errors import InputError
from i2i.evaluation.metrics.pairs import WINDOW, l1, luminance_ssim, psnr, ssim
from i2i.images import to_tensor
from i2i.images.palettes import VOID, Palette, to_colours
from i2i.networks.blocks import for_translation
from i2i.training import label_scores, set_distance
from i2i.training.distributed import Processes
from i2i.training.goal import CONTENT

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "psnr": psnr, "ssim": ssim}


class Observer:
    """Looks at an algorithm through copies of its generators, as they will translate; training is not disturbed."""

    def __init__(
        self,
        algorithm: Algorithm,
        data: Datasets,
        processes: Processes,
        tell_damaged: Callable[[Sequence[str]], None] = lambda names: None,
        palettes: Mapping[str, Palette | None] | None = None,
    ) -> None:
        """`palettes`: the classes of `A` and `B`, as the algorithm sees them, where they are labels."""
        self.algorithm, self.data, self.processes, self.tell_damaged = algorithm, data, processes, tell_damaged
        self.palettes = palettes or {}

    def test_time(self, networks: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """Copies of `networks` in the mode in which they translate."""
        algorithm = self.algorithm
        return {
            name: for_translation(copy.deepcopy(net), algorithm.test_statistics, algorithm.test_dropout)
            for name, net in networks.items()
        }

    def look(self, networks: dict[str, nn.Module], rows: int) -> list[dict[str, Tensor]]:
        """For each fixed input the pictures of the algorithm by name, (C, H, W) in [-1, 1], on the CPU."""
        translators = self.test_time(networks)
        source = self.data.validation or self.data.train
        found: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            for pair in self._pairs(source, range(min(rows, len(source)))):
                torch.manual_seed(0)
                pictures = self.algorithm.pictures(pair, translators)
                found.append({name: self._shown(name, x[0].float().cpu()) for name, x in pictures.items()})
        return found

    def _shown(self, name: str, picture: Tensor) -> Tensor:
        """Labels in the colours of their palette: `real_A`, `fake_B` are of the domains `batch.a` and `.b`."""
        palette = self.palettes.get(name[-1])
        if palette is None:
            return picture
        picture = picture[: len(palette)]  # without the edges of instances
        none = (picture <= 0).all(dim=0) & name.startswith("real")  # what is made has the class that is likeliest
        return to_tensor(to_colours(picture.argmax(dim=0).to(torch.uint8).masked_fill(none, VOID).numpy(), palette))

    def validate(
        self,
        networks: dict[str, nn.Module],
        images_used: int,
        stop: Callable[[], Any],
        sets: bool = False,
        content: bool = False,
    ) -> dict[str, float] | None:
        """Mean L1, PSNR and SSIM of the reconstructions as `<name>/<metric>`, of labels mean L1, pixel accuracy and
        mean IoU; None once `stop()` is true.

        With `sets` also the distance of what is made to held-out pictures, see `set_distance`; with `content` the
        luminance SSIM of what is made and its input. Every process measures its share of the split and gets the numbers
        of all.
        """
        assert self.data.validation is not None
        translators = self.test_time(networks)
        count = min(len(self.data.validation), images_used)
        share = range(self.processes.rank, count, self.processes.world_size)
        values: dict[str, list[float]] = {}
        seen: dict[int, set_distance.Seen] = {}
        labels: label_scores.Counts = {}
        torch.manual_seed(0)
        with torch.inference_mode():
            for place, pair in zip(share, self._pairs(self.data.validation, share), strict=True):
                if stop():
                    return None
                if pair.skipped:  # the picture in its place has a turn of its own
                    continue
                numbers, counts = self._measure(pair, translators)
                label_scores.add(labels, counts)
                pictures = self._pictures(pair, translators) if sets or content else {}
                seen[place] = set_distance.seen(pictures) if sets else {}
                for name, value in (numbers | (_kept(pictures) if content else {})).items():
                    values.setdefault(name, []).append(value)
        every: dict[str, list[float]] = {}
        total: label_scores.Counts = {}
        for measured, others, counts in self.processes.gather_everywhere((values, seen, labels)):
            seen |= others
            label_scores.add(total, counts)
            for name, numbers in measured.items():
                every.setdefault(name, []).extend(numbers)
        if not seen:
            raise InputError(f"none of the {count} held-out pictures can be read")
        means = {name: sum(v) / len(v) for name, v in every.items()}
        return means | label_scores.measured(total) | set_distance.distances(seen)

    def _pictures(self, pair: ImagePair, translators: dict[str, nn.Module]) -> dict[str, Tensor]:
        """The pictures that sets and content are measured on, drawn apart: other metrics stay as they are."""
        device = self.processes.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return self.algorithm.pictures(pair, translators)

    def _measure(
        self, pair: ImagePair, translators: dict[str, nn.Module]
    ) -> tuple[dict[str, float], label_scores.Counts]:
        found: dict[str, float] = {}
        counts: label_scores.Counts = {}
        for name, (made, expected) in self.algorithm.reconstructions(pair, translators).items():
            palette = self.palettes.get(name[-1])
            if palette is not None:
                counts[name] = label_scores.counts(made, expected, len(palette))
            for metric, measure in METRICS.items():
                if metric == "l1" or (palette is None and (metric != "ssim" or min(made.shape[-2:]) >= WINDOW)):
                    found[f"{name}/{metric}"] = float(measure(made, expected))
        return found, counts

    def _pairs(self, dataset: Any, places: range) -> Iterator[ImagePair]:
        for t in places:
            pair = dataset[t].to(self.processes.device)
            self.tell_damaged(pair.skipped)
            yield ImagePair(pair.a[None], pair.b[None], pair.skipped)


def _kept(pictures: Mapping[str, Tensor]) -> dict[str, float]:
    """`fake_B/luminance_ssim` of what is made and `real_A`, its input, where both are pictures of one size."""
    found = {}
    for name, source in (("fake_B", "real_A"), ("fake_A", "real_B")):
        made, given = pictures.get(name), pictures.get(source)
        if made is None or given is None or made.shape[-2:] != given.shape[-2:] or min(made.shape[-2:]) < WINDOW:
            continue
        if {made.shape[1], given.shape[1]} <= {1, 3}:
            found[f"{name}/{CONTENT}"] = float(luminance_ssim(made, given))
    return found


def grid(rows: Sequence[dict[str, Tensor]]) -> Tensor:
    """A row per fixed input, a column per picture: (3, H, W) in [0, 1]. Rows of two stand beside each other."""
    cells = [three_channels(picture) for row in rows for picture in row.values()]
    size = cells[0].shape[-2:]
    cells = [F.interpolate(x[None], size, mode="area")[0] if x.shape[-2:] != size else x for x in cells]
    columns = len(rows[0]) * (_beside(len(rows)) if len(rows[0]) <= 2 else 1)
    return make_grid(torch.stack(cells), nrow=columns, padding=2, pad_value=1.0).clamp(0, 1)


def _beside(count: int) -> int:
    """How many of `count` stand beside each other so that none is left over: as in a square, or fewer."""
    return next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)


def three_channels(image: Tensor) -> Tensor:
    """(C, H, W) in [-1, 1] → (3, H, W) in [0, 1] for showing: grey repeated, more than three cut to three."""
    image = (image.float().cpu() + 1) / 2
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
