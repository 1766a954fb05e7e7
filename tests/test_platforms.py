"""i2i on Windows and macOS, as far as Linux can play them: `other_systems` says how.

One child plays a system and runs the commands one after the other. Rules that need no child follow.
"""

import ast
import json
import ntpath
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import batch_tools as batch
import numpy as np
import pytest
from disks import folded_disk
from other_systems import LINUX, MODULES, UNIX, environment

from i2i import config, images
from i2i.commands import ALGORITHMS, COMMANDS
from i2i.errors import ExistsError, LockedError, UsageError
from i2i.files import atomic_write, locked
from i2i.folders.batch import translate_folder
from i2i.tools.labelled import layout

ROOT = Path(__file__).parents[1]
CHILD = """
import json, pkgutil, sys
from importlib import import_module


def run(words):
    from i2i.cli import main

    sys.argv = ["i2i", *words]
    try:
        main()
    except SystemExit as end:
        return end.code


if __name__ == "__main__":
    import i2i

    for module in pkgutil.walk_packages(i2i.__path__, "i2i."):
        if not module.name.endswith("__main__"):
            try:
                import_module(module.name)
            except ImportError as error:
                if (error.name or "i2i").startswith("i2i") or error.name in sys.argv[2].split(","):
                    raise
    codes = [run(words) for words in json.loads(sys.argv[1])]
    open("codes.json", "w", encoding="utf-8").write(json.dumps(codes))
"""
TINY = (
    "train cyclegan --data data --run run --generator resnet_1blocks --discriminator patchgan_16 --ngf 4 --ndf 4 "
    "--crop-size 16 --load-size 16 --pool-size 3 --n-epochs 100 --validate-every 0 --samples 1 --cache cache"
)
STYLE = "--style run --direction a2b --runtime torch --device cpu"
JOBS = [
    *(f"{name} --help" for name in COMMANDS),
    *(f"train {name} --help" for name in ALGORITHMS),
    "translate --list-styles --verbose",
    f"{TINY} --workers 0 --max-steps 2",
    f"{TINY} --workers 0 --max-steps 4",
    f"translate data/trainA -o out {STYLE}",
    f"translate data/trainA -o out {STYLE} --skip-existing --report again.json",
    f"translate data/trainA -o out {STYLE} --overwrite",
    "export run --direction a2b -o net.pth",
    "export run --direction a2b -o net.safetensors",
    "report run -o page.html",
    "compare data/trainA out -o sheet.png",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("trainA/ä → b.png", "trainA/b.png", "trainB/c.png", "trainB/d.png")):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(path, images.Picture(np.random.default_rng(number).integers(0, 255, (24, 20, 3), np.uint8)))
    (tmp_path / "site").mkdir()
    return tmp_path


def run_on(system: str, folder: Path, jobs: list[str]) -> None:
    """Run `jobs` in a child that plays `system`."""
    (folder / "child.py").write_text(CHILD, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "child.py", json.dumps([job.split() for job in jobs]), ",".join(MODULES[system])],
        cwd=folder,
        env=environment(system, folder / "site"),
        capture_output=True,
        check=False,
    )
    said = done.stderr.decode("cp1252")
    assert done.returncode == 0, said
    codes = json.loads((folder / "codes.json").read_text(encoding="utf-8"))
    assert dict(zip(jobs, codes, strict=True)) == dict.fromkeys(jobs, 0), said
    assert not list(folder.rglob(".i2i-*.part")), "nothing half-written stays"


@pytest.mark.parametrize("system", ["win32", pytest.param("darwin", marks=pytest.mark.slow)])
def test_the_commands_run(system: str, folder: Path) -> None:
    run_on(system, folder, JOBS)
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["b.png", "ä → b.png"]
    assert {record["status"] for record in json.loads((folder / "again.json").read_bytes())["records"]} == {"skipped"}
    assert b"\r\n" not in (folder / "run" / "log.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_workers_are_spawned_and_the_doctor_finds_nothing_wrong(system: str, folder: Path) -> None:
    run_on(system, folder, [f"{TINY} --workers 1 --max-steps 3", "doctor"])


# The sources.


Sources = list[tuple[Path, ast.Module]]


@pytest.fixture(scope="module")
def sources() -> Sources:
    paths = [path for top in ("i2i", "scripts", "benchmarks") for path in sorted((ROOT / top).rglob("*.py"))]
    return [(path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


OTHER_OPEN = {"os.open", "tarfile.open", "webbrowser.open"}
"""They open no text."""


def names_no_encoding(call: ast.Call) -> bool:
    """Whether a call opens a file or a pipe as text, and leaves its encoding to the system."""
    given = {keyword.arg for keyword in call.keywords}
    if "encoding" in given:
        return False
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return method and len(call.args) == (name == "write_text")  # a function of that name is ours
    if name in ("run", "Popen", "check_output"):
        return bool(given & {"text", "universal_newlines"})
    if name not in ("open", "fdopen") or (method and name == "open" and ast.unparse(call.func) in OTHER_OPEN):
        return False
    modes = [
        *call.args[0 if method and name == "open" else 1 :][:1],
        *(k.value for k in call.keywords if k.arg == "mode"),
    ]
    mode = str(modes[0].value) if modes and isinstance(modes[0], ast.Constant) else "" if modes else "r"
    return bool(mode) and "b" not in mode


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("path.read_text()", True),
        ("path.read_text('ascii')", False),
        ("path.write_text(x)", True),
        ("path.write_text(x, encoding='utf-8')", False),
        ("path.open()", True),
        ("path.open('a')", True),
        ("path.open('rb')", False),
        ("open(path)", True),
        ("open(path, mode='wb')", False),
        ("os.fdopen(1, 'w')", True),
        ("subprocess.run(words, text=True)", True),
        ("subprocess.run(words, capture_output=True)", False),
        ("Image.open(path)", False),
    ],
)
def test_a_call_that_leaves_the_encoding_to_the_system(code: str, expected: bool) -> None:
    (call,) = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert names_no_encoding(call) == expected


def test_no_text_is_read_or_written_in_an_encoding_of_the_system(sources: Sources) -> None:
    found = [
        f"{path}:{call.lineno}: {ast.unparse(call)}"
        for path, tree in sources
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and names_no_encoding(call)
    ]
    assert not found


def test_modules_of_unix_are_imported_where_they_are_needed(sources: Sources) -> None:
    """Never at the top of a file."""
    found = [
        f"{path}:{line.lineno}"
        for path, tree in sources
        for line in tree.body
        if isinstance(line, ast.Import | ast.ImportFrom)
        and {getattr(line, "module", ""), *(name.name for name in line.names)} & MODULES["win32"]
    ]
    assert not found


GUARDS = ("hasattr(", "getattr(", "sys.platform", "import termios")


def uses(node: ast.AST, attributes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of these attributes of names that a piece of code uses."""
    named = {attribute for _, attribute in attributes}
    parts = [part for part in ast.walk(node) if isinstance(part, ast.Attribute) and part.attr in named]
    return attributes & {(ast.unparse(part.value), part.attr) for part in parts}


def test_what_windows_or_macos_lacks_is_asked_for_first(sources: Sources) -> None:
    """A function or a top-level statement that uses such a name also asks for it, and no default value is one."""
    lacking = {(module, name) for names in (LINUX, UNIX) for module, text in names.items() for name in text.split()}
    found = []
    for path, tree in sources:
        parts = [part for top in tree.body for part in (top.body if isinstance(top, ast.ClassDef) else [top])]
        for part in parts:
            wrong = uses(part, lacking)
            if wrong and any(guard in ast.unparse(part) for guard in GUARDS):
                wrong = uses(part.args, lacking) if isinstance(part, ast.FunctionDef) else set()
            if wrong:
                found.append(f"{path}:{part.lineno}: {sorted(wrong)}")
    assert not found


# Paths that begin at a drive.


class OfWindows(PureWindowsPath):
    """A path of Windows where i2i asks the disk too."""

    def absolute(self) -> "OfWindows":
        return self

    resolve = absolute


def test_a_run_that_was_begun_at_a_drive_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text('# relative paths begin at "C:\\\\pictures"\n', encoding="utf-8")
    monkeypatch.setattr(config, "Path", OfWindows)
    assert str(config._base(tmp_path / "config.yaml")) == "C:\\pictures"


def test_a_label_file_may_name_a_picture_at_a_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "Path", OfWindows)
    monkeypatch.setattr(layout, "os", SimpleNamespace(path=ntpath))
    for name, expected in (("C:\\set\\a\\b.png", "a\\b.png"), ("D:\\set\\b.png", ""), ("a\\b.png", "")):
        found = layout.within(name, OfWindows("c:/set"))  # type: ignore[arg-type]
        assert str(found or "") == expected


# A disk with names as Windows and macOS have them.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with folded_disk(tmp_path) as found:
        if found is None:
            pytest.skip("needs root, and lowntfs-3g or a kernel whose ext4 folds case")
        yield found


def test_results_whose_names_differ_by_case_are_refused_or_named_apart(disk: Path, tmp_path: Path) -> None:
    twins = batch.folder(tmp_path / "in", ("Photo.png", "photo.png", "other.png"))
    with pytest.raises(UsageError, match="share their output paths"):
        translate_folder(twins, disk / "out", batch.translator())
    report = translate_folder(twins, disk / "out", batch.translator(), on_collision="suffix")
    assert len(report.done) == 3 and len(list((disk / "out").iterdir())) == 3


def test_a_result_that_exists_under_another_case_is_kept(disk: Path, tmp_path: Path) -> None:
    batch.folder(disk / "out", ("PHOTO.PNG",))
    before = (disk / "out" / "photo.png").read_bytes()
    source = batch.folder(tmp_path / "in", ("photo.png",))
    with pytest.raises(UsageError, match="1 output exists"):
        translate_folder(source, disk / "out", batch.translator())
    report = translate_folder(source, disk / "out", batch.translator(), skip_existing=True)
    assert len(report.skipped) == 1 and (disk / "out" / "photo.png").read_bytes() == before


def test_a_folder_into_itself_under_another_case_is_refused(disk: Path) -> None:
    batch.folder(disk / "photos", ("a.png",))
    with pytest.raises(UsageError, match="input"):
        translate_folder(disk / "photos", disk / "Photos", batch.translator())


def test_one_name_that_the_disk_refuses_costs_one_picture(disk: Path, tmp_path: Path) -> None:
    if not _refuses_names(disk):
        pytest.skip("this disk takes the names that Windows reserves")
    source = batch.folder(tmp_path / "in", ("a.png", "aux.png", "b.png"))
    report = translate_folder(source, disk / "out", batch.translator())
    assert {record.source.name: record.status for record in report.records} == {
        "a.png": "done", "aux.png": "failed", "b.png": "done",
    }  # fmt: skip


def _refuses_names(disk: Path) -> bool:
    try:
        (disk / "con").touch()
    except OSError:
        return True
    (disk / "con").unlink()
    return False


def test_files_are_whole_and_locked_there(disk: Path) -> None:
    for content in (b"one", b"two"):
        atomic_write(disk / "a", lambda file, content=content: file.write(content))  # type: ignore[misc]
    with pytest.raises(ExistsError):
        atomic_write(disk / "A", lambda file: file.write(b"three"), replace=False)
    with locked(disk / "lock", "in use") as held, pytest.raises(LockedError), locked(disk / "LOCK", "in use"):
        assert held
    assert [path.name for path in disk.iterdir()] == ["a"] and (disk / "A").read_bytes() == b"two"


@pytest.mark.slow
def test_a_run_folder_there(disk: Path, folder: Path) -> None:
    run_on("win32", folder, [f"{TINY} --run {disk / 'run'} --max-steps {steps}" for steps in (2, 4)])
