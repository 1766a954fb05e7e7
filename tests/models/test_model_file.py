"""A model file comes back as it was written, and nothing else is believed; any file of weights opens by its content."""

import json
import os
import resource
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rule import draw, rule
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import i2i
from i2i import __version__
from i2i.config import to_mapping
from i2i.errors import ModelError, OutputError, UsageError
from i2i.models import junyanz, model_file
from i2i.models.info import ModelInfo, Training, describe, read_info
from i2i.models.model_file import load, open_model, save_pretrained
from i2i.networks import GENERATORS, generator_config
from i2i.networks.resnet import CoarseToFineConfig, ResnetConfig
from i2i.networks.unet import UNetConfig

CONFIG = ResnetConfig(width=2, blocks=1)
CUT = ResnetConfig(width=2, blocks=1, downsampling="antialiased", upsampling="antialiased")
FORMAT_1 = Path(__file__).parents[1] / "data" / "model_format_1.safetensors"


def _network(seed: int = 0, config: Any = CONFIG) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return config.build()


def _saved(path: Path, **changes: Any) -> Path:
    """A model file whose description is changed as named, its weights being those of `CONFIG`."""
    network = _network()
    info = json.loads(json.dumps(to_mapping(describe(network, direction="a2b"))))
    metadata = {"i2i": json.dumps({k: v for k, v in (info | changes).items() if v is not ...})}
    save_file(network.state_dict(), path, metadata)
    return path


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CUT,
        ResnetConfig(width=2, blocks=1, upsampling="resize"),
        ResnetConfig(width=2, blocks=1, upsampling="smooth"),
        ResnetConfig(width=2, blocks=1, upsampling="smooth", separable=True),
        UNetConfig(width=1, depth=5, in_channels=1),
        ResnetConfig(width=1, norm="batch"),
    ],
)
def test_round_trip(tmp_path: Path, config: Any) -> None:
    network = _network(1, config)
    training = Training(algorithm="cyclegan", dataset="monet2photo", steps=7, images_seen=9, metrics={"l1": 0.5})
    info = describe(
        network,
        direction="b2a",
        input_domain="photo",
        output_domain="monet",
        statistics="running",
        dropout=True,
        training=training,
        licence="MIT",
    )
    model_file.save(tmp_path / "b2a.safetensors", network, info)
    again, found = model_file.load(tmp_path / "b2a.safetensors")
    assert found == info
    assert found.network_config() == config
    assert again.config == config
    assert not again.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    x = torch.rand(1, config.in_channels, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(x), network.eval()(x)), "all that it computes with is in its weights"


@pytest.mark.promise("R16")
def test_a_file_of_the_first_format() -> None:
    """`tests/data/make_model_format_1.py` wrote it; the numbers are what the first version answered."""
    network, info = model_file.load(FORMAT_1)
    assert (info.direction, info.input_domain, info.output_domain) == ("b2a", "photo", "monet")
    assert (info.training.dataset, info.training.metrics, info.licence) == (
        "monet2photo",
        {"cycle_A/l1": 0.5},
        "CC0-1.0",
    )
    assert info.training.commit == "" and network.config == CONFIG
    drawn = draw([(name, tensor.shape) for name, tensor in network.state_dict().items()], 424242)
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in network.state_dict().items())
    with torch.no_grad():
        y = network.double()(rule((1, 3, 16, 16), 424242).double().clamp(-1, 1))
    assert y.mean().item() == pytest.approx(0.18262206485634755, abs=1e-9)
    assert y.std().item() == pytest.approx(0.5425488996440486, abs=1e-9)
    expected = torch.tensor([-0.7410201904126411, -0.046613283036170405, 0.7105101009179727], dtype=torch.float64)
    torch.testing.assert_close(y[0, :, 3, 5], expected, atol=1e-9, rtol=0)


@pytest.mark.promise("R16")
def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    for read in (model_file.load, read_info):
        with pytest.raises(ModelError, match=r"format_version 2, this i2i .* reads 1: upgrade i2i"):
            read(_saved(tmp_path / "m.safetensors", format_version=2, more="than is known now"))


def test_the_description_is_read_without_torch() -> None:
    code = (
        "import sys; from i2i.models.info import read_info; "
        f"print(read_info({str(FORMAT_1)!r}).licence); assert 'torch' not in sys.modules"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "CC0-1.0\n"


@pytest.mark.promise("H8")
def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    network, path = _network(), tmp_path / "m.safetensors"
    model_file.save(path, network, describe(network, direction="a2b"))
    whole = path.read_bytes()
    body = 8 + int.from_bytes(whole[:8], "little")
    for place in (body, (body + len(whole)) // 2, len(whole) - 4):  # the last bits of three weights
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="do not match their SHA-256"):
            model_file.load(path)


def test_changed_blur_filters_are_refused(tmp_path: Path) -> None:
    network = _network(config=CUT)
    network.get_submodule("up.0.upsample").filt *= 2  # type: ignore[operator]
    info = describe(network, direction="a2b")
    with pytest.raises(ModelError, match=r"up\.0\.upsample\.filt: not the binomial"):
        model_file.save(tmp_path / "m.safetensors", network, info)
    save_file(network.state_dict(), tmp_path / "m.safetensors", {"i2i": json.dumps(to_mapping(info))})
    with pytest.raises(ModelError, match=r"up\.0\.upsample\.filt: not the binomial"):
        model_file.load(tmp_path / "m.safetensors")


def test_unreadable_values_are_not_written(tmp_path: Path) -> None:
    info = describe(_network(), direction="a2b")
    for change in ({"direction": "ab"}, {"format_version": 2}, {"size_multiple": 3}, {"licence": "x" * (1 << 20)}):
        with pytest.raises(ModelError, match="not written"):
            model_file.save(tmp_path / "m.safetensors", _network(), replace(info, **change))
    assert list(tmp_path.iterdir()) == []


def test_domains_have_names_by_default() -> None:
    info = describe(_network(), direction="b2a")
    assert (info.input_domain, info.output_domain) == ("B", "A")


def test_a_data_set_is_named_not_located() -> None:
    with pytest.raises(UsageError, match="not a path"):
        Training(dataset="/home/someone/monet2photo")


def test_nonfinite_or_mismatched_weights_are_not_saved(tmp_path: Path) -> None:
    info = describe(_network(), direction="a2b")
    broken = _network()
    with torch.no_grad():
        next(broken.parameters())[0] = float("nan")
    for network, message in ((broken, "not finite"), (_network(config=ResnetConfig(width=3)), "shape")):
        with pytest.raises(ModelError, match=message):
            model_file.save(tmp_path / "m.safetensors", network, info)
    with pytest.raises(OutputError):
        model_file.save(tmp_path / "missing" / "m.safetensors", _network(), info)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("R47")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "upgrade i2i"),
        ({"format_version": "1"}, "format_version"),
        ({"format_version": ...}, "format_version None"),
        ({"network": "restnet"}, "Did you mean 'resnet'"),
        ({"network": "patchgan"}, "unknown network 'patchgan'"),
        ({"config": {"width": 10**9}}, "width = 1000000000"),
        ({"config": {"blocks": 65}}, "blocks = 65"),
        ({"config": {"widht": 2}}, "unknown option 'widht'. Did you mean 'width'"),
        ({"config": {"width": 512, "blocks": 64}}, "stem.conv.weight has the shape"),
        ({"config": [1]}, "config"),
        ({"direction": "b2b"}, "direction"),
        ({"value_range": [0, 1]}, "value_range"),
        ({"size_multiple": 1}, "size_multiple"),
        ({"statistics": "mine"}, "statistics"),
        ({"training": {"dataset": "../x"}}, "not a path"),
        ({"training": {"stepz": 1}}, "unknown option 'stepz'"),
        ({"training": 3}, "training"),
        ({"surprise": 1}, "unknown option 'surprise'"),
        ({"sha256": "0" * 63}, "sha256: expected"),
        ({"sha256": "0" * 64}, "do not match their SHA-256"),
        ({"licence": {"a": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}}, "deeper than 16"),
        ({"training": {"metrics": {"l1": float("nan")}}}, "not valid JSON"),
        ({"config": {"width": 10**4000}}, "width"),
        ({"output_domain": ...}, "output_domain"),
        ({"training": {"steps": -5}}, r"training: steps = -5: .*allowed: ≥ 0"),
        ({"input_domain": "x" * 1001}, "a text of 1001 characters; at most 1000"),
        ({"training": {"metrics": {"x" * 1001: 1.0}}}, "a text of 1001 characters"),
        ({"input_domain": "a\nb"}, r"a control character in 'a\\nb'"),
        ({"licence": "\x1b[2J"}, "a control character"),
        ({"training": {"metrics": {"a\x9b": 1.0}}}, "a control character"),
        ({"output_domain": "a\u2028b"}, "a control character"),
    ],
)
def test_descriptions_out_of_bounds(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        model_file.load(_saved(tmp_path / "m.safetensors", **changes))
    assert str(caught.value).startswith(str(tmp_path / "m.safetensors"))


def test_defaults_complete_a_description(tmp_path: Path) -> None:
    path = _saved(tmp_path / "m.safetensors", config={"width": 2, "blocks": 1}, training=..., dropout=True)
    found = model_file.load(path)[1]
    assert found.config == to_mapping(CONFIG)
    assert not found.dropout, "it has none that could stay on"
    assert found.training == Training() and found.training.version == ""


def test_a_description_says_which_i2i_made_it() -> None:
    assert describe(CONFIG, direction="a2b").training.version == __version__
    other = Training(version="0.0.1", steps=3)
    assert describe(CONFIG, direction="a2b", training=other).training == other


def test_a_data_set_can_lie_in_any_folder(tmp_path: Path, not_utf8: str) -> None:
    info = describe(CONFIG, direction="a2b", training=Training(dataset=f"{not_utf8}\n\x1b é"))
    model_file.save(tmp_path / "m.safetensors", _network(), info)
    assert model_file.load(tmp_path / "m.safetensors")[1].training.dataset == "____ é"


@pytest.mark.promise("R47")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.bias"), "head.bias is missing"),
        (lambda w: w.update(more=torch.zeros(1)), "more has no place"),
        (lambda w: w.update({"head.bias": torch.zeros(4)}), "head.bias has the shape"),
        (lambda w: w.update({"head.bias": torch.zeros(3, dtype=torch.int64)}), "head.bias: torch.int64 cannot"),
        (lambda w: w.update({"head.bias": torch.zeros(3, dtype=torch.complex64)}), "head.bias: torch.complex64 cannot"),
        (lambda w: w.update({"head.bias": torch.zeros(3, dtype=torch.float8_e4m3fn)}), "head.bias: torch.float8"),
        (lambda w: w.update({"head.bias": torch.full((3,), float("inf"))}), "head.bias: not finite"),
        (lambda w: w.update({"head.bias": torch.full((3,), 1e300, dtype=torch.float64)}), "head.bias: not finite"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    weights = _network().state_dict()
    change(weights)
    info = describe(_network(), direction="a2b")
    save_file(weights, tmp_path / "m.safetensors", {"i2i": json.dumps(to_mapping(info))})
    with pytest.raises(ModelError, match=message):
        model_file.load(tmp_path / "m.safetensors")


@pytest.mark.promise("R47")
def test_other_files(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "list.safetensors", {"i2i": "[]"})
    save_file({"x": torch.zeros(1)}, tmp_path / "deep.safetensors", {"i2i": "[" * 100_000})
    save_file({"x": torch.zeros(1)}, tmp_path / "twice.safetensors", {"i2i": '{"network": "a", "network": "b"}'})
    save_file({"x": torch.zeros(1)}, tmp_path / "text.safetensors", {"i2i": "{"})
    save_file({"x": torch.zeros(1)}, tmp_path / "long.safetensors", {"i2i": " " * (1 << 20) + "{}"})
    torch.save(_network().state_dict(), tmp_path / "net.pth")
    (tmp_path / "empty").touch()
    (tmp_path / "header").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate((4 << 30) + 1)
    expected = {
        "plain.safetensors": "not a model file of i2i",
        "list.safetensors": "not a JSON object",
        "deep.safetensors": "not valid JSON",
        "twice.safetensors": "not valid JSON",
        "text.safetensors": "not valid JSON",
        "long.safetensors": "at most 1048576",
        "net.pth": "not a model file",
        "empty": "not a model file",
        "header": "header is too long",
        "pipe": "not a regular file",
        "large": "at most 4,294,967,296",
        "missing": "No such file",
        ".": "config.json: cannot be read",
    }
    for name, message in expected.items():
        with pytest.raises(ModelError, match=message):
            model_file.load(tmp_path / name)


@pytest.mark.promise("R47")
def test_tensors_beyond_the_network_are_not_read(tmp_path: Path) -> None:
    path = _saved(tmp_path / "m.safetensors")
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"3,221,.* bytes; at most .* are accepted"):
        model_file.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in kB


@pytest.mark.promise("R47")
@pytest.mark.parametrize(("size", "reason"), [(8 << 20, "not a model file of i2i"), ((8 << 20) + 1, "is too long")])
def test_a_header_has_a_limit(tmp_path: Path, size: int, reason: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", size) + b"{}".ljust(size))
    with pytest.raises(ModelError, match=reason):
        model_file.load(tmp_path / "m.safetensors")


@pytest.mark.promise("R47")
def test_too_many_tensors(tmp_path: Path) -> None:
    info = describe(_network(), direction="a2b")
    tensors = {f"t{i}": torch.zeros(1) for i in range(10_001)}
    save_file(tensors, tmp_path / "m.safetensors", {"i2i": json.dumps(to_mapping(info))})
    with pytest.raises(ModelError, match="10001 tensors; at most 10000"):
        model_file.load(tmp_path / "m.safetensors")


@pytest.mark.promise("H8")
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_damage_never_crashes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file, before = tmp_path_factory.getbasetemp() / "damaged.safetensors", _network()
    model_file.save(file, before, describe(before, direction="a2b"))
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        end = data.draw(st.sampled_from([8, header, len(content)]))
        content[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    length = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    file.write_bytes(content[:length])
    try:
        network, info = model_file.load(file)
    except ModelError as error:
        assert str(error).startswith(str(file))
    else:
        assert length == len(content)
        assert info.network_config() == network.config
        assert all(map(torch.equal, network.parameters(), before.parameters())), "only the words were hit"


RESNET = ResnetConfig(width=2, blocks=1)
UNET = UNetConfig(width=1, depth=5)


def network(config: Any = RESNET) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config.build()


def info(config: Any = RESNET) -> ModelInfo:
    training = Training(algorithm="cyclegan", dataset="monet2photo", steps=7, images_seen=9, metrics={"l1": 0.5})
    return describe(
        config, direction="b2a", input_domain="photo", output_domain="monet", training=training, licence="MIT"
    )


def checkpoint(path: Path, config: Any) -> Path:
    junyanz.save(path, network(config))
    return path


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    assert list(one.state_dict()) == list(other.state_dict())
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_folder_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save_pretrained(tmp_path / "new" / "folder", network(), info())
    for read in (load, open_model):
        again, found = read(tmp_path / "new" / "folder")
        assert found == info() and not again.training
        assert_equal(again, network())
    assert read_info(tmp_path / "new" / "folder") == info()
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["config.json", "model.safetensors"]


def test_a_folder_says_what_a_model_file_says(tmp_path: Path) -> None:
    save_pretrained(tmp_path, network(), info())
    model_file.save(tmp_path / "b2a.safetensors", network(), info())
    with safe_open(tmp_path / "b2a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["i2i"]) == json.loads((tmp_path / "config.json").read_text())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.promise("H7")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_the_modes_of_its_files_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    old = os.umask(mask)
    try:
        save_pretrained(tmp_path / "folder", network(), info())
        model_file.save(tmp_path / "m.safetensors", network(), info())
    finally:
        os.umask(old)
    for name in ("folder/config.json", "folder/model.safetensors", "m.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written: File exists"):
        save_pretrained(tmp_path / "file", network(), info())
    with pytest.raises(ModelError, match="not written"):
        save_pretrained(tmp_path / "new", network(), replace(info(), network="unet"))
    assert not (tmp_path / "new").exists()


def _changed(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
    "too long": (lambda f: (f / "config.json").write_bytes(b" " * (1 << 20) + b"{}"), "config.json: .* at most"),
    "endless": (lambda f: _pipe(f / "config.json"), "config.json: not a regular file"),
    "much too deep": (lambda f: (f / "config.json").write_text("[" * (1 << 20)), "not valid JSON"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'), "not valid JSON"),
    "unbounded": (lambda f: _changed(f, config={"width": 10**9}), "config.json: .*width = 1000000000"),
    "of another size": (lambda f: _changed(f, config={"width": 512, "blocks": 64}), "model.safetensors: stem"),
    "another's weights": (lambda f: _changed(f, sha256="0" * 64), "do not match their SHA-256"),
    "code": (lambda f: _changed(f, auto_map={"AutoModel": "evil.Model"}), "unknown option 'auto_map'"),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.promise("R47")
@pytest.mark.parametrize("kind", list(HOSTILE))
def test_damaged_or_hostile_pretrained_folders_are_refused(tmp_path: Path, kind: str) -> None:
    change, message = HOSTILE[kind]
    save_pretrained(tmp_path, network(), info())
    change(tmp_path)
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path)


def test_file_content_decides_the_format(tmp_path: Path) -> None:
    model_file.save(tmp_path / "model.pth", network(), info())
    assert open_model(tmp_path / "model.pth")[1] == info()
    again, found = open_model(checkpoint(tmp_path / "latest_net_G_B", RESNET))
    assert_equal(again, network())
    assert (found.direction, found.input_domain, found.output_domain) == ("a2b", "A", "B")
    assert found.training == Training() and found.licence == ""
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    for name, message in (("text.safetensors", "not a model file"), ("text.pth", "not written by torch.save")):
        with pytest.raises(ModelError, match=f"{name}: .*{message}"):
            open_model(tmp_path / name)
    save_pretrained(tmp_path / "folder", network(), info())
    with pytest.raises(ModelError, match=r"if it belongs to a config\.json, give their folder"):
        open_model(tmp_path / "folder" / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "dropout"),
    [
        (UNET, True),
        (UNetConfig(width=1, depth=5, norm="instance", dropout=False), False),
        (ResnetConfig(width=2, blocks=1, norm="batch"), False),
        (ResnetConfig(width=2, blocks=1, norm="batch", dropout=True), True),
        (RESNET, False),
    ],
)
def test_a_checkpoint_translates_as_published_by_default(tmp_path: Path, config: Any, dropout: bool) -> None:
    path = checkpoint(tmp_path / "net.pth", config)
    _, found = open_model(path)
    assert (found.dropout, found.statistics) == (dropout, "batch")
    assert found.network_config() == config
    _, found = open_model(path, dropout=False, statistics="running", direction="b2a")
    assert (found.dropout, found.statistics, found.direction) == (False, "running", "b2a")
    assert (found.input_domain, found.output_domain) == ("B", "A")


def test_options_replace_what_a_model_file_says(tmp_path: Path) -> None:
    said = replace(info(UNET), dropout=True)
    model_file.save(tmp_path / "m.safetensors", network(UNET), said)
    assert open_model(tmp_path / "m.safetensors")[1] == said
    _, found = open_model(tmp_path / "m.safetensors", dropout=False, statistics="running", direction="b2a")
    assert found == replace(said, dropout=False, statistics="running")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    model_file.save(tmp_path / "m.safetensors", network(), info())
    with pytest.raises(UsageError, match=r"translates b2a \(photo → monet\), not a2b"):
        open_model(tmp_path / "m.safetensors", direction="a2b")
    with pytest.raises(UsageError, match="direction = 'ab': expected 'a2b' or 'b2a'"):
        open_model(tmp_path / "m.safetensors", direction="ab")
    for path in (tmp_path / "m.safetensors", checkpoint(tmp_path / "net.pth", RESNET)):
        with pytest.raises(UsageError, match="has no dropout"):
            open_model(path, dropout=True)


def test_opening_leaves_the_random_state_alone(tmp_path: Path) -> None:
    model_file.save(tmp_path / "m.safetensors", network(), info())
    before = torch.get_rng_state()
    for path in (checkpoint(tmp_path / "net.pth", UNET), tmp_path / "m.safetensors"):
        open_model(path)
        assert torch.equal(torch.get_rng_state(), before)


SMALL: dict[str, Any] = {
    name: generator_config(name, width=2, norm="instance" if config.kind == "resnet" else config.norm)
    for name, config in GENERATORS.items()
    if config.kind != "dcgan"
}
SMALL |= {
    "batch": ResnetConfig(width=3, blocks=1, norm="batch", in_channels=1, out_channels=4),
    "batch with biases": ResnetConfig(width=2, blocks=0, norm="batch", bias=True),
    "smooth": ResnetConfig(width=2, blocks=2, downsampling="antialiased", upsampling="smooth"),
    "subpixel": ResnetConfig(width=2, blocks=1, downsampling="antialiased", upsampling="smooth", subpixel=True),
    "separable subpixel": generator_config("mobile_resnet_2blocks_subpixel", width=3, out_channels=2),
    "separable antialiased": ResnetConfig(width=2, blocks=1, separable=True, upsampling="antialiased"),
    "unet of instance norm": UNetConfig(width=2, depth=6, norm="instance", dropout=False),
    "attention": UNetConfig(width=2, depth=5, attention=2),
    "attention by name": generator_config("unet_512_attention", width=2),
    "two enhancers": CoarseToFineConfig(width=2, enhancers=2, halvings=2, blocks=1, fine_blocks=2, norm="batch"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_state_dict_tells_its_configuration(tmp_path: Path, name: str) -> None:
    config = SMALL[name]
    weights = config.build().state_dict()
    torch.save(weights, tmp_path / "mine.pth")
    network, info = open_model(tmp_path / "mine.pth", direction="b2a")
    assert info.network_config() == config
    assert (info.direction, info.statistics, info.dropout) == ("b2a", "batch", config.dropout)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "netG.", "_orig_mod.module."])
def test_wrappers_and_safetensors(tmp_path: Path, prefix: str) -> None:
    config = SMALL["batch"]
    weights = {prefix + name: value for name, value in config.build().state_dict().items()}
    save_file(weights, tmp_path / "mine.safetensors")
    torch.save({"epoch": 3, "generator": weights, "optimizer": {"state": {}}}, tmp_path / "mine.pth")
    for file in ("mine.safetensors", "mine.pth"):
        assert open_model(tmp_path / file)[1].network_config() == config


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (ResnetConfig(width=2, blocks=1, norm="none", bias=False), "norm='none', bias=False"),
        (ResnetConfig(width=2, blocks=1, separable=True), "upsampling='resize'"),
        (UNetConfig(width=2, depth=7, attention=5), r"\[4, 5, 6\].*attention="),
    ],
)
def test_generator_module_supplies_what_keys_do_not_tell(tmp_path: Path, config: Any, hint: str) -> None:
    torch.manual_seed(0)
    trained = config.build()
    torch.save(trained.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ModelError, match=rf"mine\.pth: .*{hint}"):
        open_model(tmp_path / "mine.pth")
    network, info = open_model(tmp_path / "mine.pth", generator=config.build())
    assert info.network_config() == config
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())


def test_damaged_keys_are_named(tmp_path: Path) -> None:
    for change, message in (
        (lambda s: s.pop("up.0.conv.weight"), "'up.0.conv.weight' is missing"),
        (lambda s: s.pop("blocks.0.conv2.weight"), r"blocks\.0\.conv2\.weight is missing"),
        (lambda s: s.update({"head.weight": torch.zeros(3)}), r"head\.weight has the shape \(3,\)"),
        (lambda s: s.update({"more": torch.zeros(3)}), "more has no place"),
        (lambda s: s.update({"stem.conv.weight": torch.zeros(600, 3, 7, 7)}), "width = 600"),
    ):
        state = ResnetConfig(width=2, blocks=1).build().state_dict()
        change(state)
        torch.save(state, tmp_path / "mine.pth")
        with pytest.raises(ModelError, match=rf"mine\.pth: .*{message}"):
            open_model(tmp_path / "mine.pth")


class Brighter(nn.Module):
    """A generator that i2i does not know, with tied weights and a buffer that is no number of a network."""

    size_multiple = 8

    def __init__(self, gain: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.again = self.first
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("on", torch.tensor([True]))
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 8 == x.shape[-2] % 8 == 0
        return torch.tanh(x + self.gain)


def test_an_own_generator(tmp_path: Path) -> None:
    trained, x = Brighter(0.5), torch.zeros(3, 9, 13)
    torch.save(nn.DataParallel(trained).state_dict(), tmp_path / "mine.pth")
    given = Brighter()
    translate = i2i.load_translator(tmp_path / "mine.pth", generator=given, device="cpu", precision="fp32")
    assert translate.runtime == "torch" and translate.info.statistics == "running" and float(given.gain.detach()) == 0
    torch.testing.assert_close(translate(x), torch.full_like(x, 0.5).tanh())

    translate.save_pretrained(tmp_path / "folder")
    model_file.save(tmp_path / "a2b.safetensors", translate.network, translate.info)
    for name in ("folder", "a2b.safetensors"):
        again = i2i.load_translator(tmp_path / name, generator=Brighter(), device="cpu", precision="fp32")
        assert torch.equal(again(x), translate(x)), "tied weights and buffers of booleans are kept"
        with pytest.raises(ModelError, match="no file brings code"):
            i2i.load_translator(tmp_path / name)
    with pytest.raises(ModelError, match=r"mine\.pth: weight is missing"):
        i2i.load_translator(tmp_path / "mine.pth", generator=nn.Conv2d(3, 3, 1))
