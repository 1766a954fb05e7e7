"""`scripts/export.py`: from any form to any other, nothing lost that the other can hold."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import exit_code
from run_folders import usual_run
from torch import nn

from i2i.commands import results as command
from i2i.errors import ModelError, UsageError
from i2i.images import palettes
from i2i.models import junyanz, model_file, published, styles
from i2i.models.info import Training, describe, read_info
from i2i.models.model_file import open_model
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

CUT = ResnetConfig(width=2, blocks=1, downsampling="antialiased", upsampling="antialiased")


def export(*arguments: Any, **options: Any) -> None:
    model, out = arguments
    command.export(command.ExportCommand(model=str(model), out=out, **options))


def network(config: Any = CUT) -> nn.Module:
    torch.manual_seed(0)
    return config.build()


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for direction in ("a2b", "b2a"):
        training = Training(algorithm="cyclegan", dataset="toy", steps=3)
        info = describe(network(), direction=direction, training=training)  # type: ignore[arg-type]
        model_file.save(folder / f"{direction}.safetensors", network(), info)
    return folder


def test_as_a_command(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latest_net_G_B.pth"
    words = ("export", run_folder, "--direction", "b2a", "-o", out)
    assert exit_code(*words) == 0
    assert tuple(capsys.readouterr()) == ("", f"{out}: resnet, B → A\n")
    theirs = torch.load(out, weights_only=True)
    assert list(theirs) == list(junyanz.to_reference(CUT, network().state_dict()))
    assert exit_code(*words) == 2
    assert tuple(capsys.readouterr()) == ("", f"i2i: {out} exists; --overwrite replaces it\n")


@pytest.mark.parametrize("name", ["new/deep/net.pth", "new/net.safetensors", "new/deep/folder"])
def test_a_folder_that_is_missing_is_made(run_folder: Path, tmp_path: Path, name: str) -> None:
    export(run_folder, tmp_path / name, direction="a2b")
    assert (tmp_path / name).exists()


@pytest.mark.parametrize(
    "words",
    [
        ("export", "monet-lite", "-o", "out/m.safetensors"),
        ("export", "monet-lite", "-o", "out", "--format", "pretrained"),
        ("compare", styles.BUNDLED / "photos", styles.BUNDLED / "photos", "-o", "out/page.html"),
        ("report", "out"),
    ],
)
def test_what_a_killed_command_left_half_written_goes(
    words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual_run(tmp_path / "out")
    stray, other = tmp_path / "out/.i2i-0123456789abcdef.part", tmp_path / "out/mine.part"
    for path in (stray, other):
        path.touch()
        os.utime(path, (1, 1))
    assert exit_code(*words) == 0
    assert other.exists() and not stray.exists()


def test_round_and_back_again(run_folder: Path, tmp_path: Path) -> None:
    """A reference's file → a model file with all that it could not say → a folder → the reference's file."""
    junyanz.save(tmp_path / "net.pth", network())
    names = {"direction": "b2a", "input_domain": "photo", "output_domain": "monet"}
    known = {"algorithm": "cut", "dataset": "monet2photo", "licence": "BSD-2-Clause"}
    export(tmp_path / "net.pth", tmp_path / "monet.safetensors", **names, **known)
    export(tmp_path / "monet.safetensors", tmp_path / "folder")
    _, info = open_model(tmp_path / "folder")
    assert (info.direction, info.input_domain, info.output_domain) == ("b2a", "photo", "monet")
    assert (info.training.algorithm, info.training.dataset, info.licence) == ("cut", "monet2photo", "BSD-2-Clause")
    export(tmp_path / "folder", tmp_path / "again.pth")
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("net.pth", "again.pth"))
    assert list(one) == list(other) and all(map(torch.equal, one.values(), other.values()))
    assert [tensor.shape for tensor in one.values()] == [tensor.shape for tensor in other.values()]


def test_the_description_of_a_model_is_kept(run_folder: Path, tmp_path: Path) -> None:
    export(run_folder, tmp_path / "copy.safetensors", direction="a2b", licence="MIT")
    _, info = open_model(tmp_path / "copy.safetensors")
    assert (info.training.dataset, info.training.steps, info.licence) == ("toy", 3, "MIT")


def test_options_give_what_the_keys_do_not_tell(tmp_path: Path) -> None:
    junyanz.save(tmp_path / "net.pth", network(UNetConfig(width=1, depth=5)))
    export(tmp_path / "net.pth", tmp_path / "asked", dropout=False, norm_stats="running")
    export(tmp_path / "net.pth", tmp_path / "stated", format="pretrained")
    asked, stated = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("asked", "stated"))
    assert (asked["dropout"], asked["statistics"]) == (False, "running")
    assert (stated["dropout"], stated["statistics"]) == (True, "batch")


def test_an_existing_folder_is_not_mixed_up(run_folder: Path, tmp_path: Path) -> None:
    export(run_folder, tmp_path / "out", direction="a2b")
    for left in ("config.json", "model.safetensors"):
        with pytest.raises(UsageError, match=f"{left} exists; --overwrite replaces it"):
            export(run_folder, tmp_path / "out", direction="a2b")
        (tmp_path / "out" / left).unlink()
    (tmp_path / "out" / "config.json").touch()
    export(run_folder, tmp_path / "out", direction="b2a", overwrite=True)
    assert open_model(tmp_path / "out")[1].direction == "b2a"


@pytest.mark.parametrize(
    ("out", "options", "error", "message"),
    [
        ("net.bin", {}, UsageError, "unknown suffix; expected"),
        ("net.pth", {"licence": "MIT"}, UsageError, "has no place for licence"),
        ("net.pth", {"dropout": False}, UsageError, "has no place for dropout"),
        ("net.pth", {"norm_stats": "running"}, UsageError, "has no place for norm_stats"),
        ("net.safetensors", {"input_domain": "a\nb"}, ModelError, "not written: .* control character"),
        ("net.safetensors", {"direction": None}, UsageError, "two directions"),
        ("net.safetensors", {"dropout": True}, UsageError, "has no dropout"),
        ("net.safetensors", {"dataset": "/home/me/set"}, UsageError, "a name was expected, not a path"),
    ],
)
def test_mistakes(run_folder: Path, tmp_path: Path, out: str, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        export(run_folder, tmp_path / out, **({"direction": "a2b"} | options))
    assert not (tmp_path / out).exists()


def test_the_direction_of_a_checkpoint_has_no_place_in_another(run_folder: Path, tmp_path: Path) -> None:
    export(run_folder, tmp_path / "one.pth", direction="b2a")  # here it chooses
    export(run_folder / "b2a.safetensors", tmp_path / "two.pth", direction="b2a")  # and here it is compared
    with pytest.raises(UsageError, match="has no place for direction"):
        export(tmp_path / "one.pth", tmp_path / "three.pth", direction="b2a")
    assert not (tmp_path / "three.pth").exists()
    export(tmp_path / "one.pth", tmp_path / "three.pth")


def test_a_published_style_is_fetched_when_asked_for(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def obtain(entry: published.Entry, **options: Any) -> Path:
        asked.append((entry.name, options["fetch"], options["progress"] is not None))
        return run_folder / "b2a.safetensors"

    monkeypatch.setattr(published, "obtain", obtain)
    export("style_monet", tmp_path / "one.pth")
    export("style_monet", tmp_path / "two.pth", download=True)
    assert set(asked[:-1]) == {("style_monet", False, False)} and asked[-1] == ("style_monet", True, True)


def test_one_line_is_printed(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    export(run_folder, Path("a\n\x1b[2J.pth"), direction="a2b")
    assert capsys.readouterr().err == "a\\n\\x1b[2J.pth: resnet, A → B\n"


def test_what_the_reference_cannot_hold(tmp_path: Path) -> None:
    odd = network(ResnetConfig(width=2, blocks=1, padding="zero"))
    model_file.save(tmp_path / "m.safetensors", odd, describe(odd, direction="a2b"))
    with pytest.raises(ModelError, match="cannot express"):
        export(tmp_path / "m.safetensors", tmp_path / "net.pth")
    with pytest.raises(UsageError, match=r"i2i export MODEL -o OUT"):
        export("", None)


def test_half_the_bytes_and_a_card(run_folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.txt"
    card.write_text("Photos to Monets.\n\nLimits: faces.  \n\n", encoding="utf-8")
    whole, half = run_folder / "a2b.safetensors", tmp_path / "half.safetensors"
    export(whole, half, half=True, card=card)

    (exact, _), (rounded, info) = model_file.load(whole), model_file.load(half)
    assert info.card == ("Photos to Monets.", "", "Limits: faces.")
    pairs = zip(exact.state_dict().values(), rounded.state_dict().values(), strict=True)
    assert all(torch.equal(a.half().float(), b) for a, b in pairs)  # float32 again, as all networks are
    numbers = sum(tensor.numel() for tensor in exact.state_dict().values())
    assert 4 * numbers < whole.stat().st_size < 4 * numbers + 8000
    assert 2 * numbers < half.stat().st_size < 2 * numbers + 8000

    export(half, tmp_path / "again.safetensors")
    assert read_info(tmp_path / "again.safetensors").card == info.card


def test_weights_beyond_half_precision_are_not_halved(tmp_path: Path) -> None:
    large = network()
    with torch.no_grad():
        next(large.parameters()).fill_(1e6)
    with pytest.raises(ModelError, match="not finite"):
        model_file.save(tmp_path / "half.safetensors", large, describe(large, direction="a2b"), torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, b"\xff\xfe\xff", b"x" * 9000, b"a\x1b[2J"])
def test_a_card_that_is_none(run_folder: Path, tmp_path: Path, text: bytes | None) -> None:
    card = tmp_path / "card.txt"
    if text is not None:
        card.write_bytes(text)
    with pytest.raises((UsageError, ModelError), match=r"card|control"):
        export(run_folder / "a2b.safetensors", tmp_path / "out.safetensors", card=card)
    assert not (tmp_path / "out.safetensors").exists()


def test_half_is_for_model_files(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--half"):
        export(run_folder / "a2b.safetensors", tmp_path / "out.pth", half=True)


def test_the_paint_size_of_a_model_file(run_folder: Path, tmp_path: Path) -> None:
    export(run_folder / "a2b.safetensors", tmp_path / "painter.safetensors", paint_size=384)
    assert read_info(tmp_path / "painter.safetensors").paint_size == 384
    export(tmp_path / "painter.safetensors", tmp_path / "again.safetensors")
    export(tmp_path / "again.safetensors", tmp_path / "none.safetensors", paint_size=0)
    assert [read_info(tmp_path / f"{name}.safetensors").paint_size for name in ("again", "none")] == [384, 0]
    with pytest.raises(UsageError, match="paint_size"):
        export(run_folder / "a2b.safetensors", tmp_path / "out.pth", paint_size=384)
    labels = describe(network(), direction="a2b", output_palette=palettes.indexed(3))
    model_file.save(tmp_path / "labels.safetensors", network(), labels)
    with pytest.raises(UsageError, match=r"--paint-size 384.*labels"):
        export(tmp_path / "labels.safetensors", tmp_path / "out.safetensors", paint_size=384)


@pytest.mark.parametrize("options", [{"input_share": 0.2}, {"upsampling": "resize"}, {"upsampling": "smooth"}])
def test_the_reference_has_no_such_layers(tmp_path: Path, options: Any) -> None:
    ours = network(ResnetConfig(width=2, blocks=1, **options))
    with pytest.raises(ModelError, match=r"cannot express|has no place for"):
        junyanz.save(tmp_path / "out.pth", ours)
    model_file.save(tmp_path / "out.safetensors", ours, describe(ours, direction="a2b"))
    assert open_model(tmp_path / "out.safetensors")[0].config == ours.config
