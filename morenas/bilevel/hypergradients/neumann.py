"""Neumann: the hypergradient of the implicit function theorem, its inverse Hessian a truncated series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.bilevel.problem import BilevelProblem, Step, StepLosses
from morenas.bilevel.second_derivative import CentralDifference, SecondDerivative, length

Product = Callable[[Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Neumann:
    """Differentiate ``U(w*(a), a)`` as if the current weights were the minimum ``w*(a)`` of the lower loss.

    ``dU/da - d2L/da dw  H^-1  dU/dw``, with ``H = d2L/dw2`` on the batch that the weights descend next, and

        ``H^-1 v  ~  rate * sum over j < terms of (I - rate H)^j v``,   ``rate = scale / curvature``.

    The series converges, for every ``v``, if and only if all eigenvalues of ``rate * H`` lie between 0 and 2: H must be
    positive definite and ``rate`` below ``2 / (largest eigenvalue)``. Of a direction of eigenvalue ``h`` the share
    ``(1 - rate h)^terms`` is still missing: what is flat against ``curvature / terms`` hardly counts, and along
    negative curvature, where there is no minimum, the sum stays bounded only because it is cut off. ``curvature`` is
    the largest that power iteration from ``v`` meets, which nears the largest eigenvalue from below. Where it meets
    none, nothing says how the minimum moves, and ``dU/da`` is returned.

    Far from a minimum the second term can be many times the first and mean little: warm up long. Weight decay is no
    part of L. It costs ``2 * (terms + power_steps) + 1`` passes per micro-batch. The losses returned are the upper ones
    at the current weights.

    Attributes:
        terms: Of the series, at least 1.
        scale: Step of the series, in units of one over the curvature; above 0 and below 2, with room for a curvature
            that was found too small.
        power_steps: Products with the Hessian that are spent on the curvature, at least 1.
        second_derivative: How products with H and ``d2L/da dw`` are computed.

    Raises:
        NonFiniteLoss: If a loss on the way is NaN or infinite.
        ValueError: If a number is out of range.

    Source: Lorraine et al. 2020, algorithms 2 and 3; their fixed rate is ``scale / curvature`` here.
    """

    terms: int = 5
    scale: float = 1.0
    power_steps: int = 3
    second_derivative: SecondDerivative = CentralDifference()  # noqa: RUF009  it is frozen

    def __post_init__(self) -> None:
        if self.terms < 1 or self.power_steps < 1:
            raise ValueError(f"terms={self.terms} and power_steps={self.power_steps} must be at least 1.")
        if not 0 < self.scale < 2:
            raise ValueError(f"scale={self.scale} must be above 0 and below 2; else the series diverges.")

    @property
    def passes(self) -> int:
        """Passes per micro-batch."""
        return 2 * (self.terms + self.power_steps) + 1

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        losses, grads = problem.gradients(problem.upper, step.upper, [*problem.weights, *problem.arch])
        losses.read()
        count = len(problem.weights)
        solved = self._solve(lambda v: self.second_derivative(problem, step.lower, v, problem.weights), grads[:count])
        through = self.second_derivative(problem, step.lower, solved, problem.arch)
        return losses, [one - other for one, other in zip(grads[count:], through, strict=True)]

    def _solve(self, product: Product, vector: Sequence[Tensor]) -> list[Tensor]:
        """About ``H^-1 vector``; zeros where there is no curvature along it."""
        curvature = _largest_curvature(product, vector, self.power_steps)
        if curvature == 0:
            return [torch.zeros_like(part) for part in vector]
        rate = self.scale / curvature
        term = total = list(vector)
        for _ in range(self.terms - 1):
            term = [part - rate * bent for part, bent in zip(term, product(term), strict=True)]
            total = [one + other for one, other in zip(total, term, strict=True)]
        return [rate * part for part in total]


def _largest_curvature(product: Product, vector: Sequence[Tensor], steps: int) -> float:
    """The largest ratio ``|H v| / |v|`` among the first powers of H on ``vector``: never above H's largest one."""
    largest = 0.0
    for _ in range(steps):
        size = length(vector)
        if size == 0:
            break
        vector = product([part / size for part in vector])
        largest = max(largest, length(vector))
    return largest
