"""The interface between an algorithm and the trainer.

An algorithm answers three questions: who plays (`players`), what each player minimises and in which order
(`losses`), what is kept (`translators`). Precision, accumulation, clipping, all-reduce, EMA and logging are
the trainer's.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from i2i.algorithms.augmentation import Augmentation
from i2i.algorithms.options import NetworkOptions, UnpairedOptions
from i2i.config import to_mapping
from i2i.data.options import channels, classes
from i2i.data.pair import ImagePair
from i2i.losses.adversarial import GANLoss, Logits
from i2i.losses.content import Content, grid_loss, spot_loss, stability_loss, structure_loss
from i2i.networks import NetworkConfig, OwnConfig, config_of
from i2i.networks.blocks import Statistics, conv_bias
from i2i.networks.patchgan import MultiScalePatchGAN
from i2i.networks.projected import Projected, digest

Player = str
GENERATOR: Player = "generator"
DISCRIMINATOR: Player = "discriminator"
Named = Mapping[str, Tensor]
_NONE: Named = MappingProxyType({})


class Losses(dict[str, Tensor]):
    """Named scalars, of three kinds. A player minimises their sum.

    `adversarial` losses depend on the other player: they rise and fall as it learns. `content` losses measure how far
    pictures are from what they should be: they fall while a generator learns. `penalties` regularise, or keep a
    translation like its source: they may be least at the start. Each name stands in one kind.

    The player is updated after these losses. With `more` it is not: the same player yields further losses first. Each
    yield is back-propagated at once, so that the graphs of a player's losses are never in memory together.
    """

    def __init__(
        self, *, adversarial: Named = _NONE, content: Named = _NONE, penalties: Named = _NONE, more: bool = False
    ) -> None:
        super().__init__({**adversarial, **content, **penalties})
        self.adversarial, self.content, self.more = tuple(adversarial), tuple(content), more


Turn = tuple[Player, Losses]
Translators = Mapping[str, nn.Module]
Options = TypeVar("Options", bound=NetworkOptions)
"""The options of an algorithm."""


class ImagePool:
    """Up to `size` past fakes (Shrivastava et al. 2017, Sec. 2.3; 50 in CycleGAN). Once it is full, each fake is, with
    probability ½, exchanged for an older one.

    Draws from torch's global generator on the CPU, so a step seeded alike plays alike. Size 0: no history.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []
        self._one_size = False

    def __call__(self, fakes: Tensor) -> Tensor:
        """(N, C, H, W) → as many images, detached, each new or from the history."""
        fakes = fakes.detach()
        if self.size == 0:
            return fakes
        if self._one_size:
            self.images = [image for image in self.images if image.shape == fakes.shape[1:]]
        return torch.stack([self._exchange(fake) for fake in fakes])

    def _exchange(self, fake: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(self._keepable(fake))
            return fake
        if torch.rand(()) < 0.5:
            return fake
        place = int(torch.randint(self.size, ()))
        old, self.images[place] = self.images[place], self._keepable(fake)
        return old.to(fake.dtype)  # the run went on in another precision

    @staticmethod
    def _keepable(fake: Tensor) -> Tensor:
        """A step that diverged is skipped; its fakes must not come back in a later one."""
        return torch.nan_to_num(fake, nan=0.0, posinf=1.0, neginf=-1.0).clone()

    def state(self) -> list[Tensor]:
        """The images, oldest place first, on the CPU."""
        return [image.cpu() for image in self.images]

    def load_state(self, images: list[Tensor], device: torch.device, one_size: bool = False) -> None:
        """Continue with these images (the first `size` of them).

        With `one_size` all fakes are of one size. Images of another one, which a run with another crop made, are then
        dropped: no batch holds both.
        """
        self.images, self._one_size = [image.to(device) for image in images[: self.size]], one_size


class Algorithm(ABC, Generic[Options]):
    """Networks and the order of play. Networks and image pools are attributes; everything else is configuration.

    Rules: no `yield` inside `frozen(...)` or any other context; pools return detached images; a weight that
    changes with time is a function of `step`, never a mutated attribute.
    """

    name: ClassVar[str]
    paired: ClassVar[bool]
    compiles: ClassVar[bool] = True
    """Whether its networks are called as a whole, so that compiling them is of use."""
    single_domain: ClassVar[bool] = False
    """Whether its batches are what `make_pair` makes of the pictures of one domain."""
    from_noise: ClassVar[bool] = False
    """Whether it makes pictures from noise, which resemble others only as a set."""
    supports_pairs: ClassVar[bool] = False
    """Whether it learns from pairs among pictures without partners (`ImagePair.is_pair`)."""
    encoding: ClassVar[Literal["pixels", "lab"]] = "pixels"
    """The values that its translators take and give: see `ModelInfo`."""

    validation_note: ClassVar[str] = "pictures restored from their translations"
    """The meaning of `validation_pairs` of pictures without partners, in words."""
    measured: ClassVar[str] = "reconstruction"
    """The same in a word, before the names of their metrics in a model file."""

    test_statistics: Statistics = "batch"
    """The statistics of batch norm, and whether there is dropout, where a translator translates."""
    test_dropout: bool = False

    options: Options
    gan: GANLoss
    augmentation: Augmentation | None = None
    """The augmentation of what discriminators see, if that is on."""
    content: Content | None = None
    """The content loss of translations, if that is on."""
    teacher: str = ""
    """The SHA-256 of the weights of the generator that it learns from, if there is one."""
    domains: tuple[str, str] = ("", "")
    """The names of the domains that it translates from and to, if it knows them."""
    paint_size: int = 0
    """The size at which its translators translate larger pictures (see `ModelInfo`); 0 is the pictures' own."""

    @abstractmethod
    def __init__(self, options: Options, in_channels: int = 3, out_channels: int = 3) -> None:
        """Make the networks and the pools: `in_channels` are those of `batch.a`, `out_channels` of `batch.b`."""

    @classmethod
    def channels(cls, options: Options) -> tuple[int, int]:
        """The channels of `batch.a` and `batch.b`, as the options ask for them. Raises `UsageError`, `InputError`."""
        if any(classes(options)):
            options.refuse_labels()
        return channels(options)

    @classmethod
    def uses_single_domain(cls, options: Options) -> bool:
        """Whether the options ask for batches that `make_pair` makes of the pictures of one domain."""
        return cls.single_domain

    @classmethod
    def shows_targets(cls, options: Options) -> bool:
        """Whether `pictures` has real pictures of a domain that it translates to: sets are compared with those."""
        return True

    @classmethod
    def make_pair(cls, options: Options, picture: Tensor, seed: int) -> ImagePair:
        """For `single_domain`: the sample that a picture (C, H, W) in [-1, 1] gives; `seed` is for what it draws."""
        raise NotImplementedError

    @abstractmethod
    def players(self) -> dict[Player, list[nn.Module]]:
        """Player → the networks that its turn updates. The usual players are `GENERATOR` and `DISCRIMINATOR`."""

    @abstractmethod
    def translators(self) -> dict[str, nn.Module]:
        """Direction (`a2b`, `b2a`) → the generator that is kept."""

    @abstractmethod
    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        """Yield (player, losses) turn by turn; the trainer updates that player, then asks for the next turn.

        The losses of one discriminator are one yield of their own, so that each is watched by itself.
        """

    def augment(self, images: Tensor, step: int, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) in [-1, 1] → the same shape, as discriminators are to see them at that step.

        With a `condition` (N, K, H, W), (N, K + C, H, W): the condition before the images, moved as they are.
        """
        if self.augmentation:
            return self.augmentation(images, step, condition)
        return images if condition is None else torch.cat([condition, images], dim=1)

    def generator_loss(self, D: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        """The adversarial loss of `fake`, as `D` sees it. A relativistic loss compares it with `real`.

        Gradients flow through `D`, and none is computed for its weights.
        """
        with frozen(D):
            return self.gan.generator(D(fake), self.gan.real_logits(D, real))

    def discriminator_losses(
        self, name: str, D: nn.Module, real: Tensor, fake: Tensor, *, terms: bool = True, more: bool = False
    ) -> Losses:
        """The losses of `D`, called `name`, on its inputs; with `terms` real and fake images have a loss each."""
        fake_logits, real_logits = forward_together(D, fake, real)
        if self.augmentation and self.augmentation.ada:
            self.augmentation.ada.observe(real_logits)
        whole = {} if terms else {name: self.gan.discriminator(real_logits, fake_logits)}
        return Losses(
            adversarial=whole or self.gan.named_losses(name, real_logits, fake_logits),
            penalties=self.gan.penalty(f"{name}_penalty", D, real, fake),
            more=more,
        )

    def regularisers(self, name: str, generator: nn.Module, x: Tensor | None, made: Tensor) -> dict[str, Tensor]:
        """The losses of `made` = `generator(x)` that are on, for any generator: `name` with their own in place of {}.

        `x` is None for pictures from noise, which have no stability.
        """
        o, losses = self.options, {}
        if o.lambda_stability and x is not None:
            losses[name.format("stability")] = o.lambda_stability * stability_loss(generator, x, made)
        if o.lambda_grid:
            losses[name.format("grid")] = o.lambda_grid * grid_loss(made)
        return losses

    def likeness(self, suffix: str, made: Tensor, source: Tensor, picture: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of `UnpairedOptions` that are on, which keep `made` like its `source`; names end in `suffix`.

        Spots are those that `picture`, which was translated, does not have; by default it is the source.
        """
        o, losses = self.options, {}
        assert isinstance(o, UnpairedOptions)
        if o.lambda_structure:
            losses[f"structure{suffix}"] = o.lambda_structure * structure_loss(made, source)
        if self.content:
            losses[f"content{suffix}"] = o.lambda_content * self.content(made, source)
        if o.lambda_spots:
            losses[f"spots{suffix}"] = o.lambda_spots * spot_loss(made, source if picture is None else picture)
        return losses

    @abstractmethod
    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        """Name → (made, expected): images that would be equal if training were done; for validation."""

    @abstractmethod
    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        """Name → images (N, C, H, W): the columns of a sample grid."""

    def networks(self) -> dict[str, nn.Module]:
        """Name → network, in the order of definition."""
        return {name: value for name, value in vars(self).items() if isinstance(value, nn.Module)}

    def pools(self) -> dict[str, ImagePool]:
        """Name → image pool."""
        return {name: value for name, value in vars(self).items() if isinstance(value, ImagePool)}

    def adapted(self) -> dict[str, Tensor]:
        """Name → numbers that a training adapts beside the networks: saved with them, and alike in all processes."""
        return {"ada": ada.adapted} if self.augmentation and (ada := self.augmentation.ada) else {}

    def architecture(self) -> dict[str, Any]:
        """Each network's kind and configuration, and the features compared: a training state must agree with them."""
        compared = {"content": {"features": digest(self.content.features)}} if self.content else {}
        return compared | {name: described(config_of(network)) for name, network in self.networks().items()}

    def refusal(self, architecture: Mapping[str, Mapping[str, Any]]) -> str:
        """Why it cannot go on from a state of that `architecture`, where other advice helps than to give the options of
        then; empty for whatever else differs."""
        return ""


class ConditionalGAN(Algorithm[Options]):
    """G, D, and D's turn, which comes before G's (Mirza & Osindero 2014, arXiv:1411.1784; Isola et al. 2017, Eq. 1): D
    sees `batch.b` or G's output beside `batch.a`, and G makes outputs that D takes for real."""

    paired = True

    def __init__(self, options: Options, in_channels: int, out_channels: int, conditional: bool = True) -> None:
        """`conditional`: D sees the input beside the output. Without a D, G learns from content losses."""
        self.options, self.conditional = options, conditional
        self.gan, self.augmentation = options.gan_loss(), options.augmentation()
        self.G = options.create_generator(in_channels, out_channels)
        if options.has_discriminator:
            self.D = options.create_discriminator(out_channels + (in_channels if conditional else 0))

    def players(self) -> dict[Player, list[nn.Module]]:
        discriminator: dict[Player, list[nn.Module]] = {DISCRIMINATOR: [self.D]} if hasattr(self, "D") else {}
        return discriminator | {GENERATOR: [self.G]}

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.G}

    def discriminator_input(self, a: Tensor, b: Tensor, step: int) -> Tensor:
        """The pair, or the output alone, augmented."""
        return self.augment(b, step, condition=a if self.conditional else None)

    def discriminator_turn(self, real: Tensor, fake: Tensor) -> Turn:
        """The turn of D (Eq. 1) on inputs of D; `fake` has no gradient."""
        return DISCRIMINATOR, self.discriminator_losses("D", self.D, real, fake)

    def validation_pairs(self, batch: ImagePair, translators: Translators) -> dict[str, tuple[Tensor, Tensor]]:
        return {"fake_B": (translators["a2b"](batch.a), batch.b)}

    def pictures(self, batch: ImagePair, translators: Translators) -> dict[str, Tensor]:
        return {"real_A": batch.a, "fake_B": translators["a2b"](batch.a), "real_B": batch.b}


AnyAlgorithm = Algorithm[Any]
"""An algorithm of whatever options."""


def own_options(algorithm: type[AnyAlgorithm]) -> type[NetworkOptions]:
    """The dataclass of the options that the algorithm itself takes."""
    found: type[NetworkOptions] = get_type_hints(algorithm.__init__)["options"]
    return found


def described(config: NetworkConfig | OwnConfig) -> dict[str, Any]:
    """A network's kind and configuration, with the biases that it has, whether it was asked for them or not, and the
    digest of its features instead of their path, which may change."""
    found = {"kind": config.kind, **to_mapping(config)}
    if "features" in found:
        found["features"] = digest(found["features"])
    return found | ({"bias": conv_bias(found["norm"], found["bias"])} if "norm" in found else {})


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Inside, gradients flow *through* these networks but none is computed for their weights."""
    weights = [p for network in networks for p in network.parameters() if p.requires_grad]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether, in training, one sample's output depends on the other samples of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def forward_together(network: nn.Module, *batches: Tensor) -> list[Logits]:
    """`network(batch)` for each batch. One pass computes them all, which is faster, where it gives the same numbers:
    batches of one size, no batch norm, one scale."""
    separately = isinstance(network, MultiScalePatchGAN | Projected) or has_batch_norm(network)
    if separately or len({batch.shape[1:] for batch in batches}) > 1:
        return [network(batch) for batch in batches]
    return list(network(torch.cat(batches)).split([len(batch) for batch in batches]))
