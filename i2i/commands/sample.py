"""Make pictures of noise with a trained generator: files, a grid, a walk.

i2i sample --style runs/gan_monet --count 64 -o out/ --grid grid.png
i2i sample --style runs/gan_monet --count 5 --walk 12 --grid walk.png
"""

import time
from dataclasses import dataclass
from pathlib import Path

from i2i.config import narrowed
from i2i.errors import UsageError
from i2i.inference.sample import SampleOptions
from i2i.terminal import printable, progress


@dataclass(frozen=True, kw_only=True)
class Options(SampleOptions):
    style: str = ""
    """The trained GAN: its run folder, its model file, or a name."""
    out: Path | None = None
    """The folder for the pictures; each is named after its seed."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def main(options: Options) -> None:
    if not options.style:
        raise UsageError("expected: i2i sample --style STYLE -o OUT (see --help)")
    options.check()
    from i2i.files import remove_strays
    from i2i.inference.sample import load_sampler, make_samples  # here, so that --help does not wait for torch
    from i2i.signals import BOTH, STOPPING, Signals, interrupted

    began = time.time()
    chosen = narrowed(options, SampleOptions)
    sampler = load_sampler(options.style, options.device)
    with Signals(BOTH, STOPPING, impatient=BOTH) as signals, progress() as show:
        written = make_samples(sampler, chosen, show, lambda: bool(signals.received))
    for folder in {path.parent for path in written}:
        remove_strays(folder, began)
    if signals.received:
        raise interrupted(signals.received, f"stopped after {len(written)} files", terminated=143)
    print(f"{len(written)} files, the last {printable(written[-1])}")
