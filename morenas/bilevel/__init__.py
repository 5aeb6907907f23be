"""Bilevel optimization on closures: architecture logits above, weights below. Knows nothing of adapters."""

from morenas.bilevel.budget import expected_cost, hold_budget, sharpened
from morenas.bilevel.guards import CurvatureGuard, EntropyGuard, Guard, NoGuard
from morenas.bilevel.hypergradients import (
    Hypergradient,
    MixedLevel,
    Neumann,
    Unrolled,
    exact,
    first_order,
    single_level,
)
from morenas.bilevel.loop import BilevelLoop, Schedule, StepReport
from morenas.bilevel.problem import BilevelProblem, Level, NonFiniteLoss, Step, StepLosses
from morenas.bilevel.second_derivative import CentralDifference, SecondDerivative, double_backward
from morenas.bilevel.weight_step import WeightStep

__all__ = [
    "BilevelLoop",
    "BilevelProblem",
    "CentralDifference",
    "CurvatureGuard",
    "EntropyGuard",
    "Guard",
    "Hypergradient",
    "Level",
    "MixedLevel",
    "Neumann",
    "NoGuard",
    "NonFiniteLoss",
    "Schedule",
    "SecondDerivative",
    "Step",
    "StepLosses",
    "StepReport",
    "Unrolled",
    "WeightStep",
    "double_backward",
    "exact",
    "expected_cost",
    "first_order",
    "hold_budget",
    "sharpened",
    "single_level",
]
