"""One training step: micro-batches, clipping, partial losses, the order of play, averages, precisions."""

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from run_options import CUTRun
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from i2i.algorithms import CycleGAN, Pix2Pix
from i2i.algorithms.algorithm import Algorithm, Losses, Turn
from i2i.algorithms.cyclegan import CycleGANOptions
from i2i.algorithms.pix2pix import Pix2PixOptions
from i2i.data.pair import ImagePair
from i2i.training.options import RunOptions, batch_too_large, options_class
from i2i.training.schedule import TrainingOptions
from i2i.training.step import EMA, ProcessGroup, TrainingStep, seed_step

pytestmark = pytest.mark.arithmetic

ALONE = ProcessGroup("cpu")


def pair(size: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> ImagePair:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(size, 3, 16, 16, generator=generator, dtype=dtype) * 2 - 1 for _ in range(2))
    return ImagePair(a, b)


def cyclegan(**options: Any) -> CycleGAN:
    torch.manual_seed(0)
    small = {"generator": "resnet_1blocks", "discriminator": "patchgan_16", "ngf": 4, "ndf": 4, "pool_size": 0}
    return CycleGAN(CycleGANOptions(**{**small, **options}))


def double(algorithm: Algorithm) -> Algorithm:
    for network in algorithm.networks().values():
        network.double()
    return algorithm


def weights(algorithm: Algorithm) -> list[torch.Tensor]:
    return [p.detach().clone() for network in algorithm.networks().values() for p in network.parameters()]


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_add_up(parts: int) -> None:
    """Biases before instance norm have no gradient but rounding, which Adam divides by its eps of 1e-8."""
    whole, split = double(cyclegan()), double(cyclegan())
    for algorithm, micro_batches in ((whole, 1), (split, parts)):
        step = TrainingStep(algorithm, TrainingOptions(micro_batches=micro_batches), ALONE)
        losses = [step(pair(seed=i), i) for i in range(3)]
        if micro_batches == 1:
            expected = losses
    for one, other in zip(losses, expected, strict=True):
        assert {k: float(v) for k, v in one.items()} == pytest.approx({k: float(v) for k, v in other.items()}, rel=1e-9)
    for one, other in zip(weights(split), weights(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (options_class(CycleGAN)(), "(the same result)"),
        (options_class(Pix2Pix)(), "(batch norm sees each part alone)"),
        (CUTRun(negatives="batch"), "(negatives come from each part alone)"),
    ],
)
def test_the_same_result_is_promised_where_it_is_so(options: RunOptions, said: str) -> None:
    assert f"micro_batches=2 {said}, " in str(batch_too_large(pair(4), options))


class Game(Algorithm):
    """Two players with one number each: `first` moves towards x², `second` minimises (second - first)²."""

    name, paired = "game", True

    def __init__(self, order: tuple[str, ...] = ("one", "two"), parts: int = 1, factor: float = 1.0) -> None:
        self.order, self.parts, self.factor = order, parts, factor
        self.first, self.second = (nn.Linear(1, 1, bias=False).double() for _ in range(2))
        nn.init.constant_(self.first.weight, 1.0)
        nn.init.constant_(self.second.weight, 2.0)
        self.seen: list[float] = []

    def players(self) -> dict[str, list[nn.Module]]:
        return {"one": [self.first], "two": [self.second]}

    def losses(self, batch: ImagePair, step: int) -> Iterator[Turn]:
        for player in self.order:
            if player == "one":
                for part in range(self.parts):
                    loss = {f"part_{part}": self.factor * self.first.weight.sum() ** 2 / self.parts}
                    yield player, Losses(content=loss, more=part < self.parts - 1)
            else:
                self.seen.append(float(self.first.weight.detach()))
                distance = (self.second.weight.sum() - self.first.weight.detach().sum()) ** 2
                yield player, Losses(content={"distance": distance})

    def translators(self) -> dict[str, nn.Module]:
        return {"a2b": self.first}

    def validation_pairs(self, batch: Any, translators: Any) -> Any:
        raise NotImplementedError

    def pictures(self, batch: Any, translators: Any) -> Any:
        raise NotImplementedError


def play(game: Game, **options: Any) -> TrainingStep:
    step = TrainingStep(game, TrainingOptions(lr=0.1, **options), ALONE)
    step(pair(), 0)
    return step


def test_each_turn_sees_the_update_before_it() -> None:
    """The order of the lines in an algorithm is the order of the updates."""
    forwards, backwards = Game(("one", "two")), Game(("two", "one"))
    play(forwards)
    play(backwards)
    assert backwards.seen == [1.0]
    assert forwards.seen == [pytest.approx(0.9, abs=1e-6)], "Adam's first step is one learning rate"


def test_pix2pix_judges_with_the_discriminator_of_this_step() -> None:
    torch.manual_seed(0)
    options = Pix2PixOptions(generator="unet_32", discriminator="patchgan_16", ngf=4, ndf=4, dropout=False)
    algorithm = Pix2Pix(options)
    batch = ImagePair(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    before = copy.deepcopy(algorithm)
    losses = TrainingStep(algorithm, TrainingOptions(lr=1e-2), ALONE)(batch, 0)
    with torch.no_grad():
        fake = before.G(batch.a)
        for discriminator, same in ((algorithm.D, True), (before.D, False)):
            # batch norm in training mode: the statistics of this very batch
            expected = before.gan.generator(discriminator(torch.cat([batch.a, fake], 1)))
            assert (float(losses["G_gan"]) == pytest.approx(float(expected), rel=1e-5)) == same


@pytest.mark.parametrize("parts", [1, 3])
def test_partial_losses_add_up_to_one_update(parts: int) -> None:
    game = Game(parts=parts)
    step = play(game)
    state = step.players["one"].optimizer.state[game.first.weight]
    assert float(state["step"]) == 1
    assert float(state["exp_avg"]) == pytest.approx(0.5 * 2.0), "(1 - beta1) times the gradient of the sum"


def test_a_player_may_play_twice() -> None:
    game = Game(("one", "two", "one"))
    step = play(game)
    assert float(step.players["one"].optimizer.state[game.first.weight]["step"]) == 2


@pytest.mark.parametrize(("clip", "gradient"), [(0.0, 200.0), (1.0, 1.0), (1e6, 200.0)])
def test_gradients_are_clipped_by_their_norm(clip: float, gradient: float) -> None:
    game = Game(factor=100.0)
    step = play(game, clip_grad=clip)
    moment = step.players["one"].optimizer.state[game.first.weight]["exp_avg"]
    assert float(moment) == pytest.approx(0.5 * gradient, rel=1e-5)


def moved(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_the_average_is_the_formula() -> None:
    """Whose decay starts by (1 + n) / (10 + n), and stays at that of the options once it is there."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    averages = EMA({"a2b": network}, decay=0.3)
    expected = {name: value.detach().double() for name, value in network.named_parameters()}
    for decay in (1 / 10, 2 / 11, 3 / 12, 0.3, 0.3):
        moved(network)
        network(torch.randn(2, 1, 5, 5))
        averages.update()
        now = {name: value.detach().double() for name, value in network.named_parameters()}
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in now.items()}
    average = averages.networks["a2b"]
    for name, value in average.named_parameters():
        torch.testing.assert_close(
            value.double(), expected[name], rtol=0, atol=1e-6
        )  # some roundings of numbers near 1
        assert not value.requires_grad
    for name, buffer in average.named_buffers():
        assert torch.equal(buffer, dict(network.named_buffers())[name])


def test_a_short_training_averages_what_it_learnt() -> None:
    """A constant 0.9999 would leave 98 % of the weights as they were drawn."""
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, 5.0)
    averages = EMA({"a2b": network}, decay=0.9999)
    nn.init.constant_(network.weight, 1.0)
    for _ in range(220):
        averages.update()
    assert float(averages.networks["a2b"].weight) == pytest.approx(1, abs=1e-5)


def test_averages_come_back_from_a_state() -> None:
    """And go on from there as they would have."""
    network = nn.Conv2d(1, 1, 3)
    averages = EMA({"a2b": network}, decay=0.9)
    nn.init.zeros_(network.weight)
    averages.update()
    other = EMA({"a2b": network}, decay=0.9)
    other.load_state(copy.deepcopy(averages.state()))
    for _ in range(3):
        assert torch.equal(other.networks["a2b"].weight, averages.networks["a2b"].weight)
        moved(network)
        averages.update(), other.update()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions(precision: Any) -> None:
    algorithm = cyclegan()
    options = TrainingOptions(precision=precision)
    step = TrainingStep(algorithm, options, ALONE)
    step.loss_scale.scale.clamp_(max=2.0**8)
    for i in range(3):
        losses = step(pair(2, i, torch.float32), i)
        assert float(losses["skipped"]) == 0
        assert all(bool(torch.isfinite(v)) for v in losses.values())
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in weights(algorithm))


@pytest.mark.parametrize(
    ("before", "now", "scale"),
    [("fp16", "bf16", 1), ("bf16", "fp16", 2**16), ("fp32", "fp16", 2**16), ("fp16", "fp16", 8)],
)
def test_another_precision_has_a_scale_of_its_own(before: Any, now: Any, scale: float) -> None:
    """A scale of fp16 in a precision that never divides by it would multiply every gradient."""
    step = TrainingStep(Game(), TrainingOptions(precision=before), ALONE)
    if before == "fp16":
        step.loss_scale.scale.fill_(8)
    state = copy.deepcopy(step.state())
    state["optimizers"] = {name: player.optimizer.state_dict() for name, player in step.players.items()}
    resumed = TrainingStep(Game(), TrainingOptions(precision=now), ALONE)
    resumed.load_state(state)
    assert float(resumed.loss_scale.scale) == scale


def test_the_scale_of_fp16_settles_by_itself() -> None:
    algorithm = cyclegan()
    step = TrainingStep(algorithm, TrainingOptions(precision="fp16"), ALONE)
    assert float(step.loss_scale.scale) == 2.0**16
    before, skipped = weights(algorithm), []
    for i in range(12):
        skipped.append(float(step(pair(2, i, torch.float32), i)["skipped"]))
    assert skipped[-3:] == [0, 0, 0], skipped
    assert 1 < float(step.loss_scale.scale) <= 2.0**16
    assert all(bool(torch.isfinite(p).all()) for p in weights(algorithm))
    assert not all(map(torch.equal, before, weights(algorithm)))


def test_16_bits_are_near_32() -> None:
    made = {}
    for precision in ("fp32", "bf16", "fp16"):
        step = TrainingStep(cyclegan(), TrainingOptions(precision=precision), ALONE)  # type: ignore[arg-type]
        step.loss_scale.scale.clamp_(max=2.0**8)
        made[precision] = {k: float(v) for k, v in step(pair(2, 0, torch.float32), 0).items()}
    assert made["fp16"] == pytest.approx(made["fp32"], rel=5e-3)
    assert made["bf16"] == pytest.approx(made["fp32"], rel=5e-2)
    assert made["bf16"] != made["fp32"], "autocast is off"


class Casts(TorchDispatchMode):
    """Counts how often each tensor is cast to bfloat16."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.count[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_between_two_updates() -> None:
    """For all turns of a player; and anew when the update has changed them."""
    algorithm = cyclegan()
    step = TrainingStep(algorithm, TrainingOptions(precision="bf16"), ALONE)
    kernels = [m.weight for G in (algorithm.G_AB, algorithm.G_BA) for m in G.modules() if isinstance(m, nn.Conv2d)]
    with Casts() as casts:
        for i in (1, 2):
            step(pair(2, i, torch.float32), i)
            assert {casts.count[kernel.data_ptr()] for kernel in kernels} == {i}


def test_channels_last_changes_only_the_layout() -> None:
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        algorithm = double(cyclegan())
        for network in algorithm.networks().values():
            network.to(memory_format=layout)  # type: ignore[call-overload]
        step = TrainingStep(algorithm, TrainingOptions(), ALONE)
        batch = pair()
        a, b = (x.contiguous(memory_format=layout) for x in (batch.a, batch.b))
        made.append({k: float(v) for k, v in step(ImagePair(a, b), 0).items()})
    assert made[0] == pytest.approx(made[1], rel=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_saved_in_one_layout_meet_their_weights_in_another(layout: torch.memory_format) -> None:
    """The fused update walks memory: moments with other strides than their weights would meet the wrong ones."""
    first = double(cyclegan())
    step = TrainingStep(first, TrainingOptions(), ALONE)
    step(pair(), 0)
    state = copy.deepcopy((step.state(), {name: net.state_dict() for name, net in first.networks().items()}))
    step(pair(seed=1), 1)
    again = double(cyclegan())
    for name, network in again.networks().items():
        network.to(memory_format=layout)  # type: ignore[call-overload]
        network.load_state_dict(state[1][name])
    resumed = TrainingStep(again, TrainingOptions(), ALONE)
    resumed.load_state(state[0])
    resumed(pair(seed=1), 1)
    for expected, made in zip(weights(first), weights(again), strict=True):
        if expected.dim() > 1:  # biases before instance norm have no gradient but rounding
            torch.testing.assert_close(made.contiguous(), expected, rtol=1e-6, atol=1e-9)


def test_the_seed_of_a_step_is_a_function_of_seed_step_and_rank() -> None:
    drawn = []
    for arguments in ((0, 1, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)):
        seed_step(*arguments)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("schedule", [1.0, 0.5])
def test_two_time_scales(schedule: float) -> None:
    """Adam's first step moves weights by the learning rate, whatever their gradient."""
    options = TrainingOptions(lr=1e-3, lr_discriminator=4e-3)
    algorithm = double(cyclegan())
    before = {name: copy.deepcopy(network) for name, network in algorithm.networks().items()}
    step = TrainingStep(algorithm, options, ALONE)
    step.set_learning_rate(options.lr * schedule)
    step(pair(), 0)
    for name, network in algorithm.networks().items():
        old = dict(before[name].named_parameters())
        moved = max(float((p - old[key]).abs().max()) for key, p in network.named_parameters())
        assert moved == pytest.approx((4e-3 if name.startswith("D") else 1e-3) * schedule, rel=1e-3), name
