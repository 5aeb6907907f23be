"""How the factors start."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def init_first_(first: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Fill ``first`` ``(N, r, p)`` by Kaiming uniform with ``a = sqrt(5)`` per block: bound ``1 / sqrt(p)``."""
    # torch.nn.init.kaiming_uniform_ would take the fan-in of a 3-d tensor for that of a convolution, r * p.
    bound = max(1, first.shape[-1]) ** -0.5
    return first.uniform_(-bound, bound, generator=generator)
