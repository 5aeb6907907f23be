"""LoRA ranks by one ranking of all directions of all modules, cut where the budget is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from morenas.benchmark.problem import Problem, Shapes
from morenas.space import Choice


def most_ranks(problem: Problem, times: float) -> int:
    """So many times the rank that the budget allows on every module alike; at least 1."""
    return max(1, round(times * problem.budget / sum(map(sum, problem.space.modules.values()))))


def cut(values: Mapping[str, Sequence[float]], costs: Mapping[str, int], budget: int) -> dict[str, int]:
    """Keep the largest values of all modules together, as many as fit: one threshold for all.

    The ranking ends at the first value that does not fit, cheaper ones after it or not.

    Args:
        values: By module, one for each direction, descending.
        costs: Parameters of a direction.
    Returns:
        Rank by module; modules of rank 0 are absent.
    """
    ranking = sorted(((value, name) for name, of in values.items() for value in of), key=lambda pair: -pair[0])
    ranks: dict[str, int] = {}
    for _, name in ranking:
        budget -= costs[name]
        if budget < 0:
            break
        ranks[name] = ranks.get(name, 0) + 1
    return ranks


def lora_shapes(problem: Problem, values: Mapping[str, Sequence[float]]) -> Shapes:
    """The LoRA that ``cut`` leaves of a problem's modules."""
    costs = {name: sum(features) for name, features in problem.space.modules.items()}
    return {name: Choice(1, rank) for name, rank in cut(values, costs, problem.budget).items()}
