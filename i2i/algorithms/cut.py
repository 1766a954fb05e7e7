"""CUT: Park, Efros, Zhang, Zhu, "Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020
(arXiv:2007.15651); with its faster variant FastCUT and SinCUT, for one picture of each domain.

| here | paper |
|---|---|
| `real_A`, `real_B`, `fake_B`, `same_B` | x ∈ X, y ∈ Y, G(x) = ŷ, G(y) |
| `G`; `G.encode(…)` | G; its first half G_enc at L layers |
| `F` | H_l, the two-layer perceptrons |
| `D` | D |
| `num_patches`, `temperature` | S = 256, τ = 0.07 |
| `lambda_NCE_A`, `lambda_NCE_B` | λ_X, λ_Y, Eq. 5 |

FastCUT is `lambda_NCE_A` = 10, `lambda_NCE_B` = 0 and `flip_equivariance`; SinCUT is `lambda_identity` = 1,
`lambda_NCE_A` = `lambda_NCE_B` = 2, which is 4 halved (see below), `gan_mode` = nonsaturating with its R1 penalty, on
crops of two pictures at random scales (Sec. 4.4; `random_zoom`).

Deviations from the paper. Shared with the published code: λ_X and λ_Y stand for 1 in the text, and are halved if both
are on; the contrastive loss is the mean over layers, not their sum; no gradient flows to the keys. Ours: places
and flips are drawn for each picture, not for a batch; the features of the source are those of the pass that
translates it, which are the same numbers (under dropout, of the same mask). SinCUT has the networks above, not
StyleGAN2's, and each of its crops a scale of its own, the same for height and width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator
from torch import Generator, Tensor, nn
from torch.nn import functional

from i2i.algorithms.algorithm import DISCRIMINATOR, GENERATOR, Algorithm, Losses, Player, Translators, Turn
from i2i.algorithms.options import UnpairedOptions, check_one_size, check_one_unit
from i2i.data.options import classes
from i2i.data.pair import ImagePair
from i2i.device import precise
from i2i.errors import UsageError
from i2i.losses.content import Negatives, patch_nce
from i2i.networks import DiscriminatorName, GeneratorName
from i2i.networks.blocks import Init, init_weights
from i2i.networks.resnet import ResnetConfig, ResnetGenerator


def parse_layers(text: str) -> tuple[int, ...]:
    """`0,4,8` → (0, 4, 8). Raises `ValueError` unless they are numbers that ascend."""
    numbers = text.split(",") if text.strip() else []
    if not all(number.strip().isdecimal() for number in numbers):
        raise ValueError(f"must be numbers of layers with commas between them, such as 0,4,8, not {text!r}")
    found = tuple(map(int, numbers))
    if any(b <= a for a, b in pairwise(found)):
        raise ValueError(f"numbers of layers must ascend, as in 0,4,8, not {text!r}")
    return found


def checked_layers(text: str) -> str:
    """`text`, if it can be parsed. Raises `ValueError`."""
    parse_layers(text)
    return text


@dataclass(frozen=True, kw_only=True)
class CUTOptions(UnpairedOptions):
    """The paper's defaults for CUT; the weights λ as the published code has them."""

    algorithm = "cut"

    generator: GeneratorName = "resnet_9blocks_antialiased"
    """`resnet_<n>blocks`, the same with `_antialiased`, `_smooth` or `_resize`, or `mobile_resnet_<n>blocks`, the
    same with `_subpixel`."""
    discriminator: DiscriminatorName = "patchgan_70_antialiased"
    """`patchgan_<patch width>` (16, 34, 70, 142, 286), the same with `_antialiased`, `_spectral` (weights normalised in
    place of activations, Miyato et al. 2018) and `_multiscale` (Wang et al. 2018), in this order, `pixelgan`, or
    `projected` (Sauer et al. 2021; with `_patchgan_<patch width>` a PatchGAN judges beside it)."""
    init_type: Init = "xavier"
    """How weights are drawn."""
    lambda_GAN: Annotated[float, Ge(0)] = 1.0
    """Weight of the generator's adversarial loss."""
    lambda_NCE_A: Annotated[float, Ge(0)] = 0.5
    """Weight of the contrastive loss between A and its translation."""
    lambda_NCE_B: Annotated[float, Ge(0)] = 0.5
    """Weight of the contrastive loss between B and what the generator makes of B; 0 turns it off."""
    lambda_identity: Annotated[float, Ge(0)] = 0.0
    """Weight of the L1 distance between B and what the generator makes of B; 0 turns it off."""
    nce_layers: Annotated[str, AfterValidator(checked_layers)] = ""
    """Layers of the generator that are compared, such as 0,4,8,12,16 in CUT's count; empty for those of the paper:
    pixels, both halving convolutions, first and fifth block."""
    num_patches: Annotated[int, Interval(ge=1, le=65_536)] = 256
    """Places in each picture and layer that are compared."""
    negatives: Negatives = "picture"
    """Negatives of a patch: the other places of its picture, or of all pictures of its (micro-)batch."""
    temperature: Annotated[float, Gt(0)] = 0.07
    """Divides similarities before the softmax."""
    embedding_width: Annotated[int, Interval(ge=1, le=4096)] = 256
    """Channels of the patch embedding."""
    flip_equivariance: bool = False
    """Translate half of the pictures mirrored, and compare with features of the picture as it was."""


@dataclass(frozen=True)
class ProjectionConfig:
    """The channels of the compared layers, and of the vectors."""

    kind: ClassVar[str] = "projection"

    in_channels: tuple[int, ...]
    width: int


class PatchProjection(nn.Module):
    """The H_l of the paper, with two layers each and the names of the published code: `mlp_0`, `mlp_1`, …

    `forward(layer, patches)`: (N, S, in_channels[layer]) → (N, S, width), vectors of length 1. It computes in float32
    under autocast too: with the published first weights the numbers before the division are too small for float16.
    """

    def __init__(self, config: ProjectionConfig) -> None:
        super().__init__()
        self.config = config
        for i, channels in enumerate(config.in_channels):
            layers = nn.Linear(channels, config.width), nn.ReLU(), nn.Linear(config.width, config.width)
            self.add_module(f"mlp_{i}", nn.Sequential(*layers))

    def forward(self, layer: int, patches: Tensor) -> Tensor:
        with torch.autocast(patches.device.type, enabled=False):
            z = self.get_submodule(f"mlp_{layer}")(precise(patches))
            return z / (z.norm(dim=-1, keepdim=True) + 1e-7)  # as in the published code


class CUT(Algorithm[CUTOptions]):
    """A → B, from two sets of images without pairs: a patch of a translation resembles its own source most."""

    name = CUTOptions.algorithm
    validation_note = "pictures of the domain translated to, which should stay as they are"
    paired = False
    compiles = False  # its generator is played layer by layer, to compare their features

    def __init__(self, options: CUTOptions, in_channels: int = 3, out_channels: int = 3) -> None:
        _check(options, in_channels, out_channels)
        self.options = options
        self.gan, self.augmentation = options.gan_loss(), options.augmentation()
        self.content = options.create_content(in_channels, out_channels)
        G = options.create_generator(in_channels, out_channels)
        if not isinstance(G, ResnetGenerator):
            raise UsageError(
                f"generator = {options.generator!r}: CUT compares layers of a residual generator; use resnet_<n>blocks "
                "or resnet_<n>blocks_antialiased"
            )
        widths = G.channels()
        self.layers = parse_layers(options.nce_layers) or paper_layers(G.config)
        if missing := [number for number in self.layers if number >= len(widths)]:
            raise UsageError(
                f"nce_layers = {options.nce_layers!r}: {options.generator} has the layers 0 to {len(widths) - 1}, "
                f"not {missing[0]}"
            )
        embedding = ProjectionConfig(tuple(widths[number] for number in self.layers), options.embedding_width)
        self.G = G
        self.F = init_weights(PatchProjection(embedding), options.init_type, options.init_gain)
        self.D = options.create_discriminator(out_channels)

    @classmethod
    def channels(cls, options: CUTOptions) -> tuple[int, int]:
        check_one_size(options)
        check_one_unit(options, options.lambda_identity)
        if len({palette is None for palette in classes(options)}) > 1:
            raise UsageError("classes: CUT encodes pictures of A and of B alike, and one of them holds labels")
        return super().channels(options)

    def players(self) -> dict[Player, list[nn.Module]]:
        return {DISCRIMINATOR: [self.D], GENERATOR: [self.G, self.F]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        options, real_A, real_B = self.options, batch.a, batch.b
        generators = own_generators(len(batch))  # first of all, so that nothing else drawn moves them
        flipped = draw_flips(generators) if options.flip_equivariance else torch.zeros(len(batch), dtype=torch.bool)
        source_A = mirrored(real_A, flipped)
        fake_B, features_A = self.G.translate(source_A, self.layers)

        real, fake = self.augment(real_B, step), self.augment(fake_B.detach(), step)
        yield DISCRIMINATOR, self.discriminator_losses("D", self.D, real, fake)  # Eq. 1

        adversarial = {}
        if options.lambda_GAN:
            adversarial["G_gan"] = options.lambda_GAN * self.generator_loss(self.D, self.augment(fake_B, step), real)
        penalties = self.regularisers("G_{}", self.G, source_A, fake_B)
        penalties |= self.likeness("", fake_B, source_A)
        content = {}
        if options.lambda_NCE_A:
            content["NCE_A"] = options.lambda_NCE_A * self._contrast(fake_B, real_A, features_A, flipped, generators)
        translates_B = bool(options.lambda_NCE_B or options.lambda_identity)
        if adversarial or penalties or content:
            yield GENERATOR, Losses(adversarial=adversarial, content=content, penalties=penalties, more=translates_B)
        if not translates_B:
            return

        content = {}
        source_B = mirrored(real_B, flipped)
        same_B, features_B = self.G.translate(source_B, self.layers)
        if options.lambda_NCE_B:
            content["NCE_B"] = options.lambda_NCE_B * self._contrast(same_B, real_B, features_B, flipped, generators)
        if options.lambda_identity:
            content["identity_B"] = options.lambda_identity * functional.l1_loss(same_B, source_B)
        yield GENERATOR, Losses(content=content)

    def _contrast(
        self, made: Tensor, source: Tensor, features: Sequence[Tensor], flipped: Tensor, generators: Sequence[Generator]
    ) -> Tensor:
        """The contrastive loss of Eq. 3 between `made` and `source`, whose own `features` were seen mirrored."""
        options = self.options
        queries = [mirrored(query, flipped) for query in self.G.encode(made, self.layers)]
        if bool(flipped.any()):
            with torch.no_grad():
                features = self.G.encode(source, self.layers)
        losses = []
        for layer, (query, key) in enumerate(zip(queries, features, strict=True)):
            places = draw_places(generators, options.num_patches, key[0, 0].numel()).to(key.device, non_blocking=True)
            z = self.F(layer, patches_at(query, places))
            with torch.no_grad():
                z_source = self.F(layer, patches_at(key, places))
            losses.append(patch_nce(z, z_source, options.temperature, options.negatives))
        return torch.stack(losses).mean()

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"identity_B": (translators["a2b"](batch.b), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        G = translators["a2b"]
        return {"real_A": batch.a, "fake_B": G(batch.a), "real_B": batch.b, "identity_B": G(batch.b)}


def _check(options: CUTOptions, in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise UsageError(
            f"channels: CUT encodes pictures of A ({in_channels} channels) and of B ({out_channels}) alike, so both "
            "must have as many"
        )
    weights = ("lambda_GAN", "lambda_NCE_A", "lambda_NCE_B", "lambda_identity", "lambda_structure", "lambda_content")
    if not any(getattr(options, name) for name in weights):
        raise UsageError(f"{', '.join(weights)}: all 0, so nothing would be learnt")
    compares = bool(options.lambda_NCE_A or options.lambda_NCE_B)
    for name in ("nce_layers", "num_patches", "negatives", "temperature", "embedding_width", "flip_equivariance"):
        options.needs(name, compares, "lambda_NCE_A or lambda_NCE_B")


def paper_layers(config: ResnetConfig) -> tuple[int, ...]:
    """The layers of App. C.1: pixels, both halving convolutions (or the one that quarters the size), the first and the
    fifth (or last) block."""
    first = config.first_block
    blocks = {first, first + min(config.blocks, 5) - 1} if config.blocks else set()
    return (0, *((1,) if config.subpixel else (4, 4 + config.halving_layers)), *sorted(blocks))


def patches_at(features: Tensor, places: Tensor) -> Tensor:
    """The features (N, C, H, W) at `places`, (N, S) counted along the rows, as (N, S, C)."""
    index = places[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).mT


def own_generators(count: int) -> list[Generator]:
    """A generator of random numbers for each picture, so that a part of a batch plays as it does within the whole."""
    return [Generator().manual_seed(int(torch.randint(2**63 - 1, ()))) for _ in range(count)]


def draw_flips(generators: Sequence[Generator]) -> Tensor:
    """(N,), true for one half of the pictures."""
    return torch.tensor([bool(torch.rand((), generator=generator) < 0.5) for generator in generators])


def draw_places(generators: Sequence[Generator], count: int, size: int) -> Tensor:
    """(N, S): for each picture `count` different places of `size`, or all of them in some order."""
    return torch.stack([torch.randperm(size, generator=generator)[:count] for generator in generators])


def mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    """(N, C, H, W) with those pictures left to right that (N,) `flipped` says."""
    if not bool(flipped.any()):
        return images
    chosen = flipped.to(images.device, non_blocking=True)[:, None, None, None]
    return torch.where(chosen, images.flip(3), images)
