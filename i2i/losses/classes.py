"""Losses on classes. Labels, (N, K, H, W), have 1 in the channel of a pixel's class and -1 elsewhere; a pixel with no
class is -1 in all."""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import precise


def logits(output: Tensor) -> Tensor:
    """A generator's output in [-1, 1] before its tanh: a logit for each class, in float32 at least, within ±8.7 there.

    Its gradient is that of the logits as far as the tanh was taken in float32: in 16 bits it is 1 for all beyond 3.5.
    """
    output = precise(output)
    largest = 1 - torch.finfo(output.dtype).eps / 2
    return torch.atanh(output.clamp(-largest, largest))


def probabilities(output: Tensor) -> Tensor:
    """Those of the classes, softmax over the logits, as 0 to 1 → [-1, 1]: what labels are if they are certain."""
    return logits(output).softmax(dim=1) * 2 - 1


def known(labels: Tensor) -> Tensor:
    """Which pixels have a class: (N, 1, H, W) booleans."""
    return (labels > 0).any(dim=1, keepdim=True)


def class_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[class], the mean over all pixels (Long et al. 2015, Sec. 4.3); 0 for those without one."""
    with torch.autocast(output.device.type, enabled=False):
        each = F.cross_entropy(logits(output), labels.argmax(dim=1), reduction="none")
        return (each * known(labels)[:, 0]).mean()


def decided(output: Tensor) -> Tensor:
    """The labels of the most likely classes: 1 for the largest output of a pixel, else -1."""
    return F.one_hot(output.argmax(dim=1), output.shape[1]).movedim(-1, 1).to(output.dtype) * 2 - 1
