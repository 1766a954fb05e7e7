"""torch's compiler: what it makes code with, and whether it can here."""

import torch

from i2i.errors import UsageError

BACKEND = "inductor"


def check_compiler(device: torch.device) -> None:
    """Raises `UsageError` if torch cannot compile for `device` here."""
    try:
        torch.compile(_trial, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch's compilers raise whatever their tools do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"compile = True: torch cannot compile for {device.type} here ({reason}); install what it asks for (on a "
            "CPU a C++ compiler such as g++), or leave out --compile"
        ) from None
    finally:
        torch._dynamo.reset()


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def choices() -> dict[str, bool] | None:
    """What the backend is told: dropout is to draw the numbers that it draws when not compiled, in the same memory
    format."""
    return {"fallback_random": True} if BACKEND == "inductor" else None
