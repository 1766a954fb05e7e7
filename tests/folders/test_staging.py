"""Folders of a store are translated as folders of this machine: the same bytes, the same records, the same refusals."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_tools import Environment, Slow, folder, model, picture, start, translator, tree
from object_store import KEY, SECRET, content, endpoint, fill, new_bucket, put, unfinished, use_s3
from PIL import Image

from i2i import images
from i2i.errors import OutputError, SomeFailed, UsageError
from i2i.folders import staging, stores
from i2i.folders.batch import translate_folder
from i2i.folders.plan import plan
from i2i.folders.report import Report
from i2i.inference.options import FolderOptions
from i2i.inference.translator import Translator
from i2i.urls import StorePath

NAMES = ("a.png", "b%20+c#.jpg", "deep/é 😀.webp", "deep/er/d.tif", "e.PNG")


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for what is staged; after each test nothing is left in it."""
    path = tmp_path / "spool"
    path.mkdir()
    monkeypatch.setenv("I2I_SPOOL", str(path))
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture(scope="module")
def paints() -> Translator:
    return translator(precision="fp32")


@pytest.fixture
def bucket() -> StorePath:
    return new_bucket("memory")


def outcomes(report: Report) -> list[tuple[str, str, str, str]]:
    """The records, by the names that both kinds of folders have."""
    return [(record.source.name, record.status, record.reason, record.note) for record in report.records]


@pytest.mark.promise("R55", "R23", "R42")
def test_a_store_gives_what_a_folder_gives(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PICTURES", 2)  # several parts
    source = folder(tmp_path / "in", NAMES)
    (source / "broken.png").write_bytes(b"no picture")
    (source / "notes.txt").write_bytes(b"text")
    fill(bucket / "in", source)
    expected = translate_folder(source, tmp_path / "out", paints)
    seen: list[tuple[int, int, str]] = []
    report = translate_folder(
        str(bucket / "in"), f"{bucket}/out/", paints, progress=lambda n, total, path: seen.append((n, total, path.name))
    )
    assert content(bucket / "out") == tree(tmp_path / "out")
    assert outcomes(report) == outcomes(expected)
    assert [str(record.source) for record in report.records] == [
        f"{bucket}/in/{record.source.relative_to(source)}" for record in expected.records
    ]
    assert [str(record.target) for record in report.done] == [
        f"{bucket}/out/{record.target.relative_to(tmp_path / 'out')}" for record in expected.done
    ]
    assert [(number, total) for number, total, _ in seen] == [(n, 6) for n in range(1, 7)]
    assert {name for *_, name in seen} == {record.source.name for record in report.records}


def test_from_here_to_a_store_and_back(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    source = folder(tmp_path / "in", NAMES)
    translate_folder(source, tmp_path / "out", paints)
    translate_folder(source, bucket / "out", paints)
    assert content(bucket / "out") == tree(tmp_path / "out")
    translate_folder(bucket / "out", tmp_path / "back", paints)
    translate_folder(tmp_path / "out", tmp_path / "again", paints)
    assert tree(tmp_path / "back") == tree(tmp_path / "again")


def test_one_file_and_a_list(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket, folder(tmp_path / "in", ("a.png", "deep/b.png")))
    translate_folder(bucket / "a.png", bucket / "new.jpg", paints)
    translate_folder(bucket / "a.png", tmp_path / "here.png", paints)
    translate_folder([bucket / "a.png", bucket / "deep"], bucket / "both", paints)
    assert {"new.jpg", "both/a.png", "both/b.png"} <= content(bucket).keys()
    assert tree(tmp_path / "in").keys() == {"a.png", "deep/b.png"}
    with pytest.raises(UsageError, match="several inputs need a folder"):
        translate_folder(bucket / "deep", bucket / "new.png", paints)


@pytest.mark.promise("R55")
def test_names_that_no_path_can_have_are_refused_and_the_others_go_on(
    tmp_path: Path, bucket: StorePath, paints: Translator
) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    for name in ("in/x/y.png", "in/x//y.png", "in/../z.png", "in//etc/passwd.png", "in/./w.png", "in/.hidden/h.png"):
        put(bucket, name, data)
    report = translate_folder(bucket / "in", tmp_path / "out", paints)
    assert list(tree(tmp_path / "out")) == ["x/y.png"]
    assert [str(record.source) for record in report.done] == [f"{bucket}/in/x/y.png"]
    reasons = sorted(record.reason for record in report.failed)
    assert [reason.split("'")[1] for reason in reasons] == ["../z.png", "./w.png", "/etc/passwd.png", "x//y.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out", "spool"]


def test_names_that_differ_by_case_are_two_in_a_store_and_one_here(
    tmp_path: Path, bucket: StorePath, paints: Translator
) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    for name in ("in/A.png", "in/a.png"):
        put(bucket, name, data)
    translate_folder(bucket / "in", bucket / "out", paints)
    assert content(bucket / "out").keys() == {"A.png", "a.png"}
    with pytest.raises(UsageError, match="2 inputs share their output paths"):
        translate_folder(bucket / "in", tmp_path / "out", paints)
    for name in ("same/a.png", "same/a.jpg"):
        put(bucket, name, data)
    with pytest.raises(UsageError, match="2 inputs share their output paths"):
        translate_folder(bucket / "same", bucket / "one", paints, format="png")
    translate_folder(bucket / "same", bucket / "one", paints, format="png", on_collision="suffix")
    assert content(bucket / "one").keys() == {"a_jpg.png", "a_png.png"}


def test_outputs_that_exist(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    fill(bucket / "in", folder(tmp_path / "in", ("a.png", "b.png")))
    put(bucket, "out/a.png", b"mine")
    with pytest.raises(UsageError, match=r"1 output exists.*\n.*out/a.png"):
        translate_folder(bucket / "in", bucket / "out", paints)
    report = translate_folder(bucket / "in", bucket / "out", paints, skip_existing=True)
    assert [record.status for record in report.records] == ["skipped", "done"]
    assert content(bucket / "out")["a.png"] == b"mine"
    translate_folder(bucket / "in", bucket / "out", paints, overwrite=True)
    assert content(bucket / "out")["a.png"] != b"mine"
    with pytest.raises(UsageError, match="is an input and would be overwritten"):
        translate_folder(bucket / "out" / "a.png", bucket / "out", paints, overwrite=True)
    with pytest.raises(UsageError, match="is the input folder"):
        translate_folder(bucket / "in", bucket / "in", paints)


def test_results_and_masks_in_the_input_are_no_inputs(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    for name in ("a.png", "out/old.png", "masks/a.png"):
        put(bucket, name, picture(tmp_path / name).read_bytes())
    report = translate_folder(bucket, bucket / "out", paints, mask=str(bucket / "masks"))
    assert [str(record.source) for record in report.records] == [f"{bucket}/a.png"]


def test_existing_outputs_are_found_by_one_listing(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket / "in", folder(tmp_path / "in", [f"{n}.png" for n in range(20)]))
    listed: list[StorePath] = []
    files = stores.files
    monkeypatch.setattr(stores, "files", lambda place, **options: listed.append(place) or files(place, **options))
    plan(bucket / "in", bucket / "out", FolderOptions(skip_existing=True))
    assert listed == [bucket / "in", bucket / "out"]


@pytest.mark.promise("R55", "R25")
@pytest.mark.parametrize("skip_existing", [False, True])
def test_what_appears_meanwhile_stays(
    tmp_path: Path, bucket: StorePath, paints: Translator, skip_existing: bool
) -> None:
    fill(bucket / "in", folder(tmp_path / "in", ("a.png", "b.png")))
    put_there = lambda: bool(put(bucket, "out/b.png", b"theirs"))  # noqa: E731  # after the plan
    report = translate_folder(bucket / "in", bucket / "out", paints, stop=put_there, skip_existing=skip_existing)
    assert content(bucket / "out")["b.png"] == b"theirs"
    status, reason = ("skipped", "exists") if skip_existing else ("failed", "not written: something of this name")
    assert [record.status for record in report.records] == ["done", status]
    assert reason in report.records[1].reason


def test_masks(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    source = folder(tmp_path / "in", ("a.png", "deep/b.jpg", "c.png"))
    for name in ("a.png", "deep/b.png"):
        picture(tmp_path / "masks" / name, channels=1)
    fill(bucket / "in", source)
    fill(bucket / "masks", tmp_path / "masks")
    expected = translate_folder(source, tmp_path / "out", paints, mask=tmp_path / "masks")
    report = translate_folder(bucket / "in", bucket / "out", paints, mask=str(bucket / "masks"))
    assert content(bucket / "out") == tree(tmp_path / "out")
    assert [record.note for record in report.done] == [
        record.note.replace(str(tmp_path), str(bucket)) for record in expected.done
    ]
    assert "masks/c.png, or with another suffix" in report.failed[0].reason
    translate_folder(source, tmp_path / "one", paints, mask=str(bucket / "masks" / "a.png"))
    translate_folder(source, tmp_path / "two", paints, mask=tmp_path / "masks" / "a.png")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    with pytest.raises(UsageError, match="no such file or folder in the store"):
        translate_folder(source, tmp_path / "three", paints, mask=str(bucket / "none"))


@pytest.mark.promise("R52")
def test_a_name_in_a_reason_is_printable(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    for name, data in (("in/a\nb.png", picture(tmp_path / "a.png").read_bytes()), ("masks/a\nb.png", b"no picture")):
        put(bucket, name, data)
    (record,) = translate_folder(bucket / "in", bucket / "out", paints, mask=str(bucket / "masks")).failed
    assert record.reason.startswith(f"its mask {bucket}/masks/a\\nb.png: ")


def test_films_are_known_by_their_content(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (0, 99, 200)]
    for name in ("moving.gif", "moving.webp"):
        (tmp_path / "in").mkdir(exist_ok=True)
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:], lossless=True)
    picture(tmp_path / "in" / "still.webp")
    frames[0].save(tmp_path / "in" / "still.gif")
    fill(bucket / "in", tmp_path / "in")
    expected = translate_folder(tmp_path / "in", tmp_path / "out", paints)
    shown: list[str] = []
    report = translate_folder(
        bucket / "in", bucket / "out", paints, frames=lambda done, total, film: shown.append(str(film))
    )
    assert content(bucket / "out") == tree(tmp_path / "out")
    assert content(bucket / "out").keys() == {"moving.gif", "moving.webp", "still.webp", "still.png"}
    assert outcomes(report) == outcomes(expected)
    assert set(shown) == {f"{bucket}/in/moving.gif", f"{bucket}/in/moving.webp"}
    (record,) = translate_folder(bucket / "in" / "moving.gif", bucket / "one.webp", paints).records
    assert record.film["frames"] == 3


def test_shards_are_those_of_a_folder(tmp_path: Path, bucket: StorePath) -> None:
    source = folder(tmp_path / "in", [f"{n}.png" for n in range(9)])
    fill(bucket / "in", source)
    for shard_by in ("index", "hash"):
        for shard in ("1/2", "2/2"):
            options = FolderOptions(shard=shard, shard_by=shard_by)
            here = plan(source, tmp_path / "out", options)
            there = plan(bucket / "in", bucket / "out", options)
            assert [job.name for job in there.todo] == [job.name for job in here.todo]


def test_strict_names_the_picture_in_the_store(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    put(bucket, "in/a.png", b"no picture")
    with pytest.raises(SomeFailed, match=f"^{bucket}/in/a.png: "):
        translate_folder(bucket / "in", bucket / "out", paints, strict=True)


def test_in_place(tmp_path: Path, bucket: StorePath, paints: Translator) -> None:
    source = folder(tmp_path / "in", ("a.png", "b.png"))
    fill(bucket, source)
    translate_folder(bucket, None, paints, in_place=True)
    translate_folder(source, None, paints, in_place=True)
    assert content(bucket) == tree(source)


def test_what_is_done_when_the_work_is_stopped_is_stored(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PICTURES", 2)
    source = folder(tmp_path / "in", [f"{n}.png" for n in range(8)])
    fill(bucket / "in", source)
    done: list[int] = []
    report = translate_folder(
        bucket / "in", bucket / "out", paints, progress=lambda n, *_: done.append(n), stop=lambda: len(done) > 2
    )
    assert content(bucket / "out").keys() == {record.target.name for record in report.done}
    assert 3 <= len(report.done) < 8 == len(report.done) + len(report.left)
    again = translate_folder(bucket / "in", bucket / "out", paints, skip_existing=True)
    assert len(again.skipped) == len(report.done)
    translate_folder(source, tmp_path / "out", paints)
    assert content(bucket / "out") == tree(tmp_path / "out")


def test_a_store_that_is_lost_ends_the_work_and_the_report_is_true(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PICTURES", 2)
    fill(bucket / "in", folder(tmp_path / "in", [f"{n}.png" for n in range(6)]))
    reports: list[Report] = []
    store = stores.put

    def lost(path: Path, place: StorePath, **options: Any) -> None:
        if place.name >= "3.png":
            raise OutputError("lost")
        store(path, place, **options)

    monkeypatch.setattr(stores, "put", lost)
    with pytest.raises(OutputError, match="lost"):
        translate_folder(bucket / "in", bucket / "out", paints, finish=reports.append)
    assert content(bucket / "out").keys() == {record.target.name for record in reports[0].done}
    assert {"0.png", "1.png"} <= content(bucket / "out").keys()
    assert {"3.png", "4.png", "5.png"} <= {record.source.name for record in reports[0].left}


def test_what_is_done_when_the_disk_here_is_full_is_stored(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket / "in", folder(tmp_path / "in", [f"{n}.png" for n in range(5)]))
    monkeypatch.setattr(stores, "TOGETHER", 1)
    store, write = stores.put, images.write

    def slow(path: Path, place: StorePath, **options: Any) -> None:
        time.sleep(0.1)
        store(path, place, **options)

    def full(path: Path, *more: Any) -> None:
        if path.name.startswith("out3"):
            raise OutputError("full") from OSError(errno.ENOSPC, "No space left on device")
        write(path, *more)

    monkeypatch.setattr(stores, "put", slow)
    monkeypatch.setattr("i2i.folders.pipeline.write", full)
    reports: list[Report] = []
    with pytest.raises(OutputError, match="full"):
        translate_folder(bucket / "in", bucket / "out", paints, finish=reports.append)
    assert {"0.png", "1.png", "2.png"} <= content(bucket / "out").keys()
    assert content(bucket / "out").keys() == {record.target.name for record in reports[0].done}


def test_little_is_staged_at_once(
    tmp_path: Path, bucket: StorePath, paints: Translator, monkeypatch: pytest.MonkeyPatch, spool: Path
) -> None:
    monkeypatch.setattr(staging, "PICTURES", 8)
    monkeypatch.setattr(stores, "TOGETHER", 2)
    source = folder(tmp_path / "in", [f"{n}.png" for n in range(30)])
    fill(bucket / "in", source)
    most = [0]

    def count(*_: object) -> None:
        most[0] = max(most[0], sum(1 for path in spool.rglob("in*") if path.is_file()))

    translate_folder(bucket / "in", bucket / "out", paints, progress=count)
    assert 4 <= most[0] <= 8
    monkeypatch.setattr(staging, "BYTES", 1)  # a part has no more than what is fetched at once
    most = [0]
    translate_folder(bucket / "in", bucket / "two", paints, progress=count)
    assert most[0] <= 4


@pytest.mark.promise("R55")
def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_living_one_stay(spool: Path) -> None:
    with staging.spool() as living:
        (living / "file").write_bytes(b"1")
        killed = spool / ".i2i-stage-killed.part"
        killed.mkdir()
        (killed / "lock").write_bytes(b"pid 1")
        site = spool / ".i2i-00ff.part"  # half of a web folder, of `i2i export --web`
        site.mkdir()
        for path in (living, killed, site):
            os.utime(path, (0, 0))
        (spool / ".i2i-stage-mine.part").symlink_to(living)
        with staging.spool():
            assert not killed.exists()
            assert (living / "file").exists() and site.exists()
        (spool / ".i2i-stage-mine.part").unlink()
        site.rmdir()
    assert not living.exists()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_nothing_staged(tmp_path: Path, spool: Path, times: int) -> None:
    source, style = folder(tmp_path / "in", [f"{n}.png" for n in range(40)]), model(tmp_path / "m.safetensors")
    words = ("--style", style, source, "-o", "memory://bucket/out", "--device", "cpu", "--runtime", "torch")
    child = start(tmp_path, *words, prepare=[Slow(0.2), Environment({"I2I_SPOOL": str(spool)})])
    child.until(lambda: list(spool.rglob("out*")))
    for _ in range(times):
        os.kill(child.pid, signal.SIGINT)
        time.sleep(0.1)
    assert child.wait() == 130, child.stderr
    assert "Traceback" not in child.stderr


@pytest.mark.promise("R55", "R54")
def test_executors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, endpoint())
    bucket, style = new_bucket("s3"), model(tmp_path / "m.safetensors")
    source = folder(tmp_path / "in", NAMES)
    (source / "broken.png").write_bytes(b"no picture")
    fill(bucket / "in", source)
    translate_folder(source, tmp_path / "out", style, device="cpu", runtime="torch")
    expected = tree(tmp_path / "out")
    with ThreadPoolExecutor(2) as threads:
        report = translate_folder(bucket / "in", bucket / "out", style, device="cpu", runtime="torch", executor=threads)
        assert content(bucket / "out") == expected
        assert [record.status for record in report.records].count("failed") == 1
        # as after a part whose worker was lost
        with pytest.raises(UsageError, match="outputs exist"):
            translate_folder(bucket / "in", bucket / "out", style, device="cpu", runtime="torch", executor=threads)
        translate_folder(bucket / "in", tmp_path / "here", style, device="cpu", runtime="torch", executor=threads)
    assert tree(tmp_path / "here") == expected
    assert unfinished(bucket) == []
    for secret in (KEY, SECRET):
        assert secret not in report.to_json()


@pytest.mark.slow
def test_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, endpoint())
    bucket, style = new_bucket("s3"), model(tmp_path / "m.safetensors")
    source = folder(tmp_path / "in", NAMES)
    fill(bucket / "in", source)
    translate_folder(source, tmp_path / "out", style, device="cpu", runtime="torch")
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        translate_folder(bucket / "in", bucket / "out", style, device="cpu", runtime="torch", executor=processes)
    assert content(bucket / "out") == tree(tmp_path / "out")


@pytest.mark.promise("R55", "R21", "R22")
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_driver_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    """500 pictures, and a broken one, from and to S3, in a process that is killed twice."""
    use_s3(monkeypatch, endpoint())
    bucket, style = new_bucket("s3"), model(tmp_path / "m.safetensors")
    source = folder(tmp_path / "in", [f"{n % 7}/n {n}%+#.png" for n in range(500)])
    (source / "3" / "broken.png").write_bytes(b"no picture")
    fill(bucket / "in", source)
    translate_folder(source, tmp_path / "out", style, device="cpu", runtime="torch")
    words = f"translate --style {style} --device cpu --runtime torch {bucket}/in -o {bucket}/out".split()
    words += ["--skip-existing", "--report", str(tmp_path / "report.json")]
    there = 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-m", "i2i", *words])
        until = time.monotonic() + 300
        while len(stores.files(bucket / "out")) <= there + 20 and child.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        there = len(stores.files(bucket / "out"))
        left = list(spool.iterdir())
        assert len(left) == 1  # those of the runs before are gone
        os.utime(left[0], (0, 0))
    assert 40 <= there < 500
    ended = subprocess.run([sys.executable, "-m", "i2i", *words], capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    assert content(bucket / "out") == tree(tmp_path / "out")
    assert unfinished(bucket) == []
    assert f"{500 - there} translated, {there} skipped, 1 failed, 0 left" in ended.stderr
    for secret in (KEY, SECRET):
        assert secret not in ended.stderr + (tmp_path / "report.json").read_text()
