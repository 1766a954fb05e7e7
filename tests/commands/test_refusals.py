"""Models, films and masks that do not go together, as a user meets them: the exit code, and a message that helps."""

from pathlib import Path

import numpy as np
import pytest
from command_line import exit_code
from film_samples import animation
from web_sites import runtime_folder

from i2i import images
from i2i.errors import ImageError
from i2i.folders.alone import translate_large
from i2i.folders.jobs import Job
from i2i.inference.options import FolderOptions
from i2i.inference.translator import load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.resnet import ResnetConfig
from i2i.tools.page import server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture, a GIF, and the models `rgb`, `grey` and `kelvin`, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(server, "check_installed", lambda: None)
    for name, channels, limits in (("rgb", 3, None), ("grey", 1, None), ("kelvin", 1, (200.0, 330.0))):
        network = ResnetConfig(in_channels=channels, out_channels=channels, width=2, blocks=0).build()
        info = describe(network, direction="a2b", input_range=limits, output_range=limits)
        model_file.save(tmp_path / f"{name}.safetensors", network, info)
    images.write(tmp_path / "a.png", images.Picture(np.zeros((20, 30, 3), np.uint8)))
    images.write(tmp_path / "mask.png", images.Picture(np.full((9, 8, 1), 255, np.uint8)))
    animation(tmp_path / "a.gif")
    runtime_folder(tmp_path)
    return tmp_path


KELVIN, GREY, RGB = (f"./{name}.safetensors" for name in ("kelvin", "grey", "rgb"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("translate", "--style", KELVIN, "a.gif", "-o", "out"), 2, "a film holds colours; give pictures"),
        (("serve", KELVIN), 2, "kelvin is a model of values in units, which a page cannot show; use i2i translate"),
        (("export", KELVIN, "--web", "out"), 2, "kelvin is a model of values in units; --web takes styles"),
        (("translate", "--mix", f"{KELVIN}:1,{RGB}:1", "a.png", "-o", "out"), 2, "is a model of values in units"),
        (("translate", "--mix", f"{RGB}:1,{GREY}:1", "a.png", "-o", "out"), 2, "takes 3 channels and gives 3"),
        (("translate", "--mix", f"{RGB}:0,{GREY}:1", "a.png", "-o", "out"), 2, "expected a number above 0"),
        (("translate", "--style", RGB, "--mask", "mask.png", "a.png", "-o", "out"), 3, "but its mask 8x9"),
        (("translate", "--style", RGB, "--mask", "no.png", "a.png", "-o", "out"), 2, "mask no.png: no such file"),
        (("export", "monet-lite", "--web", "."), 2, "the folder is not empty"),
        (("serve", "--host", "192.0.2.1", RGB), 2, "--host 192.0.2.1: no address of this machine; 127.0.0.1"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    assert exit_code(*words) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list((here / "out").glob("**/*"))


def test_bands_of_rows_take_no_values_in_units(here: Path) -> None:
    translator = load_translator(KELVIN, runtime="torch", device="cpu")
    with pytest.raises(ImageError, match="values in units take pictures up to the limit only; cut it into parts"):
        translate_large(translator, Job(here / "a.png", here / "b.png", Path("b.png")), FolderOptions(large=True))


def test_a_page_leaves_models_of_values_out_where_none_is_named(here: Path) -> None:
    from i2i.commands import translate

    (here / "runs" / "temperature").mkdir(parents=True)
    (here / "kelvin.safetensors").rename(here / "runs" / "temperature" / "a2b.safetensors")
    assert "monet" in translate.offered([]) and not any("temperature" in name for name in translate.offered([]))
