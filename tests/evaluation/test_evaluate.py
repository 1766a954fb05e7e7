"""`evaluate.py` as a user runs it: two folders, a model, a run; and what it says to bad input."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_tools import FAST, flat, folder, model, picture, script

from i2i import images
from i2i.evaluation import metrics
from i2i.evaluation.data import PictureFiles
from i2i.evaluation.data import pictures_in as items
from i2i.evaluation.evaluate import evaluate
from i2i.evaluation.options import EvaluationOptions
from i2i.evaluation.result import Evaluation, Measure, Row, as_text
from i2i.evaluation.sliced_wasserstein import swd
from i2i.evaluation.training_log import Validation
from i2i.inference.translator import load_translator
from i2i.tools.report import write_report


def tensors(path: Path) -> torch.Tensor:
    return torch.stack(list(PictureFiles(items(path))))


def values(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_two_folders_in_pairs(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "made"), folder(tmp_path / "expected", seed=1)
    (b / "2.png").rename(b / "2.bmp")  # the suffix does not matter, the content decides
    report = tmp_path / "evaluation.json"
    result = script(a, b, "--report", report)
    assert result.code == 0, result.err
    found = values(report)
    x, y = tensors(a), tensors(b)
    for name, function in (("l1", metrics.l1), ("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        assert found["table"]["made"][name] == pytest.approx(float(function(x, y).mean()), rel=1e-5)
    assert set(found["table"]["made"]) == {"l1", "psnr", "ssim"}  # 32 px are too few for MS-SSIM
    measure = found["results"][0]["measures"]["l1"]
    assert measure["pictures"] == 3 and measure["std"] == pytest.approx(float(metrics.l1(x, y).std(unbiased=False)))
    assert "bicubic" in found["protocol"]["resizer"] and found["protocol"]["seeds"] == [0, 1, 2]
    assert "evaluate.py" in found["command"] and "--report" in found["command"]
    assert "psnr" in result.out and "n = 3" in result.out and "resizer" in result.out
    assert json.loads(script(a, b, "--json").out)["table"] == found["table"]


def test_two_folders_as_sets(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "made", 3), folder(tmp_path / "real", 5, seed=1, size=(40, 50))
    found = json.loads(script(a, b, "--unpaired", "--size", 32, "--seeds", 0, 1, "--json").out)
    left, right = (PictureFiles(items(path), size=32) for path in (a, b))
    expected = swd(left, right, (0, 1))
    measure = found["results"][0]["measures"]["swd"]
    assert (measure["value"], measure["std"], measure["patches"]) == (expected.mean, expected.std, 384)
    assert measure["levels"] == {"32": expected.levels[32], "16": expected.levels[16]}
    assert (measure["pictures"], measure["reference"]) == (3, 5)
    assert found["table"]["made"]["diversity"] == metrics.diversity(left).value
    assert "32x32" in found["protocol"]["sets"]


def test_a_model_on_unpaired_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for i, name in enumerate(("trainA", "trainB", "testA", "testB")):
        folder(data / name, 2 + i % 2, seed=i)
    path = model(tmp_path / "m.safetensors", "b2a")
    found = json.loads(
        script(path, data, "--size", 32, *FAST, "--back", model(tmp_path / "b.safetensors"), "--json").out
    )
    translator = load_translator(path, precision="fp32", runtime="torch")
    inputs = PictureFiles(items(data / "testB"), size=32)
    outputs = [images.to_tensor(images.to_pixels(translator(inputs[i]))) for i in range(len(inputs))]
    row = found["table"][str(path)]
    expected = metrics.luminance_ssim(torch.stack(outputs), torch.stack(list(inputs))).mean()
    assert row["luminance_ssim"] == pytest.approx(float(expected), rel=1e-5)
    assert 0 < row["cycle_error"] < 1
    made = swd(outputs, PictureFiles(items(data / "trainA"), size=32), (0,)).mean
    assert row["swd"] == made
    detail = next(r for r in found["results"] if r["name"] == str(path))
    assert detail["algorithm"] == "cyclegan" and len(detail["sha256"]) == 64 and detail["direction"] == "b2a (B → A)"


def page_text(run: Path) -> str:
    return write_report(run).path.read_text()


def side_by_side(path: Path, seed: int) -> None:
    a, b = (picture(path.parent.parent / f"{seed}{side}.png", seed=2 * seed + i) for i, side in enumerate("ab"))
    flat(path, np.hstack([images.read(a).pixels, images.read(b).pixels]))
    a.unlink(), b.unlink()


def test_a_run_with_its_validations(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    for split in ("train", "val"):
        for i in range(2):
            side_by_side(data / split / f"{i}.png", i)
    for seed, name in enumerate(("a2b", "a2b-best")):
        model(run / f"{name}.safetensors", "a2b", "pix2pix", seed)
    (run / "config.yaml").write_text(f"data: {data}\n")
    lines = [
        {"kind": "step", "step": 1, "text": "validation"},
        *({"kind": "validation", "step": s, "epoch": s, "metrics": {"b/l1": x, "b/ssim": y}}
          for s, x, y in ((1, 0.3, 0.5), (2, 0.2, 0.7), (3, 0.25, 0.6))),
    ]  # fmt: skip
    log = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "validation", "st'
    (run / "log.jsonl").write_text(log)
    result = script(run, "--json", "--metrics", "l1", "ssim")
    found = json.loads(result.out)
    assert list(found["table"]) == ["a2b (last)", "a2b-best"]
    assert found["table"]["a2b (last)"] != found["table"]["a2b-best"]
    assert [v["step"] for v in found["validations"]] == [1, 2, 3] and found["best_steps"] == {"b/l1": 2, "b/ssim": 2}
    assert values(run / "evaluation.json")["table"] == found["table"]
    text = script(run, "--metrics", "l1").out
    assert "l1" in page_text(run) and set(values(run / "evaluation.json")["table"]["a2b-best"]) == {"l1"}
    (run / "evaluation.json").write_text("mine")
    result = script(run, "--metrics", "l1")
    assert result.code == 0 and "not kept for the report of the run" in result.err
    assert (run / "evaluation.json").read_text() == "mine"
    assert "0.2 *" in text and "0.7 *" in text and text.count(" *") == 2
    inputs = [PictureFiles(items(data / "val"))[i][..., :32] for i in range(2)]
    right = torch.stack([PictureFiles(items(data / "val"))[i][..., 32:] for i in range(2)])
    outputs = torch.stack(
        [images.to_tensor(images.to_pixels(load_translator(run, precision="fp32", runtime="torch")(x))) for x in inputs]
    )
    assert found["table"]["a2b (last)"]["l1"] == pytest.approx(float(metrics.l1(outputs, right).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("seeds", "rows"),
    [
        ({"a2b": 1, "a2b-best": 1}, ["a2b (last and best)"]),
        ({"a2b": 1, "a2b-best": 2}, ["a2b (last)", "a2b-best"]),
        ({"a2b": 1, "b2a": 2, "a2b-best": 1, "b2a-best": 2}, ["a2b (last and best)", "b2a (last and best)"]),
        # of cycle_error the model that goes back is a part
        ({"a2b": 1, "b2a": 2, "a2b-best": 1, "b2a-best": 3}, ["a2b (last)", "a2b-best", "b2a (last)", "b2a-best"]),
        ({"a2b": 1, "b2a": 2, "a2b-best": 1}, ["a2b (last)", "a2b-best", "b2a (last)"]),
    ],
)
def test_a_model_that_is_the_last_and_the_best_is_measured_once(
    seeds: dict[str, int], rows: list[str], tmp_path: Path
) -> None:
    for name, seed in seeds.items():  # whatever else their files say
        model(tmp_path / f"run/{name}.safetensors", name[:3], seed=seed, licence=name)
    photos = folder(tmp_path / "photos", 2)
    result = script(tmp_path / "run", photos, "--metrics", "luminance_ssim", "--size", 16, "--json")
    assert list(json.loads(result.out)["table"]) == rows
    assert [f"{name}: translating 2 pictures" in result.err for name in rows] == [True] * len(rows)


def test_labels_snapped_read_back_and_written(tmp_path: Path) -> None:
    palette = tmp_path / "palette.txt"
    palette.write_text("0 0 0\n255 255 255\n")
    draw = np.random.default_rng(0)
    classes = [draw.integers(0, 2, (16, 16, 1)).astype(np.uint8) for _ in range(2)]
    for i, labels in enumerate(classes):
        flat(tmp_path / "indices" / f"{i}.png", labels)  # class indices
        flat(tmp_path / "colours" / f"{i}.png", np.repeat(labels * 200 + 20, 3, axis=2))  # colours, not quite
        picture(tmp_path / "data" / "A" / f"{i}.png", (16, 16), seed=i)
        flat(tmp_path / "data" / "B" / f"{i}.png", labels)
    found = json.loads(script(tmp_path / "colours", tmp_path / "indices", "--palette", palette, "--json").out)
    row = found["table"]["colours"]
    assert (row["pixel_accuracy"], row["class_accuracy"], row["mean_iou"]) == (1, 1, 1)

    out, path = tmp_path / "out", model(tmp_path / "m.safetensors")
    out.mkdir()
    arguments = ("--split", "train", "--palette", palette, "--metrics", "mean_iou", "pixel_accuracy", "--json")
    found = json.loads(script(path, tmp_path / "data", *arguments, "--labels-out", out).out)
    right = [(images.read(out / f"{i}.png").pixels == labels).mean() for i, labels in enumerate(classes)]
    assert found["table"][str(path)]["pixel_accuracy"] == pytest.approx(np.mean(right))
    again = script(path, tmp_path / "data", *arguments, "--labels-out", out)
    assert again.code == 2 and "exists" in again.err

    run, out = tmp_path / "run", tmp_path / "of run"
    out.mkdir()
    for seed, name in enumerate(("a2b", "a2b-best")):
        model(run / f"{name}.safetensors", algorithm="pix2pix", seed=seed)
    result = script(run, tmp_path / "data", *arguments, "--labels-out", out)
    assert result.code == 0, result.err
    written = sorted(str(file.relative_to(out)) for file in out.rglob("*.png"))
    assert written == ["a2b-best/0.png", "a2b-best/1.png", "a2b/0.png", "a2b/1.png"]

    back = model(tmp_path / "b.safetensors", "b2a")
    result = script(back, tmp_path / "data", *arguments, "--label-model", path)
    found = json.loads(result.out)
    assert found["protocol"]["label_model"]["model"] == str(path)
    assert str(path) in found["results"][0]["measures"]["mean_iou"]["read_back_by"]
    assert "real pictures, labels read back (a2b)" in found["table"]


def test_bad_input_is_named(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", 3), folder(tmp_path / "b", 2)
    one, small = folder(tmp_path / "one", 1), folder(tmp_path / "small", 3, size=(32, 20))
    tiny, empty, text = folder(tmp_path / "tiny", 3, size=(8, 8)), tmp_path / "empty", tmp_path / "weights.pth"
    empty.mkdir()
    text.write_text("no weights")
    for arguments, code, reason in (
        ((a, b), 4, "2.png has no partner"),
        ((a, small), 4, "0.png: 32x32 pixels, its partner has 20x32"),
        ((tiny, tiny, "--metrics", "ssim"), 4, "8x8 pixels; ssim needs 11"),
        ((a, empty), 4, "no pictures"),
        ((a, tmp_path / "missing"), 4, "no such folder"),
        ((a, a, "--metrics", "ms_ssim"), 4, "ms_ssim needs 176"),
        ((a, b, "--unpaired", "--metrics", "fid"), 2, "--inception FILE, or --download"),
        ((a, b, "--unpaired", "--metrics", "fid", "--inception", text), 5, "expected the Inception weights"),
        ((a, a, "--metrics", "lpips"), 2, "--lpips FILE"),
        ((a, a, "--metrics", "ssmi"), 2, "Did you mean 'ssim'"),
        ((a, a, "--metrics", "luminance_ssim"), 2, "luminance_ssim compares outputs with what a model was given"),
        ((a, a, "--palette", "facades", "--size", 32), 2, "leave out --size"),
        ((a, a, "--metrics", "mean_iou"), 2, "--palette"),
        ((a, a, "--seeds", -1), 2, "seeds"),
        ((a, a, "--seeds", 0, 1, 0), 2, "seeds: each only once"),
        ((), 2, "expected"),
        ((model(tmp_path / "m.safetensors"),), 2, "on which pictures"),
        (("monte", a), 2, "no such style"),
        ((a, a, "--report", tmp_path / "x.txt"), 2, "JSON"),
        ((a, a, "--report", tmp_path / "none" / "x.json"), 6, "no such folder"),
        ((text, a), 5, "weights.pth"),
    ):
        result = script(*arguments)
        assert (result.code, reason in result.err) == (code, True), (arguments, result)
        assert result.out == ""
    assert one.is_dir()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of Inception: the mean colours."""
    from i2i.evaluation import features

    class Tiny(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.mean(dim=(2, 3)), x.mean(dim=(2, 3))

    monkeypatch.setattr(features, "load_inception", lambda path: (Tiny(), "f" * 64))
    path = tmp_path / "w.pth"
    path.touch()
    return path


def test_what_is_undefined_is_left_out_unless_asked_for(tmp_path: Path, weights: Path) -> None:
    a, b, one = folder(tmp_path / "a", 4), folder(tmp_path / "b", 5, seed=2), folder(tmp_path / "one", 1, seed=3)
    options = ("--unpaired", "--inception", weights, "--size", 32, *FAST)
    found = json.loads(script(b, a, *options, "--json").out)
    assert set(found["table"]["b"]) == {"swd", "fid", "kid", "precision", "recall", "diversity"}
    assert "Inception Score in 10 parts is undefined for a set of 5" in found["protocol"]["left out"][0]
    result = script(one, a, *options)
    assert result.code == 0 and "swd" in result.out and "FID is undefined for a set of 1" in result.out
    assert "left out: diversity is undefined for a set of 1" in result.out
    result = script(b, a, *options, "--metrics", "is")
    assert result.code == 4 and "at least 10 pictures" in result.err


def test_pictures_too_small_for_a_metric(tmp_path: Path) -> None:
    mixed = folder(tmp_path / "mixed", 1, size=(180, 180))
    picture(mixed / "1.png", (32, 32))
    found = json.loads(script(mixed, mixed, "--json").out)
    assert set(found["table"]["mixed"]) == {"l1", "psnr", "ssim"}
    assert (
        len(found["protocol"]["left out"]) == 1 and "1.png: 32x32 pixels; ms_ssim" in found["protocol"]["left out"][0]
    )
    picture(mixed / "2.png", (8, 9))
    found = json.loads(script(mixed, mixed, "--json").out)
    assert set(found["table"]["mixed"]) == {"l1", "psnr"} and len(found["protocol"]["left out"]) == 2
    for side in "AB":
        folder(tmp_path / "data" / side, 2, size=(8, 8))
    path = model(tmp_path / "m.safetensors", algorithm="pix2pix")
    result = script(path, tmp_path / "data", "--split", "train", "--json", *FAST)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert "luminance_ssim" not in found["table"][str(path)]
    assert any("luminance_ssim needs 11" in reason for reason in found["protocol"]["left out"])


def test_one_image_has_no_fid(tmp_path: Path, weights: Path) -> None:
    a, one = folder(tmp_path / "a", 4), folder(tmp_path / "one", 1, seed=3)
    options = ("--unpaired", "--inception", weights, "--metrics", "fid", "kid", "--json")
    result = script(one, a, *options)
    assert result.code == 4 and "FID is undefined for a set of 1" in result.err
    found = json.loads(script(folder(tmp_path / "b", 5, seed=2), a, *options).out)
    assert found["protocol"]["inception"]["sha256"] == "f" * 64 and found["table"]["b"]["fid"] > 0
    kid = found["results"][0]["measures"]["kid"]
    assert kid["interval"][0] < kid["value"] < kid["interval"][1] and kid["network"] == "Inception, sha256 " + "f" * 64


def test_a_run_on_toy_pictures_shows_its_validations(tmp_path: Path) -> None:
    model(tmp_path / "run" / "a2b.safetensors")
    (tmp_path / "run" / "config.yaml").write_text("data: toy\n")
    result = script(tmp_path / "run")
    assert result.code == 2 and "--data" in result.err
    line = {"kind": "validation", "step": 4, "epoch": 1, "metrics": {"b/l1": 0.125}}
    (tmp_path / "run" / "log.jsonl").write_text(json.dumps(line) + "\n")
    result = script(tmp_path / "run")
    assert result.code == 0 and "0.125 *" in result.out and "drawn on the fly" in result.err
    result = script(tmp_path / "run", "--against", model(tmp_path / "other.safetensors"))
    assert result.code == 2 and "there is no model in" in result.err and result.out == ""


def test_a_direction_that_the_run_has_not(tmp_path: Path) -> None:
    model(tmp_path / "run" / "b2a.safetensors", "b2a")
    line = {"kind": "validation", "step": 4, "epoch": 1, "metrics": {"b/l1": 0.125}}
    (tmp_path / "run" / "log.jsonl").write_text(json.dumps(line) + "\n")
    result = script(tmp_path / "run", "--direction", "a2b")
    assert result.code == 2 and "no model of a2b, only b2a.safetensors" in result.err and result.out == ""


def test_the_protocol_says_what_size_was_translated(tmp_path: Path) -> None:
    path, data = model(tmp_path / "m.safetensors"), folder(tmp_path / "data", 2, size=(40, 50))
    found = json.loads(script(path, data, "--json", *FAST).out)
    assert "256x256" in found["protocol"]["inputs"] and "before translation" in found["protocol"]["inputs"]
    for side in "AB":
        folder(tmp_path / "pairs" / side, 1)
    found = json.loads(script(path, tmp_path / "pairs", "--split", "train", "--metrics", "l1", "--json").out)
    assert found["protocol"]["inputs"] == "pictures as they are"


def test_a_damaged_log(tmp_path: Path) -> None:
    def line(step: str, value: str, epoch: str = "1") -> str:
        return f'{{"kind": "validation", "step": {step}, "epoch": {epoch}, "metrics": {{"b/l1": {value}}}}}\n'

    huge, log = "9" * 400, tmp_path / "log.jsonl"
    lines = [line("1", "NaN"), line("1e999", "0.1"), line("3", huge), line(huge, "0.1"), line("4", "0.1", "1e999")]
    lines += [line("5", "0.5"), line("6", "-Infinity"), line("7", "0.25"), '{"kind": "validation"}\n', "[]\n"]
    log.write_text("".join(lines))
    result = script(tmp_path, "--json")
    found = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [v["step"] for v in found["validations"]] == [1, 3, 5, 6, 7] and found["best_steps"] == {"b/l1": 7}
    result = script(tmp_path)
    assert "0.25 *" in result.out and "only its validations are shown" in result.err
    log.unlink()
    os.mkfifo(log)
    result = script(tmp_path)
    assert result.code == 4 and "not a file" in result.err


def test_json_has_null_for_numbers_that_are_not_finite() -> None:
    measure = Measure(
        float("inf"), 2, {"std": float("nan"), "levels": {"16": float("-inf")}, "interval": [float("nan")]}
    )
    validations = [Validation(step, 1, {"b/l1": value}) for step, value in ((1, float("nan")), (2, 0.5))]
    text = Evaluation([Row("x", {"psnr": measure})], {}, validations).to_json()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["table"] == {"x": {"psnr": None}} and found["best_steps"] == {"b/l1": 2}


def test_patch_counts_stand_beside_the_distances_and_the_way_where_there_is_one() -> None:
    def row(patches: int, **details: float) -> Row:
        return Row(f"of {patches}", {"swd": Measure(1.0, 2, {"levels": {"16": 1.0}, "patches": patches, **details})})

    text = as_text(Evaluation([row(256), row(1384)], {}).to_mapping())
    assert "patches" in text and "1,384" in text and "gap closed" not in text
    text = as_text(Evaluation([row(256, gap_closed=0.703), row(1384)], {}).to_mapping())
    assert "gap closed" in text and "70 %" in text


@pytest.mark.promise("R52")
def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    a = folder(tmp_path / "made\x1b[2J", 2)
    result = script(a, a)
    assert result.code == 0 and "\x1b" not in result.out + result.err
    b = folder(tmp_path / "b\x1b[2J", 1)
    assert "\x1b" not in script(a, b).err


def test_an_evaluation_is_a_function_too_and_needs_no_torchmetrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torchmetrics", "torch_fidelity", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)  # its import fails
    a = folder(tmp_path / "a", 2, size=(176, 176))
    found = evaluate([str(a), str(a)], EvaluationOptions(metrics=("l1", "ms_ssim", "swd"), seeds=(0,), size=176))
    assert found.rows[0].measures["l1"].value == 0 and found.rows[0].measures["ms_ssim"].value > 0.999
    assert "swd" in found.rows[0].measures


def test_a_run_without_a_model_to_measure_refuses_files_that_cannot_be_used(tmp_path: Path) -> None:
    line = {"kind": "validation", "step": 4, "epoch": 1, "metrics": {"b/l1": 0.125}}
    run, weights = tmp_path / "run", tmp_path / "weights.pth"
    run.mkdir()
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    weights.write_text("no weights")
    for name, code, reason in ((weights, 5, "expected the Inception weights"), (tmp_path / "none", 2, "no such file")):
        result = script(run, "--inception", name)
        assert (result.code, reason in result.err, result.out) == (code, True, ""), result


def test_numbers_of_a_run_that_take_the_place_of_earlier_ones_say_so(tmp_path: Path) -> None:
    for side in "AB":
        folder(tmp_path / "data" / side, 1)
    model(tmp_path / "run" / "a2b.safetensors", algorithm="pix2pix")
    arguments = (tmp_path / "run", tmp_path / "data", "--split", "train", "--metrics", "l1")
    first, second = (script(*arguments).err for _ in range(2))
    assert f"{tmp_path / 'run' / 'evaluation.json'}: the numbers, for i2i report\n" in first
    named = tmp_path / "run" / "evaluation-NAME.json"
    assert f"in the place of the earlier ones; next time, --report {named} keeps both\n" in second
