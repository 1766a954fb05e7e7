"""Other programs, users and runs have files there too: what they have is never lost, and never stops the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
from batch_tools import folder, model, picture, run, translator, tree

from i2i.errors import UsageError
from i2i.folders.batch import translate_folder
from i2i.folders.plan import plan
from i2i.inference.options import FolderOptions

NAMES = tuple(f"{i}.png" for i in range(6))
USED = translator()


def statuses(report: Any) -> dict[str, str]:
    return {record.source.name: record.status for record in report.records}


@pytest.mark.promise("R25")
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_file_that_appears_after_the_plan_is_kept(tmp_path: Path, batch_size: int) -> None:
    source, out = folder(tmp_path / "in", NAMES), tmp_path / "out"

    def mine(number: int, total: int, path: Path) -> None:
        (out / "5.png").write_bytes(b"mine")

    report = translate_folder(source, out, USED, progress=mine, batch_size=batch_size)
    assert statuses(report) == dict.fromkeys(NAMES, "done") | {"5.png": "failed"}
    assert "appeared" in report.failed[0].reason
    assert (out / "5.png").read_bytes() == b"mine" and set(tree(out)) == set(NAMES)


@pytest.mark.promise("R25", "R22")
def test_what_another_run_has_done_meanwhile_is_skipped(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", NAMES), tmp_path / "out"

    def theirs(number: int, total: int, path: Path) -> None:
        (out / "5.png").write_bytes(b"theirs")

    report = translate_folder(source, out, USED, progress=theirs, skip_existing=True)
    assert statuses(report)["5.png"] == "skipped" and (out / "5.png").read_bytes() == b"theirs"


@pytest.mark.promise("R25")
def test_with_overwrite_it_is_replaced(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", NAMES), tmp_path / "out"

    def theirs(number: int, total: int, path: Path) -> None:
        if number == 1:
            (out / "5.png").write_bytes(b"theirs")

    report = translate_folder(source, out, USED, progress=theirs, overwrite=True)
    assert set(statuses(report).values()) == {"done"} and (out / "5.png").read_bytes() != b"theirs"


@pytest.mark.promise("R22", "R25")
def test_a_link_to_nothing_is_no_result(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", NAMES), tmp_path / "out"
    out.mkdir()
    (out / "3.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"outputs? exist"):
        translate_folder(source, out, USED)
    report = translate_folder(source, out, USED, skip_existing=True)
    assert set(statuses(report).values()) == {"done"}
    assert not (out / "3.png").is_symlink() and not (tmp_path / "nothing").exists()


@pytest.mark.promise("R24")
def test_folders_of_the_output_that_are_one_by_a_link(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", ("x/a.png", "y/a.png")), tmp_path / "out"
    (out / "y").mkdir(parents=True)
    (out / "x").symlink_to("y")
    with pytest.raises(UsageError, match="share their output paths"):
        translate_folder(source, out, USED)
    assert tree(out / "y") == {}


@pytest.mark.promise("R25", "R41")
@pytest.mark.parametrize("shard", ["1/2", "2/2"])
def test_an_input_of_another_part_of_the_work_is_not_overwritten(tmp_path: Path, shard: str) -> None:
    """One part would write the file that the other reads; by itself, neither sees more than an old output."""
    picture(tmp_path / "in/deep/a.png")
    theirs = picture(tmp_path / "out/deep/a.png")
    before = tree(tmp_path)
    for inputs in ([tmp_path / "in", theirs], [theirs, tmp_path / "in"]):
        mine = plan(inputs, tmp_path / "elsewhere", FolderOptions(shard=shard)).todo[0].source
        if mine == theirs:
            continue
        with pytest.raises(UsageError, match="is an input"):
            translate_folder(inputs, tmp_path / "out", USED, shard=shard, overwrite=True)
        assert tree(tmp_path) == before
        return
    raise AssertionError("this part never has the input that would overwrite the other's")


@pytest.mark.promise("R42", "R22")
def test_a_dry_run_counts_what_is_skipped(tmp_path: Path) -> None:
    source, out = folder(tmp_path / "in", NAMES), tmp_path / "out"
    folder(out, NAMES[:2])
    words = ("--style", model(tmp_path / "m.safetensors"), source, "-o", out, "--skip-existing")
    code, child = run(tmp_path, *words, "--dry-run", "--json")
    assert code == 0, child.stderr
    planned = json.loads(child.stdout)
    assert planned["counts"] == {"done": 0, "skipped": 2, "failed": 0, "left": 4}
    code, child = run(tmp_path, *words, "--dry-run")
    assert "4 to do, 2 exist" in child.stderr and child.stdout.count("→") == 4


@pytest.mark.promise("R14")
@pytest.mark.parametrize("case", ["input", "one of several", "output"])
def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path / "in", NAMES))
    before = tree(Path())
    inputs, out = {"input": ("", "out"), "one of several": (["0.png", ""], "out"), "output": ("0.png", "")}[case]
    with pytest.raises(UsageError, match="empty path"):
        translate_folder(inputs, out, USED)
    if case == "input":
        with pytest.raises(UsageError, match="empty path"):
            translate_folder("", None, USED, in_place=True)
    assert tree(Path()) == before
