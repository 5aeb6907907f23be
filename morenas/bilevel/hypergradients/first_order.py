"""First order: the upper gradient at the current weights, as if they did not depend on the architecture."""

from __future__ import annotations

from torch import Tensor

from morenas.bilevel.problem import BilevelProblem, Step, StepLosses


def first_order(problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
    """Differentiate the upper loss of ``step`` with respect to the architecture, weights held fixed.

    Exact where the weights minimize the lower loss and that minimum does not move with the architecture; in general
    it leaves out the term ``- d2L/da dw (d2L/dw2)^-1 dU/dw``.

    Source: Liu et al. 2019, section 2.3 with xi = 0.
    """
    return problem.gradients(problem.upper, step.upper, problem.arch)
