"""The values of --style: paths and names, in which order, and the list of them; nothing here may use the network."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles import Calls
from safetensors.torch import save_file

from i2i.errors import ModelError, UsageError
from i2i.models import junyanz, model_file, published, styles
from i2i.models.info import describe, read_info, to_json
from i2i.networks.resnet import ResnetConfig

CONFIG = ResnetConfig(width=2, blocks=1)
COME_ALONG = styles.BUNDLED


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, no bundled styles, an empty current folder, and no way out to the network."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the network was used")

    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(styles, "BUNDLED", tmp_path / "bundled")
    monkeypatch.setattr(styles, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write(path: Path, direction: Any = "a2b", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    network = CONFIG.build()
    domains = {"input_domain": "photo", "output_domain": "monet"}
    domains = domains if direction == "a2b" else {"input_domain": "monet", "output_domain": "photo"}
    model_file.save(path, network, describe(network, direction=direction, **(domains | options)))
    return path


def write_checkpoint(path: Path) -> Path:
    torch.save(junyanz.to_reference(CONFIG, CONFIG.build().state_dict()), path)
    return path


def installed(tmp_path: Path, name: str) -> Path:
    return write(tmp_path / "home" / "styles" / f"{name}.safetensors")


def bundled(tmp_path: Path, name: str) -> Path:
    return write(tmp_path / "bundled" / f"{name}.safetensors")


def test_paths(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "monet"
    file = write(run / "b2a.safetensors", "b2a")
    assert styles.find(str(run)) == styles.find(run) == styles.find(run, "b2a") == file
    assert styles.find(str(file)) == file
    network, info = model_file.load(file)
    model_file.save_pretrained(tmp_path / "folder", network, info)
    assert styles.find(str(tmp_path / "folder")) == tmp_path / "folder"
    checkpoint = write_checkpoint(tmp_path / "latest_net_G.pth")
    assert styles.find(str(checkpoint), "b2a") == checkpoint
    for path in (file, tmp_path / "folder", checkpoint):
        model_file.open_model(path)


def test_a_run_with_two_directions_says_which_is_which(tmp_path: Path) -> None:
    for direction in ("a2b", "b2a"):
        write(tmp_path / "run" / f"{direction}.safetensors", direction)
    with pytest.raises(UsageError, match=r"a2b \(photo → monet\) or b2a \(monet → photo\)"):
        styles.find(tmp_path / "run")
    assert styles.find(tmp_path / "run", "b2a").name == "b2a.safetensors"
    with pytest.raises(UsageError, match="direction = 'AtoB': expected 'a2b' or 'b2a'"):
        styles.find(tmp_path / "run", "AtoB")
    (tmp_path / "run" / "a2b.safetensors").unlink()
    with pytest.raises(UsageError, match="has no a2b; it has b2a"):
        styles.find(tmp_path / "run", "a2b")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file \(a2b.safetensors or b2a.safetensors\) is in this folder$"):
        styles.find(tmp_path)
    (tmp_path / "latest_net_G.pth").touch()
    with pytest.raises(ModelError, match=r"of its checkpoints, give one: .*latest_net_G.pth"):
        styles.find(tmp_path)


def test_missing_styles_are_errors(tmp_path: Path) -> None:
    (tmp_path / "here" / "run.safetensors").touch()
    installed(tmp_path, "van_gogh")
    for style, hint in [
        ("./runs.safetensors", "no such run folder or model file. Did you mean 'run.safetensors'"),
        ("nowhere/at/all", "no such run folder or model file"),
        ("monet", "Did you mean 'style_monet' or 'monet2photo'.* list_styles lists"),
        ("van_goh", "Did you mean 'van_gogh'"),
        ("x" * 5000, "no such run folder or model file"),
        ("a\0b", "no path has a NUL character"),
    ]:
        with pytest.raises(UsageError, match=hint):
            styles.find(style)


def test_installed_then_bundled_then_published(tmp_path: Path) -> None:
    for name in ("monet", "style_monet"):
        for kept in (bundled, installed):
            path = kept(tmp_path, name)
            assert styles.find(name) == path
    with pytest.raises(UsageError, match="download=True"):
        styles.find("style_vangogh")


def test_a_run_or_a_data_set_never_shadows_a_style(tmp_path: Path) -> None:
    own = write(tmp_path / "here" / "monet" / "a2b.safetensors")
    assert styles.find("monet").resolve() == own  # a bare name that is no style is a path
    file = bundled(tmp_path, "monet")
    assert styles.find("monet") == file
    assert styles.find("./monet").resolve() == styles.find(Path("monet")).resolve() == own
    for name in ("horse2zebra", "sat2map"):
        with pytest.raises(UsageError) as caught:
            styles.find(name)
        assert f"./{name}" not in str(caught.value)
        (tmp_path / "here" / name).mkdir()
        with pytest.raises(UsageError, match=rf"(not on this machine|both families).*; \./{name} means what lies here"):
            styles.find(name)
    with pytest.raises(UsageError, match=r"translates a2b .*; \./horse2zebra means"):
        styles.find("horse2zebra", "b2a")


def test_a_folder_is_not_a_family(tmp_path: Path) -> None:
    own = write(tmp_path / "here" / "pix2pix" / "sat2map" / "a2b.safetensors")
    assert styles.find("pix2pix/sat2map").resolve() == own


def test_ambiguous_published_name_asks_for_the_family() -> None:
    with pytest.raises(UsageError, match="choose cyclegan/sat2map or pix2pix/sat2map"):
        styles.find("sat2map")
    with pytest.raises(UsageError, match=r"pix2pix/models-pytorch/sat2map\.pth"):
        styles.find("pix2pix/sat2map")


@pytest.mark.promise("R50")
def test_nothing_is_fetched_unasked_and_the_user_knows_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        styles.find("pix2pix/sat2map")
    message = str(caught.value)
    assert "download=True fetches https://efrosgans.eecs.berkeley.edu/pix2pix/models-pytorch/sat2map.pth" in message
    assert "217,704,720 bytes, licence not stated" in message
    assert str(tmp_path / "home" / "catalogue" / "pix2pix" / "sat2map.pth") in message
    assert not (tmp_path / "home").exists()


@pytest.mark.promise("R50")
def test_the_wrong_direction_is_said_before_anything_is_fetched() -> None:
    with pytest.raises(UsageError, match=r"'horse2zebra' translates a2b \(horse → zebra\), not b2a"):
        styles.find("horse2zebra", "b2a", download=True)


def test_the_catalogue_has_what_was_published() -> None:
    cyclegan = """style_monet style_cezanne style_ukiyoe style_vangogh horse2zebra zebra2horse apple2orange orange2apple
        summer2winter_yosemite winter2summer_yosemite monet2photo sat2map map2sat cityscapes_photo2label
        cityscapes_label2photo facades_photo2label facades_label2photo iphone2dslr_flower"""
    pix2pix = "edges2shoes sat2map map2sat facades_label2photo day2night"
    expected = {f"cyclegan/{name}" for name in cyclegan.split()} | {f"pix2pix/{name}" for name in pix2pix.split()}
    assert {entry.full_name for entry in published.ENTRIES} == expected
    for entry in published.ENTRIES:
        assert published.find(entry.full_name) is published.find(entry.style) is entry
        assert entry.url.startswith("https://") and "arXiv" in entry.paper
        left, _, right = entry.dataset.partition("2")
        reverse = entry.name.startswith("style_") or entry.name == f"{right.removesuffix('_yosemite')}2{left}"
        if right:
            assert entry.direction == ("b2a" if reverse or entry.name == "winter2summer_yosemite" else "a2b")


def test_the_networks_of_the_catalogue_can_be_built() -> None:
    from i2i.networks import GENERATOR_KINDS

    for kind, options in published.NETWORKS.values():
        with torch.device("meta"):
            GENERATOR_KINDS[kind](**options).build()


def test_install(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "latest_net_G.pth")
    path = styles.install(checkpoint, "zebra", direction="b2a")
    assert styles.find("zebra") == path == tmp_path / "home" / "styles" / "zebra.safetensors"
    assert read_info(path).direction == "b2a"
    with pytest.raises(UsageError, match="installed already"):
        styles.install(checkpoint, "zebra")
    styles.install(write(tmp_path / "run" / "a2b.safetensors").parent, "zebra", overwrite=True)
    assert read_info(path).input_domain == "photo"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "-x", ".x", "a b", "é", "x.pth", "x.safetensors", "a\n"]
)
def test_invalid_style_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a style"):
        styles.install(tmp_path, name)


@pytest.mark.promise("R46")
def test_a_hostile_checkpoint_is_not_installed(tmp_path: Path) -> None:
    torch.save({"weight": Calls(os.mkdir, str(tmp_path / "marker"))}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="never run"):
        styles.install(tmp_path / "evil.pth", "evil")
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "home" / "styles" / "evil.safetensors").exists()


@pytest.mark.promise("R50")
def test_the_list(tmp_path: Path) -> None:
    for direction in ("a2b", "b2a"):
        write(Path("runs") / "mine" / f"{direction}.safetensors", direction)
    (Path("runs") / "begun").mkdir()
    installed(tmp_path, "own")
    (tmp_path / "home" / "styles" / "broken.safetensors").write_bytes(b"\xff" * 100)
    bundled(tmp_path, "monet")
    entry = published.ENTRIES[0]
    write(entry.model, "b2a")
    found = styles.list_styles()
    rows = [(s.name, s.source, s.direction, bool(s.problem)) for s in found[:5]]
    assert rows == [
        ("runs/mine", "run", "a2b", False),
        ("runs/mine", "run", "b2a", False),
        ("broken", "installed", "", True),
        ("own", "installed", "a2b", False),
        ("monet", "bundled", "a2b", False),
    ]
    assert found[0].input_domain == "photo" and found[0].size == (Path("runs/mine/a2b.safetensors")).stat().st_size
    assert [s.name for s in found[5:]] == [entry.style for entry in published.ENTRIES]
    assert [s.name for s in found if s.source == "catalogue" and s.path] == ["style_monet"]
    for style in found:
        if style.path and not style.problem:
            assert styles.find(style.name, style.direction).resolve() == style.path.resolve()


def test_runs_that_are_named(tmp_path: Path) -> None:
    write(Path("monet") / "a2b.safetensors")
    bundled(tmp_path, "monet")
    own = styles.list_styles([Path("monet"), "nowhere"])[0]
    assert own.name == "./monet"
    assert styles.find(own.name) == own.path


def test_the_table_fits_a_terminal(tmp_path: Path) -> None:
    installed(tmp_path, "own")
    lines = styles.table(styles.list_styles()).splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert any("own" in line and "photo → monet" in line for line in lines)
    assert any("pix2pix/sat2map" in line and "(217.7 MB)" in line and "not stated" in line for line in lines)


@pytest.mark.promise("R27", "R52", "H17")
def test_odd_names_in_the_list(not_utf8: str) -> None:
    run = Path("runs") / f"{not_utf8} \x1b[2J\n é"
    file = write(run / "a2b.safetensors", output_domain="<script>")
    said = to_json(replace(read_info(file), output_domain="\x1b[2J\nx"), "")
    save_file(CONFIG.build().state_dict(), write(Path("runs") / "z" / "a2b.safetensors"), {"i2i": said})
    found = styles.list_styles([run, Path("runs") / "z"])
    assert styles.find(found[0].name) == run / "a2b.safetensors" and found[0].output_domain == "<script>"
    assert "control character" in found[1].problem
    text = styles.table(found)
    assert "\x1b" not in text and text.encode()
    assert sum("runs/" in line for line in text.splitlines()) == 2
    record = json.loads(styles.as_json(found))[0]
    assert record["name"] == str(run) and record["path"] == str(run / "a2b.safetensors")
    assert styles.as_json(found).isascii()


@pytest.mark.promise("R50")
def test_listing_imports_neither_torch_nor_what_speaks_https() -> None:
    code = (
        "import sys; from i2i.models import styles; styles.table(styles.list_styles())\n"
        "print(sorted({'torch', 'huggingface_hub', 'albumentations', 'kornia', 'cv2'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def without_permission() -> list[str]:
    """The words before a command that is to be held to the permissions of files, also for root."""
    if os.geteuid() != 0:
        return []
    rights = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    if not shutil.which("setpriv") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("root may read anything")
    return command


ASKS = """
from i2i.errors import I2IError
from i2i.models import styles
print(len(styles.list_styles(["begun"])))
for name in ("style_monet", "mine", "sat2map"):
    try:
        styles.find(name)
    except I2IError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("closed", ["home", "home/styles", "home/catalogue/cyclegan"])
def test_a_home_without_permission(tmp_path: Path, closed: str) -> None:
    """A file that may not be read counts as absent, unless its own name is asked for."""
    begin = without_permission()
    for name in ("styles", "catalogue/cyclegan"):
        (tmp_path / "home" / name).mkdir(parents=True, exist_ok=True)
    Path("begun").mkdir(mode=0o000)
    (tmp_path / closed).chmod(0o000)
    try:
        done = subprocess.run([*begin, sys.executable, "-c", ASKS], capture_output=True, text=True, check=False)
    finally:
        (tmp_path / closed).chmod(0o700)
    assert done.returncode == 0, done.stderr
    listed, monet, unknown, both = done.stdout.splitlines()
    # the child sees the bundled ones too
    assert int(listed) == len(published.ENTRIES) + len(list(COME_ALONG.glob("*.safetensors")))
    assert unknown.startswith("UsageError style 'mine': no such style") and both.startswith("UsageError")
    if closed == "home/styles":
        assert monet.startswith("UsageError") and "not on this machine" in monet
    else:
        assert monet.startswith("ModelError") and "Permission denied; I2I_HOME names" in monet


def test_cards_are_shown_on_request(tmp_path: Path) -> None:
    write(tmp_path / "bundled" / "monet.safetensors", card=("Trained on paintings.", "Limits: \u202efaces"))
    found = styles.list_styles()
    assert found[0].card == ("Trained on paintings.", "Limits: \u202efaces")
    assert "Trained" not in styles.table(found)
    shown = styles.table(found, cards=True)
    assert "      Trained on paintings.\n      Limits: \\u202efaces\n" in shown
    assert json.loads(styles.as_json(found))[0]["card"][0] == "Trained on paintings."


def test_verbose_shows_the_cards() -> None:
    script = Path(__file__).parents[2] / "scripts" / "translate.py"
    plain, verbose = (
        subprocess.run([sys.executable, script, "--list-styles", *more], capture_output=True, text=True, check=True)
        for more in ([], ["--verbose"])
    )
    assert "arXiv:1703.10593" in verbose.stdout and "arXiv:1703.10593" not in plain.stdout
