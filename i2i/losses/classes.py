"""Losses on classes.

Labels are (N, K, H, W). A pixel has 1 in the channel of its class and -1 in the others; a pixel without a class has -1
in all.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import precise


def logits(output: Tensor) -> Tensor:
    """atanh(output): the logit of each class, from a generator's output in [-1, 1].

    The result is in float32 at least, and within ±8.7 there. The generator must take its tanh in float32: in 16 bits
    that is 1 for all logits beyond 3.5, and its gradient is lost.
    """
    output = precise(output)
    largest = 1 - torch.finfo(output.dtype).eps / 2
    return torch.atanh(output.clamp(-largest, largest))


def probabilities(output: Tensor) -> Tensor:
    """softmax(logits) of the classes, scaled from [0, 1] to [-1, 1], the range of labels."""
    return logits(output).softmax(dim=1) * 2 - 1


def known(labels: Tensor) -> Tensor:
    """Whether each pixel has a class: (N, 1, H, W) booleans."""
    return (labels > 0).any(dim=1, keepdim=True)


def class_cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[class], the mean over all pixels (Long et al. 2015, Sec. 4.3).

    A pixel without a class counts as 0.
    """
    with torch.autocast(output.device.type, enabled=False):
        each = F.cross_entropy(logits(output), labels.argmax(dim=1), reduction="none")
        return (each * known(labels)[:, 0]).mean()


def decided(output: Tensor) -> Tensor:
    """Labels of the most likely classes: 1 for the largest output of a pixel, else -1."""
    return F.one_hot(output.argmax(dim=1), output.shape[1]).movedim(-1, 1).to(output.dtype) * 2 - 1
