"""On a GPU: what can be shown without one, and (marked `gpu`) what needs it."""

import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_contract as contract
import torch
from pretended_gpu import pretended_gpu
from run_options import CycleGANRun, Pix2PixRun
from torch import nn

from i2i.acceleration import prepare
from i2i.acceleration.inference import Moments
from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.data.pair import Datasets, ImagePair
from i2i.data.toy import ToyPairs, ToyUnpaired
from i2i.folders.batch import translate_folder
from i2i.images import Picture, read, write
from i2i.inference.schedule import Layer, convolution, normalisation
from i2i.inference.torch_runtime import TorchRuntime
from i2i.inference.translator import Translator, load_translator
from i2i.losses.content import structure_loss
from i2i.models import model_file
from i2i.models.info import describe
from i2i.networks.blocks import BilinearUpsample, BlurDownsample, BlurUpsample, for_translation, init_weights
from i2i.networks.resnet import ResnetConfig
from i2i.networks.unet import UNetConfig
from i2i.training.step import ProcessGroup, TrainingStep, seed_step
from i2i.training.trainer import Trainer

CUDA = torch.device("cuda", 0)
APPLE = torch.device("mps", 0)
ANTIALIASED: dict[str, Any] = {"downsampling": "antialiased", "upsampling": "antialiased"}
NETWORKS: dict[str, Any] = {
    "resnet": ResnetConfig(width=16, blocks=2),
    "antialiased": ResnetConfig(width=16, blocks=2, **ANTIALIASED),
    "resize": ResnetConfig(width=16, blocks=2, upsampling="resize"),
    "unet": UNetConfig(width=4, depth=5),
}
SMALL: dict[str, Any] = {"ngf": 8, "ndf": 8, "discriminator": "patchgan_16", "workers": 0, "validate_every": 0}
KINDS = {CycleGAN: partial(CycleGANRun, generator="resnet_1blocks"), Pix2Pix: partial(Pix2PixRun, generator="unet_32")}


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return init_weights(NETWORKS[name].build(), gain=0.2)


def test_a_pretended_gpu_notices() -> None:
    """Two devices in one operation, and whatever would wait."""
    with pretended_gpu():
        one = torch.ones(2, device="cuda")
        assert (one + 1).device.type == "cuda" and one.to("cuda").shape == (2,)
        for wrong in (
            lambda: one + torch.ones(2),
            lambda: one.sum().item(),
            lambda: one.cpu(),
            lambda: one.nonzero(),
            lambda: bool(one.isfinite().all()),
        ):
            with pytest.raises((AssertionError, RuntimeError)):
                wrong()


@pytest.mark.parametrize("options", [contract.STEADIED, contract.PROJECTED])
def test_a_step_with_all_that_discriminators_take(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    contract.test_a_step_on_a_gpu("pix2pix", options, "bf16", monkeypatch)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_on_a_gpu(name: str, precision: str) -> None:
    """Through kernels that lie there, in that type, without waiting; whether it comes from there or from the CPU."""
    with pretended_gpu():
        runtime = TorchRuntime(for_translation(NETWORKS[name].build()), CUDA, precision)
        seen: list[Any] = []
        flags = torch.backends.cudnn
        runtime.network.register_forward_hook(
            lambda _, given, made: seen.append((given[0].dtype, made.dtype, flags.allow_tf32))
        )
        for device in ("cpu", "cuda"):
            made = runtime.tensor(torch.ones((2, 3, 64, 32), device=device))
            assert made.device.type == "cuda" and made.dtype == torch.float32
    computed = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert seen == [(computed, torch.float32, precision != "fp32")] * 2, "float32 is float32, and so is the picture"


@pytest.mark.parametrize(
    "layer", [BlurDownsample, BlurUpsample, BilinearUpsample, partial(nn.Conv2d, 4, kernel_size=3, padding=1)]
)
def test_rows_on_a_gpu(layer: Any) -> None:
    """The layers of a picture that goes by bands of rows lie where the rows do."""
    with pretended_gpu():
        rows = convolution(layer(4).to("cuda"), torch.float32, CUDA)
        made = rows(torch.ones((1, 4, 16, 16), device="cuda"), True)
        assert made is not None and made.device.type == "cuda"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_picture_on_apples_gpu(name: str, precision: str) -> None:
    """Without float64, which it lacks."""
    with pretended_gpu("mps"):
        runtime = TorchRuntime(for_translation(NETWORKS[name].build()), APPLE, precision)
        made = runtime.tensor(torch.ones((2, 3, 64, 32)))
        assert made.device.type == "mps" and made.dtype == torch.float32


def test_statistics_of_rows_on_apples_gpu() -> None:
    with pretended_gpu("mps"):
        with pytest.raises(TypeError, match="float64"):
            torch.ones(1, device="mps").double()
        rows, moments = torch.ones((1, 4, 16, 16), device="mps"), Moments()
        moments.add(rows)
        moments.add(rows)
        assert moments.mean().dtype == moments.variance().dtype == torch.float64
        affine: Any = normalisation(Layer("norm", 4, Fraction(1), None, None, 0.0), moments, APPLE)
        assert {x.device.type for x in affine._numbers[:2]} == {"mps"}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_structure_of_pictures_on_a_gpu(channels: int) -> None:
    with pretended_gpu():
        one, other = (torch.ones((2, channels, 32, 32), device="cuda") for _ in range(2))
        with torch.autocast("cuda", torch.bfloat16):
            loss = structure_loss(one, other)
        assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1), ("bf16", 8), ("fp16", 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_translations_are_those_of_the_cpu(name: str, precision: Any, limit: int, compiled: bool) -> None:
    """In levels of 255; of sizes that fit and sizes that do not, alone and together."""
    info = describe(network(name), direction="a2b")
    exact = Translator(network(name), info, "cpu", precision="fp32")
    used = Translator(network(name), info, CUDA, precision=precision, compile=compiled)
    made: list[bool] = []
    used.model.runtime.network.register_forward_hook(lambda *_: made.append(torch.compiler.is_compiling()))  # type: ignore[attr-defined]
    for size in ((64, 64), (37, 50), (64, 96)):
        pictures = [Picture(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)) for seed in range(3)]
        results = [*used.translate_batch(pictures), used.translate(pictures[0])]
        for one, other in zip(results, [*pictures, pictures[0]], strict=True):
            apart = np.abs(one.pixels.astype(int) - exact.translate(other).pixels)
            assert apart.max() <= limit
    assert any(made) == compiled


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "unet"])
def test_a_folder_by_a_gpu(name: str, tmp_path: Path) -> None:
    """Batches of pictures of several sizes, and by bands of rows, as the CPU translates them one by one."""
    model = tmp_path / "a2b.safetensors"
    model_file.save(model, network(name), describe(network(name), direction="a2b"))
    (tmp_path / "in").mkdir()
    for seed, size in enumerate([(64, 64)] * 5 + [(37, 50)] * 2):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        write(tmp_path / "in" / f"{seed}.png", Picture(pixels))
    for device in ("cpu", "cuda"):
        report = translate_folder(tmp_path / "in", tmp_path / device, model, device=device, precision="fp32")
        assert not report.failed
    used = load_translator(model, device="cuda", precision="fp32")
    for seed in range(7):
        one, other = (read(tmp_path / device / f"{seed}.png").pixels.astype(int) for device in ("cpu", "cuda"))
        assert np.abs(one - other).max() <= 1
        bands = used.stream(read(tmp_path / "in" / f"{seed}.png"))
        assert np.abs(bands.pixels.astype(int) - one).max() <= 1


here = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@here
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_steps_losses_are_those_of_the_cpu(kind: Any, device: str) -> None:
    """In float32 but for rounding, which on a GPU is to 10 bits in convolutions. (On the CPU this shows that the test
    runs.)"""
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.rand((2, 3, 64, 64), generator=generator) * 2 - 1 for _ in range(2))
    found = []
    for place in ("cpu", device):
        options = KINDS[kind](**SMALL, dropout=False)
        torch.manual_seed(0)
        algorithm, processes = kind(options), ProcessGroup(place)
        memory_format = prepare(algorithm.networks().values(), processes.device, options.precision, options.compile)
        step = TrainingStep(algorithm, options, processes)
        seed_step(0, 0)
        losses = step(ImagePair(a, b).to(processes.device).contiguous(memory_format), 0)
        found.append({name: float(loss) for name, loss in losses.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_does_not_wait(kind: Any, precision: Any) -> None:
    options = KINDS[kind](**SMALL, precision=precision)
    algorithm, processes = kind(options), ProcessGroup("cuda")
    memory_format = prepare(algorithm.networks().values(), processes.device, options.precision, options.compile)
    step = TrainingStep(algorithm, options, processes)
    batch = ImagePair(*torch.rand((2, 2, 3, 64, 64))).to(processes.device).contiguous(memory_format)
    step(batch, 0)  # in which libraries are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = step(batch, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_training_is_the_same(precision: Any, tmp_path: Path, device: str = "cuda") -> None:
    """Bit for bit, with `--deterministic`, in processes of their own."""
    command = [sys.executable, str(Path(__file__).parents[1] / "scripts" / "train_pix2pix.py"), "--data", "toy"]
    options = {"ngf": 4, "ndf": 4, "load_size": 32, "crop_size": 32, "generator": "unet_32", "workers": 0}
    chosen = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    chosen += ["--discriminator", "patchgan_16", "--device", device, "--precision", precision, "--deterministic"]
    made = []
    for run, parts in (("straight", [6]), ("resumed", [3, 6])):
        for steps in parts:
            more = ["--run", str(tmp_path / run), "--max-steps", str(steps)]
            subprocess.run([*command, *chosen, *more], check=True, capture_output=True)
        made.append((tmp_path / run / "a2b.safetensors").read_bytes())
    assert made[0] == made[1]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_from_beginning_to_end(kind: Any, tmp_path: Path, device: str = "cuda") -> None:
    """With states, samples, a validation and model files."""
    options = KINDS[kind](
        **SMALL | {"validate_every": 1},
        run=tmp_path / "run",
        device=device,
        max_steps=8,
        batch_size=2,
        precision="bf16",
    )
    toys = (ToyPairs if kind.paired else ToyUnpaired)(size=64, length=8)
    torch.manual_seed(0)
    Trainer(kind(options), Datasets(toys, toys), options, ProcessGroup(device)).fit()
    assert (tmp_path / "run" / "a2b.safetensors").exists()
    picture = Picture(np.zeros((50, 60, 3), np.uint8))
    made = load_translator(tmp_path / "run", "a2b", device=device).translate(picture)
    assert made.pixels.shape == (50, 60, 3)
