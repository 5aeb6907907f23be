"""A bilevel problem with a closed form, for the tests of the loop and of the hypergradients.

Lower: ``L(w, a) = 1/2 (w - C a)' H (w - C a)``, least at ``w*(a) = C a``.
Upper: ``U(w, a) = 1/2 |w - t|^2 + rho/2 |a - s|^2``, so that ``dU(w*(a), a)/da = C' (C a - t) + rho (a - s)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.bilevel import BilevelProblem, Level, Step, WeightStep

SETTINGS = [(3, 2, 0.5, 0), (6, 4, 0.0, 1), (5, 7, 2.0, 2)]
"""Weights, architecture parameters, rho and seed of the problems that closed forms are compared on."""


@dataclass
class Quadratic:
    hessian: Tensor
    coupling: Tensor
    target: Tensor
    anchor: Tensor
    rho: float
    weights: Tensor
    arch: Tensor

    @classmethod
    def build(cls, n: int, m: int, rho: float, seed: int) -> Quadratic:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        root = normal(n, n)
        hessian = root @ root.T / n + torch.eye(n, dtype=torch.float64)
        return cls(
            hessian, normal(n, m), normal(n), normal(m), rho, normal(n).requires_grad_(), normal(m).requires_grad_()
        )

    def lower_loss(self, number: int) -> Tensor:
        gap = self.weights - self.coupling @ self.arch
        return gap @ self.hessian @ gap / 2

    def upper_loss(self, number: int) -> Tensor:
        return ((self.weights - self.target) ** 2).sum() / 2 + self.rho * ((self.arch - self.anchor) ** 2).sum() / 2

    def problem(self) -> BilevelProblem:
        return BilevelProblem(
            Level("lower", self.lower_loss), Level("upper", self.upper_loss), [self.weights], [self.arch]
        )

    def step(self, optimizer: torch.optim.Optimizer | None = None, max_grad_norm: float = 0.0) -> Step:
        """The first step of both levels; the weights' by SGD unless an optimizer is given."""
        return Step(0, 0, WeightStep(optimizer or torch.optim.SGD([self.weights], lr=0.1), max_grad_norm))

    def lower_weight_gradient(self) -> Tensor:
        return (self.hessian @ (self.weights - self.coupling @ self.arch)).detach()

    def through(self, vector: Tensor) -> Tensor:
        """``d2L/da dw @ vector``."""
        return -self.coupling.T @ self.hessian @ vector

    def direct_gradient(self) -> Tensor:
        """What remains of the hypergradient with the weights held fixed."""
        return (self.rho * (self.arch - self.anchor)).detach()

    def lower_arch_gradient(self) -> Tensor:
        return (-self.coupling.T @ self.hessian @ (self.weights - self.coupling @ self.arch)).detach()
