"""First order, with a bound on its norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.bilevel import BilevelProblem, Step, StepLosses
from morenas.bilevel.hypergradients import first_order


@dataclass(frozen=True)
class Clipped:
    """The first-order gradient, scaled down to a norm.

    Attributes:
        norm: The largest norm that it may have.
    """

    norm: float = 1.0

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        losses, grads = first_order(problem, step)
        total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))
        scale = (self.norm / total.clamp_min(1e-12)).clamp_max(1)
        return losses, [grad * scale for grad in grads]
