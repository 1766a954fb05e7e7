"""i2i: image-to-image translation with pix2pix, CycleGAN and their family.

The names below are imported when first used, so that `import i2i` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from i2i import machine

__version__ = "0.1.0"

_HOME = {
    "I2IError": "i2i.errors",
    "Run": "i2i.training.run",
    "Translate": "i2i.inference.transform",
    "Translator": "i2i.inference.translator",
    "create_discriminator": "i2i.networks",
    "create_generator": "i2i.networks",
    "list_generators": "i2i.networks",
    "list_styles": "i2i.models.styles",
    "load_mix": "i2i.inference.mix",
    "load_sampler": "i2i.inference.sample",
    "load_translator": "i2i.inference.translator",
    "train": "i2i.training.run",
    "translate_folder": "i2i.folders.batch",
}

if TYPE_CHECKING:
    from i2i.errors import I2IError as I2IError
    from i2i.folders.batch import translate_folder as translate_folder
    from i2i.inference.mix import load_mix as load_mix
    from i2i.inference.sample import load_sampler as load_sampler
    from i2i.inference.transform import Translate as Translate
    from i2i.inference.translator import Translator as Translator
    from i2i.inference.translator import load_translator as load_translator
    from i2i.models.styles import list_styles as list_styles
    from i2i.networks import create_discriminator as create_discriminator
    from i2i.networks import create_generator as create_generator
    from i2i.networks import list_generators as list_generators
    from i2i.training.run import Run as Run
    from i2i.training.run import train as train

__all__ = [*_HOME, "__version__"]

machine.prepare()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'i2i' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
