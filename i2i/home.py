"""The folder that is kept between uses: installed styles, converted downloads, data sets."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def home() -> Path:
    """`$I2I_HOME`, or else the platform's folder for caches. It need not exist yet."""
    chosen = os.environ.get("I2I_HOME", "")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("i2i", appauthor=False)
