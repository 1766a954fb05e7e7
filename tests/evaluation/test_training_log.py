"""The protocol of a run's validations: which pictures, how they came to size, what was compared."""

import html
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_tools import script

from i2i.algorithms.cut import CUT
from i2i.algorithms.cyclegan import CycleGAN
from i2i.algorithms.distill import Distill
from i2i.algorithms.pix2pix import Colorization, Pix2Pix, Segmentation
from i2i.config import to_yaml
from i2i.data.pair import ImagePair
from i2i.data.transforms import Transform
from i2i.evaluation import training_log as protocol
from i2i.evaluation.training_log import Validation, best_steps, read_log, run_options, validation_protocol
from i2i.tools.report import write_report
from i2i.training import validation
from i2i.training.options import RunOptions


def run_folder(path: Path, metrics: dict[str, float], **options: Any) -> Path:
    """A run that has a validation, and no model yet."""
    path.mkdir()
    (path / "config.yaml").write_text(to_yaml(RunOptions(run=path, **options)))
    line = {"kind": "validation", "step": 4, "epoch": 1, "metrics": metrics}
    (path / "log.jsonl").write_text(json.dumps(line) + "\n")
    return path


def test_validations_stand_beside_their_protocol(tmp_path: Path) -> None:
    metrics = {"identity_B/l1": 0.1, "fake_B/luminance_ssim": 0.5, "fake_B/swd": 12.0}
    given = {"data": Path("photos"), "validate_images": 7, "crop_size": 64, "seed": 5}
    run = run_folder(tmp_path / "run", metrics, **given)
    found = json.loads(script(run, "--json").out)["validation_protocol"]
    assert found["pictures"] == (
        "at most 7, the first of the val split of photos, or of test where there is no val; stretched to 64x64; "
        "measured in float32; seed 0 for dropout, 5 for toy pictures and noise"
    )
    assert found["numbers"].startswith(
        "luminance_ssim: means of outputs against their inputs; identity_B: means of pic"
    )
    assert "outputs against their targets" not in found["numbers"]
    assert "swd: outputs against the held-out pictures, as sets, one seed (0)" in found["numbers"]
    text = script(run).out
    for part in found.values():
        assert part in text


def test_a_damaged_configuration_leaves_the_numbers(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", {"cycle_A/l1": 0.125})
    for damage in ("{", "validate_images: many\ncrop_size: -1\npreprocess: [1]\nseed: true\n", None):
        if damage is None:
            (run / "config.yaml").unlink()
        else:
            (run / "config.yaml").write_text(damage)
        result = script(run)
        assert result.code == 0 and "0.125 *" in result.out
        assert "number not known, the first of the val split, or of test where there is no val; size not" in result.out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_page_says_in_which_precision_it_was_validated(tmp_path: Path, precision: str) -> None:
    run = run_folder(tmp_path / "run", {"fake_B/l1": 0.1}, precision=precision)
    page = html.unescape(write_report(run).path.read_text())
    note = next(line for line in page.splitlines() if "pictures of the validations: at most 100" in line)
    trained = " (trained in bf16)" if precision == "bf16" else ""
    assert f"measured in float32{trained}; seed" in note and "precision" not in note
    assert "fake_B: means of outputs against their targets" in page


def test_numbers_are_told_from_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that the algorithms give to what they compare, and their own words for it."""

    def same(x: torch.Tensor) -> torch.Tensor:
        return x[:, :1].expand(-1, channels, -1, -1)

    for algorithm, channels, words in (
        (Pix2Pix, 3, "outputs against their targets"), (Segmentation, 3, "outputs against their targets"),
        (Colorization, 2, "outputs against their targets"), (CycleGAN, 3, CycleGAN.validation_note),
        (CUT, 3, CUT.validation_note), (Distill, 3, Distill.validation_note),
    ):  # fmt: skip
        batch = ImagePair(torch.zeros(1, 1 if channels == 2 else 3, 4, 4), torch.zeros(1, channels, 4, 4))
        played: Any = object.__new__(algorithm)  # it compares without networks of its own
        played.teacher_model = same
        networks: Any = {"a2b": same, "b2a": same}
        names = [f"{name}/l1" for name in played.validation_pairs(batch, networks)]
        assert f": means of {words}" in validation_protocol({}, names)["numbers"], algorithm.name
        assert "reconstructions" not in validation_protocol({}, names)["numbers"]
    assert "or, without pairs, of reconstructions" in validation_protocol({}, ["b/l1"])["numbers"]
    assert validation.SWD_SEEDS == (protocol.VALIDATION_SEED,)
    assert f"({validation.SWD_SIZE}x{validation.SWD_SIZE} for swd" in str(protocol._SIZES)


@pytest.mark.parametrize("preprocess", ["resize_and_crop", "crop", "scale_width", "scale_width_and_crop",
                                        "scale_shortside", "none"])  # fmt: skip
def test_every_way_to_size_is_said(preprocess: Any) -> None:
    config = {"preprocess": preprocess, "load_size": 40, "crop_size": 32}
    said = validation_protocol(config, [])["pictures"]
    height, width = Transform(preprocess, 40, 32, train=False).target(90, 60)
    is_cropped = preprocess not in ("scale_width", "none")
    assert ("32x32" in said, "40" in said) == (is_cropped, width == 40), said
    assert ("stretched to" in said) == (is_cropped and (height, width) == (32, 32))


def test_a_log_takes_little_memory_whatever_is_in_it(tmp_path: Path) -> None:
    """A value that should be a number and is a tree of a mebibyte, in many lines."""
    tree = json.dumps([[]] * 100_000)
    odd = [f'{{"kind": "validation", "step": {n}, "epoch": {tree}, "metrics": {{"l1": 1}}}}' for n in range(8)]
    odd += [f'{{"kind": "step", "step": {n}, "images": {tree}, "losses": {{"G": 1}}}}' for n in range(3)]
    (tmp_path / "log.jsonl").write_text("\n".join(odd) + "\n")
    tracemalloc.start()
    try:
        log = read_log(tmp_path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20 and peak < 40 << 20
    assert not log.validations and log.damaged == 8
    assert log.last == {"step": 2}


def test_best_steps() -> None:
    values = {"fake_B/ssim": (1, 3, 2), "l1": (1, 3, 1), "loudness": (1, 3, 2)}
    validations = [
        Validation(step, step, {name: series[step] for name, series in values.items()} | ({"swd": 5.0} if step else {}))
        for step in range(3)
    ]
    assert best_steps(validations) == {"fake_B/ssim": 1, "l1": 0, "swd": 1}
    assert best_steps([Validation(1, 1, {"l1": math.nan})]) == {} == best_steps([])


def test_options_are_found_in_any_group(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("algorithm: cut\ndata: photos\npreprocessing:\n  crop_size: 64\n")
    assert run_options(tmp_path) == {"algorithm": "cut", "data": "photos", "crop_size": 64}
    assert run_options(tmp_path / "none") == {}
