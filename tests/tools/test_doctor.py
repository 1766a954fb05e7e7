"""Findings: what is there, missing, low or wrong, and what to do about it."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from i2i import machine
from i2i.models.styles import Style
from i2i.tools.doctor import EXTRAS, PACKAGES, Finding, arithmetic, devices, extras, import_of, limits, styles, versions
from i2i.tools.probes import Answer

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
FOR_DEVELOPERS = {"test", "docs", "dev"}
VERSIONS = dict.fromkeys(PACKAGES, "9999.0")
FINE = {import_of(name): Answer() for name in PACKAGES}


def only(found: list[Finding], name: str) -> Finding:
    (finding,) = (entry for entry in found if entry.name == name)
    return finding


def test_every_extra_of_the_project_is_known() -> None:
    declared = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    named = {
        extra: {line.partition(">")[0].partition("[")[0] for line in lines}
        for extra, lines in declared.items()
        if extra not in FOR_DEVELOPERS
    }
    assert {extra: set(packages) for extra, (_, packages) in EXTRAS.items()} == named


def test_an_extra_is_there_or_missing_or_does_not_work() -> None:
    assert {finding.status for finding in extras(VERSIONS, FINE)} == {"ok"}
    missing = only(extras(VERSIONS | {"onnxscript": ""}, FINE), "onnx")
    assert (missing.status, missing.advice) == ("missing", "pip install 'i2i[onnx]'")
    broken = only(extras(VERSIONS, FINE | {"import openvino": Answer(problem="ImportError: libtbb")}), "openvino")
    assert broken.status == "wrong"
    assert broken.text.endswith("openvino 9999.0 cannot be imported: ImportError: libtbb")


def test_an_old_version_is_named_with_the_one_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.11", "numpy!=2.4.0,!=2.4.1,>=2.0", 'pyvips[binary]>=2.2.3; extra == "large"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    old = only(versions(VERSIONS | {"torch": "2.9.1+cpu"}, FINE), "torch")
    assert old.text == "2.9.1+cpu is too old: 2.11 or newer is needed"
    assert (old.status, old.advice) == ("wrong", "pip install --upgrade 'torch>=2.11'")
    assert only(versions(VERSIONS | {"numpy": "1.26.4"}, FINE), "numpy").status == "wrong"
    assert only(extras(VERSIONS | {"pyvips": "2.2.3"}, FINE), "large").status == "ok"
    assert only(extras(VERSIONS | {"pyvips": "2.2.2"}, FINE), "large").status == "wrong"


def test_a_core_package_that_is_not_there_is_wrong() -> None:
    found = versions(VERSIONS | {"kornia": ""}, FINE)
    assert only(found, "kornia").status == "wrong" and "kornia" not in only(found, "packages").text


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    texts = {"memory.max": "1000000000", "memory.current": "600000000", "memory.stat": "active_file 100000000"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    memory = only(limits(), "memory")
    assert (memory.status, memory.text) == ("low", "0.5 GB free of 1.0 GB")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_limit() > 1e9


def test_a_cache_folder_that_cannot_be_written_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "not" / "there"))
    assert only(limits(), "cache (I2I_HOME)").status == "ok"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert only(limits(), "cache (I2I_HOME)").status == "wrong"


def test_styles_by_source_and_damaged_ones() -> None:
    path = Path("x.safetensors")
    found = styles(
        [
            Style(name="monet", source="bundled", path=path),
            Style(name="mine", source="installed", path=path, problem="is cut short"),
            Style(name="style_far", source="catalogue"),
        ]
    )
    assert [(finding.name, finding.status) for finding in found] == [("bundled", "ok"), ("mine", "wrong")]
    assert [(finding.name, finding.status) for finding in styles([])] == [("bundled", "wrong")]


def test_a_gpu_that_torch_does_not_see_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "may_have_gpu", lambda: True)
    assert only(devices(Answer([])), "gpu").status == "low"
    seen = {"name": "cuda:0", "text": "A100, CUDA 13.0", "total": 40e9, "free": 39e9}
    assert only(devices(Answer([seen])), "cuda:0").text == "A100, CUDA 13.0, 39.0 GB free of 40.0 GB"
    assert only(devices(Answer(problem="ends the process (SIGILL)")), "torch").status == "wrong"


@pytest.mark.parametrize(
    ("precision", "largest", "mean", "status"),
    [("fp32", 0.04, 0.01, "ok"), ("fp32", 0.06, 0.01, "wrong"), ("bf16", 7.0, 1.0, "ok"), ("bf16", 7.0, 1.6, "wrong")],
)
def test_a_difference_is_judged_by_the_precision(precision: str, largest: float, mean: float, status: str) -> None:
    entry = {"name": "torch", "precision": precision, "largest": largest, "mean": mean, "problem": ""}
    (finding,) = arithmetic({"arithmetic torch": Answer([entry])})
    assert (finding.name, finding.status) == (f"torch, {precision}", status)


def test_a_device_that_ends_the_process_is_wrong() -> None:
    (finding,) = arithmetic({"arithmetic cuda": Answer(problem="ends the process (SIGABRT)")})
    assert (finding.name, finding.status, finding.text) == ("cuda", "wrong", "ends the process (SIGABRT)")
