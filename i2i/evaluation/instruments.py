"""Everything that measures, loaded once: backbones, seeds, the palette; and what the protocol says of it."""

from collections.abc import Sequence
from typing import Any

import torch

from i2i.device import choose_device
from i2i.errors import InputError, ModelError, UsageError
from i2i.evaluation import features, inception, lpips, measures, palettes, subjects
from i2i.evaluation.features import Features
from i2i.evaluation.measures import Measure, SetOptions
from i2i.evaluation.options import CONTENT, NEED_INCEPTION, PAIRED, SETS, EvaluationOptions
from i2i.evaluation.pictures import Made, PictureFiles
from i2i.evaluation.resizer import RESIZER
from i2i.evaluation.sliced_wasserstein import PATCH, PATCHES_PER_IMAGE, PROJECTIONS, SMALLEST
from i2i.images import to_pixels
from i2i.translation.translator import Translator

SET_SIZE = 256
AS_THEY_ARE = "pictures as they are"
SWD_PROTOCOL = (
    f"10³ · mean over levels down to {SMALLEST} px and over seeds; {PATCH}x{PATCH} patches normalised in each "
    f"channel, {PATCHES_PER_IMAGE} a picture of the smaller set, as many of the larger; {PROJECTIONS} directions"
)
Pictures = PictureFiles | Made


class Instruments:
    """Raises `UsageError` for files that are missing, `ModelError` for such that hold something else."""

    def __init__(self, options: EvaluationOptions) -> None:
        self.options = options
        self.device = choose_device(options.device)
        self.palette = palettes.find(options.palette) if options.palette else None
        if self.palette is not None and options.size is not None:
            raise UsageError("size: labels are compared as they are; leave out --size or --palette")
        self.set_options = SetOptions(options.seeds, options.kid_subsets, options.kid_subset_size, options.is_splits)
        self.protocol: dict[str, Any] = {
            "resizer": RESIZER,
            "outputs": "rounded to 8 bits, as they are written",
            "precision": f"translation {options.precision}, measured in float32, distances of features in float64",
            "seeds": list(options.seeds),
            "device": str(self.device),
            "torch": torch.__version__,
        }
        self.lpips = self._lpips()
        self.inception = self._inception()
        self.label_model = self._label_model()
        self._features: dict[int, tuple[Pictures, Features]] = {}

    def wanted(self, group: Sequence[str]) -> list[str]:
        """The metrics of a group that were asked for; by default all."""
        return [name for name in group if not self.options.metrics or name in self.options.metrics]

    def pairs(self, made: Pictures, expected: Pictures) -> dict[str, Measure]:
        """The paired metrics."""
        size, left_out = self.options.size, self._left_out()
        self.protocol["pairs"] = AS_THEY_ARE if size is None else at(size)
        found = measures.of_pairs(made, expected, self.wanted(PAIRED), self.lpips, left_out)
        self._note(left_out)
        return found

    def content(self, outputs: Pictures, inputs: Pictures, returned: Pictures | None) -> dict[str, Measure]:
        """What outputs keep of their inputs."""
        left_out = self._left_out()
        found = measures.of_content(outputs, inputs, self.wanted(CONTENT), returned, left_out)
        self._note(left_out)
        return found

    def sets(self, made: Pictures, reference: Pictures) -> dict[str, Measure]:
        """The metrics between sets."""
        wanted, size = self.wanted(SETS), self.options.size or SET_SIZE
        if not wanted:
            return {}
        self.protocol["sets"] = at(size)
        if "swd" in wanted:
            self.protocol["sliced Wasserstein"] = SWD_PROTOCOL
        pictures = made.at_size(size), reference.at_size(size)
        of_both = None
        if self.inception is not None and set(wanted) & set(NEED_INCEPTION):
            of_both = (self._features_of(pictures[0], made), self._features_of(pictures[1], reference))
        left_out = self._left_out()
        found = measures.of_sets(*pictures, wanted, self.set_options, of_both, left_out)
        self._note(left_out)
        return found

    def _left_out(self) -> list[str] | None:
        """Where metrics that are undefined here are noted; None if they were asked for by name, and so must be."""
        return None if self.options.metrics else []

    def _note(self, left_out: list[str] | None) -> None:
        if left_out:
            self.protocol["left out"] = list(dict.fromkeys([*self.protocol.get("left out", []), *left_out]))

    def _features_of(self, pictures: Pictures, key: Pictures) -> Features:
        if id(key) not in self._features:
            assert self.inception is not None
            try:
                found = features.extract(pictures, self.inception, inception.INPUT, self.device)
            except ModelError as error:
                raise ModelError(f"{self.protocol['inception']['file']}: {error}") from None
            self._features[id(key)] = (key, found)  # with the key itself, so that its id stays its own
        return self._features[id(key)][1]

    def _lpips(self) -> lpips.Lpips | None:
        if self.options.lpips is None or not self.wanted(["lpips"]):
            return None
        distance, kind, sha256 = lpips.load(self.options.lpips, self.device)
        self.protocol["lpips"] = {"backbone": kind, "file": str(self.options.lpips), "sha256": sha256}
        return distance

    def _inception(self) -> inception.Inception | None:
        options, asked = self.options, set(NEED_INCEPTION) & set(self.options.metrics)
        if options.metrics and not asked:
            return None
        path = inception.obtain(options.inception, fetch=options.download)
        if path is None and asked:
            raise UsageError(
                f"metrics: {', '.join(sorted(asked))} need the Inception weights: --inception FILE, or --download "
                f"fetches them ({inception.SIZE / 1e6:.0f} MB) from {inception.URL}"
            )
        if path is None:
            return None
        network, sha256 = inception.load(path)
        self.protocol["inception"] = {
            "file": str(path),
            "sha256": sha256,
            "published": sha256 == inception.SHA256,
            "input": f"{inception.INPUT}x{inception.INPUT} by the resizer",
        }
        return network

    def _label_model(self) -> Translator | None:
        if not self.options.label_model:
            return None
        subject = subjects.of_style(self.options.label_model, None, self.options.download)
        translator, facts = subjects.load(subject.path, self.options, self.device)
        self.protocol["label_model"] = facts
        return translator


def at(size: int) -> str:
    return f"pictures at {size}x{size}: shorter side scaled, middle cut out"


def translated(translator: Translator, pictures: Pictures) -> Made:
    """Pictures through a network, in 8 bits. Raises `InputError` for another number of channels than it takes."""
    channels = translator.config.in_channels
    made = []
    for i in range(len(pictures)):
        picture = pictures[i]
        if len(picture) != channels:
            raise InputError(f"pictures of {len(picture)} channels; {translator.info.network} takes {channels}")
        made.append(to_pixels(translator(picture)))
    return Made(made)
