"""`i2i export --web`: the folder that a web server gives to browsers. tests/browser/test_site.py uses its page."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from web_sites import runtime_folder, style

from i2i.commands import results as command
from i2i.errors import OutputError, UsageError
from i2i.files import LOCK
from i2i.images import palettes
from i2i.inference.torch_runtime import half_where_exact, rounded
from i2i.models import model_file
from i2i.models.info import ModelInfo, describe
from i2i.networks.dcgan import DCGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig
from i2i.tools import website as site
from i2i.tools.website import FILES, SOURCES, read_runtime

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
RUNTIME = {"ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm", "LICENSE.txt"}
"""No .mjs, of which many web servers do not know the type."""
PAGES = sorted(path for path in SOURCES.iterdir() if path.suffix in (".html", ".js", ".css"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[nn.Module, ModelInfo]]]:
    """A page by the command, and its styles."""
    folder = tmp_path_factory.mktemp("web")
    styles = {"painter": style(0, paint_size=48), "grey": style(1, domain="scan", in_channels=1, out_channels=1)}
    for name, (network, info) in styles.items():
        model_file.save(folder / f"{name}.safetensors", network, info)
    files = tuple(str(folder / f"{name}.safetensors") for name in styles)
    command.export(command.ExportCommand(model=files, web=folder / "site", web_runtime=runtime_folder(folder)))
    return folder / "site", styles


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "site.json").read_text())
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_these_files(made: Any) -> None:
    page = "index.html page.css page.js pictures.js mask.js styles.js worker.js colour.js scaling.js sw.js"
    more = "site.json icon.png manifest.webmanifest"
    styles = "example.jpg styles/painter.onnx styles/painter.jpg styles/grey.onnx"
    runtime = [f"runtime/{name}" for name in RUNTIME]
    assert sorted(files_in(made[0])) == sorted([*page.split(), *more.split(), *styles.split(), *runtime])
    assert not list(made[0].parent.glob(".i2i-*"))


def test_the_index_says_size_and_sha256_of_each_file(made: Any) -> None:
    files = files_in(made[0])
    expected = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
        if name not in ("site.json", "sw.js")
    }
    found = index(made[0])
    assert found["files"] == expected
    assert found["onnxruntime-web"] == "1.2.3"


def test_the_index_describes_the_styles(made: Any) -> None:
    painter, grey = index(made[0])["styles"]
    assert (painter["name"], painter["from"], painter["to"], painter["paint_size"]) == ("painter", "photo", "test", 48)
    assert (painter["size_multiple"], painter["in_channels"], grey["in_channels"]) == (4, 3, 1)
    assert painter["card"][0] == "Made for tests."
    assert (painter["example"], grey["example"]) == ("styles/painter.jpg", ""), "a photograph is no scan"


def test_the_policy_lets_no_other_code_run(made: Any) -> None:
    page = (made[0] / "index.html").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert rules["worker-src"] == rules["connect-src"] == rules["style-src"] == "'self'"


@pytest.mark.parametrize("source", PAGES, ids=lambda path: path.name)
def test_a_page_names_no_other_place_and_has_nothing_inline(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    assert not re.search(r"://|[\"'`(]//", text), "no address of another server"
    if source.suffix == ".html":
        assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", text)
        assert 'name="viewport" content="width=device-width' in text
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b", text), "a card is text"


def test_the_worker_keeps_all_but_networks(made: Any) -> None:
    text = (made[0] / "sw.js").read_text()
    kept = json.loads(re.findall(r"const FILES = (\[.*\]);", text)[0])
    expected = {*files_in(made[0]), "./"} - {"sw.js", "index.html", "styles/painter.onnx", "styles/grey.onnx"}
    assert set(kept) == expected
    version = hashlib.sha256((made[0] / "site.json").read_bytes()).hexdigest()[:16]
    assert f'const VERSION = "{version}";' in text, "another site is another cache"


def test_the_manifest_is_installable(made: Any) -> None:
    manifest = json.loads((made[0] / "manifest.webmanifest").read_text())
    assert (manifest["start_url"], manifest["display"]) == ("./", "standalone")
    assert manifest["name"] == "Photo → test, Scan → test"
    assert all((made[0] / icon["src"]).is_file() for icon in manifest["icons"])


@pytest.mark.parametrize("name", ["painter", "grey"])
def test_a_network_computes_what_torch_does_from_weights_of_16_bits(made: Any, name: str) -> None:
    data = (made[0] / "styles" / f"{name}.onnx").read_bytes()
    network, info = made[1][name]
    floats = [w for w in onnx.load_from_string(data).graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(weight.dims) < 64 for weight in floats)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    assert len(data) < 2 * numbers + 60_000
    x = np.random.default_rng(0).uniform(-1, 1, (1, info.config["in_channels"], 60, 44)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    assert np.abs(session.run(None, {"input": x})[0] - expected).max() < 1e-4


def test_a_weight_that_16_bits_lack_stays_as_it_is() -> None:
    values = {"exact": np.full((8, 8), 0.5, np.float32), "inexact": np.full((8, 8), 0.1, np.float32)}
    helper = onnx.helper
    plane = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [8, 8])
    result = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [8, 8])
    nodes = [
        helper.make_node("Mul", ["input", "exact"], ["half"]),
        helper.make_node("Add", ["half", "inexact"], ["output"]),
    ]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in values.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", [plane], [result], weights), ir_version=10)
    model.opset_import[0].version = 18
    compact = half_where_exact(model.SerializeToString())
    types = {weight.name: weight.data_type for weight in onnx.load_from_string(compact).graph.initializer}
    assert types == {"exact_half": onnx.TensorProto.FLOAT16, "inexact": onnx.TensorProto.FLOAT}
    x = np.arange(64, dtype=np.float32).reshape(8, 8)
    session = onnxruntime.InferenceSession(compact, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"input": x})[0], x / 2 + np.float32(0.1))


def test_weights_are_rounded_to_16_bits_when_asked_for() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(0.1)
    assert rounded(layer).weight.item() == np.float16(0.1)
    with torch.no_grad():
        layer.weight.fill_(1e6)
    with pytest.raises(UsageError, match=r"half: weight has numbers beyond"):
        rounded(layer)


LABELS = describe(ResnetConfig(width=2, blocks=1), direction="a2b", output_palette=palettes.indexed(3))
LAB = describe(ResnetConfig(width=2, blocks=1, in_channels=1, out_channels=2), direction="a2b", encoding="lab")
NOISE = describe(DCGANConfig(), direction="a2b")
DROPOUT = describe(UNetConfig(width=2, depth=5, dropout=True), direction="a2b", dropout=True)
OF_USER = ModelInfo(network="own", config={}, direction="a2b", input_domain="A", output_domain="B", size_multiple=1)
BANDS = describe(ResnetConfig(width=2, blocks=1, in_channels=4), direction="a2b")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (LABELS, "labels"),
        (LAB, "CIE Lab"),
        (NOISE, "noise"),
        (DROPOUT, "--dropout False"),
        (BANDS, "takes 4 channels"),
        (OF_USER, "your own"),
    ],
)
def test_styles_that_no_page_can_have(info: ModelInfo, message: str) -> None:
    with pytest.raises(UsageError, match=f"mine .*{message}"):
        site.check_style("mine", info)


def test_folders_that_are_not_written_to(tmp_path: Path, made: Any) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    for name, replace, message in (
        ("file", True, "a file is there"),
        ("full", False, "not empty"),
        ("full", True, "no page of i2i"),
    ):
        with pytest.raises(UsageError, match=message):
            site.check_folder(tmp_path / name, replace)
    site.check_folder(tmp_path / "empty", False)
    site.check_folder(tmp_path / "new" / "deep", False)
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        site.check_folder(made[0], False)
    site.check_folder(made[0], True)


def small_site(monkeypatch: pytest.MonkeyPatch, content: bytes = b"new") -> None:
    """Without networks, whose export takes seconds."""
    files = {"page.js": content, "site.json": b'{"made_by": "i2i export --web", "files": {"page.js": {}}}'}
    monkeypatch.setattr(site, "site_files", lambda models, runtime: files)


def test_an_earlier_page_gives_way_and_a_file_of_the_user_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = read_runtime(runtime_folder(tmp_path))
    small_site(monkeypatch, b"old")
    site.write_site(tmp_path / "site", {}, runtime)
    small_site(monkeypatch)
    site.write_site(tmp_path / "site", {}, runtime, replace=True)
    assert files_in(tmp_path / "site")["page.js"] == b"new"
    (tmp_path / "site" / "CNAME").write_text("example")
    with pytest.raises(UsageError, match="holds CNAME, which i2i did not write"):
        site.write_site(tmp_path / "site", {}, runtime, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node_modules", "site"]


def test_the_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = read_runtime(runtime_folder(tmp_path / "npm"))
    small_site(monkeypatch)
    written: list[Path] = []

    def full(path: Path, write: Any) -> None:
        written.append(path)
        if len(written) == 2:
            raise OutputError("disk full")
        path.write_bytes(b"")

    monkeypatch.setattr(site, "atomic_write", full)
    with pytest.raises(OutputError, match="disk full"):
        site.write_site(tmp_path / "site", {}, runtime)
    assert [path.name for path in tmp_path.iterdir()] == ["npm"]


def test_the_half_page_of_a_killed_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_site(monkeypatch)
    left = tmp_path / ".i2i-site-0123abcd.part"
    (left / "new").mkdir(parents=True)
    (left / LOCK).touch()
    site.write_site(tmp_path / "site", {}, read_runtime(runtime_folder(tmp_path / "npm")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["npm", "site"]


def test_the_runtime_is_found_where_npm_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = runtime_folder(tmp_path)
    found = [read_runtime(place) for place in (tmp_path, dist.parent, dist)]
    monkeypatch.chdir(tmp_path)
    found.append(read_runtime(None))
    assert all(one == found[0] for one in found)
    assert found[0].version == "1.2.3"
    assert set(found[0].files) == RUNTIME
    assert b"MIT License" in found[0].files["LICENSE.txt"]


def test_a_runtime_that_is_not_there_or_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"the current folder has no onnxruntime-web.*`npm install onnxruntime-web`"):
        read_runtime(None)
    with pytest.raises(UsageError, match=r"--web-runtime .*elsewhere has no onnxruntime-web"):
        read_runtime(tmp_path / "elsewhere")
    dist = runtime_folder(tmp_path)
    (dist / FILES[1]).write_bytes(b"<html>404</html>")
    with pytest.raises(UsageError, match=rf"{FILES[1]}: damaged"):
        read_runtime(dist)
    (dist / FILES[1]).unlink()
    with pytest.raises(UsageError, match=rf"{FILES[1]}: cannot be read.*1\.20 or newer"):
        read_runtime(dist)


def test_the_command_describes_a_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model_file.save(tmp_path / "my scan.safetensors", *style())
    given: dict[str, Any] = {}
    monkeypatch.setattr(site, "write_site", lambda out, models, runtime, replace: given.update(models) or 12_345_678)
    options = {"web": tmp_path / "out", "web_runtime": runtime_folder(tmp_path)}
    command.export(
        command.ExportCommand(model=str(tmp_path / "my scan.safetensors"), licence="MIT", paint_size=64, **options)
    )
    ((name, (_, info)),) = given.items()
    assert (name, info.licence, info.paint_size) == ("my-scan", "MIT", 64)
    out = tmp_path / "out"
    assert (
        capsys.readouterr().err
        == f"{out}: 12.3 MB. Put it on any web server, or try it: python -m http.server -d {out}\n"
    )


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ((), {}, r"expected: i2i export MODEL\.\.\. --web FOLDER"),
        (("monet",), {"out": Path("x.onnx")}, "leave out -o and --format"),
        (("monet",), {"format": "onnx"}, "leave out -o and --format"),
        (("monet", "vangogh"), {"licence": "MIT"}, "--licence describes one style; 2 are given"),
        (("monet", "monet"), {}, "'monet' is given already"),
        (("monet", "no-such-style"), {}, "no such style"),
    ],
)
def test_mistakes(tmp_path: Path, models: Any, options: Any, message: str) -> None:
    given = {"web": tmp_path / "out", "web_runtime": runtime_folder(tmp_path)} | options
    with pytest.raises(UsageError, match=message):
        command.export(command.ExportCommand(model=models, **given))
    assert not (tmp_path / "out").exists()


def test_options_of_a_page_belong_to_a_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--web-runtime belongs to --web"):
        command.export(command.ExportCommand(model="monet", out=tmp_path / "m.onnx", web_runtime=tmp_path))
    with pytest.raises(UsageError, match="expected: i2i export MODEL -o OUT"):
        command.export(command.ExportCommand(model=("monet", "vangogh"), out=tmp_path / "m.onnx"))
