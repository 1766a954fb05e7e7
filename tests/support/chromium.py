"""Chromium, Node.js and the packages of tests/browser, as far as this machine has them."""

import shutil
from pathlib import Path

import numpy as np

from i2i.images import Pixels

HERE = Path(__file__).parents[1] / "browser"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")


def missing(*packages: str) -> list[str]:
    """Names those that are not installed: Chromium, Node.js, and these packages of tests/browser."""
    found = [name for name, there in (("Chromium", CHROMIUM), ("Node.js", NODE)) if not there]
    absent = [name for name in ("playwright-core", *packages) if not (HERE / "node_modules" / name).is_dir()]
    return found + [f"{name} (npm install in tests/browser)" for name in absent]


def colours(pixels: Pixels) -> int:
    """How many colours a screenshot has."""
    return len(np.unique(pixels[..., :3].astype(np.uint32) @ (1 << 16, 1 << 8, 1)))
