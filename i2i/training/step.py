"""One training step: every turn of the algorithm, each player's update, the averages; in one process or several.

Nothing here waits for the device. Losses stay tensors, and the device itself decides to skip a turn whose losses or
gradients are not finite (`found_inf` of the fused optimizers). With several processes, which torchrun starts, gradients
are averaged between backward and update. They agree on decisions (stop, save) over a gloo group on the CPU, so that no
accelerator is waited for.
"""

import contextlib
import copy
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from i2i.acceleration import accelerate
from i2i.acceleration.exchange import compile_in_place
from i2i.algorithms.algorithm import DISCRIMINATOR, AnyAlgorithm, Losses, Player, has_batch_norm
from i2i.data.pair import ImagePair
from i2i.device import choose_device
from i2i.errors import out_of_memory
from i2i.machine import end_with_torchrun, keep_freed_memory, meet, place, together
from i2i.networks.blocks import InstanceNorm
from i2i.networks.own import OwnNetwork
from i2i.training.options import RunOptions, TrainingOptions, batch_too_large

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class ProcessGroup:
    """This process among `world_size`; alone unless torchrun started it."""

    def __init__(self, device: str = "auto") -> None:
        here = place()
        end_with_torchrun()
        self.rank, self.world_size = here.rank, here.world_size
        self.device = choose_device(device, here.local_rank, self.world_size)
        if self.device.type == "cuda":  # what names no device, such as NCCL, takes this one
            torch.cuda.set_device(self.device)
        if self.world_size > 1 and not dist.is_initialized():
            meet("nccl" if self.device.type == "cuda" else "gloo", TIMEOUT)
        with together():
            self._control: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if self.world_size > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one flat all-reduce."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with together():
            dist.all_reduce(flat)
        flat /= self.world_size
        parts = flat.split([t.numel() for t in tensors])
        torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(parts, tensors, strict=True)])

    def agree(self, flags: list[int]) -> list[int]:
        """The maximum of each flag over the processes."""
        if self.world_size == 1:
            return flags
        shared = torch.tensor(flags)
        with together():
            dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._control)
        return shared.tolist()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the first one; elsewhere an empty list."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size if self.first else []
        with together():
            dist.gather_object(value, values if self.first else None, dst=0, group=self._control)
        return values

    def gather_everywhere(self, value: T) -> list[T]:
        """The values of all processes, in rank order, in each of them."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        with together():
            dist.all_gather_object(values, value, group=self._control)
        return values

    def broadcast_(self, tensors: list[Tensor]) -> None:
        """Give every process the first one's numbers."""
        if self.world_size == 1:
            return
        with together():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        if self.world_size > 1:
            with together():
                dist.barrier(group=self._control)

    def close(self) -> None:
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def prepare(algorithm: AnyAlgorithm, options: TrainingOptions, device: torch.device) -> torch.memory_format:
    """Moves the networks to `device`, ready to be trained. Returns the memory format that their images should have.

    The networks stay the same modules with the same weights and names. Copies of them, as for samples and averages,
    are not compiled.
    """
    networks = algorithm.networks().values()
    memory_format = best_memory_format(device, options.precision, networks)
    for network in networks:
        accelerate(network.to(device).to(memory_format=memory_format).train(), "training")
        if options.compile:
            compile_in_place(network, dynamic=False)
    return memory_format


def expect_one_size(device: torch.device, deterministic: bool) -> None:
    """Make steps on batches of one size faster: freed memory is kept, cuDNN's fastest algorithms are found once."""
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def best_memory_format(
    device: torch.device, precision: str = "fp32", networks: Collection[nn.Module] = ()
) -> torch.memory_format:
    """Channels last on CUDA, whose tensor cores want it, and on a CPU for bf16 with instance norm; else it gains
    nothing or costs there, as measured (docs/lab-book.md). Never for own networks."""
    if any(isinstance(network, OwnNetwork) for network in networks):  # whose code may use `view`
        return torch.contiguous_format
    if device.type == "cuda":
        return torch.channels_last
    normalised = any(isinstance(module, InstanceNorm) for network in networks for module in network.modules())
    if device.type == "cpu" and precision == "bf16" and normalised and not any(map(has_batch_norm, networks)):
        return torch.channels_last
    return torch.contiguous_format


@contextlib.contextmanager
def memory_explained(batch: ImagePair, options: RunOptions) -> Iterator[None]:
    """Turns an error of the device for want of memory into one with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise batch_too_large(batch, options) from None
        raise


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step, so that its randomness is a function of (seed, step, rank)."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


class LossScale:
    """The factor on the losses that keeps fp16 gradients from vanishing (Micikevicius et al. 2018, Sec. 3.2).

    Halved after a step that overflowed, doubled after 2000 that did not; 1 for other precisions.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.dynamic = precision == "fp16"
        self.scale = torch.tensor(2.0**16 if self.dynamic else 1.0, device=device)
        self.good = torch.tensor(0.0, device=device)

    def update(self, bad: Tensor) -> None:
        if self.dynamic:
            self.good = torch.where(bad > 0, 0.0, self.good + 1)
            grown = torch.where(self.good >= 2000, self.scale * 2, self.scale)
            self.scale = torch.where(bad > 0, self.scale / 2, grown).clamp(2.0**-10, 2.0**24)
            self.good = torch.where(self.good >= 2000, 0.0, self.good)

    def state(self) -> dict[str, Any]:
        return {"dynamic": self.dynamic, "scale": self.scale, "good": self.good}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with this scale, if it was one of fp16 and this is: another precision has its own."""
        if self.dynamic and state["dynamic"]:
            self.scale.copy_(state["scale"])
            self.good.copy_(state["good"])


class PlayerOptimizer:
    """The optimizer of one player's networks. Its learning rate is `lr_multiplier` times that of the run."""

    def __init__(self, networks: list[nn.Module], options: TrainingOptions, lr_multiplier: float = 1.0) -> None:
        self.lr_multiplier = lr_multiplier
        self.parameters = [p for network in networks for p in network.parameters()]
        betas = (options.beta1, options.beta2)
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.lr, betas=betas, fused=True)

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue with these moments, but with the options and the memory format of now."""
        groups = zip(state["param_groups"], self.optimizer.param_groups, strict=True)
        now = [group | {"params": saved["params"]} for saved, group in groups]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": now})
        for parameter, moments in self.optimizer.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:  # the fused update walks the memory of both side by side
                    moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def gradients(self) -> list[Tensor]:
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self.parameters if p.grad is not None]


@dataclass
class LossKinds:
    """The kinds of the losses that were yielded so far, for whoever watches them."""

    content: set[str] = field(default_factory=set)
    discriminators: dict[tuple[str, ...], None] = field(default_factory=dict)
    """The adversarial losses of each discriminator, as they were yielded together."""

    def add(self, player: Player, losses: Losses) -> None:
        self.content.update(losses.content)
        if player == DISCRIMINATOR and losses.adversarial:
            self.discriminators[losses.adversarial] = None


class TrainingStep:
    """Plays one step of `algorithm` on a batch; updates its players, and the averages of its generators (`ema`)."""

    def __init__(self, algorithm: AnyAlgorithm, options: TrainingOptions, group: ProcessGroup) -> None:
        self.algorithm, self.options, self.group = algorithm, options, group
        self.device = group.device
        of_discriminators = (options.lr_discriminator or options.lr) / options.lr
        self.players = {
            player: PlayerOptimizer(networks, options, of_discriminators if player == DISCRIMINATOR else 1.0)
            for player, networks in algorithm.players().items()
        }
        self.loss_scale = LossScale(options.precision, self.device)
        self.bad_in_a_row = torch.zeros((), device=self.device)
        self.ema = EMA(algorithm.translators(), options.ema) if options.ema else None
        self.kinds = LossKinds()
        networks = algorithm.networks().values()
        self._buffers = [b for net in networks for b in net.buffers() if b.is_floating_point()]
        norms = [module for net in networks for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        # the averages of batch norm; each process has seen the images of its own batches alone
        self._statistics = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate; discriminators get `lr * lr_discriminator / options.lr`."""
        for player in self.players.values():
            for group in player.optimizer.param_groups:
                group["lr"] = lr * player.lr_multiplier

    def __call__(self, batch: ImagePair, step: int) -> dict[str, Tensor]:
        """Plays one step on `batch`, on the device, (N, C, H, W) in [-1, 1].

        Each turn is back-propagated on every part of the batch, then its player is updated. Returns the named losses,
        the means over the parts, and `skipped`: how many turns were not finite and left their player as it was.
        """
        before = [buffer.clone() for buffer in self._buffers]
        plays = [self.algorithm.losses(part, step) for part in batch.parts(self.options.micro_batches)]
        dtype, share = _DTYPES[self.options.precision], self.loss_scale.scale / len(plays)
        record: dict[str, Tensor] = {}
        skipped, total = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        while True:
            for play in plays:
                with torch.autocast(self.device.type, dtype, dtype != torch.float32):
                    turn = next(play, None)
                if turn is None:
                    return record | {"skipped": self._finish(skipped, before)}
                player, losses = turn
                (sum(losses.values()) * share).backward()
                for name, value in losses.items():
                    mean = value.detach() / len(plays)
                    record[name] = record[name] + mean if name in record else mean
                    total = total + mean
            self.kinds.add(player, losses)
            if not losses.more:
                skipped = skipped + self._update(self.players[player], total)
                total = torch.zeros_like(total)

    def _finish(self, skipped: Tensor, before: list[Tensor]) -> Tensor:
        """Ends a step in which `skipped` turns were not finite, with the buffers as they were `before` if any was."""
        if adapted := list(self.algorithm.adapted().values()):
            self.group.average_(adapted)
        bad = (skipped > 0).to(torch.float32)
        if self._buffers:  # batch norm's averages have already seen the images of a step that is skipped
            kept = [torch.where(bad > 0, old, new) for old, new in zip(before, self._buffers, strict=True)]
            torch._foreach_copy_(self._buffers, kept)
        # at every step, and not before a save alone: then the averages would depend on when a run was interrupted
        self.group.average_(self._statistics)
        self.bad_in_a_row = (self.bad_in_a_row + 1) * bad
        self.loss_scale.update(bad)
        if self.ema:
            self.ema.update()
        return skipped

    def _update(self, player: PlayerOptimizer, loss: Tensor) -> Tensor:
        """Updates one player from its gradients. Returns 1 and updates nothing if they or `loss` are not finite."""
        gradients = player.gradients()
        loss = loss.to(torch.float32).clone()
        self.group.average_([*gradients, loss])
        if self.loss_scale.dynamic:
            torch._foreach_div_(gradients, self.loss_scale.scale)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.options.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(player.parameters, self.options.clip_grad, norm)
        bad = (~torch.isfinite(norm + loss)).to(torch.float32)
        player.optimizer.found_inf, player.optimizer.grad_scale = bad, None  # type: ignore[attr-defined]
        player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)
        return bad

    def state(self) -> dict[str, Any]:
        optimizers = {name: player.optimizer.state_dict() for name, player in self.players.items()}
        return {"optimizers": optimizers, "loss_scale": self.loss_scale.state(), "bad": self.bad_in_a_row}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, player in self.players.items():
            player.load_state(state["optimizers"][name])
        self.loss_scale.load_state(state["loss_scale"])
        self.bad_in_a_row.copy_(state["bad"])


class EMA:
    """Averaged copies of the `translators` (Yazıcı et al. 2019, "The Unusual Effectiveness of Averaging").

    average ← dₙ · average + (1 - dₙ) · weights at update n = 0, 1, 2, …

    dₙ = min(decay, (1 + n) / (10 + n)), so that an average is of the last tenth or so of a short training, not of the
    weights as they were drawn: a constant 0.9999 would leave 61 % of those after 5,000 steps. Buffers are not averaged
    but copied.
    """

    def __init__(self, translators: dict[str, nn.Module], decay: float) -> None:
        self.live, self.decay, self.updates = translators, decay, 0
        self.networks = {name: copy.deepcopy(net).requires_grad_(False) for name, net in translators.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Average in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, model in self.networks.items():
            live = self.live[name]
            torch._foreach_lerp_(list(model.parameters()), list(live.parameters()), 1 - decay)
            for average, buffer in zip(model.buffers(), live.buffers(), strict=True):
                average.copy_(buffer)
        self.updates += 1

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates} | {name: model.state_dict() for name, model in self.networks.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`; from the weights as they are if it is empty, as EMA was off."""
        self.updates = state["updates"] if state else 0
        for name, model in self.networks.items():
            model.load_state_dict(state[name] if state else self.live[name].state_dict())
