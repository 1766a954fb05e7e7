"""Sample grids: which pictures, their layout and captions, and when they are written."""

import json
from pathlib import Path

import pytest
import torch
from run_options import Pix2PixRun
from torchvision.utils import make_grid
from toy_folders import write_folder

from i2i import images, machine
from i2i.algorithms import Pix2Pix
from i2i.training.launch import train
from i2i.training.monitor import BF16_IS_SLOW, CAPTION, grid, layout, spread


@pytest.mark.parametrize(
    ("length", "count", "places"), [(10, 4, [0, 2, 5, 7]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (100, 1, [0])]
)
def test_rows_are_spread_over_the_held_out_pictures(length: int, count: int, places: list[int]) -> None:
    assert spread(length, count) == places


def test_each_column_has_its_name_above_it() -> None:
    rows = [{"real_A": torch.ones(3, 64, 64), "fake_B": torch.ones(3, 64, 64)} for _ in range(4)]
    assert layout(rows) == {
        "columns": ["real_A", "fake_B"],
        "inputs": 4,
        "inputs_per_row": 2,
        "caption_height": CAPTION,
    }
    strip = grid(rows)[:, :CAPTION]
    for column in range(4):
        assert float(strip[:, :, 2 + column * 66 :][:, :, :64].min()) < 0.5, "something is written there"
    narrow = [{"real_A": torch.ones(3, 8, 8), "fake_B": torch.ones(3, 8, 8)}]
    assert bool((grid(narrow)[:, :CAPTION] == 1).all()), "there is no room for a name"


@pytest.mark.parametrize(("rows", "columns", "across"), [(3, 3, 3), (4, 2, 4), (4, 1, 2), (6, 3, 3)])
def test_a_grid_is_laid_out_as_torchvision_does(rows: int, columns: int, across: int) -> None:
    names = [f"picture {k}" for k in range(columns)]
    pictures = [{name: torch.rand(3, 32, 32) * 2 - 1 for name in names} for _ in range(rows)]
    cells = torch.stack([(picture + 1) / 2 for row in pictures for picture in row.values()])
    expected = make_grid(cells, nrow=across, padding=2, pad_value=1.0)
    assert torch.allclose(grid(pictures)[:, CAPTION:], expected, atol=1e-6)


def test_one_picture_has_its_border() -> None:
    assert grid([{"fake": torch.zeros(3, 32, 32)}]).shape == (3, CAPTION + 36, 36)


def test_a_run_shows_what_it_has_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grid with the first step, each validation and the last step; then where it is, and how to translate."""
    write_folder(tmp_path / "data", "paired", count=3, size=32)
    run = tmp_path / "my run"
    options = Pix2PixRun(
        data=tmp_path / "data", run=run, generator="unet_32", discriminator="patchgan_16", ngf=2, ndf=2, crop_size=32,
        load_size=32, workers=0, device="cpu", max_steps=5, validate_every=1,
    )  # fmt: skip
    train(Pix2Pix, options)
    assert [path.name for path in sorted((run / "samples").glob("*.png"))] == [
        f"step-{step:08d}.png" for step in (1, 3, 5)
    ]
    columns = json.loads((run / "samples/columns.json").read_text())
    assert columns["columns"] == ["real_A", "fake_B", "real_B"] and columns["caption_height"] == CAPTION
    made = images.read(run / "samples/step-00000005.png").pixels
    assert made.shape[:2] == (CAPTION + 2 + 34 * columns["inputs"], 2 + 34 * 3)
    *_, samples, translate = capsys.readouterr().err.splitlines()
    assert samples == f"samples: {run}/samples/step-00000005.png"
    assert translate == f"to translate: i2i translate --style '{run}' photos/ -o out/"


@pytest.mark.parametrize(("precision", "has", "said"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)])
def test_bf16_is_called_slow_where_the_processor_lacks_it(
    precision: str, has: bool, said: int, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(machine, "has_bf16", lambda: has)
    write_folder(tmp_path / "data", "paired", count=2, size=32)
    options = Pix2PixRun(
        data=tmp_path / "data", run=tmp_path / "run", generator="unet_32", discriminator="patchgan_16", ngf=2, ndf=2,
        crop_size=32, load_size=32, workers=0, device="cpu", max_steps=1, precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip
    train(Pix2Pix, options)
    everything = "".join(capsys.readouterr())
    assert everything.count(BF16_IS_SLOW) == said
    assert (tmp_path / "run" / "log.jsonl").read_text().count(BF16_IS_SLOW) == said
