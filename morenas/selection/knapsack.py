"""The exact best total of scores under a budget: a multiple-choice knapsack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def knapsack(scores: Tensor, costs: Tensor, budget: int) -> list[int]:
    """Pick one choice per group so that the scores add up to the most and the costs to at most ``budget``.

    Exact. Among equal totals the cheaper wins, then the earlier choice. Logits are scores in the search's own sense:
    the price that tilts them under the budget is the multiplier of this very problem.

    Args:
        scores: Shape ``(groups, choices)``; ``-inf`` forbids a choice.
        costs: Whole numbers, same shape.
    Returns:
        One choice index per group.
    Raises:
        ValueError: If no selection fits the budget.
    """
    # Dynamic programming over the partial selections that no other one dominates, instead of over every cost up to the
    # budget: parameters run into millions, and few of their sums occur.
    tables = [_undominated(s, c) for s, c in zip(scores.double().cpu().numpy(), costs.cpu().numpy(), strict=True)]
    price, floor = _dual(tables, budget)
    if floor == -np.inf:
        raise ValueError(f"No selection costs at most {budget:,}.")
    rest = _best_priced_rest(tables, price)
    total, spent = np.zeros(1), np.zeros(1, dtype=np.int64)
    history: list[tuple[Ints, Ints]] = []
    for group, (score, cost, index) in enumerate(tables):
        total, spent, parent, pick = _extend(total, spent, score, cost, index)
        # A partial selection that cannot reach a total already attained is dropped: exact, and keeps the front short.
        slack = 1e-9 * (1 + abs(floor))
        keep = (spent <= budget) & (total + price * (budget - spent) + rest[group + 1] >= floor - slack)
        total, spent, parent, pick = total[keep], spent[keep], parent[keep], pick[keep]
        history.append((parent, pick))
    return _trace(history, int(np.argmax(total)))


def _undominated(score: Floats, cost: Ints) -> tuple[Floats, Ints, Ints]:
    """Drop choices that cost no less and score no more than another; ascending in cost."""
    order = np.lexsort((np.arange(len(cost)), -score, cost))
    order = order[np.isfinite(score[order])]
    best = np.maximum.accumulate(np.concatenate(([-np.inf], score[order])))[:-1]
    order = order[score[order] > best]
    return score[order], cost[order], order


def _dual(tables: list[tuple[Floats, Ints, Ints]], budget: int) -> tuple[float, float]:
    """A good price for the bound, and the best total that fits of the selections found on the way."""
    low, high, floor = 0.0, 1.0, -np.inf
    cheapest = [(0.0, score[0], cost[0]) for score, cost, _ in tables]
    if sum(cost for _, _, cost in cheapest) <= budget:
        floor = float(sum(score for _, score, _ in cheapest))
    for _ in range(100):
        middle = (low + high) / 2
        picks = [int(np.argmax(score - middle * cost)) for score, cost, _ in tables]
        spent = sum(int(cost[p]) for (_, cost, _), p in zip(tables, picks, strict=True))
        if spent <= budget:
            floor = max(floor, float(sum(score[p] for (score, _, _), p in zip(tables, picks, strict=True))))
            high = middle
        else:
            low = middle
    return high, floor


def _best_priced_rest(tables: list[tuple[Floats, Ints, Ints]], price: float) -> Floats:
    """Upper bound on what the groups from each one on can add, their costs paid at ``price``."""
    best = [float((score - price * cost).max()) for score, cost, _ in tables]
    return np.concatenate((np.cumsum(best[::-1])[::-1], [0.0]))


def _extend(total: Floats, spent: Ints, score: Floats, cost: Ints, index: Ints) -> tuple[Floats, Ints, Ints, Ints]:
    """Add one group to every partial selection and keep the undominated ones, ascending in cost."""
    totals, spents = (total[:, None] + score).ravel(), (spent[:, None] + cost).ravel()
    order = np.lexsort((-totals, spents))
    best = np.maximum.accumulate(np.concatenate(([-np.inf], totals[order])))[:-1]
    order = order[totals[order] > best]
    return totals[order], spents[order], order // len(score), index[order % len(score)]


def _trace(history: list[tuple[Ints, Ints]], state: int) -> list[int]:
    picks = []
    for parent, pick in reversed(history):
        picks.append(int(pick[state]))
        state = int(parent[state])
    return picks[::-1]
