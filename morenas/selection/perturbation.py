"""One group's choice changed at a time; what lowers the measured loss is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from morenas.selection.evidence import Evidence, Picks
from morenas.selection.knapsack import knapsack


def perturbation(evidence: Evidence) -> Sequence[int]:
    """Choose by what the loss becomes when one group of the best architecture takes another choice.

    Starting from the knapsack of the search's own scores, the groups in random order, round after round, are tried with
    a choice drawn at random among those that fit and were not measured, until ``evidence.count()`` architectures were
    measured or none is left; a choice that lowers the loss is kept.

    Raises:
        ValueError: If nothing fits the budget.

    Source: Wang et al. 2021, perturbation in the place of the architecture parameters' magnitude, one-hot here.
    """
    generator, count = evidence.generator, evidence.count()
    picks: Picks = tuple(knapsack(evidence.scores, evidence.costs, evidence.budget))
    measured = {picks: evidence.measure(picks)}
    before = 0
    while before < len(measured):
        before = len(measured)
        for group in torch.randperm(len(picks), generator=generator).tolist():
            options = [other for other in _neighbours(picks, group, evidence) if other not in measured]
            if not options or len(measured) >= count:
                continue
            changed = options[int(torch.randint(len(options), (), generator=generator))]
            measured[changed] = evidence.measure(changed)
            if measured[changed] < measured[picks]:
                picks = changed
    return picks


def _neighbours(picks: Picks, group: int, evidence: Evidence) -> list[Picks]:
    """``picks`` with every choice of one group that fits, itself among them."""
    costs = evidence.costs
    spent = sum(int(costs[other, pick]) for other, pick in enumerate(picks) if other != group)
    fits = evidence.allowed[group] & (costs[group] <= evidence.budget - spent)
    return [(*picks[:group], pick, *picks[group + 1 :]) for pick in fits.nonzero().flatten().tolist()]
