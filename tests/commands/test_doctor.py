"""`i2i doctor`: what it prints, and its exit code."""

import json
from collections.abc import Iterator

import pytest
from command_line import exit_code

from i2i.commands import doctor
from i2i.errors import SomeFailed
from i2i.tools.doctor.findings import Finding

SECTIONS = [
    [Finding("limits", "memory", "ok", "1 GB free"), Finding("limits", "disk", "low", "little", "free some")],
    [Finding("extras", "onnx", "missing", "writes ONNX", "pip install 'i2i[onnx]'")],
]
WRONG = [Finding("styles", "mine", "wrong", "is cut short\x1b[2J", "remove it")]


def give(monkeypatch: pytest.MonkeyPatch, sections: list[list[Finding]]) -> None:
    def examine() -> Iterator[list[Finding]]:
        yield from sections

    monkeypatch.setattr(doctor, "examine", examine)


def test_what_is_missing_or_low_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, SECTIONS)
    doctor.main(doctor.Options())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "limits" and [line.split() for line in lines[1:3]] == [
        ["ok", "memory", "1", "GB", "free"],
        ["low", "disk", "little:", "free", "some"],
    ]
    assert "writes ONNX: pip install 'i2i[onnx]'" in lines[5]
    assert all(line == line.rstrip() for line in lines)


def test_what_does_not_work_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, [*SECTIONS, WRONG])
    with pytest.raises(SomeFailed, match="1 of 4 findings are wrong; first: mine"):
        doctor.main(doctor.Options())
    assert "\x1b" not in capsys.readouterr().out


def test_json_holds_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, [*SECTIONS, WRONG])
    with pytest.raises(SomeFailed):
        doctor.main(doctor.Options(json=True))
    found = json.loads(capsys.readouterr().out)
    assert found["wrong"] == 1 and [entry["status"] for entry in found["findings"]] == ["ok", "low", "missing", "wrong"]
    assert found["findings"][3]["advice"] == "remove it"


@pytest.mark.slow
def test_this_installation_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    sections = {entry["section"] for entry in found}
    assert sections == {"limits", "styles", "versions", "extras", "devices", "arithmetic"}
