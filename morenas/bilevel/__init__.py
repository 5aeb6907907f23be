"""Bilevel optimization on closures: architecture logits above, weights below. Knows nothing of adapters."""

from morenas.bilevel.budget import expected_cost, hold_budget
from morenas.bilevel.hypergradients import HYPERGRADIENTS, Hypergradient
from morenas.bilevel.loop import BilevelLoop, Schedule, StepReport
from morenas.bilevel.problem import BilevelProblem, Level, NonFiniteLoss, Step, StepLosses

__all__ = [
    "HYPERGRADIENTS",
    "BilevelLoop",
    "BilevelProblem",
    "Hypergradient",
    "Level",
    "NonFiniteLoss",
    "Schedule",
    "Step",
    "StepLosses",
    "StepReport",
    "expected_cost",
    "hold_budget",
]
