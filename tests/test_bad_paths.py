"""Paths that cannot be used, in every script and every option: the exit code says which side is wrong, and never 1."""

import importlib
import os
import runpy
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from i2i.commands import ALGORITHMS
from i2i.commands.options import options_of
from i2i.images import Picture, write

ROOT = Path(__file__).parents[1]
TRAIN = "--generator unet_32 --discriminator patchgan_16 --ngf 4 --ndf 4 --crop-size 32 --load-size 32 --max-steps 1"
UNFIT = {2, 3, 4, 5, 6}
OURS = [
    f"i2i.{name}"
    for name in (
        "tools.datasets.fetch",
        "evaluation.evaluate",
        "tools.report",
        "losses.content",
        "training.launch",
        "training.estimate",
        "folders.batch",
        "inference.torch_runtime",
        "tools.labelled.augment",
        "inference.sample",
    )
]
POSITIONAL = {"inputs", "folder", "words", "data"}
SHARED = {"data", "paired_data", "run", "cache", "init_from", "classes_a", "classes_b"}
"""Options of the trainings, tried with one or the other."""
PLACES = {  # where `@` stands, the bad path comes
    "translate": [
        "--style monet @ -o o",
        "--style monet in -o @",
        "--style monet in -o o --report @",
        "--style monet in -o o --mask @",
        "--style @ in -o o",
        "--install-style @ --as x",
    ],
    "evaluate": [
        "@ in",
        "in @",
        "in in --report @",
        "monet --data @",
        "monet in --reference @",
        "monet in --labels-out @",
        "monet in --inception @",
        "in in --metrics lpips --lpips @",
        "in in --palette @",
    ],
    "report": ["@", "run -o @.html", "run --pictures @"],
    "augment": ["--style monet @ -o o", "--style monet in -o @", "--style @ in -o o"],
    "prepare_dataset": [
        "check @",
        "combine @ in -o o",
        "combine in @ -o o",
        "combine in in -o @",
        "split @ -o o",
        "split in -o @",
        "divide @ -o o",
        "divide in -o @",
        "instances @ in -o o",
        "instances in @ -o o",
        "instances in in -o @",
        "download facades -o @",
    ],
    "train_pix2pix": [
        f"{TRAIN} --data @ --run r",
        f"{TRAIN} --data toy --run @",
        f"{TRAIN} --data toy --run r --init-from @",
        f"{TRAIN} --data toy --run r --classes-b @",
        f"{TRAIN} --data pairs --run r --cache @",
        f"{TRAIN} --config @ --run r",
    ],
    "train_cyclegan": [f"{TRAIN} --data @ --run r"],
    "train_cut": [f"{TRAIN} --data toy --paired-data @ --run r"],
    "train_gan": ["--data @ --run r"],
    "train_pix2pixhd": ["--data pairs --run r --vgg @"],
    "train_segmentation": ["--data @ --run r"],
    "train_colorization": ["--data @ --run r"],
    "distill": ["monet --data @ --run r", "@ --data toy --run r", "monet --data toy --run @"],
    "plan": ["pix2pix --data @", f"pix2pix {TRAIN} --data toy --classes-b @"],
    "sample": ["--style @ -o o", "--style monet -o @", "--style monet --grid @.png"],
    "export": [
        "@ -o o.pth",
        "monet -o @.pth",
        "monet -o @.safetensors --card @",
        "monet -o @ --format pretrained",
        "monet --web @ --web-runtime in",
        "monet --web o --web-runtime @",
    ],
    "compare": ["@ in -o o.png", "in @ -o o.png", "in in -o @.png"],
    "demo": ["--out @"],
}


def long(folder: Path) -> str:
    return "a" * 300


def loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop/x"


def below_a_file(folder: Path) -> str:
    (folder / "file").write_bytes(b"x")
    return "file/x"


def secret(folder: Path) -> str:
    """As another user, for root may look at everything."""
    (folder / "secret").mkdir(mode=0o700)
    if os.geteuid() == 0:
        folder.chmod(0o777)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    else:
        (folder / "secret").chmod(0)
    return "secret/x"


KINDS: list[Callable[[Path], str]] = [long, loop, below_a_file, secret]
WORDS = [(script, words) for script, places in PLACES.items() for words in places]
ALL = [(script, words, kind) for script, words in WORDS for kind in KINDS]
SOME = [(script, words, KINDS[number % len(KINDS)]) for number, (script, words) in enumerate(WORDS)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that are read; and everything imported that a child which is another user may not be able to import."""
    for module in (
        "xml.parsers.expat",
        "fileinput",
        "pydoc",
        "webbrowser",
        "huggingface_hub.hf_api",
        "torchvision.models",
        *OURS,
    ):
        importlib.import_module(module)
    folder = tmp_path_factory.mktemp("room")
    for name in ("in/a.png", "pairs/train/a.png"):
        (folder / name).parent.mkdir(parents=True)
        write(folder / name, Picture(np.zeros((64, 128, 3), np.uint8)))
    (folder / "run").mkdir()
    (folder / "run/log.jsonl").touch()
    return folder


def outcome(folder: Path, script: str, words: str, kind: Callable[[Path], str]) -> tuple[int, str]:
    """The exit code of a script, and what it said, in a forked child."""
    said = folder / "said"
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text(errors="replace")
    code = 99
    try:
        os.chdir(folder)
        os.environ |= {"HOME": str(folder / "home"), "I2I_HOME": str(folder / "home")}
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT, 0o666)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = [script, *words.replace("@", kind(folder)).split()]
        runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def paths_of(script: str) -> set[str]:
    command = script.removeprefix("train_").replace("_", "-")
    known = options_of("train", command) if command in ALGORITHMS else options_of(command)
    return {option.name for option in known if option.kind == "path"}


def check(cases: list[tuple[str, str, Callable[[Path], str]]], room: Path) -> None:
    wrong = {}
    with tempfile.TemporaryDirectory() as place:  # not below pytest's, into which another user may not look
        os.chmod(place, 0o755)  # noqa: PTH101
        for name in ("in", "pairs", "run"):
            shutil.copytree(room / name, Path(place) / name)
        for number, (script, words, kind) in enumerate(cases):
            folder = Path(place) / str(number)
            folder.mkdir()
            for name in ("in", "pairs", "run"):
                (folder / name).symlink_to(f"../{name}")
            code, said = outcome(folder, script, words, kind)
            if code not in UNFIT or "unexpected" in said or "Traceback" in said:
                wrong[script, words, kind.__name__] = (code, said[-300:])
    assert not wrong


def test_a_path_that_cannot_be_used_has_its_exit_code(room: Path) -> None:
    check(SOME[::3], room)


@pytest.mark.slow
@pytest.mark.parametrize("script", PLACES)
def test_every_path_that_cannot_be_used_has_its_exit_code(script: str, room: Path) -> None:
    check([case for case in ALL if case[0] == script], room)


def test_every_option_that_names_a_path_is_tried() -> None:
    """So that an option of a script to come is not forgotten."""
    for script, places in PLACES.items():
        options = paths_of(script)
        tried = {word.removeprefix("--").replace("-", "_") for words in places for word in words.split()}
        tried |= {"out"} if any(" -o @" in words for words in places) else set()
        assert options - tried <= POSITIONAL | SHARED, script
