"""A GPU that is not there: shapes, types and devices of what it would compute, without numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import torch
import torch._dynamo  # which cannot be imported while a GPU is pretended
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves


class _Pretending(FakeTensorMode):
    """In which tensors of two devices in one operation are an error, and so is what would wait for the GPU.

    Float64 on a GPU is one too, for Apple's have none. Those may be waited for. Torch without them cannot compute
    gradients for them: a training that passes on a GPU of CUDA passes there, as far as types go.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if func is torch.ops.aten._local_scalar_dense.default and given[0].device.type == "cpu":
            return 0  # what the host draws for itself
        made = super().__torch_dispatch__(func, types, args, kwargs)
        fetched = [x for x in tree_leaves(made) if isinstance(x, Tensor) and x.device.type == "cpu"]
        assert not (fetched and any(x.device.type == "cuda" for x in given)), f"{func} waits for the device"
        for x in tree_leaves(made):
            if isinstance(x, Tensor) and x.device.type != "cpu" and x.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"{func} makes float64, which no GPU of Apple has")
        return made

    def __deepcopy__(self, memo: Any) -> "_Pretending":
        return self  # so that copies of a tensor can be together with it


def _moved(module: nn.Module, *where: Any, memory_format: torch.memory_format | None = None) -> nn.Module:
    """`nn.Module.to`, which cannot take what is pretended elsewhere."""

    def moved(x: Tensor) -> Tensor:
        x = x.detach().to(*(where if x.is_floating_point() else where[:1]))
        return x if memory_format is None or x.ndim != 4 else x.contiguous(memory_format=memory_format)

    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(moved(parameter), parameter.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = moved(buffer)
        for kept in vars(part).values():  # beside the parts, by `_apply`
            if isinstance(kept, nn.Module):
                _moved(kept, *where, memory_format=memory_format)
    return module


@contextmanager
def pretended_gpu(kind: Literal["cuda", "mps"] = "cuda") -> Iterator[None]:
    """Inside, there is one, `cuda` or Apple's. Gradients need torch's engine: they are not computed, and taken to be
    there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
        patch.setattr(torch.mps, "manual_seed", lambda seed: None)
        patch.setattr(torch.cuda, "device_count", lambda: int(kind == "cuda"))
        patch.setattr(torch.cuda, "set_device", lambda device: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(Tensor, "backward", lambda loss: None)
        patch.setattr(torch.autograd, "grad", lambda y, x, **_: (x * y,))
        patch.setattr(nn.Module, "to", _moved)
        with _Pretending():
            yield
