"""Selections that ask the supernet for the losses of whole architectures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from morenas.selection.budgeted import budgeted
from morenas.selection.surrogate import Picks, Surrogate


@dataclass(frozen=True)
class Measurements:
    """What may be asked.

    Attributes:
        loss: Of an architecture, one choice a group, on data that trained no weight.
        count: Architectures to measure, at most; one is measured in any case.
        generator: Of every random draw.
    """

    loss: Callable[[Sequence[int]], float]
    count: int
    generator: torch.Generator


def surrogate(
    priors: Sequence[Tensor], costs: Tensor, allowed: Tensor, budget: int, asked: Measurements
) -> Sequence[int]:
    """The architecture of lowest measured loss among those that a linear model of the loss proposes.

    Args:
        priors: Scores of every choice, higher is better, each ``(groups, choices)``.
        costs: Whole numbers, same shape.
        allowed: Which choices may be taken, same shape.
    Raises:
        ValueError: If nothing fits the budget, or a loss is not finite.
    """
    return Surrogate(priors, costs, allowed, budget, asked.generator).improve(asked.loss, asked.count)


def perturbation(
    priors: Sequence[Tensor], costs: Tensor, allowed: Tensor, budget: int, asked: Measurements
) -> Sequence[int]:
    """Choose by what the loss becomes when one group of the best architecture takes another choice.

    Starting from the selection of the first prior, the groups in random order, round after round, are tried with a
    choice drawn at random among those that fit and were not measured, until ``asked.count`` architectures were or none
    is left; a choice that lowers the loss is kept.

    Args:
        priors: As ``surrogate`` takes them, and the rest.
    Raises:
        ValueError: If nothing fits the budget.

    Source: Wang et al. 2021, perturbation in the place of the architecture parameters' magnitude, one-hot here.
    """
    picks: Picks = tuple(budgeted(priors[0].masked_fill(~allowed, -torch.inf), costs, budget))
    measured = {picks: asked.loss(picks)}
    before = 0
    while before < len(measured):
        before = len(measured)
        for group in torch.randperm(len(picks), generator=asked.generator).tolist():
            options = [n for n in _neighbours(picks, group, costs, allowed, budget) if n not in measured]
            if not options or len(measured) >= asked.count:
                continue
            changed = options[int(torch.randint(len(options), (), generator=asked.generator))]
            measured[changed] = asked.loss(changed)
            if measured[changed] < measured[picks]:
                picks = changed
    return picks


def _neighbours(picks: Picks, group: int, costs: Tensor, allowed: Tensor, budget: int) -> list[Picks]:
    """``picks`` with every choice of one group that fits, itself among them."""
    spent = sum(int(costs[other, pick]) for other, pick in enumerate(picks) if other != group)
    options = (allowed[group] & (costs[group] <= budget - spent)).nonzero().flatten().tolist()
    return [(*picks[:group], pick, *picks[group + 1 :]) for pick in options]
