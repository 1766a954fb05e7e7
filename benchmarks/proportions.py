"""The proportions of the project, before and after a change: how much there is to read, and how far apart it lies.

python benchmarks/proportions.py OLD NEW    folders, or revisions of git
python benchmarks/proportions.py d25ffe0 . --test-seconds 541 352

Counts are taken from the sources. The way from a script to the formula of a loss, and the files that one step of
CycleGAN runs through, are measured: a tiny network trains for three steps, and every call is looked at. A checkout
that does not run here, since it needs other packages, is counted all the same.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
HELP = "scripts/train_cyclegan.py", "--help"
TRAINING = (
    "scripts/train_cyclegan.py --data toy --crop-size 32 --load-size 32 --generator resnet_1blocks --ngf 4 --ndf 4 "
    "--discriminator patchgan_16 --max-steps 3 --workers 0 --validate-every 0 --device cpu"
)
WORDS = """
    deceit judgement rivals judged undecided Adversarial Observer Watch spells ailments blame Damaged States Saver
    Averages pace Processes settled created checked_data fitting be_deterministic goal suggest reconstructions
    reconstructed mixes one_domain matched _look further _first_whole Slots PixelPair Wanted Prepared Traits Converted
    fast_form pays Instruments beside unfit Made Planned Subject made_of_noise sweep way_to_the_floor
"""
"""Names that the code no longer gives to anything: the first column of the table of words."""
ORDINARY = (
    "shown apart terms tell trial cost divide split pages planes modes magic more over lost sample foreign game told"
)
"""Words of the same table that are ordinary English, so only a function or a class of that name counts."""
FORMULA = "least_squares_real"
"""The GAN loss that CycleGAN takes."""
RUN_AND_LOOK = """
import json, runpy, sys
from pathlib import Path
import albumentations, torch, torchvision  # before the look at all calls, which makes imports slow
root, formula, out, *sys.argv = sys.argv[1:]
depths, files, steps, turn = [], set(), 0, None
places = (root + "/i2i/", root + "/scripts/")  # an environment may lie in the same folder

def ours(frame):
    return frame.f_code.co_filename.startswith(places) and frame.f_code.co_name != "<module>"

def look(frame, event, argument):
    global steps, turn
    if event != "call" or not ours(frame):
        return
    name = frame.f_code.co_filename[len(root) + 1:]
    if name == "i2i/algorithms/cyclegan.py" and frame.f_code.co_name == "losses" and frame is not turn:
        steps, turn = steps + 1, frame
    if steps == 2:
        files.add(name)
    if frame.f_code.co_name == formula and turn:
        calls = 0
        while frame:
            calls, frame = calls + (ours(frame) and frame.f_code.co_name[0] != "<"), frame.f_back
        depths.append(calls)

sys.path.insert(0, root)
sys.setprofile(look)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
finally:
    sys.setprofile(None)
assert steps == 3 and depths
Path(out).write_text(json.dumps([min(depths), sorted(files)]))
"""


class NotRun(Exception):
    """A program of a checkout failed, with its last words: an old one may need packages that are not installed."""


class Project:
    """A checkout, read and run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = sorted((root / "i2i").rglob("*.py"))

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The syntax of each module, by its name."""
        return {self._module(file): ast.parse(file.read_text(encoding="utf-8")) for file in self.files}

    def _module(self, file: Path) -> str:
        parts = file.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def importers(self) -> Counter[str]:
        """How many modules of the package import each of its modules."""
        packages = {self._module(file) for file in self.files if file.name == "__init__.py"}
        counts = Counter({name: 0 for name in self.trees if name not in packages and not name.endswith("__main__")})
        for name, tree in self.trees.items():
            counts.update({target for target in self._imported(tree) if target in counts and target != name})
        return counts

    def _imported(self, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)

    def parameters_of_any(self) -> int:
        """Parameters whose annotation is `Any`."""
        functions = [node for node in self._nodes() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        return sum(
            isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
            for function in functions
            for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        )

    def words(self) -> list[str]:
        """The words of the table that still name something."""
        defined, names = set(), set()
        for name, tree in self.trees.items():
            if not name.startswith("i2i.commands."):  # whose functions are called as a user types them: `i2i sample`
                defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in self._nodes():
            if isinstance(node, ast.Name | ast.Attribute | ast.arg):
                names.add(
                    node.id
                    if isinstance(node, ast.Name)
                    else node.attr
                    if isinstance(node, ast.Attribute)
                    else node.arg
                )
        return sorted({*WORDS.split()} & (defined | names) | {*ORDINARY.split()} & defined)

    def docstrings_without_a_verb(self) -> int:
        """Docstrings with a sentence that begins with What or Of."""
        documented = (node for node in self._nodes() if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
        return sum(bool(re.search(r"(^|[.]\s+)(What|Of)\b", ast.get_docstring(node) or "")) for node in documented)

    def _nodes(self) -> Iterator[ast.AST]:
        for tree in self.trees.values():
            yield from ast.walk(tree)

    def help(self) -> tuple[int, float]:
        """The options in the help of a training, and the processor seconds that it takes; the least of three."""
        runs = [self._run(*HELP) for _ in range(3)]
        flags = set(re.findall(r"^[ │]*(?:-\w, )?(--[a-zA-Z][\w\[\]-]+)", runs[0][0], re.MULTILINE))
        return len(flags), min(seconds for _, seconds in runs)

    def step(self) -> tuple[int, list[str]]:
        """Calls from the script to the first formula of a loss, and the files that a step of CycleGAN runs through."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            program = (
                "-c",
                RUN_AND_LOOK,
                str(self.root),
                FORMULA,
                str(out),
                *TRAINING.split(),
            )
            self._run(*program, "--run", str(Path(folder) / "run"))
            depth, files = json.loads(out.read_text(encoding="utf-8"))
        return depth, files

    def _run(self, *words: str) -> tuple[str, float]:
        environment = os.environ | {"PYTHONPATH": str(self.root), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
        before = os.times()
        done = subprocess.run(
            [sys.executable, *words], cwd=self.root, env=environment, capture_output=True, encoding="utf-8"
        )
        after = os.times()
        if done.returncode:
            raise NotRun(done.stderr.strip().rpartition("\n")[2])
        seconds = after.children_user - before.children_user + after.children_system - before.children_system
        return done.stdout, seconds

    def proportions(self) -> dict[str, str]:
        readme = (self.root / "README.md").read_text(encoding="utf-8")
        few = sum(count <= 1 for count in self.importers().values())
        options, seconds = _measured(self.help, lambda found: (f"{found[0]}", f"{found[1]:.2f}"))
        depth, files = _measured(self.step, lambda found: (f"{found[0]}", f"{len(found[1])}"))
        words = self.words()
        return {
            "lines of i2i/": f"{_lines(self.files):,}",
            "files of i2i/": f"{len(self.files)}",
            "lines of tests/": f"{_lines((self.root / 'tests').rglob('*.py')):,}",
            "files with at most one importer": f"{few}",
            "calls from script to formula": depth,
            "files that one step of CycleGAN runs through": files,
            "parameters typed Any": f"{self.parameters_of_any()}",
            "docstrings with a sentence that begins with What or Of": f"{self.docstrings_without_a_verb()}",
            "options shown by --help": options,
            "lines of the README": f"{len(readme.splitlines())}",
            "pictures in the README": f"{readme.count('![') + readme.count('<img')}",
            "words of the table that still name something": f"{len(words)}"
            + (f" ({', '.join(words)})" if words else ""),
            "processor seconds of --help": seconds,
        }


T = TypeVar("T")


def _measured(measure: Callable[[], T], told: Callable[[T], tuple[str, str]]) -> tuple[str, str]:
    """The two texts of `measure`, or why there are none."""
    try:
        return told(measure())
    except NotRun as error:
        return (f"not run: {error}",) * 2


def _lines(files: "Iterator[Path] | list[Path]") -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def checked_out(name: str, folder: Path) -> Path:
    """The folder of that name, or the files of a revision in `folder`."""
    if Path(name).is_dir():
        return Path(name).resolve()
    archive = subprocess.run(["git", "archive", name], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as file:
        file.extractall(folder, filter="data")
    return folder.resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a folder, or a revision of git")
    parser.add_argument("new", help="a folder, or a revision of git")
    parser.add_argument("--test-seconds", nargs=2, type=float, metavar=("OLD", "NEW"), help="what `make test` took")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as old, tempfile.TemporaryDirectory() as new:
        both = [Project(checked_out(arguments.old, Path(old))), Project(checked_out(arguments.new, Path(new)))]
        before, after = (project.proportions() for project in both)
    if arguments.test_seconds:
        for found, seconds in zip((before, after), arguments.test_seconds, strict=True):
            found["seconds of make test"] = f"{seconds:.0f}"
    print("| | before | after |\n|---|---|---|")
    for name in before:
        print(f"| {name} | {before[name]} | {after[name]} |")


if __name__ == "__main__":
    main()
