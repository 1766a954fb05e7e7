"""Skipped pictures: named once and counted, or an end that costs no step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from children import digest, lines, run, start, status
from toy_folders import write_folder

from i2i.data.datasets import open_datasets
from i2i.data.options import DataOptions
from i2i.training.monitor import SkippedImages
from i2i.training.state_store import StateStore
from i2i.training.step import ProcessGroup

OPTIONS = "--check off --workers 0 --save-every 100 --log-every 1 --max-steps"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data", "unpaired", count=6, size=16)
    return tmp_path / "data"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """So many that one of them may be damaged: with those that are held out 20."""
    write_folder(tmp_path / "many", "unpaired", count=8, size=16)
    return tmp_path / "many"


def picture_of_sample(data: Path, t: int) -> Path:
    """The picture of domain A that is first seen as sample t."""
    train = open_datasets(DataOptions(data=data, load_size=16, crop_size=16, check="off"), paired=False).train
    return Path(train.names(t).split(", ")[0])  # type: ignore[attr-defined]


@pytest.mark.promise("R11")
def test_a_damaged_picture_is_named_once_and_counted(many: Path, tmp_path: Path) -> None:
    data = many
    damaged, folder = picture_of_sample(data, 3), tmp_path / "run"
    damaged.write_bytes(b"damaged")
    child = run("cyclegan", folder, f"--data {data} --on-bad skip {OPTIONS} 16")
    met = [line["step"] for line in lines(folder, "step") if line.get("damaged")]
    assert met[0] == 4 and len(met) == 2, "one in each epoch of 8"
    assert child.said().count(f"is used: '{damaged}'") == 1
    events = [line["text"] for line in lines(folder, "event")]
    assert [text for text in events if str(damaged) in text] == [
        f"cannot be read, the next one is used: '{damaged}'",
        f"1 damaged picture was replaced: '{damaged}'",
    ]

    child = run("cyclegan", folder, f"--data {data} --on-bad skip {OPTIONS} 24")
    assert "cannot be read" not in child.said(), "it was named before the resume"
    assert f"1 damaged picture was replaced: '{damaged}'" in child.said()


@pytest.mark.promise("R11")
def test_damage_counts_once_however_the_data_set_is_given(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture by an absolute path, from beside the data set, from within it and after it was moved."""
    monkeypatch.chdir(many.parent)
    told: list[str] = []
    log = SimpleNamespace(event=lambda step, text: told.append(text))

    def damaged(root: Path) -> SkippedImages:
        return SkippedImages(log, ProcessGroup("cpu"), 60, {"data": root})  # type: ignore[arg-type]

    kept: list[str] = []
    (many.parent / "moved").symlink_to(many)
    for root in (many, Path("many"), Path("../", many.parent.name, "many"), many.parent / "moved", Path()):
        if not root.name:
            monkeypatch.chdir(many)
        again = damaged(root)
        again.load_state(kept)
        again.report(1, [str(root / "trainA/1.png"), f"{root / 'trainA/2.png'}, {root / 'trainB/2.png'}"])
        kept = again.state()
        assert len(kept) == 2
        again.report_all(2)
        assert f"2 damaged pictures were replaced: '{root / 'trainA/1.png'}'" in told[-1]
    assert len([text for text in told if "is used" in text]) == 2, "each is told once"


@pytest.mark.promise("R11")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_more_damage_than_is_accepted_ends_a_training_at_a_state(workers: int, data: Path, tmp_path: Path) -> None:
    damaged, folder = picture_of_sample(data, 3), tmp_path / "run"
    damaged.write_bytes(b"damaged")
    options = OPTIONS.replace("workers 0", f"workers {workers}")
    child = start("cyclegan", folder, f"--data {data} --on-bad skip {options} 12")
    assert child.wait() == 4, child.said()
    assert "1 of 14 pictures cannot be read, more than the 5% that may be left out (by --on-bad skip)" in child.said()
    assert str(damaged) in child.said()
    assert StateStore(folder).steps() == [3]


def test_the_message_of_a_damaged_picture_says_what_to_do(data: Path, tmp_path: Path) -> None:
    picture_of_sample(data, 0).write_bytes(b"damaged")
    child = start("cyclegan", tmp_path / "run", f"--data {data} {OPTIONS} 4")
    assert child.wait() == 4 and "use --on-bad skip to train without such pictures, up to 5% of all" in child.said()


def test_a_damaged_picture_is_left_out_of_a_validation(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", "unpaired", count=16, size=16)
    damaged = tmp_path / "data/testA/0000.png"
    damaged.write_bytes(b"damaged")
    options = f"--data {tmp_path / 'data'} --on-bad skip --validate-every 1 --samples 1 {OPTIONS} 16"
    child = run("cyclegan", tmp_path / "damaged", options)
    assert f"cannot be read, the next one is used: '{damaged}'" in child.said()
    damaged.unlink()
    (tmp_path / "data/testB/0000.png").unlink()  # they would have made a sample together
    run("cyclegan", tmp_path / "without", options)
    measured = [[line["metrics"] for line in lines(tmp_path / name, "validation")] for name in ("damaged", "without")]
    assert len(measured[0]) == 1 and measured[0] == measured[1]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_picture_that_ends_the_run_costs_no_step(workers: int, data: Path, tmp_path: Path) -> None:
    options = OPTIONS.replace("workers 0", f"workers {workers}")
    run("cyclegan", tmp_path / "straight", f"--data {data} {options} 8")
    damaged, folder = picture_of_sample(data, 3), tmp_path / "run"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    child = start("cyclegan", folder, f"--data {data} {options} 8")
    assert child.wait() == 4, child.said()
    assert str(damaged) in child.said()
    assert StateStore(folder).steps() == [3] and len(lines(folder, "step")) == 3
    assert status(folder)["status"] == "failed"

    damaged.write_bytes(whole)
    run("cyclegan", folder, f"--data {data} {options} 8")
    assert digest(folder) == digest(tmp_path / "straight")


def test_a_picture_that_ends_a_validation_costs_no_step(data: Path, tmp_path: Path) -> None:
    options, folder = f"--data {data} --validate-every 1 {OPTIONS} 8", tmp_path / "run"
    run("cyclegan", tmp_path / "straight", options)
    damaged = next((data / "testA").iterdir())
    whole = damaged.read_bytes()
    prepared = "--sample-every 1000"
    run("cyclegan", folder, f"{options[:-1]}5 {prepared}")
    damaged.write_bytes(b"damaged")
    child = start("cyclegan", folder, f"{options} {prepared}")
    assert child.wait() == 4, child.said()
    assert StateStore(folder).steps()[-1] == 6
    damaged.write_bytes(whole)
    run("cyclegan", folder, options)
    assert [line["step"] for line in lines(folder, "validation")] == [5, 6, 8]
    assert digest(folder) == digest(tmp_path / "straight")
