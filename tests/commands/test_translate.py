"""Several processes that torchrun starts share a folder; URLs of a store on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_tools import Environment, Slow, folder, model, start, tree
from command_line import exit_code
from fork_server import free_port, meeting_place
from object_store import content, fill, new_bucket

from i2i.commands import translate
from i2i.errors import UsageError
from i2i.folders.plan import plan
from i2i.inference import prepare
from i2i.inference.options import FolderOptions, ModelOptions
from i2i.inference.prepare import device_of
from i2i.tools import show


def options(**given: Any) -> Any:
    return translate.TranslateCommand(**given)


@pytest.mark.parametrize("shards", [("1/1",), ("1/2", "2/2")])
def test_their_parts_are_the_whole_once(tmp_path: Path, shards: tuple[str, ...]) -> None:
    names = tuple(f"{i}.png" for i in range(11))
    folder(tmp_path / "in", names)
    done = []
    for shard in shards:
        for rank in range(3):
            mine = translate.share(options(shard=shard, report=Path("r.json")), rank, 3)
            assert mine.report == Path(f"r-{mine.shard.replace('/', '-of-')}.json")
            jobs = plan([tmp_path / "in"], tmp_path / "out", FolderOptions(shard=mine.shard)).todo
            done += [job.name.name for job in jobs]
            assert len(jobs) in {11 // (3 * len(shards)), 11 // (3 * len(shards)) + 1}
    assert sorted(done) == sorted(names)
    alone = options(shard="1/1")
    assert translate.share(alone, 0, 1) is alone


@pytest.mark.parametrize("counts", [(4, 2), (1, 3), (2, 2)])
def test_machines_with_different_numbers_of_processes(tmp_path: Path, counts: tuple[int, ...]) -> None:
    names = tuple(f"{i}.png" for i in range(17))
    folder(tmp_path / "in", names)
    done = []
    for machine, count in enumerate(counts, 1):
        for rank in range(count):
            mine = translate.share(options(shard=f"{machine}/{len(counts)}"), rank, count)
            done += plan([tmp_path / "in"], tmp_path / "out", FolderOptions(shard=mine.shard)).todo
    assert sorted(job.name.name for job in done) == sorted(names)


def test_one_bad_picture_does_not_stop_the_others(tmp_path: Path) -> None:
    """Torchrun ends all when one has ended with a failure: so none ends before all are done."""
    source, style, out = tmp_path / "in", model(tmp_path / "m.safetensors"), tmp_path / "out"
    folder(source, [f"{i}.png" for i in range(20)])
    (source / "0.png").write_text("no picture")
    words, port = ("--style", style, "--runtime", "torch", source, "-o", out), free_port()
    first, second = (
        start(tmp_path, *words, prepare=[Environment(meeting_place(rank, 2, port)), *slowed])
        for rank, slowed in enumerate(([], [Slow(0.1)]))
    )
    first.until(lambda: len(tree(out)) == 19)
    assert first.process.is_alive(), "it waits for the other"
    assert (first.wait(), second.wait()) == (3, 0), first.stderr + second.stderr
    assert "1 of 10 inputs failed" in first.stderr


def test_a_list_on_the_standard_input_is_for_one() -> None:
    with pytest.raises(UsageError, match="goes to one process"):
        translate.share(options(inputs=(Path("-"),)), 1, 2)


def test_each_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.machine, "may_have_gpu", lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    place = {"RANK": 2, "LOCAL_RANK": 2, "WORLD_SIZE": 4, "MASTER_ADDR": "x", "MASTER_PORT": 1}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    for device in ("auto", "cuda"):
        assert str(device_of(ModelOptions(device=device, runtime="torch"))) == "cuda:2"
    with pytest.raises(UsageError, match="4 processes need one each"):
        device_of(ModelOptions(device="cuda:1", runtime="torch"))


def test_show_gives_the_first_result_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    style, out, seen = model(tmp_path / "m.safetensors"), tmp_path / "out", []

    def record(path: Path) -> str:
        seen.append(path)
        return "no terminal here"

    monkeypatch.setattr(show, "show", record)
    folder(tmp_path / "in", ["a.png", "b.png"])
    (tmp_path / "in" / "a.png").write_text("no picture")
    words = ("translate", "--style", str(style), "--runtime", "torch", str(tmp_path / "in"), "-o", str(out))
    assert exit_code(*words, "--show") == 3
    assert seen == [out / "b.png"] and "no terminal here" in capsys.readouterr().err
    assert exit_code(*words, "--skip-existing", "--show") == 3 and len(seen) == 1
    assert not translate.share(options(show=True), 1, 2).show and translate.share(options(show=True), 0, 2).show


def test_urls_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_SPOOL", str(tmp_path))
    bucket, style = new_bucket("memory"), str(model(tmp_path / "m.safetensors"))
    fill(bucket / "in", folder(tmp_path / "in", ("a.png", "deep/b.png")))
    words = ["translate", "--style", style, "--device", "cpu", "--runtime", "torch", f"{bucket}/in", "-o"]
    assert exit_code(*words, f"{bucket}/out", "--dry-run") == 0
    assert f"{bucket}/in/deep/b.png → {bucket}/out/deep/b.png\n" in capsys.readouterr().out
    assert exit_code(*words, f"{bucket}/out", "--report", f"{bucket}/report.json") == 0
    report = json.loads(content(bucket)["report.json"])
    assert [record["target"] for record in report["records"]] == [f"{bucket}/out/a.png", f"{bucket}/out/deep/b.png"]
    assert exit_code(*words, f"{bucket}/out") == 2
    assert exit_code(*words, f"{bucket}/out", "--skip-existing") == 0
    assert exit_code(*words, str(tmp_path / "here"), "--report", str(tmp_path / "report.json")) == 0
    assert exit_code("translate", "--style", style, f"{bucket}/none", "-o", f"{bucket}/out") == 4
    assert not [path for path in tmp_path.rglob("*") if "memory:" in str(path)]


@pytest.mark.parametrize("option", ["", "-o", "--report", "--mask"])
def test_credentials_in_a_url_are_not_shown(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3://me:HIDDEN@bucket/x.json"
    words = [option, secret] if option else [secret]
    assert exit_code("translate", "--style", "monet", "in", *([] if option == "-o" else ["-o", "o"]), *words) == 2
    said = capsys.readouterr()
    assert "has a password or a signature in it" in said.err
    assert "HIDDEN" not in said.err + said.out


def test_a_url_is_refused_where_a_path_is_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("sample", "--style", "monet", "-o", "s3://bucket/x") == 2
    assert "out = 's3://bucket/x': expected a path on this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "translate --style monnet a.png -o a.jpg",
        "translate --style monnet a.png -o a.jpg --dry-run",
        "translate --style monnet nothing.png -o a.jpg",
        "translate --mix monet:1,monnet:2 a.png -o a.jpg",
        "translate --style monnet --download a.png -o a.jpg",
        "export monnet -o a.jpg --format model_file",
        "export monet monnet --web full --web-runtime nowhere",
    ],
)
def test_a_mistake_in_a_style_comes_before_inputs_and_outputs(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path, ["a.png"])
    (tmp_path / "a.jpg").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").touch()
    monkeypatch.chdir(tmp_path)
    assert exit_code(*words.split()) == 2
    assert "style 'monnet': no such style" in (said := capsys.readouterr().err) and "Did you mean 'monet'?" in said
