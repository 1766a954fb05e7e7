"""One bad picture is one failure: named with its reason, and the others are as they would have been without it."""

import struct
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_tools import folder, model, picture, run, translator, tree

from i2i import images
from i2i.errors import ImageError, InputError, SomeFailed
from i2i.folders import pipeline
from i2i.folders.batch import translate_folder
from i2i.images import Picture
from i2i.images.palettes import find
from i2i.images.picture import Limits
from i2i.inference.scaling import Size
from i2i.inference.translator import Translator
from i2i.networks.resnet import ResnetConfig

GOOD = ("a.png", "g.jpg", "k.webp", "z.tif")


def _bomb() -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"0" * 99))]
    packed = [struct.pack(">I", len(data)) + kind + data for kind, data in [*chunks, (b"IEND", b"")]]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk + struct.pack(">I", zlib.crc32(chunk[4:])) for chunk in packed)


def _mixed(path: Path) -> dict[str, str]:
    """A folder of good pictures and of bad ones; the names of the bad ones, and what must be said of each."""
    folder(path, GOOD)
    whole = {name: (path / name).read_bytes() for name in GOOD}
    flipped = bytearray(whole["a.png"])
    flipped[60] ^= 255
    bad = {
        "b.png": (bytes(flipped), ""),
        "c.png": (whole["a.png"][:-60], ""),
        "d.jpg": (whole["g.jpg"][:-40], ""),
        "e.webp": (whole["k.webp"][:50], ""),
        "f.png": (b"", "empty"),
        "h.png": (b"hello, I am a text\n" * 9, ""),
        "i.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 99, "HEIC"),
        "j.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "l.png": (_bomb(), "pixels"),
        "m.tif": (b"II*\0\xff\xff\xff\x7f", ""),
    }
    for name, (data, _) in bad.items():
        (path / name).write_bytes(data)
    return {name: reason for name, (_, reason) in bad.items()}


@pytest.mark.promise("R23")
@pytest.mark.parametrize("options", [{}, {"batch_size": 8}, {"workers": 3}])
def test_bad_pictures_do_not_stop_the_rest(tmp_path: Path, options: dict[str, Any]) -> None:
    bad, seen = _mixed(tmp_path / "in"), list[tuple[int, int, str]]()
    progress = lambda number, total, path: seen.append((number, total, path.name))  # noqa: E731
    report = translate_folder(tmp_path / "in", tmp_path / "out", translator(), progress=progress, **options)
    assert [r.source.name for r in report.records] == sorted([*bad, *GOOD]) == sorted(name for *_, name in seen)
    assert [(number, total) for number, total, _ in seen] == [(number, 14) for number in range(1, 15)]
    assert {r.source.name for r in report.failed} == set(bad)
    for record in report.failed:
        assert record.reason and bad[record.source.name] in record.reason, record
        assert "unexpected" not in record.reason and "\n" not in record.reason
    translate_folder([tmp_path / "in" / name for name in GOOD], tmp_path / "alone", translator())
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


@pytest.mark.promise("R23")
def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    _mixed(tmp_path / "in")
    code, child = run(
        tmp_path, "--style", model(tmp_path / "m.safetensors"), tmp_path / "in", "-o", tmp_path / "out", "--strict"
    )
    assert code == 3, child.stderr
    assert "b.png: " in child.stderr
    assert set(tree(tmp_path / "out")) == {"a.png"}


@pytest.mark.promise("R23")
def test_strict_means_the_last_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pipeline.write  # type: ignore[attr-defined]

    def late(*arguments: Any) -> None:
        time.sleep(0.05)
        write(*arguments)

    monkeypatch.setattr(pipeline, "write", late)
    used = translator(ResnetConfig(out_channels=6, width=2, blocks=0))
    with pytest.raises(SomeFailed, match="6"):
        translate_folder(folder(tmp_path / "in", ("a.png",)), tmp_path / "out", used, strict=True)


@pytest.mark.promise("R23")
@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), UnicodeDecodeError("ascii", b"\xff", 0, 1, "")])
@pytest.mark.parametrize("place", ["probe", "read", "write", "translate_batch"])
def test_a_surprise_with_one_picture_is_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    source = folder(tmp_path / "in", ("a.png", "b.png", "c.png"))
    picture(source / "b.png", 20)
    owner: Any = Translator if place == "translate_batch" else pipeline
    real = getattr(owner, place)

    def surprised(first: Any, *rest: Any, **options: Any) -> Any:
        height = len(rest[0][0].pixels) if owner is Translator else 20 if first.name == "b.png" else 0
        if height == 20:
            raise error
        return real(first, *rest, **options)

    monkeypatch.setattr(owner, place, surprised)
    monkeypatch.setattr(Translator, "stream", lambda self, one, *_: surprised(self, [one])[0])
    report = translate_folder(source, tmp_path / "out", translator())
    assert [r.status for r in report.records] == ["done", "failed", "done"]
    of_memory = "not enough memory" in report.failed[0].reason
    assert of_memory or f"unexpected error, please report it: {type(error).__name__}" in report.failed[0].reason


@pytest.mark.promise("R30")
@pytest.mark.parametrize("change", ["vanishes", "is cut short", "is empty", "has another size", "turns into another"])
def test_an_input_that_changes_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    source, real = folder(tmp_path / "in", [f"{i}.png" for i in range(6)]), pipeline.read  # type: ignore[attr-defined]
    last = source / "3.png"

    def between(path: Path, **options: Any) -> Picture:
        """After its header has been looked at and before its pixels are read."""
        if path == last:
            match change:
                case "vanishes":
                    last.unlink()
                case "is cut short":
                    last.write_bytes(last.read_bytes()[:-30])
                case "is empty":
                    last.write_bytes(b"")
                case "has another size":
                    picture(last, 20, 30)
                case _:
                    last.write_bytes(b"a text")
        return real(path, **options)

    monkeypatch.setattr(pipeline, "read", between)
    report = translate_folder(source, tmp_path / "out", translator(), batch_size=4)
    expected = "done" if change == "has another size" else "failed"
    assert [r.status for r in report.records] == ["done"] * 3 + [expected] + ["done"] * 2
    assert len(tree(tmp_path / "out")) == (6 if expected == "done" else 5)
    if expected == "done":
        assert images.probe(tmp_path / "out" / "3.png") == (30, 20)


@pytest.mark.promise("R33")
def test_nothing_to_do_says_what_was_searched(tmp_path: Path) -> None:
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"no pictures found in .*empty \(looked for .*\.jpg.*\.png"):
        translate_folder(tmp_path / "empty", tmp_path / "out", translator())
    with pytest.raises(InputError, match=r"no such file or folder\. Did you mean 'empty'"):
        translate_folder(tmp_path / "emty", tmp_path / "out", translator())
    with pytest.raises(InputError, match="no pictures found in no inputs"):
        translate_folder([], tmp_path / "out", translator())
    assert not (tmp_path / "out").exists()


@pytest.mark.promise("R35")
def test_colours_for_a_network_of_one_channel(tmp_path: Path) -> None:
    used = translator(ResnetConfig(in_channels=1, out_channels=1, width=2, blocks=0))
    source = folder(tmp_path / "in", ("colour.png",))
    picture(source / "grey.png", channels=1)
    notes = {r.source.name: r.note for r in translate_folder(source, tmp_path / "out", used).done}
    assert notes == {"colour.png": "colours taken as luminance", "grey.png": ""}
    for name in notes:
        expected = used.translate(Picture(images.read(source / name).channels(1)))
        assert np.array_equal(images.read(tmp_path / "out" / name).pixels, expected.pixels)
    report = translate_folder(source / "grey.png", tmp_path / "out3", translator())
    assert report.done[0].note == "grey taken as three channels"


@pytest.mark.promise("R35")
def test_colours_for_a_network_of_six_channels(tmp_path: Path) -> None:
    used = translator(ResnetConfig(in_channels=6, width=2, blocks=0))
    report = translate_folder(folder(tmp_path / "in", ("a.png", "b.jpg")), tmp_path / "out", used)
    assert [r.status for r in report.records] == ["failed", "failed"]
    assert all("6" in r.reason and "3" in r.reason for r in report.failed)
    assert tree(tmp_path / "out") == {}


class _Small(Translator):
    """A machine with little memory."""

    pixels, together, error = 10**9, 10**9, torch.OutOfMemoryError("CUDA out of memory.")  # as others that say so

    def translate_batch(self, pictures: Sequence[Picture], size: Size | None = None) -> list[Picture]:
        if len(pictures) > self.together or sum(p.pixels[..., 0].size for p in pictures) > self.pixels:
            raise self.error
        return super().translate_batch(pictures, size)


@pytest.mark.promise("R37", "R23")
@pytest.mark.parametrize("together", [1, 3])
def test_too_many_at_once_become_fewer(tmp_path: Path, together: int) -> None:
    source = folder(tmp_path / "in", [f"{i:02}.png" for i in range(20)])
    picture(source / "10.png", 64, 64)
    used = translator(cls=_Small, precision="fp32")
    used.together, used.pixels = together, 4000  # type: ignore[attr-defined]
    report = translate_folder(source, tmp_path / "out", used, batch_size=8)
    assert report.failed == [] and report.notices[-1].endswith("by bands of rows")
    exact = translator(precision="fp32")
    translate_folder([r.source for r in report.done], tmp_path / "one", exact, batch_size=1)
    expected = tree(tmp_path / "one")
    assert all(_levels(data, expected[name]) <= 1 for name, data in tree(tmp_path / "out").items())


@pytest.mark.promise("R37")
def test_too_little_for_bands_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Picture:
        raise _Small.error

    monkeypatch.setattr(Translator, "stream", refuse)
    source = folder(tmp_path / "in", ("a.png", "b.png"))
    picture(source / "c.png", 64, 64)
    used = translator(cls=_Small)
    used.pixels = 4000  # type: ignore[attr-defined]
    report = translate_folder(source, tmp_path / "out", used)
    assert [r.status for r in report.records] == ["done", "done", "failed"]
    assert report.failed[0].reason == "not enough memory to translate it at this size"
    assert sorted(tree(tmp_path / "out")) == ["a.png", "b.png"]


@pytest.mark.promise("R37")
def test_too_little_memory_is_said_once(tmp_path: Path) -> None:
    used = translator(cls=_Small)
    used.together = 1  # type: ignore[attr-defined]
    source = folder(tmp_path / "in", [f"{i:02}.png" for i in range(20)])
    notices = translate_folder(source, tmp_path / "out", used, batch_size=16).notices
    assert len(notices) == 1 and notices[0].endswith("batch_size=1"), notices


def _limited(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    """As if pictures of more pixels were above the limits."""
    real, limits = pipeline.probe, Limits(pixels=pixels)  # type: ignore[attr-defined]
    monkeypatch.setattr(pipeline, "probe", lambda path, known=limits: real(path, known))
    monkeypatch.setattr(pipeline, "DEFAULT_LIMITS", limits)


@pytest.mark.promise("R23")
def test_what_large_cannot_write_is_one_failure_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyvips")
    from i2i.images import large

    _limited(monkeypatch, 1000)
    source = folder(tmp_path / "in", ("a.png",))
    for name in ("b.webp", "c.png"):
        picture(source / name, 40, 50)
    used, streamed = translator(), []
    monkeypatch.setitem(large._SIDES, "WEBP", 45)
    monkeypatch.setattr(type(used.model), "bands", lambda *a: streamed.append(a[1].width))
    report = translate_folder(source, tmp_path / "out", used, large=True)
    assert [r.status for r in report.records] == ["done", "failed", "done"] and streamed == [50]
    assert report.failed[0].reason.startswith("50x40 pixels: WebP holds at most 45 a side")


@pytest.mark.promise("R23")
def test_what_libvips_refuses_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips")
    from i2i.images import large

    _limited(monkeypatch, 1000)
    source = picture(tmp_path / "in" / "b.jpg", 40, 50).parent
    picture(source / "c.png")
    monkeypatch.setattr("i2i.folders.alone.refusal", lambda *_: None)

    def refuses(image: Any, *_: Any) -> None:
        image.new_from_memory(b"", 1, 1, 1, "uchar")

    monkeypatch.setattr(large, "_write_jpeg", refuses)
    report = translate_folder(source, tmp_path / "out", translator(), large=True)
    assert [r.status for r in report.records] == ["failed", "done"] and "cannot be written" in report.failed[0].reason


@pytest.mark.promise("R23")
def test_large_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _limited(monkeypatch, 1000)
    source = picture(tmp_path / "in" / "b.png", 40, 50).parent
    (source / "c.png").write_text("no picture")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    reasons = [r.reason for r in translate_folder(source, tmp_path / "out", translator(), large=True).failed]
    assert "pip install 'i2i[large]'" in reasons[0] and "pyvips" not in reasons[1]
    monkeypatch.undo()
    _limited(monkeypatch, 1000)
    assert "at most 1000" in translate_folder(source / "b.png", tmp_path / "out2", translator()).failed[0].reason


def _levels(one: bytes, two: bytes) -> int:
    pixels = [images.decode(data).pixels.astype(int) for data in (one, two)]
    return int(np.abs(pixels[0] - pixels[1]).max())


@pytest.mark.promise("R23")
def test_a_picture_that_a_network_cannot_take_is_one_failure(tmp_path: Path) -> None:
    class Picky(Translator):
        def translate_batch(self, pictures: Sequence[Picture], size: Size | None = None) -> list[Picture]:
            if any(p.pixels.shape[0] == 16 for p in pictures):
                raise ImageError("not this one")
            return super().translate_batch(pictures, size)

    source = folder(tmp_path / "in", ("a.png", "b.png"))
    picture(source / "c.png", 16, 16)
    report = translate_folder(source, tmp_path / "out", translator(cls=Picky), batch_size=4)
    assert [(r.status, r.reason) for r in report.records] == [("done", ""), ("done", ""), ("failed", "not this one")]


def test_a_model_of_labels_takes_no_picture_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyvips")
    _limited(monkeypatch, 1000)
    source = picture(tmp_path / "in" / "b.png", 40, 50).parent
    labeller = translator(ResnetConfig(out_channels=2, width=2, blocks=1), output_palette=find("2"))
    report = translate_folder(source, tmp_path / "out", labeller, large=True)
    assert "too large: models of labels or of colours" in report.failed[0].reason
    assert not (tmp_path / "out" / "b.png").exists()
