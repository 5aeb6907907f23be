"""The architectures that others are held against: random ones, neighbours, and where it is not known the best."""

from __future__ import annotations

import itertools
import math

import torch

from morenas.base.seeds import derive
from morenas.benchmark.problem import Problem, Shapes, cost
from morenas.space import Choice, sample_architecture

RANDOM = 12  # draws that the mean random architecture is taken over, where there are too many to take all
ENUMERABLE = 5000  # architectures of a space that is small enough to take all
TRIES = 1000  # draws until a neighbour that fits counts as not to be had
ROUNDS, NEIGHBOURS = 2, 16  # of the search for the best where the planted architecture is not it


def random_architectures(problem: Problem) -> list[Shapes]:
    """Architectures that spend the budget: all of them where the space is small, else draws."""
    costs = problem.space.costs()
    if math.prod([costs.shape[1]] * costs.shape[0]) > ENUMERABLE:
        return draw(problem, RANDOM, derive(problem.number, "reference", problem.family))
    everything = itertools.product(range(costs.shape[1]), repeat=costs.shape[0])
    return [problem.space.shapes(picks) for picks in everything if _spends(costs, picks, problem.budget)]


def _spends(costs: torch.Tensor, picks: tuple[int, ...], budget: int) -> bool:
    """Whether an architecture fits, and no single choice could be a dearer one and fit."""
    own = costs[range(len(picks)), picks]
    room = budget - int(own.sum())
    dearer = costs > own.unsqueeze(1)
    return room >= 0 and not bool((dearer & (costs - own.unsqueeze(1) <= room)).any())


def near(problem: Problem, shapes: Shapes, number: int) -> list[Shapes]:
    """Neighbours of an architecture that spend nearly all of the budget."""
    generator = torch.Generator().manual_seed(derive(problem.number, "near", number))
    found: list[Shapes] = []
    for _ in range(50 * NEIGHBOURS):
        candidate = neighbour(problem, shapes, generator)
        if cost(problem.space, candidate) >= 0.9 * problem.budget and candidate not in found:
            found.append(candidate)
        if len(found) == NEIGHBOURS:
            break
    return found


def neighbour(problem: Problem, shapes: Shapes, generator: torch.Generator) -> Shapes:
    """Draw the choices of two groups anew until the whole fits and is not the same."""
    space = problem.space
    groups = list(space.groups.values())
    for _ in range(TRIES):
        changed = dict(shapes)
        for group in torch.randperm(len(groups), generator=generator)[:2].tolist():
            choice = space.choices[int(torch.randint(len(space.choices), (), generator=generator))]
            changed |= dict.fromkeys(groups[group], choice)
        changed = {name: Choice(*choice) for name, choice in changed.items() if choice.blk_r}
        if changed != shapes and cost(space, changed) <= problem.budget:
            return changed
    return shapes


def draw(problem: Problem, count: int, seed: int) -> list[Shapes]:
    """Random architectures that spend the budget."""
    generator = torch.Generator().manual_seed(seed)
    return [sample_architecture(problem.space, problem.budget, generator) for _ in range(count)]
