"""From logits to one architecture that never exceeds the budget."""

from morenas.selection.argmax import argmax
from morenas.selection.budgeted import budgeted

SELECTIONS = {"budgeted": budgeted, "argmax": argmax}

__all__ = ["SELECTIONS", "argmax", "budgeted"]
