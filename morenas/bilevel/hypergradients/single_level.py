"""Single level: weights and architecture descend the same loss on the same data."""

from __future__ import annotations

from torch import Tensor

from morenas.bilevel.problem import BilevelProblem, Step, StepLosses


def single_level(problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
    """Differentiate the *lower* loss with respect to the architecture; the upper data is never read.

    The batch is the one that the weights descend next, under the relaxation of that very step.

    Source: the one-level control of Liu et al. 2019, section 3.
    """
    return problem.gradients(problem.lower, step.lower, problem.arch)
