"""Exponential moving averages of the generators (Yazıcı et al. 2019, "The Unusual Effectiveness of Averaging")."""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averages:
    """Averaged copies of the `translators`: average ← decay · average + (1 - decay) · weights, after each step."""

    def __init__(self, translators: dict[str, nn.Module], decay: float) -> None:
        self.live = translators
        average = get_ema_multi_avg_fn(decay)
        self.models = {name: AveragedModel(net, multi_avg_fn=average) for name, net in translators.items()}

    def update(self) -> None:
        for name, model in self.models.items():
            model.update_parameters(self.live[name])

    def networks(self) -> dict[str, nn.Module]:
        return {name: model.module for name, model in self.models.items()}

    def state(self) -> dict[str, Any]:
        return {name: model.state_dict() for name, model in self.models.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, model in self.models.items():
            model.load_state_dict(state[name])
