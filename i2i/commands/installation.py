"""`doctor` looks at all parts of an installation, `demo` lets it work for a few minutes, without a download."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from i2i import __version__
from i2i.errors import I2IError, SomeFailed, UsageError
from i2i.terminal import printable, say_plain
from i2i.tools.doctor import Finding, examine

COLOURS = {"ok": "green", "missing": "dim", "low": "yellow", "wrong": "red"}
_WIDTH, _NAMES = 110, 18
PACKAGE = Path(__file__).resolve().parents[1]
CONFIG = Path("configs/cyclegan_toy.yaml")
PHOTOS = PACKAGE / "styles/photos"
STYLE = "monet"
SIZE, SCENES = 128, 6
MOST_OF_THE_WAY = 0.5
MARKER = ".i2i-demo"
# on Windows no program can press Ctrl-C for another; Ctrl-Break reaches a group of processes
_STOP = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)
_GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_STOPPED = 75 if _GROUP else 130


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    json: bool = False
    """Print JSON instead of tables."""


def doctor(options: DoctorCommand) -> None:
    """Raises `SomeFailed` if something that is here does not work."""
    found: list[Finding] = []
    say_plain("looking, and trying a small network on each device …")
    for section in examine():
        found += section
        if not options.json:
            _show(section)
    wrong = [finding for finding in found if finding.status == "wrong"]
    if options.json:
        print(json.dumps({"i2i": __version__, "wrong": len(wrong), "findings": list(map(asdict, found))}, indent=1))
    if wrong:
        raise SomeFailed(f"{len(wrong)} of {len(found)} findings are wrong; first: {wrong[0].name}: {wrong[0].text}")


def _show(section: list[Finding]) -> None:
    """Prints a section as a table: status, name, text, and what to do."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=max(map(len, COLOURS)))
    table.add_column(width=_NAMES)
    table.add_column(overflow="fold")
    for finding in section:
        text = Text.assemble(printable(finding.text), *([f": {printable(finding.advice)}"] if finding.advice else []))
        table.add_row(Text(finding.status, COLOURS[finding.status]), printable(finding.name), text)
    with console.capture() as drawn:
        console.print(Text(section[0].section, "bold"), table, sep="\n")
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()), end="\n\n", flush=True)


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    out: Path = Path("demo")
    """The folder for everything the demo makes; an earlier demo there is replaced."""


def demo(options: DemoCommand) -> None:
    out = options.out
    if out.exists() and not (out / MARKER).exists():
        raise UsageError(f"{out}: exists, and is not from an earlier demo: choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    # Networks this small gain little from a second thread, and lose nearly everything where the machine is busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    (out / MARKER).touch()

    paint(out)
    train(out)
    sheet = contact_sheet(out)
    check(out, sheet)
    say(f"done. Look at {sheet}: painted photographs; scenes by day, their translation to dusk, the true dusk")
    print(printable(sheet))


def paint(out: Path) -> None:
    """Paint two photographs with a bundled style."""
    shutil.copytree(PHOTOS, out / "photos", ignore=shutil.ignore_patterns("*.md"))
    say(f"painting the photographs in {out}/photos with the bundled style {STYLE}")
    call("translate", "--style", STYLE, str(out / "photos"), "-o", str(out / "painted"))


def train(out: Path) -> None:
    """Train a CycleGAN from day to dusk in two parts, and translate scenes that it has not seen."""
    say(f"drawing {SCENES} scenes by day, in {out}/day")
    draw(out)
    config = next(folder / CONFIG for folder in (PACKAGE, PACKAGE.parent) if (folder / CONFIG).exists())
    training = ["train", str(config), "--run", str(out / "run")]
    say("training a small CycleGAN from day to dusk, without pairs; interrupted half-way by Ctrl-C ...")
    interrupt_half_way(training, out / "run/log.jsonl")
    say("... and resumed by the same command")
    call(*training)
    say(f"translating {out}/day to {out}/dusk")
    call("translate", "--style", str(out / "run"), "--direction", "a2b", str(out / "day"), "-o", str(out / "dusk"))


def check(out: Path, sheet: Path) -> None:
    """Compare the translation with the truth. Raises `I2IError` if it is not close enough."""
    before, after = (distance(out / name, out / "truth") for name in ("day", "dusk"))
    say(f"mean distance from the truth: {before:.3f} before, {after:.3f} after translation (of 1)")
    if after > MOST_OF_THE_WAY * before:
        raise I2IError(
            f"the translation should be at most {MOST_OF_THE_WAY} times as far from the truth; look at {sheet}"
        )


def say(text: str) -> None:
    say_plain(f"demo: {text}")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "i2i", *words]


def call(*words: str) -> None:
    code = subprocess.run(command(*words)).returncode
    if code:
        raise I2IError(f"{words[0]} ended with exit code {code}")


def interrupt_half_way(training: list[str], log: Path) -> None:
    """Start the training and send it SIGINT once half of its steps are in the log."""
    from i2i.config import read_options

    values = read_options(Path(training[1]))
    half = values["max_steps"] // 2
    process = subprocess.Popen(command(*training), creationflags=_GROUP)
    while process.poll() is None:
        steps = log.read_bytes().count(b'"kind": "step"') if log.exists() else 0
        if steps >= half:
            process.send_signal(_STOP)
            process.wait()
        time.sleep(0.5)
    if process.returncode != _STOPPED:
        raise I2IError(f"{training[0]} ended with exit code {process.returncode}; {_STOPPED} was expected")


def draw(out: Path) -> None:
    from i2i import images
    from i2i.data.toy import ToyUnpaired, true_map

    scenes = ToyUnpaired(size=SIZE, train=False, seed=1)
    for t in range(SCENES):
        day = scenes[t].a
        for name, image in {"day": day, "truth": true_map(day)}.items():
            (out / name).mkdir(exist_ok=True)
            images.write(out / name / f"scene{t}.png", images.Picture(images.to_pixels(image)))


def distance(made: Path, truth: Path) -> float:
    """Mean absolute difference of the pictures of two folders, as intensities in [0, 1]."""
    import numpy as np

    from i2i import images

    pairs = [(images.read(made / path.name), images.read(path)) for path in sorted(truth.glob("*.png"))]
    return float(np.mean([np.abs(a.pixels / 255 - b.pixels / 255).mean() for a, b in pairs]))


def contact_sheet(out: Path) -> Path:
    """Each photograph and scene beside its translation; of a scene, the true dusk too."""
    from i2i import images
    from i2i.tools import compare

    def row(name: str, *folders: str) -> compare.Row:
        return compare.Row(
            name, [images.read(next((out / folder).glob(f"{name}.*"))).channels(3) for folder in folders]
        )

    painted = [row(path.stem, "photos", "painted") for path in sorted((out / "photos").iterdir())]
    scenes = [row(path.stem, "day", "dusk", "truth") for path in sorted((out / "day").iterdir())]
    path = out / "contact_sheet.png"
    images.write(path, images.Picture(compare.draw(("before", "translated", "the true dusk"), [*painted, *scenes])))
    return path
