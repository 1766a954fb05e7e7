"""The faster and smaller ways give the same numbers: batched discriminators, recomputation, compiled networks."""

import copy
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fork_server import python
from torch import Tensor, nn

from i2i.acceleration import accelerate, best_memory_format, prepare
from i2i.acceleration.exchange import check_compiler
from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import GENERATOR, Algorithm, forward_together, has_batch_norm
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.errors import UsageError
from i2i.networks import OwnConfig, OwnNetwork
from i2i.networks.patchgan import PatchGANConfig
from i2i.networks.resnet import ResnetConfig
from i2i.training.schedule import TrainingOptions
from i2i.training.step import EMA, ProcessGroup, TrainingStep, seed_step

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from plain_training import plain as plain_version
from plain_training import plain_step

ALONE = ProcessGroup("cpu")
CPU = torch.device("cpu")


def pair(size: int = 1, side: int = 32, dtype: torch.dtype = torch.float32) -> ImagePair:
    generator = torch.Generator().manual_seed(7)
    a, b = (torch.rand(size, 3, side, side, generator=generator, dtype=dtype) * 2 - 1 for _ in range(2))
    return ImagePair(a, b)


def cyclegan(**options: Any) -> CycleGAN:
    torch.manual_seed(0)
    small = {"generator": "resnet_2blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
    return CycleGAN(CycleGANOptions(**{**small, **options}))


def pix2pix(**options: Any) -> Pix2Pix:
    torch.manual_seed(0)
    small = {"generator": "resnet_2blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4}
    return Pix2Pix(Pix2PixOptions(**{**small, **options}))


def gradients(algorithm: Algorithm, batch: ImagePair) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses, and the gradient of every weight from its player's turn, no weight being updated."""
    seed_step(0, 0)
    losses: dict[str, float] = {}
    players = algorithm.players()
    found: dict[str, Tensor] = {}
    for player, turn in algorithm.losses(batch, 0):
        sum(turn.values()).backward()  # type: ignore[union-attr]
        losses |= {name: float(loss.detach()) for name, loss in turn.items()}
        for name, network in algorithm.networks().items():
            if network in players[player]:
                learnt = ((key, p.grad) for key, p in network.named_parameters())
                found |= {f"{name}.{key}": gradient.clone() for key, gradient in learnt if gradient is not None}
    return losses, found


@pytest.mark.arithmetic
def test_the_first_step_is_the_plain_one() -> None:
    """The losses of the published order, in float32; later steps drift apart by rounding alone."""
    for algorithm in (cyclegan(pool_size=0), pix2pix(generator="unet_32", dropout=False)):
        expected = plain_step(algorithm)(pair())
        made = TrainingStep(algorithm, TrainingOptions(), ALONE)(pair(), 0)
        del made["skipped"]
        assert {name: float(loss) for name, loss in made.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.arithmetic
@pytest.mark.parametrize("norm", ["instance", "none"])
def test_one_batch_is_as_good_as_two(norm: Any) -> None:
    network = PatchGANConfig(width=4, norm=norm).build().double()
    a, b = pair(2, dtype=torch.float64).a, pair(3, dtype=torch.float64).b
    calls: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    for made, expected in zip(forward_together(network, a, b), (network(a), network(b)), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    assert calls == [5, 2, 3]
    forward_together(network, a, b[..., :24])
    assert calls[3:] == [2, 3], "pictures of two sizes"


@pytest.mark.arithmetic
def test_batch_norm_sees_real_and_fake_apart() -> None:
    network = PatchGANConfig(width=4, norm="batch").build()
    one, other = network, copy.deepcopy(network)
    a, b = pair().a, pair().b
    for made, expected in zip(forward_together(one, a, b), (other(a), other(b)), strict=True):
        assert torch.equal(made, expected)


@pytest.mark.arithmetic
def test_frozen_discriminators_compute_no_gradient_of_weights() -> None:
    """Nor is one kept from the generators' turn for theirs."""
    algorithm = cyclegan()
    before: list[Tensor] = []
    for player, losses in algorithm.losses(pair(), 0):
        sum(losses.values()).backward()  # type: ignore[union-attr]
        if player == GENERATOR:
            assert all(p.grad is None for D in (algorithm.D_A, algorithm.D_B) for p in D.parameters())
            before = [p.grad.clone() for p in algorithm.G_AB.parameters() if p.grad is not None]
    after = [p.grad for p in algorithm.G_AB.parameters() if p.grad is not None]
    assert before and all(map(torch.equal, before, after))


FAULTS = """
import resource, sys, torch
from i2i.machine import keep_freed_memory
for most in map(int, sys.argv[2:]):
    keep_freed_memory(most or None)
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(int(sys.argv[1]) << 18) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@cache
def faults_of_blocks(mebibytes: int, *most: int) -> int:
    return int(python("-c", FAULTS, str(mebibytes), *map(str, most), check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of the GNU C library")
@pytest.mark.parametrize(
    ("mebibytes", "most", "is_kept"),
    [
        (64, [0], True),
        (64, [0, 1 << 27], True),
        (64, [1 << 27], False),
        (24, [1 << 27], True),
        (24, [1 << 27, 1 << 20], True),
    ],
)
def test_freed_memory_is_kept(mebibytes: int, most: list[int], is_kept: bool) -> None:
    """After 10 times three blocks, which may find other places, 10 more have the memory of those: no page is made.

    All memory is kept (0), or 128 MiB in blocks of up to 32.
    """
    faults, given_back = faults_of_blocks(mebibytes, *most), faults_of_blocks(64)
    assert faults < given_back / 20 if is_kept else faults > given_back / 2


def test_memory_formats_per_device_and_precision() -> None:
    instance, batch = ([PatchGANConfig(width=4, norm=norm).build()] for norm in ("instance", "batch"))  # type: ignore[arg-type]
    plain, last = torch.contiguous_format, torch.channels_last
    assert best_memory_format(torch.device("cuda"), "fp32", batch) == last
    assert best_memory_format(CPU, "fp32", instance) == best_memory_format(CPU, "bf16", batch) == plain
    assert best_memory_format(CPU, "bf16", instance) == last
    own = OwnNetwork(nn.Conv2d(3, 3, 1), OwnConfig())
    assert best_memory_format(torch.device("cuda"), "fp32", [*instance, own]) == plain


@pytest.mark.arithmetic
@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("build", [cyclegan, pix2pix])
def test_low_memory_has_the_same_gradients(build: Any, norm: str, dropout: bool) -> None:
    """With the same draws of dropout in both; CycleGAN draws for each part by itself, and so in the same order."""
    made, statistics = [], []
    for low_memory in (False, True):
        compared: dict[str, Any] = {"gan_mode": "relativistic", "r2_gamma": 1.0} if build is pix2pix else {}
        algorithm = build(low_memory=low_memory, norm=norm, dropout=dropout, **compared)
        for network in algorithm.networks().values():
            network.double().train()
        made.append(gradients(algorithm, pair(2, dtype=torch.float64)))
        statistics.append([b for network in algorithm.networks().values() for b in network.buffers()])
    assert made[0][0] == pytest.approx(made[1][0], rel=1e-12)
    assert made[0][1].keys() == made[1][1].keys()
    for name, gradient in made[0][1].items():
        torch.testing.assert_close(made[1][1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert len(statistics[0]) == len(statistics[1])
    for one, other in zip(*statistics, strict=True):
        torch.testing.assert_close(one, other)


class Kept:
    """The most bytes of tensors that are kept for backward passes at one time."""

    def __init__(self) -> None:
        self.most, self.now = 0, 0
        self.counts: dict[int, int] = {}

    def __enter__(self) -> "Kept":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__(*_)

    def _pack(self, tensor: Tensor) -> "_Tensor":
        return _Tensor(tensor, self)

    def add(self, storage: int, size: int, by: int) -> None:
        before = self.counts.get(storage, 0)
        self.counts[storage] = before + by
        if before == 0 or before + by == 0:
            self.now += size * by
            self.most = max(self.most, self.now)


class _Tensor:
    def __init__(self, tensor: Tensor, book: Kept) -> None:
        self.tensor, self.book = tensor, book
        storage = tensor.untyped_storage()
        self.entry = storage.data_ptr(), storage.nbytes()
        book.add(*self.entry, 1)

    def __del__(self) -> None:
        self.book.add(*self.entry, -1)


def test_low_memory_keeps_less() -> None:
    """Measured: 1.7 of 3.7 MB. Losses that are back-propagated together would keep 10.2 MB, and 5.0 MB with it."""
    most = {}
    for low_memory in (False, True):
        algorithm = cyclegan(generator="resnet_9blocks", low_memory=low_memory)
        with Kept() as kept:
            TrainingStep(algorithm, TrainingOptions(), ALONE)(pair(side=64), 0)
        most[low_memory] = kept.most
    assert most[False] < 5e6 and most[True] < 2.5e6, most


def test_low_memory_says_where_it_cannot_help() -> None:
    with pytest.raises(UsageError, match="low_memory = True: unet_32 has no residual blocks"):
        pix2pix(generator="unet_32", low_memory=True)


def steps(algorithm: Algorithm, options: TrainingOptions, count: int = 2) -> list[dict[str, float]]:
    memory_format = prepare(algorithm.networks().values(), CPU, options.precision, options.compile)
    train_step = TrainingStep(algorithm, options, ALONE)
    made = []
    for step in range(count):
        seed_step(0, step)
        batch = ImagePair(*(x.contiguous(memory_format=memory_format) for x in (pair().a, pair().b)))
        made.append({name: float(loss) for name, loss in train_step(batch, step).items()})
    return made


SPECTRAL = {"discriminator": "patchgan_16_spectral_multiscale2", "gan_mode": "relativistic", "r2_gamma": 1.0}


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(("build", "options"), [(cyclegan, {}), (pix2pix, SPECTRAL)])
def test_compiled_networks_are_the_same_networks(build: Any, options: dict[str, Any]) -> None:
    """Names of weights, averages, buffers and losses are those of networks that are not compiled."""
    eager, compiled = build(**options), build(**options)
    expected = steps(eager, TrainingOptions())
    assert steps(compiled, TrainingOptions(compile=True)) == [pytest.approx(losses, rel=1e-5) for losses in expected]
    for name, network in compiled.networks().items():
        assert network._compiled_call_impl is not None
        for (key, value), (other, one) in zip(
            network.state_dict().items(), eager.networks()[name].state_dict().items(), strict=True
        ):
            assert key == other
            torch.testing.assert_close(value, one, rtol=1e-4, atol=1e-5)
    averages = EMA(compiled.translators(), 0.9)
    averages.update()
    assert all(network._compiled_call_impl is None for network in averages.networks.values())  # type: ignore[union-attr]


@pytest.mark.usefixtures("quick_compiler")
def test_penalties_of_compiled_discriminators() -> None:
    """They are differentiated twice, which compiled code is not made for."""
    expected = steps(cyclegan(gan_mode="wgangp"), TrainingOptions(), 1)
    assert steps(cyclegan(gan_mode="wgangp"), TrainingOptions(compile=True), 1) == [
        pytest.approx(losses, rel=1e-5) for losses in expected
    ]


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand so on")

    monkeypatch.setattr(torch, "compile", broken)
    check_compiler.cache_clear()
    with pytest.raises(UsageError, match=r"cannot compile for cpu here \(No working C\+\+ compiler found\); install"):
        check_compiler(CPU)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_code_computes_the_same_losses(precision: Any) -> None:
    """The first step's, within rounding."""
    options = {"precision": precision}
    expected = steps(cyclegan(dropout=True), TrainingOptions(**options), 1)
    made = steps(cyclegan(dropout=True), TrainingOptions(compile=True, **options), 1)
    assert made == [pytest.approx(expected[0], rel=1e-5 if precision == "fp32" else 1e-2)]


@pytest.mark.arithmetic
def test_residual_generators_differ_in_nothing_but_rounding() -> None:
    """Training through the thin head and the fast norm against torch's own layers, in float64. Those are in the plain
    memory format, for `nn.InstanceNorm2d` has wrong gradients in channels last (torch 2.15, one image)."""
    torch.manual_seed(0)
    network = ResnetConfig(width=4, blocks=1).build().double().to(memory_format=torch.channels_last)
    accelerate(network, "training")
    plain = plain_version(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    x = pair(dtype=torch.float64).a.contiguous(memory_format=torch.channels_last)
    made = [
        torch.autograd.grad(net(given).square().sum(), list(net.parameters()))
        for net, given in ((network, x), (plain, x.contiguous()))
    ]
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
    assert not has_batch_norm(network)
