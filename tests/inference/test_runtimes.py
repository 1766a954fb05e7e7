"""Runtimes give what torch gives; which one is taken; what they keep between uses."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import python
from torch import nn

from i2i import machine
from i2i.acceleration import accelerate, exchange, shared_copy
from i2i.acceleration.inference import PreparedWinogradConv2d
from i2i.errors import UsageError
from i2i.folders import batch
from i2i.folders.batch import translate_folder
from i2i.images import Picture, write
from i2i.inference import prepare, runtimes
from i2i.inference.options import ModelOptions
from i2i.inference.runtimes import ConvertedModel, InputSpec, OnnxRuntime, OpenVINORuntime
from i2i.inference.translator import Translator, load_translator
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks import generator_config
from i2i.networks.blocks import for_translation, init_weights
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig

PLAIN = ResnetConfig(width=4, blocks=1)
NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "resnet": (PLAIN, {}),
    "antialiased": (ResnetConfig(width=4, blocks=1, downsampling="antialiased", upsampling="antialiased"), {}),
    "separable": (generator_config("mobile_resnet_1blocks", width=4), {}),
    "subpixel": (generator_config("mobile_resnet_1blocks_subpixel", width=4, input_share=0.25), {}),
    "replicate": (ResnetConfig(width=4, blocks=1, padding="replicate"), {}),
    "zero-grey": (ResnetConfig(width=4, blocks=1, padding="zero", in_channels=1, out_channels=2), {}),
    "batch-of-picture": (ResnetConfig(width=4, blocks=1, norm="batch"), {"statistics": "batch"}),
    "batch-of-training": (ResnetConfig(width=4, blocks=1, norm="batch"), {"statistics": "running"}),
    "unet-of-picture": (UNetConfig(width=2, depth=5), {"statistics": "batch"}),
    "unet-of-training": (UNetConfig(width=2, depth=5), {"statistics": "running"}),
}
NOISY = ResnetConfig(width=4, blocks=1, dropout=True)
# a picture of one colour, such as one of 1x1, is nothing but rounding after a few instance norms; so is one of 3x5 at a
# quarter of its size, because its mirror images make it nearly of one colour there
SIZES = ((5, 6), (32, 32), (37, 50))
LEVEL = 2 / 255

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
needs_bf16 = pytest.mark.skipif(
    not machine.has_bf16() or "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="no bfloat16 in this processor, or kept from it",
)
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="ONNX is not installed"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("I2I_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"


def _network(config: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = init_weights(config.build(), gain=0.2)
    for module in network.modules():  # so that the statistics of the training are not those of any picture
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.1), module.running_var.fill_(0.7)
    return network


def _plainly(config: Any, statistics: Any, x: torch.Tensor) -> torch.Tensor:
    """The result of torch's own layers in float64."""
    network = for_translation(_network(config).double(), statistics)
    with torch.no_grad():
        result: torch.Tensor = network(x.double())
    return result.float()


def _model(folder: Path, config: Any = PLAIN, **described: Any) -> Path:
    network = _network(config)
    folder.mkdir(exist_ok=True)
    model_file.save(folder / "a2b.safetensors", network, describe(network, direction="a2b", **described))
    return folder / "a2b.safetensors"


def _noise(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.arithmetic
@pytest.mark.promise("R36", "R38")
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_runtime_gives_what_the_plain_way_gives(name: str, runtime: Any) -> None:
    config, described = NETWORKS[name]
    network = _network(config)
    info = describe(network, direction="a2b", **described)
    used = Translator(network, info, runtime=runtime, precision="fp32")
    assert (used.runtime, used.precision) == (runtime, "fp32")
    fitting = _noise(config.in_channels, 64, 32)
    plainly = _plainly(config, info.statistics, fitting[None])[0]
    torch.testing.assert_close(used(fitting), plainly, atol=1e-4, rtol=0)
    by_torch = Translator(_network(config), info, precision="fp32")
    for size in SIZES:
        x = _noise(config.in_channels, *size)
        # each of the two may be 1e-4, an 80th of an 8-bit level, off the truth
        torch.testing.assert_close(used(x), by_torch(x), atol=2e-4, rtol=0)
    assert torch.isfinite(used(_noise(config.in_channels, 1, 1))).all()


@pytest.mark.arithmetic
@needs_onnx
@pytest.mark.parametrize(
    "name", ["resnet", *(pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS if n != "resnet")]
)
def test_onnx_gives_what_torch_gives(name: str) -> None:
    config, described = NETWORKS[name]
    info = describe(_network(config), direction="a2b", **described)
    used, by_torch = (
        Translator(_network(config), info, runtime=runtime, precision="fp32") for runtime in ("onnx", "torch")
    )
    for size in SIZES:
        x = _noise(config.in_channels, *size)
        torch.testing.assert_close(used(x), by_torch(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *(("resnet", "eager"), ("unet-of-picture", "eager")),
        *(pytest.param(name, "inductor", marks=pytest.mark.slow) for name in NETWORKS),
    ],
)
def test_compiled_networks_give_what_the_others_give(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of any size; all of torch.compile but the code generator, which takes minutes, and with it."""
    monkeypatch.setattr(exchange, "BACKEND", backend)
    config, described = NETWORKS[name]
    info = describe(_network(config), direction="a2b", **described)
    used, usual = (Translator(_network(config), info, precision="fp32", compile=there) for there in (True, False))
    made: list[Any] = []
    used.model.runtime.network.register_forward_hook(lambda *_: made.append(torch.compiler.is_compiling()))  # type: ignore[attr-defined]
    try:
        for size in SIZES:
            x = _noise(config.in_channels, *size)
            torch.testing.assert_close(used(x), usual(x), atol=1e-4, rtol=0)
    finally:
        torch._dynamo.reset()
    assert any(made), "nothing was compiled"


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_networks_draw_the_same_noise(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKEND", backend)
    info = describe(NOISY, direction="a2b", dropout=True)
    used, usual = (Translator(_network(NOISY), info, precision="fp32", compile=there) for there in (True, False))
    x = _noise(3, 32, 32)
    try:
        torch.testing.assert_close(used(x), usual(x), atol=1e-4, rtol=0)
    finally:
        torch._dynamo.reset()


def test_compile_selects_the_torch_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BACKEND", "eager")
    path = _model(tmp_path / "run")
    assert load_translator(path, device="cpu", compile=True).runtime == "torch"
    for other, named in (("openvino", "OpenVINO"), ("onnx", "ONNX Runtime")):
        with pytest.raises(UsageError, match=f"compile = True: it is torch that compiles; leave it out with {named}"):
            load_translator(path, device="cpu", runtime=other, compile=True)  # type: ignore[arg-type]
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", Picture(np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.setattr(torch, "compile", _broken)
    exchange.check_compiler.cache_clear()
    with pytest.raises(UsageError, match=r"torch cannot compile for cpu here \(No C\+\+ compiler\); install"):
        translate_folder(tmp_path / "in", tmp_path / "out", path, device="cpu", compile=True)


def test_a_network_that_cannot_be_compiled_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not picture by picture; what else goes wrong in it is what it was."""

    def refuses(*_: Any) -> Any:
        raise ValueError("no such instruction\nand much more")

    monkeypatch.setattr(exchange, "BACKEND", "eager")
    path = _model(tmp_path / "run")
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, Picture(np.zeros((8, 8, 3), np.uint8)))
    exchange.check_compiler(torch.device("cpu"))
    monkeypatch.setattr(exchange, "BACKEND", refuses)
    torch._dynamo.reset()
    message = r"torch cannot compile this network \(backend='refuses' raised: ValueError: no such instruction\); leave"
    with pytest.raises(UsageError, match=message):
        translate_folder(tmp_path / "in", tmp_path / "out", path, device="cpu", compile=True)
    assert exchange.refused(MemoryError()) is None is exchange.refused(RuntimeError("out of memory"))


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("No C++ compiler")


@pytest.mark.arithmetic
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_noise_is_that_of_the_plain_way(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    network = for_translation(_network(NOISY), dropout=True)
    x = _noise(3, 32, 32)[None]
    torch.manual_seed(1)
    with torch.no_grad():
        expected = network(x)
        torch.manual_seed(1)
        found = accelerate(shared_copy(network), "inference")(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    used = Translator(network, describe(NOISY, direction="a2b", dropout=True), precision=precision)
    with torch.random.fork_rng():
        from i2i.inference.torch_runtime import seed_of

        torch.manual_seed(seed_of(x))
        plainly = for_translation(_network(NOISY), dropout=True)(x)
    assert (used(x) - plainly).abs().max() < (LEVEL / 8 if precision == "fp32" else 0.1)


def test_the_network_keeps_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    path = _model(tmp_path / "run", NETWORKS["batch-of-picture"][0])
    for runtime in ("torch", *(["openvino"] if find_spec("openvino") else [])):
        used = load_translator(path, device="cpu", runtime=runtime, precision="bf16")
        used.save_pretrained(tmp_path / runtime)
        saved = load_translator(tmp_path / runtime, device="cpu", runtime="torch", norm_stats="running")
        for name, tensor in _network(used.config).state_dict().items():
            assert torch.equal(saved.network.state_dict()[name], tensor), name


WIDE = ResnetConfig(width=32, blocks=1)  # its blocks have 128 channels, which `winograd` is for


ANTIALIASED: dict[str, Any] = {"downsampling": "antialiased", "upsampling": "antialiased"}


@pytest.mark.arithmetic
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("config", "count"),
    [
        (WIDE, 2),
        (ResnetConfig(width=16, blocks=1, norm="none", padding="zero"), 2),
        (ResnetConfig(width=64, blocks=1, **ANTIALIASED), 6),
        (ResnetConfig(width=64, blocks=1, upsampling="resize", padding="replicate"), 4),
    ],
    ids=["strided", "zero", "antialiased", "resize"],
)
def test_wide_convolutions_by_winograd(
    config: ResnetConfig, count: int, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 alone, a two hundredth of a level from the result in float64, and nowhere more than a quarter of one
    (without any norm; 0.0002 with one); the network itself stays as it was."""
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    network = _network(config)
    used = Translator(network, describe(network, direction="a2b"), precision=precision)
    done = [module for module in used.model.runtime.network.modules() if isinstance(module, PreparedWinogradConv2d)]  # type: ignore[attr-defined]
    assert len(done) == (count if precision == "fp32" else 0)
    x = _noise(3, 72, 60)
    if precision == "fp32":
        exact = for_translation(_network(config).double())(x[None].double())[0]
        off = used(x) - exact
        assert off.square().mean().sqrt() < LEVEL / 200 and off.abs().max() < LEVEL / 4
    for key, value in _network(config).state_dict().items():
        assert torch.equal(used.network.state_dict()[key], value)


@pytest.mark.arithmetic
@pytest.mark.parametrize("runtime", ["torch", pytest.param("openvino", marks=[needs_openvino, needs_bf16])])
def test_two_likely_classes_do_not_tie_in_16_bits(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose tanh is 1 for both."""
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    network = _network(replace(PLAIN, out_channels=3))
    with torch.no_grad():
        network.head.weight.zero_(), network.head.bias.copy_(torch.tensor([5.0, 6.0, -6.0]))  # type: ignore[operator]
    info = describe(network, direction="a2b")
    used = Translator(network, info, runtime=runtime, precision="bf16")
    assert (used(_noise(3, 16, 16)).argmax(0) == 1).all()


@needs_openvino
def test_torch_for_wide_generators_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they were converted before or not; few pixels are left to the runtime that starts sooner."""
    few, many = 100, 1 << 20
    wide, narrow = _model(tmp_path / "wide", WIDE), _model(tmp_path / "narrow")

    def runtime(path: Path, pixels: int | None, **options: Any) -> str:
        return load_translator(
            path, device="cpu", sizes=pixels and [(1, pixels)], **{"precision": "fp32"} | options
        ).runtime

    for _ in range(2):
        assert [runtime(wide, pixels) for pixels in (many, None, few)] == ["torch", "torch", "openvino"]
    assert runtime(narrow, None) == runtime(wide, many, runtime="openvino") == "openvino"
    for width, blocks in ((32, 0), (31, 1), (129, 1)):
        info = describe(ResnetConfig(width=width, blocks=blocks).build(), direction="a2b")
        assert not prepare.torch_is_faster(info, "fp32", None), "few convolutions, if any, go by Winograd's filtering"
    info = describe(_network(WIDE), direction="a2b")
    assert Translator(_network(WIDE), info, runtime="auto", precision="fp32").runtime == "torch"
    monkeypatch.setattr(machine, "has_bf16", lambda: False)
    assert runtime(wide, many, precision="auto") == "torch"
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    monkeypatch.setattr(runtimes, "_HINTS", {"fp32": "f32", "bf16": "f32"})  # whatever this processor has
    assert runtime(wide, many, precision="auto") == "openvino"


@needs_openvino
def test_runtime_follows_the_pixels_of_all_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over all inputs, damaged ones aside: a shard, or a rest, is done by the runtime of the whole."""
    monkeypatch.setattr(prepare, "_PIXELS", 3 * 20 * 24)
    model, pixels = _model(tmp_path / "wide", WIDE), np.zeros((20, 24, 3), np.uint8)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write(tmp_path / "in" / name, Picture(pixels))
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    options: Any = {"style": model, "device": "cpu", "precision": "fp32"}
    report = translate_folder(tmp_path / "in", tmp_path / "few", **options)
    assert report.facts["runtime"] == "openvino"
    write(tmp_path / "in" / "c.png", Picture(pixels))
    for more in ({"shard": "2/3"}, {"skip_existing": True}):
        report = translate_folder(tmp_path / "in", tmp_path / "many", **options, **more)
        assert report.facts["runtime"] == "torch"
    report = translate_folder(tmp_path / "in", tmp_path / "small", **options, size=10)
    assert report.facts["runtime"] == "openvino", "what is translated counts"
    monkeypatch.setattr(batch, "_COUNTED", 2)
    monkeypatch.setattr(batch, "probe", lambda path: pytest.fail("more than is worth counting"))
    assert translate_folder(tmp_path / "in", tmp_path / "more", **options).facts["runtime"] == "torch"


@pytest.mark.promise("R22", "R38")
def test_wide_generators_give_the_same_bytes(tmp_path: Path) -> None:
    """Alone or together, by one worker or several, in parts or begun before."""
    model = _model(tmp_path / "wide", WIDE)
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(20, 24), (37, 50), (64, 64), (64, 64), (9, 70)]):
        write(tmp_path / "in" / f"{i}.png", Picture(np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)))

    def translated(out: str, *runs: dict[str, Any]) -> dict[str, bytes]:
        for more in runs:
            translate_folder(tmp_path / "in", tmp_path / out, model, device="cpu", precision="fp32", **more)
        return {file.name: file.read_bytes() for file in sorted((tmp_path / out).iterdir())}

    expected = translated("one", {"workers": 1, "batch_size": "1", "runtime": "torch"})
    assert len(expected) == 5
    assert translated("many", {"workers": 3, "batch_size": "4", "runtime": "torch"}) == expected
    by_auto = translated("whole", {})
    assert translated("parts", {"shard": "1/2"}, {"shard": "2/2"}) == by_auto
    (tmp_path / "whole" / "2.png").unlink()
    assert translated("whole", {"skip_existing": True}) == by_auto


def _installed(*names: str) -> Any:
    return lambda name: SimpleNamespace(origin="there") if name in names else None


CHOICES = [
    ("auto", "cpu", ("openvino", "onnxruntime"), "openvino"),
    ("auto", "cpu", ("onnxruntime",), "torch"),
    ("auto", "cuda", ("openvino",), "torch"),
    ("torch", "cpu", ("openvino",), "torch"),
    ("onnx", "cpu", ("onnxruntime",), "onnx"),
    ("openvino", "cpu", (), r"OpenVINO is not installed \(pip install \"i2i\[openvino\]\"\)"),
    ("onnx", "cpu", ("openvino",), r"ONNX Runtime is not installed \(pip install \"i2i\[onnx\]\"\)"),
    ("openvino", "cuda", ("openvino",), "on the CPU only; cuda needs torch"),
]


@pytest.mark.parametrize(("asked", "device", "there", "expected"), CHOICES)
def test_runtime_choice_by_device_and_installation(
    asked: Any, device: str, there: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_spec", _installed(*there))
    if " " not in expected:
        assert prepare.choose_runtime(asked, device) == expected
        return
    with pytest.raises(UsageError, match=expected):
        prepare.choose_runtime(asked, device)


def test_folder_named_like_a_runtime_does_not_count_as_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    assert prepare.choose_runtime("auto", "cpu") == "torch"


@pytest.mark.parametrize("error", [ImportError("libtbb.so: no such file"), OSError("libtbb.so: no such file")])
def test_broken_openvino_falls_back_to_torch(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise error

    monkeypatch.setattr(prepare, "find_spec", _installed("openvino"))
    monkeypatch.setattr(OpenVINORuntime, "version", broken)
    used = load_translator(_model(tmp_path / "run"), device="cpu")
    assert used.runtime == "torch"
    assert used.notices == ("OpenVINO cannot be imported (libtbb.so: no such file): torch is used instead",)
    with pytest.raises(UsageError, match="installed, but cannot be imported: libtbb"):
        load_translator(tmp_path / "run", device="cpu", runtime="openvino")
    write(tmp_path / "a.png", Picture(np.zeros((8, 8, 3), np.uint8)))
    assert translate_folder(tmp_path / "a.png", tmp_path / "out", used).notices == used.notices


PRECISIONS = [
    ("auto", "torch", "cpu", True, "bf16"),
    ("auto", "openvino", "cpu", False, "fp32"),
    ("auto", "onnx", "cpu", True, "fp32"),
    ("fp32", "openvino", "cpu", True, "fp32"),
    ("bf16", "openvino", "cpu", False, "this processor has no bf16"),
    ("bf16", "onnx", "cpu", True, "ONNX Runtime computes in fp32"),
    ("fp16", "torch", "cpu", True, "needs a GPU"),
    ("auto", "torch", "cuda", True, "bf16"),
    ("auto", "torch", "cuda", False, "fp32"),
    ("fp16", "torch", "cuda", False, "fp16"),
    ("auto", "torch", "mps", True, "fp32"),
]


@pytest.mark.parametrize(("asked", "runtime", "device", "has", "expected"), PRECISIONS)
def test_precision_choice_by_hardware(
    asked: Any, runtime: Any, device: str, has: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_bf16", lambda: has)
    if " " not in expected:
        assert prepare.choose_precision(asked, runtime, device, gpu_has_bf16=has) == expected
        return
    with pytest.raises(UsageError, match=expected):
        prepare.choose_precision(asked, runtime, device, gpu_has_bf16=has)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 sse2\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : fpu avx512f avx2\n", False),
        ("", False),
        (None, False),
    ],
)
def test_bf16_support_is_read_from_cpuinfo(
    text: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert machine.has_bf16.__wrapped__() is expected


def test_threads_are_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("3", 3), ("4,2", 4), ("0", None), ("many", None), ("", None)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert machine.threads() == (expected or len(os.sched_getaffinity(0)))


@needs_openvino
def test_auto_runtime_is_torch_for_networks_with_dropout_noise(tmp_path: Path) -> None:
    path = _model(tmp_path / "run", NOISY, dropout=True)
    assert load_translator(path, device="cpu").runtime == "torch"
    assert load_translator(path, device="cpu", dropout=False).runtime == "openvino"
    with pytest.raises(UsageError, match="the noise of dropout"):
        load_translator(path, device="cpu", runtime="openvino")


@needs_openvino
def test_torch_replaces_openvino_if_conversion_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("Check failed\nno such operation")

    monkeypatch.setattr(OpenVINORuntime, "convert", fails)
    path = _model(tmp_path / "run")
    used = load_translator(path, device="cpu")
    assert used.runtime == "torch"
    assert used.notices == ("OpenVINO cannot take this network (no such operation): torch is used instead",)
    assert used.stream(Picture(np.zeros((8, 8, 3), np.uint8))).pixels.shape == (8, 8, 3)
    with pytest.raises(UsageError, match="cannot take this network: no such operation"):
        load_translator(path, device="cpu", runtime="openvino")


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Networks that were converted."""
    found: list[Any] = []
    convert = OpenVINORuntime.convert
    monkeypatch.setattr(OpenVINORuntime, "convert", lambda *a: (found.append(a[0]), convert(*a))[1])
    return found


@needs_openvino
def test_a_conversion_is_kept(tmp_path: Path, home: Path, conversions: list[Any]) -> None:
    path, x = _model(tmp_path / "run"), _noise(3, 20, 24)
    options: Any = {"device": "cpu", "runtime": "openvino", "precision": "fp32"}
    first = load_translator(path, **options)(x)
    assert torch.equal(load_translator(path, **options)(x), first) and len(conversions) == 1
    (entry,) = (home / "converted").iterdir()
    for damage in (lambda d: d[: len(d) // 2], lambda d: d[:-9] + b"~" + d[-8:]):
        before = len(conversions)
        entry.write_bytes(damage(entry.read_bytes()))
        assert torch.equal(load_translator(path, **options)(x), first)
        assert len(conversions) == before + 1, "a damaged one is made anew"
    assert [file.name for file in (home / "converted").iterdir()] == [entry.name]
    _model(tmp_path / "run", ResnetConfig(width=4, blocks=0))
    assert not torch.equal(load_translator(path, **options)(x), first), "another model under the same name"
    assert len(list((home / "converted").iterdir())) == 2


@needs_openvino
def test_damaged_conversion_cache_is_rebuilt(tmp_path: Path, home: Path, conversions: list[Any]) -> None:
    path = _model(tmp_path / "run")
    options: Any = {"device": "cpu", "runtime": "openvino", "precision": "fp32"}
    load_translator(path, **options)
    (entry,) = (home / "converted").iterdir()
    whole = runtimes.kept_conversion(entry.stem)
    assert whole is not None
    for files in ({"xml": b"\xff\xfe", "bin": b""}, {}, {"xml": b"<net/>", "bin": b""}):
        before = len(conversions)
        runtimes.keep_conversion(entry.stem, replace(whole, files=files))
        assert load_translator(path, **options).runtime == "openvino" and len(conversions) == before + 1
        again = runtimes.kept_conversion(entry.stem)
        assert again is not None and again.files["bin"] == whole.files["bin"]


def test_a_pipe_in_place_of_an_entry_does_not_block(home: Path) -> None:
    (home / "converted").mkdir(parents=True)
    os.mkfifo(home / "converted" / "a.safetensors")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(runtimes.kept_conversion("a")), daemon=True)
    thread.start()
    thread.join(20)
    assert found == [None]


def test_strays_of_a_killed_process_are_removed(home: Path) -> None:
    (home / "converted").mkdir(parents=True)
    old, new = (home / "converted" / f".i2i-{name}.part" for name in ("00", "11"))
    for stray in (old, new):
        stray.touch()
    os.utime(old, (1, 1))
    info = describe(PLAIN, direction="a2b")
    runtimes.keep_conversion("a", ConvertedModel(info, InputSpec(3, 3, 4, 8, 1.0), {"bin": b"a"}))
    assert not old.exists() and new.exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("bfc_arena.cc:360 Failed to allocate memory", MemoryError), ("no such node", RuntimeError)]
)
def test_onnx_without_memory(text: str, expected: Any) -> None:
    class Fail(RuntimeError if expected is RuntimeError else Exception):  # type: ignore[misc]
        """As ONNX Runtime's own."""

    def run(*_: Any) -> Any:
        raise Fail(text)

    class Failing(OnnxRuntime):
        def start(self) -> Any:
            return SimpleNamespace(run=run, get_inputs=lambda: [SimpleNamespace(name="x")])

    used = Failing(SimpleNamespace(files={"onnx": b""}))  # type: ignore[arg-type]
    with pytest.raises(expected, match=text):
        used.run(np.zeros((1, 3, 8, 8), np.float32))


@needs_openvino
def test_unwritable_conversion_cache_is_skipped(tmp_path: Path, home: Path) -> None:
    home.write_bytes(b"a file where the folder would be")
    assert load_translator(_model(tmp_path / "run"), device="cpu", runtime="openvino").runtime == "openvino"


@needs_openvino
def test_several_may_convert_at_once(tmp_path: Path, home: Path) -> None:
    path, x, found = _model(tmp_path / "run"), _noise(3, 16, 16), []

    def use() -> None:
        converted = runtimes.kept_conversion(name)
        if converted is None:
            runtimes.keep_conversion(name, prepared)
        found.append(runtimes.kept_conversion(name) is not None)

    network, info = _network(PLAIN), describe(PLAIN, direction="a2b")
    files = OpenVINORuntime.convert(for_translation(network), 3, 64)
    prepared = ConvertedModel(info, InputSpec(3, 3, 4, 8, 100.0), files)
    name = str(runtimes.content_key(path, "openvino", ModelOptions()))
    threads = [threading.Thread(target=use) for _ in range(6)]
    [thread.start() for thread in threads]  # type: ignore[func-returns-value]
    [thread.join() for thread in threads]  # type: ignore[func-returns-value]
    assert found == [True] * 6 and len(list((home / "converted").iterdir())) == 1 and x is not None


def test_entries_that_were_not_used_make_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "MAX_BYTES", 25_000)
    info = describe(PLAIN, direction="a2b")
    for number in range(4):
        entry = ConvertedModel(info, InputSpec(3, 3, 4, 8, 1.0), {"bin": bytes(10_000)})
        runtimes.keep_conversion(f"{number}", entry)
        os.utime(home / "converted" / f"{number}.safetensors", (number, number))
        if number == 1:
            os.utime(home / "converted" / "0.safetensors", (9, 9))  # used again
    assert sorted(file.stem for file in (home / "converted").iterdir()) == ["0", "3"]
    assert runtimes.kept_conversion("0") == entry and runtimes.kept_conversion("1") is None


BLOCKER = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is imported")
sys.meta_path.insert(0, NoTorch())
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@needs_openvino
def test_the_second_start_imports_no_torch(tmp_path: Path) -> None:
    path = _model(tmp_path / "run")
    load_translator(path, device="cpu", precision="fp32")
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8)
    for name in ("a.png", "b.jpg"):
        write(tmp_path / "in" / name, Picture(pixels))
    script = Path(__file__).parents[2] / "scripts" / "translate.py"
    options = ["--style", str(path), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    command = [sys.executable, "-c", BLOCKER, str(script), *options, "--precision", "fp32", "--size", "24", "--verbose"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg"]


@needs_openvino
def test_openvino_takes_threads(tmp_path: Path) -> None:
    used = load_translator(_model(tmp_path / "run"), device="cpu", runtime="openvino")
    pictures = [_noise(3, 16 + 4 * i, 16) for i in range(6)]
    expected = [used(x) for x in pictures]
    found: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: used(pictures[i])})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(6))


@needs_onnx
@pytest.mark.slow
def test_an_onnx_file_is_checked_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    from i2i.inference import torch_runtime

    info = describe(PLAIN, direction="a2b")
    torch_runtime.save_onnx(tmp_path / "a.onnx", _network(PLAIN), info)
    model = onnx.load(tmp_path / "a.onnx")
    assert '"network": "resnet"' in {entry.key: entry.value for entry in model.metadata_props}["i2i"]
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 0, 0]
    monkeypatch.setattr(torch_runtime, "TOLERANCE", 0.0)
    with pytest.raises(UsageError, match="from torch's result"):
        torch_runtime.save_onnx(tmp_path / "b.onnx", _network(PLAIN), info)
    with pytest.raises(UsageError, match="noise of dropout"):
        torch_runtime.save_onnx(tmp_path / "b.onnx", _network(NOISY), describe(NOISY, direction="a2b", dropout=True))
    assert not (tmp_path / "b.onnx").exists()


SIGNALLED = """
import gc, os, signal, sys, threading
import i2i
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
translators = [i2i.load_translator(sys.argv[1], runtime="openvino", device="cpu") for _ in range(2)]
def end():
    while translators:
        del translators[0]
        gc.collect()
thread = threading.Thread(target=end)
thread.start() if sys.argv[2] == "thread" else end()
thread.join() if sys.argv[2] == "thread" else None
os.kill(os.getpid(), signal.SIGUSR1)
"""


@needs_openvino
@pytest.mark.parametrize("where", ["main", "thread"])
def test_a_signal_finds_its_stack_after_translators_have_ended(tmp_path: Path, where: str) -> None:
    done = python("-c", SIGNALLED, _model(tmp_path), where)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_openvino_does_not_end_the_process_where_it_may_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != ".")
    with pytest.raises(UsageError, match="current folder may not be searched"):
        OpenVINORuntime(SimpleNamespace(files={"xml": b"", "bin": b""}))  # type: ignore[arg-type]
