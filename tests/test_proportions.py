"""benchmarks/proportions.py counts what it says."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fork_server import python

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
Project: Any = import_module("proportions").Project

FILES = {
    "i2i/__init__.py": "",
    "i2i/a.py": '"""Of which."""\nfrom i2i import b\nfrom i2i.c import rivals\n',
    "i2i/b.py": "from typing import Any\nimport i2i.c\n\ndef f(x: Any, *, y: Any, z: int) -> Any:\n    over = x\n",
    "i2i/c.py": "def rivals():\n    'One. Of two.'\n\nclass Slots:\n    'One of two.'\n\ndef more():\n    pass\n",
    "i2i/rooms/__init__.py": "",
    "i2i/rooms/d.py": "from i2i.rooms import e\n",
    "i2i/rooms/e.py": "",
}


@pytest.fixture
def project(tmp_path: Path) -> Any:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Project(tmp_path)


def test_importers(project: Any) -> None:
    assert project.importers() == {"i2i.a": 0, "i2i.b": 1, "i2i.c": 2, "i2i.rooms.d": 0, "i2i.rooms.e": 1}


def test_words_name_something_or_are_ordinary_english(project: Any) -> None:
    assert project.words() == ["Slots", "more", "rivals"]
    assert (project.parameters_of_any(), project.docstrings_without_a_verb()) == (2, 2)


def test_a_checkout_that_does_not_run_is_counted_all_the_same(project: Any) -> None:
    (project.root / "README.md").write_text("one\ntwo\n")
    (project.root / "tests").mkdir()
    found = project.proportions()
    assert (found["lines of the README"], found["files of i2i/"]) == ("2", "7")
    assert "No such file" in found["options shown by --help"] and "not run" in found["calls from script to formula"]


def test_a_step_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "_run", lambda self, *words: (python(*words, cwd=self.root, check=True).stdout, 0.0))
    calls, files = Project(ROOT).step()
    assert 1 <= calls <= 8 and 1 <= len(files) <= 24
    assert {"i2i/algorithms/cyclegan.py", "i2i/losses/adversarial.py", "i2i/training/step.py"} <= set(files)
