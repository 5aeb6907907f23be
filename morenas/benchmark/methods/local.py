"""Local search: from a random architecture to better neighbours, each judged by a short training alone."""

from __future__ import annotations

import torch

from morenas.benchmark.alone import train_alone
from morenas.benchmark.methods.found import Found
from morenas.benchmark.methods.random import draw
from morenas.benchmark.problem import Problem, Shapes, cost
from morenas.seeds import derive
from morenas.space import Choice

TRAININGS = 10  # short ones, that together take as many steps as one alone
TRIES = 1000  # draws until a neighbour that fits counts as not to be had


def local_search(problem: Problem, seed: int) -> Found:
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
    return Found(best, float(steps * TRAININGS), curve)


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
