"""README and the guides: a first screen that stays short, and links, files and commands that exist."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

from i2i.commands import ALGORITHMS, COMMANDS
from i2i.commands.options import options_of
from i2i.plain_yaml import read_yaml

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "datasets/README.md", "benchmarks/README.md")),
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
GUIDES = [page for page in PAGES if page.name not in ("CHANGELOG.md", "lab-book.md")]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_readme_shows_results() -> None:
    (strip,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert (ROOT / strip).stat().st_size < 300_000
    with Image.open(ROOT / strip) as image:
        assert image.width >= 800


@pages
def test_each_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


@guides
def test_scripts_and_configurations_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:scripts|configs|benchmarks)/[a-z0-9_/]+\.(?:py|yaml)", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_table_of_algorithms_names_configurations() -> None:
    names = re.findall(r"\| `([\w-]+\.yaml)` \|", README.read_text(encoding="utf-8"))
    algorithms = {read_yaml(ROOT / "configs" / name)["algorithm"] for name in names}
    assert algorithms == set(ALGORITHMS)


OF_EVERY_COMMAND = {"help", "help-all", "config", "print-config", "verbose", "version"}
OF_TORCHRUN = {
    "nproc-per-node",
    "max-restarts",
    "nnodes",
    "signals-to-handle",
    "rdzv-backend",
    "rdzv-id",
    "rdzv-endpoint",
}
OF_SLURM = {
    "job-name",
    "nodes",
    "ntasks-per-node",
    "gpus-per-node",
    "cpus-per-task",
    "time",
    "signal",
    "requeue",
    "open-mode",
}
OF_CLUSTERS = {"head", "address", "dashboard-host", "no-dashboard", "nworkers", "nthreads"}
OF_OTHERS = {*OF_TORCHRUN, *OF_SLURM, *OF_CLUSTERS, "golden", "hard", "netG", "continue-train"}
"""Options of other programs, of our tests and of the reference."""


def flags_of(command: str, algorithm: str = "") -> set[str]:
    """The options of a command, without their hyphens in front; of a training by any algorithm where none is named."""
    named = [algorithm] if algorithm else list(ALGORITHMS) if command in ("train", "plan") else [""]
    known = [option for name in named for option in options_of(command, name)]
    flags = {option.flag.removeprefix("--") for option in known}
    return flags | {f"no-{option.flag.removeprefix('--')}" for option in known if option.is_switch}


def flags_in(text: str) -> set[str]:
    return (
        {flag.replace("_", "-") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]+)", text)}
        - OF_EVERY_COMMAND
        - OF_OTHERS
    )


@guides
def test_each_option_exists(page: Path) -> None:
    if page.name == "migrate.md" or page.parent.name == "benchmarks":
        pytest.skip("names options of other programs too")
    known = {flag for command in COMMANDS for flag in flags_of(command)}
    assert flags_in(page.read_text(encoding="utf-8")) - known == set()


@guides
def test_each_command_takes_its_options(page: Path) -> None:
    """Every command line of a page, be it `i2i train cyclegan ...` or `scripts/train_cyclegan.py ...`."""
    if page.name == "migrate.md":
        pytest.skip("names options of the reference on purpose")
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:\bi2i [a-z]|\bscripts/\w+\.py)[^`\n|#]*", text):
        words = re.sub(r"^i2i |^scripts/", "", line).replace(".py", "").replace("train_", "train ").split()
        command = words[0].replace("_", "-")
        if command == "distill":
            words = ["train", *words]
            command = "train"
        if command in COMMANDS:
            algorithm = words[1] if command in ("train", "plan") and len(words) > 1 and words[1] in ALGORITHMS else ""
            assert flags_in(line) - flags_of(command, algorithm) == set(), line


BEGIN = re.compile(r"(?:^|[.!?]\s+|\n\n\s*|\n\s*[*-] |\| |\*\*|# )(?:What|Of)\b.{0,40}")


@pages
def test_no_sentence_begins_with_what_or_of(page: Path) -> None:
    assert BEGIN.findall(prose(page)) == []


def texts_in(path: Path) -> list[str]:
    """The docstrings, messages and other texts of a module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("folder", ["i2i", "scripts", "benchmarks"])
def test_no_docstring_or_message_has_a_sentence_that_begins_with_what_or_of(folder: str) -> None:
    found = {str(path): BEGIN.findall("\n\n".join(texts_in(path))) for path in ROOT.glob(f"{folder}/**/*.py")}
    assert found and {path: begins for path, begins in found.items() if begins} == {}


def test_twenty_words() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "words.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| **")
    ]
    assert len(rows) == 20


def test_the_site_has_every_page() -> None:
    contents = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    for page in [*PAGES, *sorted((ROOT / "docs" / "api").glob("*.rst"))]:
        name = str(page.relative_to(ROOT).with_suffix(""))
        assert page == README or f"\n{name}\n" in contents, name


def test_the_design_names_every_room() -> None:
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"`(\w+)/?`", "\n".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `"))
        )
    )
    rooms = {
        path.stem for path in (ROOT / "i2i").iterdir() if path.suffix in ("", ".py") and not path.name.startswith("__")
    }
    assert rooms <= named
