"""One training step: every turn of the algorithm, each player's update, the averages; in one process or several.

Nothing here waits for the device. Losses stay tensors, and the device itself decides to skip a turn whose losses or
gradients are not finite (`found_inf` of the fused optimizers). With several processes, which torchrun starts, gradients
are averaged between backward and update. They agree on decisions (stop, save) over a gloo group on the CPU, so that no
accelerator is waited for.
"""

import copy
import math
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from i2i.acceleration import DTYPES
from i2i.algorithms.algorithm import DISCRIMINATOR, AnyAlgorithm
from i2i.data.options import batch_size
from i2i.data.pair import ImagePair
from i2i.device import choose_device
from i2i.errors import as_typed
from i2i.machine import end_with_torchrun, meet, place, together
from i2i.training.options import RunOptions
from i2i.training.schedule import Policy, TrainingOptions

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)


class ProcessGroup:
    """This process among `world_size`; alone unless torchrun started it."""

    def __init__(self, device: str = "auto") -> None:
        here = place()
        end_with_torchrun()
        self.rank, self.world_size = here.rank, here.world_size
        self.device = choose_device(device, here.local_rank, self.world_size)
        if self.device.type == "cuda":  # NCCL, which names no device, takes this one
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


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step, so that its randomness is a function of (seed, step, rank)."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def lr_factor(policy: Policy, epoch: int, n_epochs: int, n_epochs_decay: int, lr_decay_epochs: int = 50) -> float:
    """The factor on the learning rate during `epoch` (from 0), with the names and numbers of the reference.

    `linear` is constant for `n_epochs`, then falls in equal steps of 1 / (n_epochs_decay + 1); `cosine` has its half
    period at `n_epochs` (Loshchilov & Hutter 2017, Eq. 5, without restarts); `step` multiplies by 0.1 every
    `lr_decay_epochs`. 1 for `constant`, and for `plateau`, which follows a validation metric.
    """
    if policy == "linear":
        return 1.0 - max(0, epoch + 1 - n_epochs) / (n_epochs_decay + 1)
    if policy == "step":
        return 0.1 ** (epoch // lr_decay_epochs)
    if policy == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / max(n_epochs, 1)))
    return 1.0


class Progress:
    """How far a run is, from its first step through all resumes. `began` is the step at which this process came in.

    Images decide which sample comes next, and its epoch; steps decide where `--max-steps` ends. The two go apart when a
    run is resumed with another batch size or number of processes, so neither is ever computed from the other.
    """

    def __init__(self, options: "RunOptions", epoch_length: int, world_size: int = 1) -> None:
        self.options, self.epoch_length, self.max_steps = options, epoch_length, options.max_steps
        self.images_per_step = batch_size(options) * world_size
        self.images_of_all_epochs = (options.n_epochs + options.n_epochs_decay) * epoch_length
        self.step = self.images_seen = self.began = 0

    def resume(self, step: int, images_seen: int) -> None:
        """Go on after `step`."""
        self.step, self.images_seen, self.began = step, images_seen, step

    def advance(self) -> None:
        """One step more."""
        self.step += 1
        self.images_seen += self.images_per_step

    @property
    def epochs_begun(self) -> int:
        """The epoch of the last sample, from 1, as people count."""
        return -(-self.images_seen // self.epoch_length)

    @property
    def lr_factor(self) -> float:
        """The factor on the learning rate at the next sample, by the policy of the options."""
        o, epoch = self.options, self.images_seen // self.epoch_length
        return lr_factor(o.lr_policy, epoch, o.n_epochs, o.n_epochs_decay, o.lr_decay_epochs)

    @property
    def total_images(self) -> int:
        """The images that will have been seen at the end, if every further step sees as many as one does now."""
        if self.max_steps is None:
            return self.images_of_all_epochs
        left = max(0, self.max_steps - self.step) * self.images_per_step
        return min(self.images_of_all_epochs, self.images_seen + left)

    @property
    def epochs(self) -> int:
        """The epochs that will have begun at the end."""
        return -(-self.total_images // self.epoch_length)

    @property
    def steps_left(self) -> int:
        """How many steps are still to be made."""
        return math.ceil(max(0, self.total_images - self.images_seen) / self.images_per_step)

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.steps_left == 0

    def why_finished(self) -> str:
        """The option that says that no step is left, and what to type to go on."""
        if self.images_seen >= self.images_of_all_epochs:
            epochs = self.images_of_all_epochs // self.epoch_length
            more = f"{as_typed('n_epochs')} or {as_typed('n_epochs_decay')}"
            return f"n_epochs + n_epochs_decay = {epochs} are done; to go on, give more {more}"
        return f"max_steps = {self.max_steps}; to go on, give more {as_typed('max_steps')}, or None for all epochs"

    def validation_due(self) -> bool:
        """Whether the last step ended an epoch after which there is a validation; a long step may end several."""
        period = self.options.validate_every * self.epoch_length
        return period > 0 and self.images_seen // period > (self.images_seen - self.images_per_step) // period


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


class TrainingStep:
    """Plays one step of `algorithm` on a batch; updates its players, and the averages of its generators (`ema`).

    `content` has the names of the content losses that were yielded so far, `discriminators` the adversarial losses of
    each discriminator.
    """

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
        self.content: set[str] = set()
        self.discriminators: dict[tuple[str, ...], None] = {}
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
        dtype, share = DTYPES[self.options.precision], self.loss_scale.scale / len(plays)
        record: dict[str, Tensor] = {}
        skipped, total = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        torch.autocast_increment_nesting()  # it casts a weight once for all turns, until an update clears the casts
        try:
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
                self.content.update(losses.content)
                if player == DISCRIMINATOR and losses.adversarial:
                    self.discriminators[losses.adversarial] = None
                if not losses.more:
                    skipped = skipped + self._update(self.players[player], total)
                    total = torch.zeros_like(total)
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()

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
        torch.clear_autocast_cache()
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
