"""Comparing what an export computes."""

from __future__ import annotations

import torch
from tiny_models import Tiny
from torch import Tensor, nn


@torch.no_grad()
def outputs(model: nn.Module, tiny: Tiny) -> Tensor:
    """Logits of a fixed batch that suits the model."""
    batch = {key: value for key, value in tiny.batch().items() if key != "labels"}
    return model.eval()(**batch).logits.clone()


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, over all entries."""
    return float((one - other).abs().max())
