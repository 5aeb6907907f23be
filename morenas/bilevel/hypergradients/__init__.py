"""How the upper level is differentiated through the lower one: one estimator a file, all of one interface."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from morenas.bilevel.hypergradients.first_order import first_order
from morenas.bilevel.hypergradients.single_level import single_level
from morenas.bilevel.problem import BilevelProblem, Step, StepLosses


class Hypergradient(Protocol):
    """Estimates the gradient of the upper objective with respect to the architecture."""

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        """Return the losses descended and one gradient per tensor of ``problem.arch``; change no parameter."""
        ...


HYPERGRADIENTS: dict[str, Hypergradient] = {"first_order": first_order, "single_level": single_level}

__all__ = ["HYPERGRADIENTS", "Hypergradient", "first_order", "single_level"]
