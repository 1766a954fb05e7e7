"""Exponential moving averages of the generators (Yazıcı et al. 2019, "The Unusual Effectiveness of Averaging")."""

import copy
from typing import Any

import torch
from torch import nn


class Averages:
    """Averaged copies of the `translators`, which start as they are: average ← decay · average + (1 - decay) · weights.

    Buffers are not averaged but copied.
    """

    def __init__(self, translators: dict[str, nn.Module], decay: float) -> None:
        self.live, self.decay = translators, decay
        self.models = {name: copy.deepcopy(net).requires_grad_(False) for name, net in translators.items()}

    @torch.no_grad()
    def update(self) -> None:
        """To be called after each step."""
        for name, model in self.models.items():
            live = self.live[name]
            torch._foreach_lerp_(list(model.parameters()), list(live.parameters()), 1 - self.decay)
            for average, buffer in zip(model.buffers(), live.buffers(), strict=True):
                average.copy_(buffer)

    def networks(self) -> dict[str, nn.Module]:
        return dict(self.models)

    def state(self) -> dict[str, Any]:
        return {name: model.state_dict() for name, model in self.models.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`; from the weights as they are if it is empty, as EMA was off."""
        for name, model in self.models.items():
            model.load_state_dict(state[name] if state else self.live[name].state_dict())
