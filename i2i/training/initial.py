"""`--init-from`: weights, and nothing else, from model files and from the reference's checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from i2i.algorithms.algorithm import Algorithm, described
from i2i.errors import ModelError
from i2i.models import junyanz
from i2i.models.pretrained import is_checkpoint, open_model
from i2i.networks.features import PatchProjection

# The reference names a discriminator after the generator that it judges: its D_A judges images of B.
REFERENCE_NAMES = {"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A", "G": "G", "D": "D"}


def initialise(algorithm: Algorithm, paths: Sequence[Path], direction: str = "a2b") -> None:
    """Load each file into the network that it is of. `direction` is the one in which `algorithm` sees the data.

    Raises `ModelError` for a file that cannot be read, fits no network, or fits one of another configuration.
    """
    for path in paths:
        if isinstance(F := algorithm.networks().get("F"), PatchProjection) and path.stem.endswith("net_F"):
            _load_embedding(F, path)
            continue
        network, name, config, weights = _read(algorithm, path, direction)
        _check(path, name, network, config)
        network.load_state_dict(weights)


def _load_embedding(F: PatchProjection, path: Path) -> None:
    weights, own = junyanz.load_embedding(path), F.state_dict()
    shapes, expected = ({name: tuple(value.shape) for name, value in state.items()} for state in (weights, own))
    if shapes != expected:
        wrong = next(name for name in expected | shapes if shapes.get(name) != expected.get(name))
        here = f"{wrong} is {shapes.get(wrong, 'missing')}, here {expected.get(wrong, 'missing')}"
        raise ModelError(f"{path}: another patch embedding: {here}; --nce-layers and --ngf must agree")
    F.load_state_dict(weights)


def _read(algorithm: Algorithm, path: Path, direction: str) -> tuple[nn.Module, str, Any, dict[str, Tensor]]:
    if not is_checkpoint(path):
        loaded, info = open_model(path)
        name = info.direction if direction == "a2b" else {"a2b": "b2a", "b2a": "a2b"}[info.direction]
        targets = algorithm.translators()
        if name not in targets:
            raise ModelError(f"{path}: translates {info.direction}; {algorithm.name} trains {', '.join(targets)} here")
        return targets[name], name, loaded.config, loaded.state_dict()
    config, weights = junyanz.load(path)
    networks = algorithm.networks()
    own = next((own for ending, own in REFERENCE_NAMES.items() if path.stem.endswith(f"net_{ending}")), None)
    if own not in networks:
        known = ", ".join(f"*_net_{r}.pth ({o})" for r, o in REFERENCE_NAMES.items() if o in networks)
        raise ModelError(f"{path}: cannot tell from its name which network it is; expected {known}")
    return networks[own], own, config, weights


def _check(path: Path, name: str, network: nn.Module, config: Any) -> None:
    """Dropout and padding hold no weights; everything else must agree."""
    before, now = described(config), described(network.config)
    free = {"dropout", "padding"}
    keys = ["kind"] if before["kind"] != now["kind"] else [key for key in now if key not in free]
    differences = [f"{key} is {before[key]!r}, {name} has {now[key]!r}" for key in keys if before[key] != now[key]]
    if differences:
        only_bias = len(differences) == 1 and differences[0].startswith("bias")
        hint = f"; start the run with --bias {before['bias']}" if only_bias else ""
        raise ModelError(f"{path}: does not fit {name}: {'; '.join(differences)}{hint}")
