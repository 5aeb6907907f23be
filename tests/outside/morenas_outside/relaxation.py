"""A relaxation under which candidates drop out altogether."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.supernet import Relaxation


@dataclass(frozen=True)
class Sparsemax(Relaxation):
    """The point of the simplex that is nearest to the scaled logits.

    Attributes:
        power: The logits are multiplied by it; the larger, the fewer candidates take part.

    Source: Martins and Astudillo 2016.
    """

    power: float = 1.0

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        scores = self.power * logits / temperature
        ordered = scores.sort(dim=-1, descending=True).values
        ranks = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
        above = ordered.cumsum(-1) - 1
        support = (ranks * ordered > above).sum(-1, keepdim=True)
        return (scores - above.gather(-1, support - 1) / support).clamp_min(0)
