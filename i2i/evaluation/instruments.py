"""Everything that measures, loaded once: backbones, seeds, the palette; and what the protocol says of it."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from i2i.device import choose_device
from i2i.errors import ImageError, InputError, ModelError, UsageError
from i2i.evaluation import applicable, features, inception, lpips, measures, sets, subjects
from i2i.evaluation.bootstrap import RESAMPLES
from i2i.evaluation.features import Features
from i2i.evaluation.measures import Measure, SetOptions
from i2i.evaluation.options import CONTENT, NEED_INCEPTION, PAIRED, SETS, EvaluationOptions
from i2i.evaluation.pictures import BACKGROUND, Made, PictureFiles
from i2i.evaluation.resizer import RESIZER
from i2i.evaluation.sliced_wasserstein import MOST_PATCHES, PATCH, PATCHES_PER_IMAGE, PROJECTIONS, SMALLEST
from i2i.images import palettes, to_pixels, with_depth
from i2i.inference.failures import not_finite
from i2i.inference.translator import Translator
from i2i.networks import pretrained

SET_SIZE = 256
MEASURED = "measured in float32, distances of features in float64"
AS_THEY_ARE = "pictures as they are"
SWD_PROTOCOL = (
    f"10³ · mean over levels down to {SMALLEST} px and over seeds; {PATCH}x{PATCH} patches normalised in each "
    f"channel, {PATCHES_PER_IMAGE} a picture of the smallest set compared (of outputs, inputs, held-out pictures and "
    f"reference), at most {MOST_PATCHES:,}, as many of the others; {PROJECTIONS} directions"
)
Pictures = PictureFiles | Made


@dataclasses.dataclass(frozen=True)
class SeesPictures:
    """A network for `features.extract`, its name with the hash of its weights, the side of its input, and its file."""

    network: nn.Module
    name: str
    size: int
    file: str


class Instruments:
    """Raises `UsageError` for files that are missing, `ModelError` for such that hold something else.

    With `translating`, outputs of models are measured; else pictures as they are in files.
    """

    def __init__(self, options: EvaluationOptions, *, translating: bool = True) -> None:
        self.options = options
        self.device = choose_device(options.device)
        self.classes = palettes.find(options.palette) if options.palette else None
        if self.classes is not None and options.size is not None:
            raise UsageError("size: labels are compared as they are; leave out --size or --palette")
        self.set_options = SetOptions(options.seeds, options.is_splits)
        self.protocol: dict[str, Any] = {
            "resizer": RESIZER,
            "transparency": f"pictures of files are measured as seen over {BACKGROUND}",
            **({"outputs": "rounded to 8 bits, as they are written"} if translating else {}),
            "precision": f"{f'translation {options.precision}, ' if translating else ''}{MEASURED}",
            "seeds": list(options.seeds),
            "intervals": f"95 %, {RESAMPLES} bootstrap draws of the pictures with seed {options.seeds[0]}",
            "device": str(self.device),
            "torch": torch.__version__,
        }
        self.lpips = self._lpips()
        self.networks = self._networks()
        self.label_model = self._label_model()
        if self.label_model is not None:
            self.know(self.label_model.info.output_palette())
        self._features: dict[tuple[str, int], tuple[Pictures, Features]] = {}

    @property
    def seed(self) -> int:
        """That of bootstrap draws."""
        return self.options.seeds[0]

    def know(self, palette: palettes.Palette | None) -> None:
        """Take the classes that a model makes for those of the labels, unless there are some already."""
        if self.classes is None and palette is not None:
            self.classes = dataclasses.replace(palette, name=palette.name or "of the model")

    @property
    def palette(self) -> palettes.Palette | None:
        """The classes by which labels are scored; None where there are none, and where pictures come to another size:
        a mixture of two classes is a third."""
        return self.classes if self.options.size is None else None

    @property
    def no_palette(self) -> str:
        """Why `palette` is None, after the name of a metric or an option."""
        return applicable.no_palette(self.options, known=self.classes is not None)

    def wanted(self, group: Sequence[str], unfit: Collection[str] = ()) -> list[str]:
        """The metrics of a group that were asked for, by default all, but for those that do not apply."""
        chosen = self.options.metrics or group
        return [name for name in group if name in chosen and name not in unfit]

    def pairs(self, made: Pictures, expected: Pictures, unfit: Collection[str] = ()) -> dict[str, Measure]:
        """The paired metrics."""
        size, left_out = self.options.size, self._left_out()
        if not (wanted := self.wanted(PAIRED, unfit)):
            return {}
        self.protocol["pairs"] = AS_THEY_ARE if size is None else at(size)
        found = measures.of_pairs(made, expected, wanted, self.lpips, left_out, self.seed)
        self.note(left_out)
        return found

    def content(
        self, outputs: Pictures, inputs: Pictures, returned: Pictures | None, unfit: Collection[str] = ()
    ) -> dict[str, Measure]:
        """What outputs keep of their inputs."""
        left_out = self._left_out()
        found = measures.of_content(outputs, inputs, self.wanted(CONTENT, unfit), returned, left_out, self.seed)
        self.note(left_out)
        return found

    def sets(
        self, made: Pictures, reference: Pictures | None, unfit: Collection[str] = (), patches: int | None = None
    ) -> dict[str, Measure]:
        """The metrics of sets, those between two where there is a reference; `patches` is that of `swd`."""
        wanted, size, left_out = self.wanted(SETS, unfit), self.options.size or SET_SIZE, self._left_out()
        if not wanted:
            return {}
        self.protocol["sets"] = at(size)
        found = measures.of_one_set(made.at_size(size), wanted, left_out, self.seed)
        if reference is not None:
            found |= self._between(made, reference, wanted, left_out, patches)
        self.note(left_out)
        return found

    def _between(
        self, made: Pictures, reference: Pictures, wanted: list[str], left_out: list[str] | None, patches: int | None
    ) -> dict[str, Measure]:
        size = self.options.size or SET_SIZE
        self.protocol |= self._protocol_of_sets(wanted)
        pictures = made.at_size(size), reference.at_size(size)
        seen = {
            name: (self._features_of(pictures[0], made, network), self._features_of(pictures[1], reference, network))
            for name in wanted
            if (network := self.networks.get(name)) is not None
        }
        return measures.of_sets(*pictures, wanted, self.set_options, seen, left_out, patches)

    def _protocol_of_sets(self, wanted: Collection[str]) -> dict[str, str]:
        found = {"sliced Wasserstein": SWD_PROTOCOL} if "swd" in wanted else {}
        measured = self.networks.keys() & set(wanted)
        if "kid" in measured:
            found["KID"] = "of all pictures at once, unbiased"
        if "is" in measured:
            found["Inception Score"] = f"{self.set_options.is_splits} parts of the shuffled set"
        if {"precision", "recall"} & measured:
            found["precision and recall"] = f"k = {sets.NEIGHBOURS} neighbours"
        return found

    def _left_out(self) -> list[str] | None:
        """Where metrics that are undefined here are noted; None if they were asked for by name, and so must be."""
        return None if self.options.metrics else []

    def note(self, left_out: Sequence[str] | None) -> None:
        """Say in the protocol why metrics are left out."""
        if left_out:
            self.protocol["left out"] = list(dict.fromkeys([*self.protocol.get("left out", []), *left_out]))

    def _features_of(self, pictures: Pictures, key: Pictures, network: SeesPictures) -> Features:
        place = network.name, id(key)
        if place not in self._features:
            try:
                found = features.extract(pictures, network.network, network.size, self.device, name=network.name)
            except ModelError as error:
                raise ModelError(f"{network.file}: {error}") from None
            self._features[place] = (key, found)  # with the key itself, so that its id stays its own
        return self._features[place][1]

    def _networks(self) -> dict[str, SeesPictures]:
        """The network in whose features each metric is measured, as far as there is one."""
        found = dict.fromkeys(NEED_INCEPTION, self._inception())
        if self.options.features and self.wanted(["kid"]):
            found["kid"] = self._pretrained()
        return {name: network for name, network in found.items() if network is not None}

    def _pretrained(self) -> SeesPictures:
        """The network of `--features`. Raises `UsageError`, `ModelError` as `pretrained.feature_network` does."""
        name = self.options.features
        network, sha256 = features.Pooled(pretrained.feature_network(name, head=True)), pretrained.digest(name)
        self.protocol["features"] = {"network": name, "sha256": sha256, "input": _input(features.INPUT), "of": "kid"}
        return SeesPictures(network, f"{name}, sha256 {sha256}", features.INPUT, name)

    def _lpips(self) -> lpips.Lpips | None:
        if self.options.lpips is None or not self.wanted(["lpips"]):
            return None
        distance, kind, sha256 = lpips.load(self.options.lpips, self.device)
        self.protocol["lpips"] = {"backbone": kind, "file": str(self.options.lpips), "sha256": sha256}
        return distance

    def _inception(self) -> SeesPictures | None:
        options = self.options
        by_inception = [name for name in NEED_INCEPTION if not (name == "kid" and options.features)]
        asked = set(by_inception) & set(options.metrics)
        if options.metrics and not asked:
            return None
        path = inception.obtain(options.inception, fetch=options.download)
        if path is None and asked:
            other = ", and KID can be measured by --features" if "kid" in asked else ""
            raise UsageError(
                f"metrics: {', '.join(sorted(asked))} need the Inception weights: --inception FILE, or --download "
                f"fetches them ({inception.SIZE / 1e6:.0f} MB) from {inception.URL}{other}"
            )
        if path is None:
            return None
        network, sha256 = inception.load(path)
        self.protocol["inception"] = {
            "file": str(path),
            "sha256": sha256,
            "published": sha256 == inception.SHA256,
            "input": _input(inception.INPUT),
        }
        return SeesPictures(network, f"Inception, sha256 {sha256}", inception.INPUT, str(path))

    def _label_model(self) -> Translator | None:
        if not self.options.label_model:
            return None
        subject = subjects.of_style(self.options.label_model, None, self.options.download)
        translator, facts = subjects.load(subject.path, self.options, self.device, None)
        self.protocol["label_model"] = facts
        return translator


def _input(size: int) -> str:
    return f"{size}x{size} by the resizer"


def at(size: int) -> str:
    return f"pictures at {size}x{size}: shorter side scaled, middle cut out"


def translated(translator: Translator, pictures: Pictures) -> Made:
    """Pictures through a network, in 8 bits.

    Raises `InputError` for another number of channels than it takes and for inputs that are not finite, and
    `ModelError` if what it makes is not: in 8 bits that would be black, and measured as such.
    """
    if translator.coding.inputs and isinstance(pictures, PictureFiles):
        return _of_labels(translator, pictures)
    channels = translator.picture_channels
    made = []
    for i in range(len(pictures)):
        picture = pictures[i]
        if len(picture) != channels:
            raise InputError(f"pictures of {len(picture)} channels; {translator.info.network} takes {channels}")
        name = pictures.name(i) if isinstance(pictures, PictureFiles) else f"picture {i + 1}"
        if not bool(torch.isfinite(picture).all()):
            raise InputError(f"{name}: holds values that are not finite")
        output = translator.translate_tensor(picture)
        if not bool(torch.isfinite(output).all()):
            raise ModelError(f"{name}: {not_finite(translator.info.network, translator.precision)}")
        made.append(to_pixels(output))
    return Made(made)


def _of_labels(translator: Translator, files: PictureFiles) -> Made:
    """What is made of pictures of labels, as they are in their files. Raises `InputError` for what is no labels."""
    if files.size is not None:
        raise InputError("pictures of labels are measured at their own size: without --size, and with their partners")
    made = []
    for i in range(len(files)):
        try:
            made.append(translator.translate(files.picture(i)).pixels)
        except ImageError as error:
            raise InputError(f"{files.name(i)}: {error}") from None
    return Made([with_depth(pixels, np.uint8) for pixels in made])
