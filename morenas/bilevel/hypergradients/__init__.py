"""How the upper level is differentiated through the lower one: one estimator a file, all of one interface."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from morenas.bilevel.hypergradients.exact import exact
from morenas.bilevel.hypergradients.first_order import first_order
from morenas.bilevel.hypergradients.mixed_level import MixedLevel
from morenas.bilevel.hypergradients.neumann import Neumann
from morenas.bilevel.hypergradients.single_level import single_level
from morenas.bilevel.hypergradients.unrolled import Unrolled
from morenas.bilevel.problem import BilevelProblem, Step, StepLosses


class Hypergradient(Protocol):
    """Estimates the gradient of the upper objective with respect to the architecture.

    One that costs more than one pass per micro-batch says how many in an attribute ``passes``: a run of a given length
    (``search.length``) leaves room for them.
    """

    def __call__(self, problem: BilevelProblem, step: Step) -> tuple[StepLosses, list[Tensor]]:
        """Return the losses to report and one gradient per tensor of ``problem.arch``.

        No parameter and no optimizer state is changed, bit for bit.
        """
        ...


__all__ = [
    "Hypergradient",
    "MixedLevel",
    "Neumann",
    "Unrolled",
    "exact",
    "first_order",
    "single_level",
]
