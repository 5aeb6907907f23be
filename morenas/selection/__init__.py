"""From logits to one architecture that never exceeds the budget."""

from morenas.selection.argmax import argmax
from morenas.selection.budgeted import budgeted
from morenas.selection.measured import Measurements, perturbation, surrogate
from morenas.selection.playoff import Finals, playoff

SELECTIONS = {"budgeted": budgeted, "argmax": argmax}
"""By the logits alone."""

MEASURED = {"surrogate": surrogate, "perturbation": perturbation, "playoff": playoff}
"""By the losses of whole architectures in the supernet's weights."""

__all__ = [
    "MEASURED",
    "SELECTIONS",
    "Finals",
    "Measurements",
    "argmax",
    "budgeted",
    "perturbation",
    "playoff",
    "surrogate",
]
