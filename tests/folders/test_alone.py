"""Films among the inputs of a translation: where they go, how they go on after a kill, and their record."""

import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_tools import Prepare, Slow, folder, model, picture, run, start, translator, tree
from disks import FilesUpTo
from film_samples import animation, decoded, moving, packets, pyav, shown, sound_only, video
from PIL import Image

from i2i.errors import SomeFailed, UsageError
from i2i.folders import alone, jobs
from i2i.folders.alone import open_film
from i2i.folders.batch import translate_folder
from i2i.folders.plan import plan
from i2i.inference.options import FolderOptions

av = pyav()
OPTIONS = FolderOptions()


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "FRAMES", 4)


class ShortSegments:
    """The same in a child process."""

    def __call__(self) -> None:
        alone.FRAMES = 4


def targets(inputs: Any, out: Path, **options: Any) -> dict[str, tuple[str, bool]]:
    jobs = plan(inputs, out, FolderOptions(**options)).todo
    return {job.source.name: (job.target.name, job.film) for job in jobs}


def test_a_folder_may_hold_pictures_and_films(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ("a.png", "b.webp", "c.gif"))
    for name in ("d.mp4", "e.avi", "f.mov", "g.txt"):
        (source / name).touch()
    animation(source / "h.gif")
    animation(source / "i.webp")
    assert targets(source, tmp_path / "out") == {
        "a.png": ("a.png", False), "b.webp": ("b.webp", False), "c.gif": ("c.png", False), "d.mp4": ("d.mp4", True),
        "e.avi": ("e.mkv", True), "f.mov": ("f.mov", True), "h.gif": ("h.gif", True), "i.webp": ("i.webp", True),
    }  # fmt: skip
    as_png = targets(source, tmp_path / "out", format="png", on_collision="suffix")
    assert as_png["h.gif"] == ("h.png", False) and as_png["i.webp"] == ("i.png", False)
    assert as_png["d.mp4"] == ("d.mp4", True), "a format is one of pictures"


FILMS, PICTURES = ("is for pictures, and all results are films", "is for films, and no result is one")


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["a.png", "b.jpg"], {"smooth": 0.5}, f"smooth = 0.5: {PICTURES}; leave it out"),
        (["moving.gif"], {"smooth": 0.5, "format": "png"}, PICTURES),
        (["moving.gif"], {"smooth": 0.5, "out": "b.png"}, PICTURES),
        (["a.png", "a.mp4"], {"smooth": 0.5}, ""),
        (["a.mp4", "moving.gif"], {"format": "tif"}, ""),
        (["a.mp4", "b.mkv"], {"format": "png"}, f"format = 'png': {FILMS}; leave it out"),
        (["a.mp4"], {"format": "webp"}, FILMS),
        (["moving.webp"], {"format": "webp"}, ""),
        (["a.png", "b.tif", "moving.gif"], {"quality": 50}, ""),
        (["a.jpg", "b.webp"], {"quality": 50, "format": "png"}, "quality = 50: no result has one (.png)"),
        (["a.png"], {"quality": 50, "in_place": True}, ""),
        (["a.png"], {"quality": 50, "out": "b.jpg"}, ""),
        (["a.png", "a.mp4"], {"quality": 50, "format": "png"}, ""),
        (["moving.webp"], {"quality": 50}, ""),
    ],
)
def test_an_option_that_changes_no_result_is_refused(
    tmp_path: Path, names: list[str], options: dict[str, Any], said: str
) -> None:
    """And not where it is for some of the inputs, whatever part of them is done here."""
    for name in names:
        animation(tmp_path / name) if name.startswith("moving") else (tmp_path / name).touch()
    out = None if options.get("in_place") else tmp_path / options.pop("out", "out")
    chosen = FolderOptions(**options, shard=f"1/{len(names)}")
    for inputs in ([tmp_path / name for name in names], [tmp_path / name for name in reversed(names)]):
        if said:
            with pytest.raises(UsageError, match=re.escape(said)):
                plan(inputs, out, chosen)
        else:
            assert len(plan(inputs, out, chosen).todo) == 1


def test_an_option_for_films_that_cannot_be_read_here_is_none_without_a_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "has_pyav", lambda: False)
    for name in ("a.png", "b.mp4"):
        (tmp_path / name).touch()
    found = plan(tmp_path, tmp_path / "out", FolderOptions(smooth=0.5, quality=50))
    assert len(found.todo) == 1 and "1 films were left alone" in found.notices[0]


@pytest.mark.parametrize(
    ("source", "target", "is_film"),
    [
        ("a.mp4", "b.mkv", True), ("a.mp4", "b.gif", True), ("a.mp4", "b.webp", True), ("moving.gif", "b.mp4", True),
        ("moving.gif", "b.webp", True), ("moving.gif", "b.png", False), ("still.webp", "b.webp", False),
        ("still.gif", "b.gif", True), ("clip", "b.mp4", True),
    ],
)  # fmt: skip
def test_one_file_to_a_named_one(tmp_path: Path, source: str, target: str, is_film: bool) -> None:
    animation(tmp_path / "moving.gif")
    animation(tmp_path / "still.gif", moving(1))
    animation(tmp_path / "still.webp", moving(1))
    for name in ("a.mp4", "clip"):
        (tmp_path / name).touch()
    (job,) = plan(tmp_path / source, tmp_path / target, OPTIONS).todo
    assert (job.target.name, job.film) == (target, is_film)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("a.mp4", "b.png", r"b\.png: one picture cannot hold a film; films are written as \.gif"),
        ("a.png", "b.mp4", r"a\.png is a picture, and .*b\.mp4 would be a film"),
        ("a.png", "b.gif", r"b\.gif: \.gif is not written; written are"),
        ("a.mp4", "b.avi", r"\.avi is not written; written are \.gif, \.m4v"),
    ],
)
def test_pictures_are_no_films(tmp_path: Path, source: str, target: str, reason: str) -> None:
    (tmp_path / source).touch()
    with pytest.raises(UsageError, match=reason):
        plan(tmp_path / source, tmp_path / target, OPTIONS)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jobs", "plan"):
        monkeypatch.setattr(f"i2i.folders.{module}.has_pyav", lambda: False)
    source = folder(tmp_path / "in", ("a.png",))
    (source / "b.mp4").touch()
    found = plan(source, tmp_path / "out", OPTIONS)
    assert [job.source.name for job in found.todo] == ["a.png"] and found.other == 1
    assert found.notices == ("1 films were left alone: a film needs PyAV: pip install 'i2i[video]'",)
    animation(tmp_path / "c.gif")
    (source / "a.png").unlink()
    for inputs, out in ((source / "b.mp4", "out"), (source, "out"), (tmp_path / "c.gif", "c.mp4")):
        with pytest.raises(UsageError, match=r"pip install 'i2i\[video\]'"):
            plan(inputs, tmp_path / out, OPTIONS)
    assert plan(tmp_path / "c.gif", tmp_path / "out.gif", OPTIONS).todo[0].film, "that needs Pillow alone"


def test_each_frame_is_translated_and_the_sound_stays(tmp_path: Path) -> None:
    source = video(tmp_path / "in" / "a.mp4")
    picture(tmp_path / "in" / "b.png")
    style = translator()
    seen: list[tuple[int, int, Path]] = []
    report = translate_folder(tmp_path / "in", tmp_path / "out", style, frames=lambda *now: seen.append(now))
    assert [(record.target.name, record.status) for record in report.records] == [("a.mp4", "done"), ("b.png", "done")]
    assert report.records[0].film == {"frames": 12} and report.records[1].film == {}
    assert seen == [(number, 12, source) for number in range(1, 13)]
    assert packets(source, "audio") == packets(tmp_path / "out" / "a.mp4", "audio")
    found = decoded(tmp_path / "out" / "a.mp4")
    with open_film(source) as reader:
        expected = [style(frame.picture.pixels) for frame in reader.frames()]
    assert [time for time, _ in found] == [time for time, _ in decoded(source)]
    for number, (_, pixels) in enumerate(found):
        apart = [np.abs(pixels.mean(-1) - frame.mean(-1)).mean() for frame in expected]
        # an untrained network's colours lose much in H.264
        assert apart.index(min(apart)) == number and min(apart) < 30
    assert set(tree(tmp_path / "out")) == {"a.mp4", "b.png"}, "nothing else is left"


def test_other_sizes_and_kinds(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")
    translate_folder(source, tmp_path / "b.gif", translator(), size=24)
    frames = shown(tmp_path / "b.gif")
    assert sum(duration for duration, _ in frames) == 400 and frames[0][1].shape == (24, 32, 4)
    report = translate_folder(tmp_path / "b.gif", tmp_path / "c.mp4", translator(), smooth=0.5)
    assert len(decoded(tmp_path / "c.mp4")) == len(frames)
    assert "flicker" in report.records[0].note
    note = translate_folder(source, tmp_path / "d.webp", translator()).records[0].note
    assert note == "sound left out" and len(shown(tmp_path / "d.webp")) == 12


def test_in_place(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")
    before = source.read_bytes()
    source.chmod(0o600)
    translate_folder(source, None, translator(), in_place=True)
    assert source.read_bytes() != before and len(decoded(source)) == 12
    assert source.stat().st_mode & 0o777 == 0o600 and [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.webp", "a.gif"])
def test_in_place_no_frame_of_an_animation_is_lost(tmp_path: Path, name: str) -> None:
    source = animation(tmp_path / name)
    before = source.read_bytes()
    translate_folder(source, None, translator(), in_place=True)
    assert source.read_bytes() != before and [time for time, _ in shown(source)] == [40] * 4


def test_smoothing_lessens_flicker_and_says_what_it_costs(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", moving(16, 96, 128, step=(1.5, 0.5)), sound=None)
    report = translate_folder(source, tmp_path / "b.mp4", translator(), smooth=0.5)
    numbers = report.records[0].film
    assert numbers["frames"] == 16 and numbers["flicker_after"] < numbers["flicker_before"]
    written = json.loads(report.to_json())["records"][0]
    assert written["film"] == numbers and "flicker" in written["note"] and "sharpness" in written["note"]


def test_labels_are_no_film(tmp_path: Path) -> None:
    from i2i.folders import batch

    labels = replace(translator().info, output_labels=("#000000", "#ffffff"))
    with pytest.raises(UsageError, match="makes labels, whose colours a film would change"):
        batch._check(labels, plan(video(tmp_path / "a.mp4"), tmp_path / "out", OPTIONS).todo, OPTIONS)


BAD: dict[str, Any] = {
    "damaged.mp4": (lambda path: path.write_bytes(b"damaged" * 99), "no film that can be read"),
    "sound.mp4": (sound_only, "there are no moving pictures in it"),
    "hdr.mkv": (lambda path: video(path, sound=None, tags=(9, 9, 16)), "HDR (PQ"),
}


def test_a_bad_film_is_one_failed_input(tmp_path: Path) -> None:
    video(tmp_path / "in" / "good.mp4", moving(3))
    for name, (make, _) in BAD.items():
        make(tmp_path / "in" / name)
    report = translate_folder(tmp_path / "in", tmp_path / "out", translator())
    assert {record.source.name: record.status for record in report.records} == {
        **dict.fromkeys(BAD, "failed"), "good.mp4": "done"
    }  # fmt: skip
    for record in report.failed:
        assert BAD[record.source.name][1] in record.reason
    assert set(tree(tmp_path / "out")) == {"good.mp4"}
    with pytest.raises(SomeFailed, match=r"damaged\.mp4"):
        translate_folder(tmp_path / "in", tmp_path / "other", translator(), strict=True)


class Counting:
    """A translator that counts frames and asks for an end after so many."""

    def __init__(self, stop_after: int = 1 << 30) -> None:
        self.count, self._last = 0, stop_after
        self.translator = translator()
        translate = self.translator.translate_batch

        def counted(pictures: Any, size: Any = None) -> Any:
            self.count += len(pictures)
            return translate(pictures, size)

        self.translator.translate_batch = counted  # type: ignore[method-assign]

    def stop(self) -> bool:
        return self.count >= self._last


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_film_that_was_stopped_goes_on(tmp_path: Path, suffix: str) -> None:
    source = video(tmp_path / "a.webm", moving(14))
    whole = translate_folder(source, tmp_path / f"whole{suffix}", translator(), smooth=0.5)
    first, second = Counting(stop_after=10), Counting()
    out = tmp_path / "out" / f"b{suffix}"
    report = translate_folder(source, out, first.translator, smooth=0.5, stop=first.stop)
    assert [record.status for record in report.records] == ["left"] and not out.exists()
    report = translate_folder(source, out, second.translator, smooth=0.5)
    assert (first.count, second.count) == (10, 6), "two segments of 4 were there"
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert report.records[0].film == whole.records[0].film
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_other_options_begin_anew(tmp_path: Path) -> None:
    source, out = video(tmp_path / "a.mp4"), tmp_path / "out" / "b.mp4"
    first = Counting(stop_after=9)
    translate_folder(source, out, first.translator, stop=first.stop)
    (kept,) = (path for path in out.parent.iterdir() if path.name.endswith(".film"))
    second = Counting()
    translate_folder(source, out, second.translator, quality=40)
    assert second.count == 12 and not kept.exists()
    # other inputs of the same name as well
    translate_folder(source, tmp_path / "c.mp4", Counting(5).translator, stop=first.stop)
    video(source, moving(8))
    third = Counting()
    translate_folder(source, tmp_path / "c.mp4", third.translator)
    assert third.count == 8


def test_a_film_that_changes_meanwhile(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")

    def change(*_: Any) -> None:
        os.utime(source, (1, 1))

    report = translate_folder(source, tmp_path / "b.mp4", translator(), frames=change)
    assert [record.reason for record in report.failed] == ["has changed meanwhile"]


def killed_and_gone_on(tmp_path: Path, kill_at: float, prepare: list[Prepare]) -> Mapping[str, float]:
    """A child is killed so many seconds after it began, and another run goes on. Returns the numbers of its record."""
    words = ("--style", tmp_path / "m.safetensors", tmp_path / "a.mp4", "--smooth", "0.6", "--device", "cpu")
    out = tmp_path / f"out{kill_at}"
    child = start(tmp_path, *words, "--runtime", "torch", "-o", out / "b.mp4", prepare=[ShortSegments(), *prepare])
    child.until(lambda: out.exists() and any(path.name.endswith(".film") for path in out.iterdir()))
    time.sleep(kill_at)
    child.process.kill()
    assert child.wait() == -signal.SIGKILL, "killed too late"
    report = translate_folder(tmp_path / "a.mp4", out / "b.mp4", tmp_path / "m.safetensors", **SMOOTH)
    assert (out / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert [path.name for path in out.iterdir()] == ["b.mp4"]
    return report.records[0].film


SMOOTH: Any = {"smooth": 0.6, "device": "cpu", "runtime": "torch"}


@pytest.mark.promise("R53")
@pytest.mark.parametrize(
    "moments", [(0.7,), pytest.param((0.0, 0.3, 0.9, 1.3, 1.8), marks=pytest.mark.slow)], ids=["one", "five"]
)
def test_killed_at_any_moment(tmp_path: Path, moments: tuple[float, ...]) -> None:
    video(tmp_path / "a.mp4", moving(20))
    model(tmp_path / "m.safetensors")
    whole = translate_folder(tmp_path / "a.mp4", tmp_path / "whole.mp4", tmp_path / "m.safetensors", **SMOOTH)
    for moment in moments:
        assert killed_and_gone_on(tmp_path, moment, [Slow(0.12)]) == whole.records[0].film


@pytest.mark.parametrize("limit", [400, 20_000], ids=["a segment", "the film"])
def test_a_full_disk(tmp_path: Path, limit: int) -> None:
    video(tmp_path / "a.mp4", moving(20))
    style = model(tmp_path / "m.safetensors")
    words = ("--style", style, tmp_path / "a.mp4", "-o", tmp_path / "out" / "b.mp4", "--device", "cpu")
    code, child = run(tmp_path, *words, "--runtime", "torch", prepare=[ShortSegments(), FilesUpTo(limit)])
    assert code == 6 and "cannot be written: File too large" in child.stderr, child.stderr
    assert not (tmp_path / "out" / "b.mp4").exists()
    translate_folder(tmp_path / "a.mp4", tmp_path / "out" / "b.mp4", style, device="cpu", runtime="torch")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"]


def test_the_command_line_plans_and_makes_a_film(tmp_path: Path) -> None:
    source = video(tmp_path / "in" / "a.mp4", moving(3))
    style = model(tmp_path / "m.safetensors")
    code, child = run(tmp_path, "--style", style, source, "-o", tmp_path / "b.mkv", "--dry-run")
    assert code == 0 and child.stdout == f"{source} → {tmp_path / 'b.mkv'}\n"
    code, child = run(tmp_path, "--style", style, source, "-o", tmp_path / "b.mkv", "--json", "--smooth", "0.3")
    assert code == 0, child.stderr
    assert json.loads(child.stdout)["records"][0]["film"]["frames"] == 3
    code, child = run(tmp_path, "--style", style, source, "-o", tmp_path / "c.mkv", "--smooth", "1.5")
    assert code == 2 and "smooth" in child.stderr


def test_a_gif_that_grows_too_large_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the film does not say how many frames it has."""
    source = video(tmp_path / "a.mkv", moving(30), sound=None, live="1")
    with open_film(source) as reader:
        assert reader.film.frames == 0
    monkeypatch.setattr("i2i.films.MAX_PIXELS", 10 * 48 * 64)
    used = Counting()
    report = translate_folder(source, tmp_path / "out" / "b.gif", used.translator)
    assert used.count == 10
    assert [record.reason for record in report.failed] == [
        "33,792 pixels in all frames: a GIF may have 30,720; give out='NAME.mp4', or a smaller size"
    ]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_end_is_in_the_report(tmp_path: Path) -> None:
    source = video(tmp_path / "a.m2ts", moving(12))
    source.write_bytes(source.read_bytes()[:-100])
    report = translate_folder(source, tmp_path / "b.mp4", translator())
    (record,) = report.done
    assert "damaged: its end is missing, after " in record.note


def test_two_at_one_film(tmp_path: Path) -> None:
    source, out = video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    inner: list[Any] = []

    def again(done: int, total: int, path: Path) -> None:
        if done == 1:
            inner.append(translate_folder(source, out, translator(), overwrite=True))

    report = translate_folder(source, out, translator(), frames=again, overwrite=True)
    assert [record.status for record in report.records] == ["done"]
    assert "another process is translating this film" in inner[0].failed[0].reason


def test_in_place_only_where_that_kind_is_written(tmp_path: Path) -> None:
    source = video(tmp_path / "a.avi", moving(3), codec="mpeg4", sound=None, base=Fraction(1, 30), times=[0, 1, 2])
    before = source.read_bytes()
    report = translate_folder(source, None, translator(), in_place=True)
    assert "this format cannot be written" in report.failed[0].reason and source.read_bytes() == before
    translate_folder(source, tmp_path / "out", translator())
    assert len(decoded(tmp_path / "out" / "a.mkv")) == 3


def near(a: Path, frames: list[Any], columns: slice) -> float:
    return max(
        float(np.abs(x.astype(int) - y)[:, columns].mean()) for (_, x), y in zip(decoded(a), frames, strict=True)
    )


def test_frames_are_blended_as_pictures_are(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", moving(3), sound=None)
    with open_film(source) as reader:
        frames = [frame.picture.pixels for frame in reader.frames()]
    translate_folder(source, tmp_path / "b.mp4", translator(), strength=0.0)
    assert near(tmp_path / "b.mp4", frames, slice(None)) < 8
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    report = translate_folder(source, tmp_path / "c.mp4", translator(), mask=str(tmp_path / "m.png"))
    assert report.records[0].note == f"mask {tmp_path / 'm.png'}"
    assert near(tmp_path / "c.mp4", frames, slice(0, 28)) < 8 < near(tmp_path / "c.mp4", frames, slice(36, 64))
    Image.fromarray(mask[:, :20]).save(tmp_path / "small.png")
    report = translate_folder(source, tmp_path / "d.mp4", translator(), mask=str(tmp_path / "small.png"))
    assert "mask" in report.failed[0].reason and "64x48" in report.failed[0].reason


def test_smoothing_changes_nothing_outside_of_a_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 12, (3, 48, 64, 3))
    frames = [np.clip(frame + one, 0, 255).astype(np.uint8) for frame, one in zip(moving(3), noise, strict=True)]
    source = animation(tmp_path / "a.webp", frames, lossless=True)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "m.png")
    for name, more in (("plain", {"strength": 0.0}), ("masked", {"mask": str(tmp_path / "m.png"), "smooth": 1.0})):
        translate_folder(source, tmp_path / f"{name}.webp", translator(), **more)  # type: ignore[arg-type]
    assert (tmp_path / "masked.webp").read_bytes() == (tmp_path / "plain.webp").read_bytes()


def test_no_segment_lacks_a_frame_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = video(tmp_path / "a.mp4"), tmp_path / "out" / "b.mp4"
    calls = iter(range(99))

    def scarce(self: Any, picture: Any, made: Any) -> Any:
        if next(calls) == 2:
            raise MemoryError
        return made

    monkeypatch.setattr("i2i.inference.blend.Blend.of", scarce)
    assert translate_folder(source, out, translator()).failed
    assert not list(out.parent.glob(".i2i-*.film/*.segment"))


def test_a_film_by_a_mix_of_styles(tmp_path: Path) -> None:
    styles = {str(model(tmp_path / f"{name}.safetensors")): share for name, share in (("m", 0.5), ("n", 0.5))}
    source = video(tmp_path / "a.mp4", moving(3), sound=None)
    report = translate_folder(source, tmp_path / "b.mp4", mix=styles, device="cpu", runtime="torch")
    assert report.records[0].status == "done", report.records
