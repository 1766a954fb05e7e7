"""Exponential moving averages of the generators (Yazıcı et al. 2019, "The Unusual Effectiveness of Averaging")."""

import copy
from typing import Any

import torch
from torch import nn


class EMA:
    """Averaged copies of the `translators`: average ← dₙ · average + (1 - dₙ) · weights at update n = 0, 1, 2, …

    dₙ = min(decay, (1 + n) / (10 + n)), so that an average is of the last tenth or so of a short training, not of the
    weights as they were drawn: a constant 0.9999 would leave 61 % of those after 5,000 steps. Buffers are not averaged
    but copied.
    """

    def __init__(self, translators: dict[str, nn.Module], decay: float) -> None:
        self.live, self.decay, self.updates = translators, decay, 0
        self.models = {name: copy.deepcopy(net).requires_grad_(False) for name, net in translators.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Average in the weights after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, model in self.models.items():
            live = self.live[name]
            torch._foreach_lerp_(list(model.parameters()), list(live.parameters()), 1 - decay)
            for average, buffer in zip(model.buffers(), live.buffers(), strict=True):
                average.copy_(buffer)
        self.updates += 1

    def networks(self) -> dict[str, nn.Module]:
        return dict(self.models)

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates} | {name: model.state_dict() for name, model in self.models.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`; from the weights as they are if it is empty, as EMA was off."""
        self.updates = state["updates"] if state else 0
        for name, model in self.models.items():
            model.load_state_dict(state[name] if state else self.live[name].state_dict())
