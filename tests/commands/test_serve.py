"""`i2i serve` before it serves: the styles that it offers, and what it refuses."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from i2i.commands import translate
from i2i.errors import ModelError, UsageError
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.dcgan import DCGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.tools.page import server

pytestmark = pytest.mark.promise("R51")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run with both directions, in an otherwise empty place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    folder = tmp_path / "runs" / "both"
    folder.mkdir(parents=True)
    network = ResnetConfig(width=2, blocks=0).build()
    for direction in ("a2b", "b2a"):
        model_file.save(folder / f"{direction}.safetensors", network, describe(network, direction=direction))
    return folder


def test_all_styles_of_this_machine_are_offered(run: Path) -> None:
    found = translate.offered([])
    assert list(found)[:3] == ["monet", "runs/both a2b", "runs/both b2a"]
    assert all(style.path is not None for style in found.values())


def test_chosen_styles_are_offered_in_their_order(run: Path) -> None:
    assert list(translate.offered(["monet-lite", str(run), "monet"])) == [
        "monet-lite", "both a2b", "both b2a", "monet",
    ]  # fmt: skip
    assert list(translate.offered(["monet", str(run / "a2b.safetensors"), "monet"])) == ["monet", "a2b"]


def test_a_style_that_cannot_be_used_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        translate.offered([str(tmp_path / "bad.safetensors")])
    with pytest.raises(UsageError, match="Did you mean 'monet'"):
        translate.offered(["monett"])


def test_two_styles_of_one_name_are_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a2b.safetensors").write_bytes((run / "a2b.safetensors").read_bytes())
    with pytest.raises(UsageError, match="two styles are called 'a2b'"):
        translate.offered([str(tmp_path / "a2b.safetensors"), str(run / "a2b.safetensors")])


def test_a_generator_of_noise_takes_no_picture(run: Path, tmp_path: Path) -> None:
    network: Any = DCGANConfig().build()
    model_file.save(tmp_path / "gan.safetensors", network, describe(network, direction="a2b"))
    with pytest.raises(UsageError, match="takes pictures"):
        translate.offered([str(tmp_path / "gan.safetensors")])


@pytest.mark.skipif(find_spec("gradio") is not None, reason="Gradio is installed here")
def test_without_gradio_the_error_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("serve") == 2
    said = capsys.readouterr().err
    assert 'pip install "i2i[web]"' in said and "Pillow below 13" in said


@pytest.mark.parametrize(
    "words", [("--port", "70000"), ("--max-pictures", "0"), ("--time-limit", "0"), ("--max-megapixels", "nan")]
)
def test_options_have_ranges(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("serve", *words) == 2
    assert words[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")


@pytest.mark.parametrize(
    ("host", "asked", "expected"), [("127.0.0.1", False, False), ("127.0.0.1", True, True), ("0.0.0.0", False, True)]
)
def test_beyond_this_machine_visitors_need_a_token(
    host: str, asked: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr(server, "check_installed", lambda: None)
    monkeypatch.setattr(translate, "_serve", lambda options, styles, token, listening: given.append(token))
    translate.serve(translate.ServeCommand(styles=("monet",), host=host, port=0, token=asked))
    assert len(given[0]) >= 20 if expected else given[0] == ""


def test_a_port_in_use_ends_with_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(server, "check_installed", lambda: None)
    with server.listen("127.0.0.1", 0) as listening:
        assert exit_code("serve", "monet", "--port", str(listening.getsockname()[1])) == 2
    assert "--port 0" in capsys.readouterr().err
