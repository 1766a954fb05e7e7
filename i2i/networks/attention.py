"""Self-attention: Zhang, Goodfellow, Metaxas, Odena, "Self-Attention Generative Adversarial Networks", ICML 2019
(arXiv:1805.08318), Sec. 3.

Each pixel is given a mean of all pixels, weighted by how well they answer it, so that parts of a picture that lie far
apart can agree. The weights are never held for all pairs of pixels at once where torch can do without.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """(N, C, H, W) → the same shape: y = γ·o + x, Eq. 3, where γ is learnt and starts at 0, so that y is x at first.

    o_j = W_v Σ_i β_ji W_h x_i, Eq. 2, with β_ji = softmax over i of (W_f x_i)·(W_g x_j), Eq. 1. The four matrices are
    1×1 convolutions, between C and C/8 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.f = nn.Conv2d(channels, inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.h = nn.Conv2d(channels, inner, 1, bias=False)
        self.v = nn.Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # laid out pixel by pixel, with a dimension for heads: else torch holds all pairs of pixels at once
        keys, queries, values = (
            conv(x).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for conv in (self.f, self.g, self.h)
        )
        mean = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)  # (N, 1, H·W, C/8)
        return x + self.gamma * self.v(mean.transpose(2, 3).reshape(len(x), -1, *x.shape[2:]))
