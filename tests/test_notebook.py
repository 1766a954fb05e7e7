"""The notebook of the guides runs from its first cell to its last, in the folder where readers start it."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"


def _sources() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _shown(source: str, names: dict[str, Any]) -> Any:
    """The value of the last line of a cell, as a notebook shows it."""
    *lines, last = ast.parse(source).body
    assert isinstance(last, ast.Expr), "a cell shows something"
    last = ast.Assign([ast.Name("_", ast.Store())], last.value)
    exec(compile(ast.fix_missing_locations(ast.Module([*lines, last], [])), NOTEBOOK.name, "exec"), names)
    return names["_"]


def test_the_notebook_holds_no_results() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(DOCS / "images" / "photo.jpg", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    run, losses, _, painting, small, translator = (_shown(source, names) for source in _sources())
    assert run._repr_png_() and run.status == "finished" and run.steps == 400
    assert 0 < losses["G_L1"] < 15, "the scenes are learnt"
    with Image.open(tmp_path / "images" / "photo.jpg") as photo:
        assert painting.size == photo.size
    assert min(small.size) == 256
    assert Path(translator.style).parent == run.folder and translator._repr_html_()
