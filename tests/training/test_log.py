"""The files of a run beside its states: logs, sample grids, how it was made, TensorBoard."""

import errno
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from children import lines, run
from PIL import Image

from i2i.errors import OutputError
from i2i.models.info import Training, read_info
from i2i.training import log
from i2i.training.checkpoint import dataset_name
from i2i.training.log import RunLog
from i2i.training.run_folder import RunFolder


def grid(folder: Path, step: int) -> Any:
    return np.asarray(Image.open(folder / "samples" / f"step-{step:08d}.png"))


def test_files_that_a_run_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = run(
        "cyclegan",
        folder,
        "--max-steps 4 --sample-every 3 --samples 2 --lr 0.05 --workers 0 --domain-a dusk --licence CC0-1.0",
    )
    first, later = grid(folder, 1), grid(folder, 3)
    assert first.shape == later.shape and first.shape[0] == 16 + 2 * 18 + 2
    assert np.array_equal(first[:, :18], later[:, :18]), "the same inputs in the left column"
    assert not np.array_equal(first, later), "other translations"
    names = sorted(path.name for path in (folder / "samples").iterdir())
    assert names == ["columns.json", *(f"step-{step:08d}.png" for step in (1, 3, 4))]
    there, back = (read_info(folder / f"{direction}.safetensors") for direction in ("a2b", "b2a"))
    assert (there.input_domain, there.output_domain, there.licence) == ("dusk", "B", "CC0-1.0")
    assert (back.input_domain, back.output_domain) == ("B", "dusk")
    command = (folder / "command.txt").read_text()
    assert "train_cyclegan.py" in command and f"--run {folder}" in command and command.endswith("\n")
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["device"] == "cpu"
    last = next(line for line in child.said().splitlines() if line.startswith("step 4 "))
    assert "100%" in last and "gan_AB" in last and "\x1b" not in child.said(), "plain lines off a terminal"


class Board:
    """The calls that `torch.utils.tensorboard.SummaryWriter` got."""

    made: "list[Board]"

    def __init__(self, folder: str, purge_step: int) -> None:
        self.purge_step, self.told, self.closed = purge_step, list[Any](), False
        Board.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, value, step))

    def add_image(self, name: str, image: Any, step: int) -> None:
        self.told.append((name, tuple(image.shape), step))

    def close(self) -> None:
        self.closed = True


def line(step: int, **losses: float) -> dict[str, Any]:
    return {"step": step, "images": step, "epoch": 1, "lr": 1e-4, "losses": losses}


def test_tensorboard_if_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter, Board.made = Board, []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = RunLog(tmp_path, 100)
    log.open(4)
    log.steps([line(5, gan=0.5)])
    log.validation(5, 0, {"fake_B/l1": 0.25})
    log.grid(5, torch.zeros(3, 4, 4))
    log.close()
    (board,) = Board.made
    assert board.purge_step == 5 and board.closed
    assert board.told == [("loss/gan", 0.5, 5), ("validation/fake_B/l1", 0.25, 5), ("samples", (3, 4, 4), 5)]


@pytest.mark.promise("R4")
@pytest.mark.parametrize("where", ["__init__", "add_scalar", "add_image", "close"])
def test_a_tensorboard_that_fails_is_off_and_nothing_else(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter, Board.made = type("Failing", (Board,), {where: fail}), []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = RunLog(tmp_path, 100)
    log.open(4)
    for step in (5, 6):
        log.steps([line(step, gan=0.5, cycle=0.25)])
        log.validation(step, 0, {"fake_B/l1": 0.25})
        log.grid(step, torch.zeros(3, 4, 4))
    log.close()
    (event,) = lines(tmp_path, "event")
    assert event["text"] == "TensorBoard is off: OSError: [Errno 28] No space left on device"
    assert event["step"] == {"__init__": 4, "add_scalar": 5, "add_image": 5, "close": 6}[where]
    assert len(lines(tmp_path, "step")) == len(lines(tmp_path, "validation")) == 2
    assert capsys.readouterr().err.count("TensorBoard is off") == 1


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (
            "TypeError('Descriptors cannot be created directly.\\nIf this call came from')",
            "TypeError: Descriptors cannot be created directly.",
        ),
        ("AttributeError('no attribute distutils')", "AttributeError: no attribute distutils"),
        ("ImportError('cannot import name x')", "ImportError: cannot import name x"),
        ("ModuleNotFoundError('No module named google', name='google')", "ModuleNotFoundError: No module named google"),
        ("ModuleNotFoundError('No module named tensorboard', name='tensorboard')", None),
    ],
)
def test_a_tensorboard_that_cannot_be_imported(
    raised: str, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is optional: that it is not there is no news."""
    (tmp_path / "tensorboard.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    log = RunLog(tmp_path, 100)
    log.open(0)
    log.close()
    events = [line["text"] for line in lines(tmp_path, "event")]
    assert events == [f"TensorBoard is off: {text}" for text in [told] if text]


@pytest.mark.parametrize(("term", "anew"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_line_is_drawn_anew_where_a_terminal_can(
    term: str, anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To others it is written now and then."""
    monkeypatch.setattr(log, "PLAIN_SECONDS", 0.0)
    monkeypatch.setenv("TERM", term)
    said = shown(tmp_path, monkeypatch, terminal=True)
    assert ("\x1b" in said) == ("\r" in said) == anew and ("step 1 " in said) and ("step 2 " in said)


def test_a_file_gets_plain_lines_whatever_forces_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PLAIN_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = shown(tmp_path, monkeypatch, terminal=False)
    assert [line[:6] for line in said.splitlines()] == ["step 1", "step 2"] and "\x1b" not in said and "\r" not in said


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    """The text that two steps write to a terminal, or to something else."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    log = RunLog(folder, 100)
    log.open(0)
    for step in (1, 2):
        log.steps([line(step, gan=0.5)])
        log.show(line(step, gan=0.5))
    log.close()
    return stream.getvalue()


def test_the_last_batch_may_pass_the_end_and_no_share_is_above_100_percent() -> None:
    line = {"step": 7, "epoch": 192, "images": 896, "losses": {}}
    assert log.live_line(line, 800, rate=1.0) == "step 7  epoch 192  100%  1.00 images/s  0 s left"


def test_losses_may_come_and_go_with_the_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 100)
    log.open(0)
    made = [{"gan": 1.0, "penalty": 2.0}, {"gan": 3.0}, {"other": 4.0, "gan": float("nan")}]
    log.steps([line(step, **losses) for step, losses in enumerate(made, start=1)])
    log.close()
    expected = [*made[:2], {"other": 4.0, "gan": None}]
    assert [line["losses"] for line in lines(tmp_path, "step")] == expected


@pytest.mark.parametrize(
    ("data", "name"),
    [("toy", "toy"), ("sets/photos.v2", "photos.v2"), ("sets/pairs.csv", "pairs"), ("sets/a\\b", "a_b")],
)
def test_the_name_of_a_data_set(data: str, name: str) -> None:
    assert dataset_name(Path(data)) == name
    Training(dataset=name)


def test_a_lock_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OutputError, match="cannot be written: No space left"), RunFolder(tmp_path / "run").locked():
        pass
