"""The metrics of one evaluation: their networks loaded once, their numbers, and the protocol that they depend on."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.device import choose_device
from i2i.errors import ImageError, InputError, ModelError, UsageError
from i2i.evaluation import features, metrics, sliced_wasserstein
from i2i.evaluation.data import BACKGROUND, PictureFiles, Pictures
from i2i.evaluation.metrics import RESAMPLES, RESIZER, Estimate, linear, mean
from i2i.evaluation.options import CONTENT, LABELS, NEED_INCEPTION, PAIRED, SETS, EvaluationOptions
from i2i.evaluation.result import Measure, measured
from i2i.images import Pixels, palettes
from i2i.networks import projected

NotApplicable = Mapping[str, str]
"""Metrics that do not apply to some pictures, each with the reason."""
INDICES = "class indices, which are no intensities, are compared by the metrics of labels alone"
NO_PALETTE = "needs --palette, the colours of the classes"
AT_SIZE = "is for labels at their own size: leave out --size"
SAMPLE = 4
"""Pictures of a set that are looked at to tell its kind; one in colour is enough."""
SET_SIZE = 256
"""The side of pictures that are compared as sets, unless another is asked for."""
ORIGINAL_SIZE = "pictures as they are"
SWD_PROTOCOL = (
    f"10³ · mean over levels down to {sliced_wasserstein.SMALLEST} px and over seeds; {sliced_wasserstein.PATCH}x"
    f"{sliced_wasserstein.PATCH} patches normalised in each channel, {sliced_wasserstein.PATCHES_PER_IMAGE} a picture "
    "of the smallest set compared (of outputs, inputs, held-out pictures and reference), at most "
    f"{sliced_wasserstein.MOST_PATCHES:,}, as many of the others; {sliced_wasserstein.PROJECTIONS} directions"
)
_BETWEEN: dict[str, Callable[..., Estimate]] = {
    "fid": features.fid,
    "kid": features.kid,
    "precision": features.precision,
    "recall": features.recall,
}
_PAIRED = {"l1": metrics.l1, "psnr": metrics.psnr, "ssim": metrics.ssim, "ms_ssim": metrics.ms_ssim}


def size_note(size: int | None) -> str:
    return ORIGINAL_SIZE if size is None else f"pictures at {size}x{size}: shorter side scaled, middle cut out"


def refuse_lost(options: EvaluationOptions, rows: Sequence[NotApplicable]) -> None:
    """Raises `UsageError` for each metric asked for by name that applies to none of the rows, and for a network and a
    palette by which nothing can be measured."""
    lost = [name for name in options.metrics if all(name in row for row in rows)]
    if lost:
        raise UsageError("metrics: " + "; ".join(f"{name} {rows[0][name]}" for name in lost))
    if options.features and all("kid" in row for row in rows):
        raise UsageError(f"features = {options.features!r}: KID is measured in them, and kid {rows[0]['kid']}")
    if options.palette and all(row.get(name) for row in rows for name in LABELS):
        raise UsageError(f"palette: nothing can be scored with it: pixel_accuracy {rows[0][LABELS[0]]}")


@dataclasses.dataclass(frozen=True)
class MetricNetwork:
    """A network for `features.extract`, its name with the hash of its weights, the side of its input, and its file."""

    network: nn.Module
    name: str
    side: int
    file: str


class MetricSuite:
    """Measures by the metrics that the options ask for, and collects the `protocol`.

    A metric that is undefined for some pictures is an `InputError` if it was asked for by name; else it is left out,
    and the protocol says why. With `translating`, outputs of models are measured; else pictures as they are in files.
    Raises `UsageError` for files that are missing, `ModelError` for files with other content than expected.
    """

    def __init__(self, options: EvaluationOptions, *, translating: bool = True) -> None:
        self.options = options
        self.device = choose_device(options.device)
        self.seed = options.seeds[0]
        """The seed of the bootstrap draws."""
        self.classes = palettes.find(options.palette) if options.palette else None
        if self.classes is not None and options.size is not None:
            raise UsageError("size: labels are compared as they are; leave out --size or --palette")
        translation = f"translation {options.precision}, " if translating else ""
        self.protocol: dict[str, Any] = {
            "resizer": RESIZER,
            "transparency": f"pictures of files are measured as seen over {BACKGROUND}",
            **({"outputs": "rounded to 8 bits, as they are written"} if translating else {}),
            "precision": f"{translation}measured in float32, distances of features in float64",
            "seeds": list(options.seeds),
            "intervals": f"95 %, {RESAMPLES} bootstrap draws of the pictures with seed {self.seed}",
            "device": str(self.device),
            "torch": torch.__version__,
        }
        self._paired = _PAIRED | self._load_lpips()
        self._networks = self._load_networks()
        self._features: dict[Any, tuple[Pictures, features.Features]] = {}

    @property
    def palette(self) -> palettes.Palette | None:
        """The classes by which labels are scored; None where pictures are resized, as a mixture of two classes is a
        third."""
        return self.classes if self.options.size is None else None

    @property
    def no_palette(self) -> str:
        """Why `palette` is None, after the name of a metric or an option."""
        if self.options.size is None:
            return NO_PALETTE
        return AT_SIZE if self.classes is not None else f"{NO_PALETTE}, and {AT_SIZE}"

    def add_palette(self, palette: palettes.Palette | None) -> None:
        """Score labels by the classes of a model, unless classes are known already."""
        if self.classes is None and palette is not None:
            self.classes = dataclasses.replace(palette, name=palette.name or "of the model")

    def hold_indices(self, *sets: PictureFiles) -> bool:
        """Whether one of the sets of labels holds class indices, as its first picture shows."""
        palette = self.classes
        return palette is not None and any(palettes.holds_indices(files.picture(0), palette) for files in sets)

    def admit(self, rows: Mapping[str, NotApplicable]) -> None:
        """Notes in the protocol which metrics that the user has reason to expect are missing for the pictures of a
        name. Raises `UsageError` as `refuse_lost`."""
        options = self.options
        refuse_lost(options, list(rows.values()))
        expected = options.metrics or (LABELS if options.palette else ())
        for name, row in rows.items():
            missed: dict[str, list[str]] = {}
            for metric, reason in row.items():
                if metric in expected or (not options.metrics and reason in (INDICES, AT_SIZE)):
                    missed.setdefault(reason, []).append(metric)
            self.note(*(f"{name}: {', '.join(some)}: {reason}" for reason, some in missed.items()))

    def admit_colours(self, *sets: PictureFiles) -> None:
        """Raises `UsageError` if `--features` is given and the first pictures of a set are all grey, or have bands of
        data, and `InputError` for pictures that cannot be read."""
        for files in sets if self.options.features else ():
            channels = {files.picture(i).pixels.shape[2] for i in range(min(len(files), SAMPLE))}
            if channels and 3 not in channels:
                kind = "grey pictures" if channels == {1} else f"pictures of {max(channels)} channels"
                self.refuse_features(f"{files.items[0].path.parent} holds {kind}")

    def refuse_features(self, reason: str) -> None:
        """Raises `UsageError` if `--features` is given: some pictures have no colours."""
        if given := self.options.features:
            text = f"features = {given!r}: a network that knows pictures in colour; {reason}: leave out --features"
            raise UsageError(text)

    def wanted(self, group: Sequence[str], not_applicable: Collection[str] = ()) -> list[str]:
        """The metrics of a group that were asked for, by default all, but for those that do not apply."""
        chosen = self.options.metrics or group
        return [name for name in group if name in chosen and name not in not_applicable]

    def note(self, *reasons: str) -> None:
        """Say in the protocol why metrics are left out."""
        if reasons:
            self.protocol["left out"] = list(dict.fromkeys([*self.protocol.get("left out", []), *reasons]))

    def pairs(self, outputs: Pictures, targets: Pictures, not_applicable: Collection[str] = ()) -> dict[str, Measure]:
        """Means over pairs of pictures."""
        wanted = self.wanted(PAIRED, not_applicable)
        functions = {name: self._paired[name] for name in wanted if name in self._paired}
        if not functions:
            return {}
        self.protocol["pairs"] = size_note(self.options.size)
        return self._means(outputs, targets, functions)

    def content(
        self, outputs: Pictures, inputs: Pictures, returned: Pictures | None, not_applicable: Collection[str] = ()
    ) -> dict[str, Measure]:
        """How outputs keep the content of their inputs; `returned` is the way back, where there is one."""
        wanted, found = self.wanted(CONTENT, not_applicable), dict[str, Measure]()
        if "luminance_ssim" in wanted:
            found |= self._means(outputs, inputs, {"luminance_ssim": metrics.luminance_ssim})
        if "cycle_error" in wanted and returned is not None:
            found |= self._means(returned, inputs, {"cycle_error": metrics.cycle_error})
        return found

    def sets(
        self,
        outputs: Pictures,
        reference: Pictures | None,
        not_applicable: Collection[str] = (),
        patches: int | None = None,
    ) -> dict[str, Measure]:
        """The metrics of sets, those between two where there is a reference; `patches` is that of `swd`."""
        wanted, size, found = self.wanted(SETS, not_applicable), self.options.size or SET_SIZE, dict[str, Measure]()
        if not wanted:
            return {}
        self.protocol["sets"] = size_note(size)
        resized = outputs.at_size(size)
        if "diversity" in wanted:
            found |= self._if_defined(
                "diversity", lambda: measured("diversity", metrics.diversity(resized, self.seed), len(resized))
            )
        if reference is None:
            return found
        self.protocol |= self._protocol_of_sets(wanted)
        if "swd" in wanted:
            found["swd"] = self._swd(resized, reference.at_size(size), patches)
        for name in wanted:
            if (network := self._networks.get(name)) is not None:
                both = [self._features_of(pictures, network) for pictures in (outputs, reference)]
                found |= self._if_defined(name, partial(self._by_features, name, *both))
        return found

    def labels(
        self, outputs: Sequence[Pixels], right: PictureFiles, details: Mapping[str, Any] | None = None
    ) -> dict[str, Measure]:
        """Label scores over all pictures together: outputs (H, W, C) against files of labels.

        Colours are snapped to the palette; class indices are taken as they are; pixels without a label do not count.
        Raises `InputError` naming a file that holds no labels, or has another size.
        """
        assert self.palette is not None
        counts = [self._confusion(pixels, right, i, self.palette) for i, pixels in enumerate(outputs)]
        try:
            estimates = metrics.resampled(counts, self.seed)
            per_class = metrics.scores(np.sum(counts, axis=0)).per_class
        except ValueError as error:
            raise InputError(f"labels cannot be scored: {error}") from None
        more = {"mean_iou": {"per_class": {str(index): value for index, value in per_class.items()}}}
        about = {"palette": self.palette.name, "classes": len(self.palette)}
        return {
            name: measured(name, estimates[name], len(outputs), about | more.get(name, {}) | dict(details or {}))
            for name in self.wanted(LABELS)
        }

    @staticmethod
    def _confusion(pixels: Pixels, files: PictureFiles, index: int, palette: palettes.Palette) -> Pixels:
        name = files.name(index)
        try:
            found, right = palettes.to_classes(pixels, palette), palettes.labels_of(files.picture(index), palette)
        except (ImageError, InputError) as error:
            raise InputError(str(error) if name in str(error) else f"{name}: {error}") from None
        if found.shape != right.shape:
            made, own = (f"{labels.shape[1]}x{labels.shape[0]}" for labels in (found, right))
            raise InputError(f"{name}: {own} pixels; the labels made have {made}")
        return metrics.confusion(found, right, len(palette))

    def _means(
        self, outputs: Pictures, targets: Pictures, functions: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
    ) -> dict[str, Measure]:
        files = outputs if isinstance(outputs, PictureFiles) else targets
        values: dict[str, list[float]] = {name: [] for name in functions}
        with torch.inference_mode():
            for i in range(len(outputs)):
                a, b = outputs[i], targets[i]
                for name, reason in _undefined(files.name(i), a, b, values).items():
                    if self.options.metrics:
                        raise InputError(f"{reason} (--metrics chooses others)")
                    self.note(f"{name}: {reason}")
                    del values[name]  # a mean over the others would be one of other pictures
                for name, numbers in values.items():
                    numbers.append(float(functions[name](a[None], b[None])))
        return {name: self._mean(name, numbers) for name, numbers in values.items() if numbers}

    def _mean(self, name: str, values: list[float]) -> Measure:
        numbers = torch.tensor(values, dtype=torch.float64)
        return measured(name, mean(numbers, self.seed), len(values), {"std": float(numbers.std(unbiased=False))})

    def _if_defined(self, name: str, measure: Callable[[], Measure]) -> dict[str, Measure]:
        try:
            return {name: measure()}
        except InputError as error:
            if self.options.metrics:
                raise
            self.note(str(error))
            return {}

    def _swd(self, outputs: Pictures, reference: Pictures, patches: int | None) -> Measure:
        result = sliced_wasserstein.swd(outputs, reference, self.options.seeds, patches, influences=True)
        assert result.influences is not None
        details = {
            "std": result.std,
            "levels": {str(size): value for size, value in result.levels.items()},
            "patches": result.patches,
            "reference": len(reference),
        }
        return measured("swd", linear(result.mean, result.influences, self.seed), len(outputs), details)

    def _by_features(self, name: str, outputs: features.Features, reference: features.Features) -> Measure:
        if name == "is":
            score, deviation = features.inception_score(outputs.logits, self.options.is_splits, self.seed)
            return measured("is", score, len(outputs.pool), {"std": deviation})
        estimate = _BETWEEN[name](outputs.pool, reference.pool, seed=self.seed)
        details = {"reference": len(reference.pool), "network": outputs.network}
        return measured(name, estimate, len(outputs.pool), details)

    def _features_of(self, pictures: Pictures, network: MetricNetwork) -> features.Features:
        place = network.name, tuple(pictures.items) if isinstance(pictures, PictureFiles) else id(pictures)
        if place not in self._features:
            resized = pictures.at_size(self.options.size or SET_SIZE)
            try:
                found = features.extract(resized, network.network, network.side, self.device, name=network.name)
            except ModelError as error:
                raise ModelError(f"{network.file}: {error}") from None
            self._features[place] = (pictures, found)  # with the pictures, so that their id stays their own
        return self._features[place][1]

    def _protocol_of_sets(self, wanted: Collection[str]) -> dict[str, str]:
        found = {"sliced Wasserstein": SWD_PROTOCOL} if "swd" in wanted else {}
        by_features = self._networks.keys() & set(wanted)
        if "kid" in by_features:
            found["KID"] = "of all pictures at once, unbiased"
        if "is" in by_features:
            found["Inception Score"] = f"{self.options.is_splits} parts of the shuffled set"
        if {"precision", "recall"} & by_features:
            found["precision and recall"] = f"k = {features.NEIGHBOURS} neighbours"
        return found

    def _load_networks(self) -> dict[str, MetricNetwork]:
        """The network in whose features each metric is measured, as far as there is one."""
        name, chosen = self.options.features, bool(self.options.features and self.wanted(["kid"]))
        found = self._load_inception([metric for metric in NEED_INCEPTION if not (chosen and metric == "kid")])
        if chosen:
            side, digest = features.IMAGENET_SIDE, projected.digest(name)
            network = features.Pooled(projected.feature_network(name, head=True))
            self.protocol["features"] = {"network": name, "sha256": digest, "input": _input_note(side), "of": "kid"}
            found["kid"] = MetricNetwork(network, f"{name}, sha256 {digest}", side, name)
        return found

    def _load_lpips(self) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        if self.options.lpips is None or not self.wanted(["lpips"]):
            return {}
        distance, kind, sha256 = features.load_lpips(self.options.lpips, self.device)
        self.protocol["lpips"] = {"backbone": kind, "file": str(self.options.lpips), "sha256": sha256}
        return {"lpips": distance}

    def _load_inception(self, by_inception: Sequence[str]) -> dict[str, MetricNetwork]:
        options = self.options
        asked = set(by_inception) & set(options.metrics)
        if options.metrics and not asked:
            return {}
        path = features.find_inception(options.inception, fetch=options.download)
        if path is None and asked:
            other = ", and KID can be measured by --features" if "kid" in asked else ""
            raise UsageError(
                f"metrics: {', '.join(sorted(asked))} need the Inception weights: --inception FILE, or --download "
                f"fetches them ({features.INCEPTION_BYTES / 1e6:.0f} MB) from {features.INCEPTION_URL}{other}"
            )
        if path is None:
            return {}
        network, sha256 = features.load_inception(path)
        self.protocol["inception"] = {
            "file": str(path),
            "sha256": sha256,
            "published": sha256 == features.INCEPTION_SHA256,
            "input": _input_note(features.INCEPTION_SIDE),
        }
        made = MetricNetwork(network, f"Inception, sha256 {sha256}", features.INCEPTION_SIDE, str(path))
        return dict.fromkeys(by_inception, made)


def _input_note(side: int) -> str:
    return f"{side}x{side} by the resizer"


def _undefined(name: str, a: Tensor, b: Tensor, wanted: Collection[str]) -> dict[str, str]:
    """Why metrics cannot be computed for a pair. Raises `InputError` for a pair of unequal sizes."""
    own, partner = (f"{x.shape[-1]}x{x.shape[-2]} pixels" for x in (a, b))
    if own != partner:
        raise InputError(f"{name}: {own}, its partner has {partner}; --size brings both to one size")
    least = {metric: metrics.MIN_SIDE.get(metric, 1) for metric in wanted}
    side = min(a.shape[-2:])
    return {metric: f"{name}: {own}; {metric} needs {n} a side" for metric, n in least.items() if side < n}
