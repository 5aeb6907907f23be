"""The exact best total of the scores under the budget."""

from __future__ import annotations

from morenas.selection.evidence import Evidence
from morenas.selection.knapsack import knapsack


def budgeted(evidence: Evidence) -> list[int]:
    """The choices whose scores add up to the most within the budget; nothing is measured.

    Raises:
        ValueError: If nothing fits the budget.
    """
    return knapsack(evidence.scores, evidence.costs, evidence.budget)
