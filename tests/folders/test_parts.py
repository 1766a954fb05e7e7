"""A folder through an executor: the same files, the same report, whatever becomes of the workers."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from batch_tools import folder, model, translator, tree

from i2i.errors import UsageError
from i2i.folders.batch import translate_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder(tmp_path / "in")
    (tmp_path / "in" / "bad.png").write_bytes(b"bad")
    return tmp_path / "in"


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return model(tmp_path / "m.safetensors")


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as executor:
        yield executor


@pytest.mark.promise("R22", "R23", "R42")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_the_result_is_that_of_one_process(
    tmp_path: Path, source: Path, style: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    whole = translate_folder(source, tmp_path / "whole", style)
    executor = ThreadPoolExecutor(2) if kind == "threads" else request.getfixturevalue("processes")
    report = translate_folder(source, tmp_path / "out", style, executor=executor)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole") and len(tree(tmp_path / "out")) == 6
    assert report.to_json().replace(str(tmp_path / "out"), str(tmp_path / "whole")) == whole.to_json()


def test_a_translator_stays_in_its_process(tmp_path: Path, source: Path, processes: Executor) -> None:
    with pytest.raises(UsageError, match="give the name or the path of its style"):
        translate_folder(source, tmp_path / "out", translator(), executor=processes)
    assert not (tmp_path / "out").exists()
    with ThreadPoolExecutor(2) as threads:
        assert len(translate_folder(source, tmp_path / "out", translator(), executor=threads).done) == 6
