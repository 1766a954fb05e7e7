"""docs/reliability.md and the tests name the same promises."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _promised() -> set[str]:
    text = (ROOT / "docs" / "reliability.md").read_text()
    return set(re.findall(r"^\| ([RH]\d+) \|", text, re.MULTILINE))


def _tested() -> set[str]:
    marks = [m for f in (ROOT / "tests").rglob("*.py") for m in re.findall(r"mark\.promise\(([^)]*)\)", f.read_text())]
    return {name for mark in marks for name in re.findall(r'"(\w+)"', mark)}


def test_every_promise_has_a_test_and_every_test_a_promise() -> None:
    assert _promised() == _tested()
