"""Stage 2: from scores to one architecture that never exceeds the budget: one protocol, one selection a file."""

from morenas.selection.argmax import argmax
from morenas.selection.budgeted import budgeted
from morenas.selection.evidence import Evidence, Picks, Selection
from morenas.selection.knapsack import knapsack
from morenas.selection.perturbation import perturbation
from morenas.selection.playoff import playoff
from morenas.selection.race import race
from morenas.selection.surrogate import surrogate

__all__ = [
    "Evidence",
    "Picks",
    "Selection",
    "argmax",
    "budgeted",
    "knapsack",
    "perturbation",
    "playoff",
    "race",
    "surrogate",
]
