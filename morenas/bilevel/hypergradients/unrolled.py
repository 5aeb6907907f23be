"""Unrolled: the upper loss after the step that the weights are about to take, differentiated through that step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from morenas.bilevel.problem import BilevelProblem, Step, StepLosses
from morenas.bilevel.second_derivative import CentralDifference, SecondDerivative


@dataclass(frozen=True)
class Unrolled:
    """Differentiate ``U(w'(a), a)``, where ``w'`` is where the next lower step takes the weights.

    ``w' = step(g(a))`` with ``g = dL/dw`` at the current weights, so that the gradient is

        ``dU/da + d2L/da dw  J' dU/dw``,   ``J = dw'/dg``,   the derivatives of U at ``w'``.

    ``step`` is the optimizer's own, see ``WeightStep``: preconditioned by its state, clipped, at the rate of this very
    step and on the batch of this very step. Taken for a step of SGD, Adam's loses most of the second term. It costs
    four passes per micro-batch, where first order costs one. The losses returned are the upper ones at ``w'``.

    Attributes:
        second_derivative: How ``d2L/da dw`` is computed.

    Raises:
        NonFiniteLoss: If a loss on the way is NaN or infinite.
        ValueError: If the step of the weights' optimizer is not modelled.

    Source: Liu et al. 2019, section 2.3 with xi the learning rate, for an adaptive step instead of one of SGD.
    """

    second_derivative: SecondDerivative = CentralDifference()  # noqa: RUF009  it is frozen
    passes: ClassVar[int] = 4

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        lower_losses, grads = problem.gradients(problem.lower, step.lower, problem.weights)
        lower_losses.read()
        grads = [grad.detach().requires_grad_() for grad in grads]
        ahead = step.weights.after(problem.weights, grads)
        losses, by_weights, by_arch = _upper_at(problem, step, ahead)
        pulled = torch.autograd.grad(ahead, grads, by_weights)
        through = self.second_derivative(problem, step.lower, pulled, problem.arch)
        return losses, [one + other for one, other in zip(by_arch, through, strict=True)]


def _upper_at(
    problem: BilevelProblem, step: Step, weights: Sequence[Tensor]
) -> tuple[StepLosses, list[Tensor], list[Tensor]]:
    """The upper losses at other weights and their gradients in weights and architecture."""
    with problem.weights_at(weights):
        losses, grads = problem.gradients(problem.upper, step.upper, [*problem.weights, *problem.arch])
    losses.read()
    return losses, grads[: len(weights)], grads[len(weights) :]
