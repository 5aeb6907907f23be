"""Mixed level: the architecture descends the upper loss and the lower loss together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from morenas.bilevel.problem import BilevelProblem, Step, StepLosses


@dataclass(frozen=True)
class MixedLevel:
    """Differentiate ``upper + weight * lower`` with respect to the architecture, both at the current weights.

    The lower batch is the one that the weights descend next. The losses returned are the upper ones.

    Attributes:
        weight: Of the lower loss beside the upper one.

    Raises:
        NonFiniteLoss: If a lower loss is NaN or infinite.

    Source: He et al. 2020 (MiLeNAS), whose lambda, on the upper loss, is ``1 / weight``.
    """

    weight: float = 1.0
    passes: ClassVar[int] = 2

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        lower_losses, lower = problem.gradients(problem.lower, step.lower, problem.arch)
        lower_losses.read()
        losses, upper = problem.gradients(problem.upper, step.upper, problem.arch)
        return losses, [one + self.weight * other for one, other in zip(upper, lower, strict=True)]
