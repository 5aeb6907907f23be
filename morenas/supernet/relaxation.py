"""Relaxations: how architecture logits become the probabilities that mix the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Relaxation(Protocol):
    """Maps logits to mixing probabilities.

    ``tempers_logits`` says whether the distribution that the logits stand for is ``softmax(logits / temperature)``
    or, where the temperature only smooths gradients, ``softmax(logits)``.
    """

    @property
    def tempers_logits(self) -> bool: ...

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Return probabilities of the shape of ``logits`` ``(groups, choices)``; rows sum to one."""
        ...


@dataclass(frozen=True)
class Softmax:
    """Every candidate takes part, weighted by ``softmax(logits / temperature)``.

    Source: Liu et al. 2019 (DARTS), with an annealed temperature.
    """

    tempers_logits: bool = True

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return torch.softmax(logits / temperature, dim=-1)


@dataclass(frozen=True)
class Gumbel:
    """One candidate is drawn from ``softmax(logits)``; gradients flow through the softened draw.

    Source: Jang et al. 2017, straight-through; Dong and Yang 2019 (GDAS).
    """

    tempers_logits: bool = False

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        # Drawn on the CPU, so that every device and every rank draws the same architecture.
        noise = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator).log().neg()
        soft = torch.softmax((logits + noise.to(logits)) / temperature, dim=-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
        # hard + (soft - soft) is exactly one-hot; hard - soft + soft is not.
        return hard + (soft - soft.detach())


RELAXATIONS: dict[str, Relaxation] = {"softmax": Softmax(), "gumbel": Gumbel()}
