"""Parts of the work that are together all of it, and of which no two overlap."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from batch_tools import folder, picture, translator, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from i2i.errors import UsageError
from i2i.folders.batch import translate_folder
from i2i.folders.plan import plan
from i2i.inference.options import FolderOptions

TOTAL = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    for i in range(TOTAL):
        (path / "in" / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (path / "in" / f"{i % 3}" / f"{i}.png").touch()
    return path / "in"


def _part(inputs: Any, number: int, parts: int, by: str) -> list[str]:
    options = FolderOptions(shard=f"{number}/{parts}", shard_by=by)  # type: ignore[arg-type]
    return [str(job.target) for job in plan(inputs, "out", options).todo]


@pytest.mark.promise("R41")
@settings(max_examples=12, deadline=None)
@given(parts=st.integers(1, 60), by=st.sampled_from(["index", "hash"]))
def test_parts_are_disjoint_and_complete(source: Path, parts: int, by: str) -> None:
    whole = _part(source, 1, 1, by)
    found = [name for number in range(1, parts + 1) for name in _part(source, number, parts, by)]
    assert len(found) == len(set(found)) == TOTAL
    assert sorted(found) == sorted(whole)
    if by == "index":
        sizes = [len(_part(source, number, parts, by)) for number in range(1, parts + 1)]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.promise("R41")
@settings(max_examples=40, deadline=None)
@given(parts=st.integers(1, 12), kept=st.sets(st.integers(0, TOTAL - 1), min_size=1))
def test_by_hash_other_files_move_nothing(source: Path, parts: int, kept: set[int]) -> None:
    some = [source / f"{i % 3}" / f"{i}.png" for i in kept]

    def parts_of(files: Any) -> dict[str, int]:
        return {
            name.rpartition("/")[2]: number
            for number in range(1, parts + 1)
            for name in _part(files, number, parts, "hash")
        }

    assert parts_of(some).items() <= parts_of(sorted(source.rglob("*.png"))).items()


@pytest.mark.promise("R41")
def test_by_hash_does_not_depend_on_where_the_folder_lies(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    for path in source.rglob("*.png"):
        (copy / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(source)).touch()
    assert _part(source, 2, 3, "hash") == _part(copy, 2, 3, "hash")
    assert 0 < len(_part(source, 2, 3, "hash")) < TOTAL


# which part of five each name belongs to, for good: machines of one work need not have the same Python, or i2i
PARTS = {"a.png": 3, "b.png": 1, "deep/er/c.jpg": 2, "żółć.webp": 1, "0001.tif": 3, "0002.tif": 5}
PRINTED = """
import sys
from i2i.inference.options import FolderOptions
from i2i.folders.plan import plan
for number in range(1, 6):
    for job in plan(sys.argv[1], "out", FolderOptions(shard=f"{number}/5", shard_by="hash")).todo:
        print(ascii(str(job.name)), number)
"""


@pytest.mark.promise("R41")
def test_by_hash_each_name_has_its_part_in_every_process(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", list(PARTS))
    found = {name: number for number in range(1, 6) for name in _part(source, number, 5, "hash")}
    assert found == {f"out/{name}": number for name, number in PARTS.items()}
    command = [sys.executable, "-c", PRINTED, source]
    environment = os.environ | {"PYTHONHASHSEED": "1"}  # of Python's own hash, which is another in each process
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert dict(line.rsplit(" ", 1) for line in printed.splitlines()) == {
        ascii(name): str(number) for name, number in PARTS.items()
    }


@pytest.mark.promise("R41", "R24")
@pytest.mark.parametrize("by", ["index", "hash"])
def test_parts_agree_on_the_names_of_twins(tmp_path: Path, by: str) -> None:
    source = folder(tmp_path / "in", ("a.jpg", "a.png", "a_jpg.png", "b.webp", "b.tif", "c.png"))
    options: dict[str, Any] = {"format": "png", "on_collision": "suffix", "shard_by": by}
    with pytest.raises(UsageError, match="share"):
        plan(source, "out", FolderOptions(format="png", shard="1/9"))
    for number in (1, 2, 3):
        translate_folder(source, tmp_path / "out", translator(), shard=f"{number}/3", **options)
    translate_folder(source, tmp_path / "whole", translator(), **options)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert len(tree(tmp_path / "whole")) == 6


@pytest.mark.promise("R41", "R25")
def test_parts_of_a_new_output_do_not_disturb_each_other(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    reports = [translate_folder(source, tmp_path / "out", translator(), shard=f"{i}/4") for i in (3, 1, 4, 2)]
    assert sorted(r.source for report in reports for r in report.records) == sorted(
        p for p in source.rglob("*") if p.is_file()
    )
    with pytest.raises(UsageError, match=r"outputs? exist"):
        translate_folder(source, tmp_path / "out", translator(), shard="2/4")


@pytest.mark.promise("R41", "R42")
def test_each_special_file_belongs_to_one_part(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    os.mkfifo(source / "pipe.png")
    reports = [translate_folder(source, tmp_path / "out", translator(), shard=f"{i}/3") for i in (1, 2, 3)]
    assert [r.source.name for report in reports for r in report.skipped] == ["pipe.png"]


@pytest.mark.promise("R41")
def test_more_parts_than_pictures(tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png").parent
    reports = [translate_folder(source, tmp_path / "out", translator(), shard=f"{i}/3") for i in (1, 2, 3)]
    assert [len(report.records) for report in reports] == [1, 0, 0]


@pytest.mark.promise("R41")
@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "-1/3", "1", "a/b", "1/3/5", "1.0/3", " 1/3", ""])
def test_invalid_shards_are_refused(tmp_path: Path, shard: str) -> None:
    source = picture(tmp_path / "a.png").parent
    with pytest.raises(UsageError, match=r"expected i/n with i from 1 to n"):
        translate_folder(source, tmp_path / "out", translator(), shard=shard)
