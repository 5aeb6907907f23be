"""Local search: from a random architecture to better neighbours, each judged by a short training alone."""

from __future__ import annotations

import torch

from morenas.base.seeds import derive
from morenas.benchmark.alone import train_alone
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes
from morenas.benchmark.reference import draw, neighbour

TRAININGS = 10  # short ones, that together take as many steps as one alone


def local_search(problem: Problem, seed: int) -> SearchResult:
    """Move to a neighbour where its loss on "select", after a tenth of the recipe's steps, is lower."""
    steps = problem.recipe.steps // TRAININGS
    generator = torch.Generator().manual_seed(derive(seed, "local"))
    [best] = draw(problem, 1, derive(seed, "local", "start"))
    lowest, curve = float("inf"), list[tuple[float, Shapes]]()
    candidate = best
    for number in range(TRAININGS):
        [trained] = train_alone(problem, [candidate], seed, steps)
        if trained.select < lowest:
            best, lowest = candidate, trained.select
            curve.append((float(steps * (number + 1)), best))
        candidate = neighbour(problem, best, generator)
    return SearchResult(best, float(steps * TRAININGS), curve)
