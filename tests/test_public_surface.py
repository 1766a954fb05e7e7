"""Names and options that users write: they change on purpose, or not at all.

After a change on purpose: `python -m i2i.commands.options`, and the list below.
"""

from pathlib import Path

import i2i
from i2i.commands import options

NAMES = [
    "I2IError", "Run", "Translate", "Translator", "__version__", "create_discriminator", "create_generator",
    "list_generators", "list_styles", "load_mix", "load_sampler", "load_translator", "train", "translate_folder",
]  # fmt: skip


def test_the_names_of_the_library() -> None:
    assert sorted(i2i.__all__) == NAMES


def test_every_option_with_its_default() -> None:
    """The file holds what the classes say; who changes an option changes a line of it."""
    committed = Path(options.__file__).with_name("options.json").read_text(encoding="utf-8")
    assert committed == options.surface(), "python -m i2i.commands.options writes options.json anew"
