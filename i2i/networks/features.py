"""What the layers of a residual generator answer on the way: the encoder G_enc of CUT (Park et al. 2020, Sec. 3.2).

Layers are numbered as CUT's published code counts them: 0 is the input, padded for the first convolution; then each
convolution, normalisation, ReLU, blur and residual block is one. An activation works in place: the layer before it
is seen with it.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from i2i.networks.resnet import ConvNormReLU, ResnetConfig, ResnetGenerator

_MODES = {"zero": "constant", "reflect": "reflect", "replicate": "replicate"}  # torch's names for padding a tensor


def layers(generator: ResnetGenerator) -> list[nn.Module]:
    """The layers 1, 2, … of `generator` up to the padding of its last convolution."""
    return [layer for part in _parts(generator) for layer in _within(part)]


def _parts(generator: ResnetGenerator) -> list[nn.Module]:
    return [generator.stem, *generator.down, *generator.blocks, *generator.up]


def _within(part: nn.Module) -> Iterable[nn.Module]:
    return part if isinstance(part, nn.Sequential) else [part]


def paper_layers(config: ResnetConfig) -> tuple[int, ...]:
    """Those of App. C.1: the pixels, both halving convolutions, the first and the fifth block (or the last)."""
    step, first = _halving(config), _first_block(config)
    blocks = {first, first + min(config.blocks, 5) - 1} if config.blocks else set()
    return (0, 4, 4 + step, *sorted(blocks))


def _halving(config: ResnetConfig) -> int:
    """How many layers halve the size; the blur of a separable convolution is a part of it."""
    return 4 if config.downsampling == "antialiased" and not config.separable else 3


def _first_block(config: ResnetConfig) -> int:
    return 4 + 2 * _halving(config)


def comparable_layers(one: ResnetConfig, other: ResnetConfig, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of each of two generators as many layers, at a quarter of the size and at the same shares of the way: that before
    the first block, the last block, and between them evenly spread ones; `most` of them or fewer."""
    parts = min(most - 1, one.blocks, other.blocks)

    def spread(config: ResnetConfig) -> tuple[int, ...]:
        return tuple(_first_block(config) - 1 + round(config.blocks * i / max(parts, 1)) for i in range(parts + 1))

    return spread(one), spread(other)


def channels(generator: ResnetGenerator) -> list[int]:
    """The channels of the layers 0, 1, …"""
    found = [generator.config.in_channels]
    for layer in layers(generator):
        found.append(getattr(layer, "out_channels", found[-1]))
    return found


def _played(generator: ResnetGenerator, x: Tensor, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The layers' answers in order, from 0; the padded input only if it is wanted."""
    yield 0, F.pad(x, (3, 3, 3, 3), mode=_MODES[generator.config.padding]) if 0 in wanted else x
    numbers = itertools.count(1)
    for part in _parts(generator):
        if isinstance(part, ConvNormReLU):
            x = part.laid_out(x)
        for layer in _within(part):
            x = layer(x)
            yield next(numbers), x


def encode(generator: ResnetGenerator, x: Tensor, numbers: Sequence[int]) -> list[Tensor]:
    """The answers (N, C, H', W') of the layers `numbers`, which ascend; nothing after the last of them is computed."""
    found = []
    for number, y in _played(generator, x, numbers):
        if number in numbers:
            found.append(y)
        if number == numbers[-1]:
            break
    return found


def translate(generator: ResnetGenerator, x: Tensor, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """`generator(x)` and, of the same pass, what `encode(generator, x, numbers)` gives."""
    found = []
    y = x
    for number, y in _played(generator, x, numbers):
        if number in numbers:
            found.append(y)
    return generator.finished(y, x), found
