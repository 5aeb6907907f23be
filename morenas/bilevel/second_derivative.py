"""Second derivatives of the lower loss along a direction of the weights: by finite differences, or by autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from morenas.bilevel.problem import BilevelProblem, gradients_of
from morenas.bilevel.weight_step import total_norm


class SecondDerivative(Protocol):
    """Differentiates the slope of the lower loss along a direction."""

    def __call__(
        self, problem: BilevelProblem, step: int, direction: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return ``d/d inputs <dL/d weights, direction>`` of the lower loss L of lower step ``step``.

        With ``inputs`` the weights it is the product of the Hessian with ``direction``, with ``inputs`` the
        architecture that of the mixed derivative. All micro-batches of the step count. No parameter is changed.

        Args:
            direction: One tensor for each of ``problem.weights``, of its shape.
            inputs: ``problem.weights`` or ``problem.arch``.
        Returns:
            One tensor for each of ``inputs``, of its shape.
        """
        ...


@dataclass(frozen=True)
class CentralDifference:
    """``(grad at weights + e d  -  grad at weights - e d) / 2 e``: two first derivatives at weights that are moved.

    Both probes read the same micro-batches, and with them the same random draws, in full precision, with the memory
    that takes. The weights are put back from a copy, bit for bit, also where a loss raises.

    Attributes:
        radius: How far the weights are moved, as a fraction of their norm; where that is zero, absolute. The error
            grows with its square, rounding with its inverse. On transformers in float32 the result was off by 3e-5 at
            1e-3, by 3e-3 at 1e-2, and useless at 1. In bfloat16 rounding alone is 25 % and more at 1e-3: a model that
            computes in bfloat16 whatever the caller wants needs 1e-2 to 1e-1.

    Source: Liu et al. 2019, equation 8.
    """

    radius: float = 1e-3

    def __call__(
        self, problem: BilevelProblem, step: int, direction: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """As ``SecondDerivative``.

        Raises:
            NonFiniteLoss: If a loss of a probe is NaN or infinite.
            ArithmeticError: If ``direction`` is not finite.
        """
        size = length(direction)
        if not math.isfinite(size):
            raise ArithmeticError(f"A direction to differentiate the lower loss of step {step} along is not finite.")
        if size == 0:
            return [torch.zeros_like(tensor) for tensor in inputs]
        reach = self.radius * (length(problem.weights) or 1.0) / size
        ahead = _probe(problem, step, direction, reach, inputs)
        behind = _probe(problem, step, direction, -reach, inputs)
        return [(one - other) / (2 * reach) for one, other in zip(ahead, behind, strict=True)]


@torch.no_grad()
def length(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm of all entries together; waits for the device."""
    return float(total_norm(tensors))


def _probe(
    problem: BilevelProblem, step: int, direction: Sequence[Tensor], reach: float, inputs: Sequence[Tensor]
) -> list[Tensor]:
    moved = [weight.detach() + reach * part for weight, part in zip(problem.weights, direction, strict=True)]
    with problem.weights_at(moved):
        losses, grads = problem.gradients(problem.lower, step, inputs, full_precision=True)
    losses.read()
    return grads


def double_backward(
    problem: BilevelProblem, step: int, direction: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """As ``SecondDerivative``, exactly: the backward pass is differentiated again.

    Every operation of the loss must allow that. Fused attention does not: torch's own is computed by its plain
    formula here. The graphs of all micro-batches are held at once.
    """
    with sdpa_kernel(SDPBackend.MATH):
        losses, grads = problem.lower.gradients(step, problem.weights, full_precision=True, create_graph=True)
        losses.read()
        slope = sum(((grad * part).sum() for grad, part in zip(grads, direction, strict=True)), torch.zeros(()))
        return gradients_of(slope, inputs)
