"""The patchwise contrastive loss of CUT (Park et al. 2020, arXiv:2007.15651, Sec. 3.2).

Each patch of the output must recognise its own patch of the input among others, as in InfoNCE (van den Oord et al.
2018, arXiv:1807.03748).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.device import precise

Negatives = Literal["picture", "batch"]


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07, negatives: Negatives = "picture") -> Tensor:
    """-log(exp(v·v⁺/τ) / (exp(v·v⁺/τ) + Σₙ exp(v·vₙ⁻/τ))) (Eq. 2), the mean over all patches (Eq. 3) as a scalar.

    `queries` v and `keys` are (N, S, C), of unit length. v⁺ is the key of the same picture and place. v⁻ are the keys
    of the other places of the picture, or of the batch. No gradient flows to the keys. The result is in float32 at
    least.
    """
    queries, keys = precise(queries), precise(keys.detach())
    if negatives == "batch":
        queries, keys = (x.flatten(0, 1)[None] for x in (queries, keys))
    with torch.autocast(queries.device.type, enabled=False):
        similarity = queries @ keys.mT / temperature  # (N, S, S): row s is about query s
    pictures, patches = similarity.shape[:2]
    own = torch.arange(patches, device=similarity.device).repeat(pictures)
    return F.cross_entropy(similarity.flatten(0, 1), own)
