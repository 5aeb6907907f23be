"""Random search: every draw trained alone, or many of them inside one supernet."""

from __future__ import annotations

import torch

from morenas.base.seeds import derive
from morenas.benchmark.alone import train_alone
from morenas.benchmark.descend import descend
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes
from morenas.benchmark.reference import draw
from morenas.search.objective import FORWARD
from morenas.space import sample_architecture
from morenas.supernet import Supernet
from morenas.supernet.prepare import prepared

MEASURED = 32  # architectures whose loss is measured in the supernet
BATCHES = 4  # of "select", to measure on: as many as our search measures on


def random_alone(problem: Problem, seed: int) -> SearchResult:
    """As many draws trained alone as our search and its final training cost: two. The better on "select".

    The training of the chosen draw is its final training, so that one of the two is the cost of the search.
    """
    draws = draw(problem, 2, derive(seed, "random"))
    losses = [trained.select for trained in train_alone(problem, draws, seed)]
    best = draws[losses.index(min(losses))]
    steps = float(problem.recipe.steps)
    return SearchResult(best, steps, [(0.0, draws[0]), (steps, best)])


def random_shared(problem: Problem, seed: int) -> SearchResult:
    """A supernet trained on a random architecture a step; then the best of many draws by its loss on "select"."""
    generator = torch.Generator().manual_seed(derive(seed, "random", "shared"))
    asking = MEASURED * BATCHES * FORWARD
    steps = max(problem.recipe.steps // 2, int(problem.recipe.steps - asking))
    with prepared(problem.model, problem.space, "per_nblocks", seed, problem.head) as (net, head):
        descend(
            problem,
            [*net.weights().values(), *head.values()],
            steps,
            derive(seed, "random", "shared"),
            before=lambda step: net.draw(sample_architecture(problem.space, problem.budget, generator)),
        )
        draws = draw(problem, MEASURED, derive(seed, "random", "asked"))
        losses = [_ask(problem, net, shapes, seed) for shapes in draws]
    return SearchResult(draws[losses.index(min(losses))], steps + asking)


@torch.no_grad()
def _ask(problem: Problem, net: Supernet, shapes: Shapes, seed: int) -> float:
    net.draw(shapes)
    problem.model.eval()
    batches = problem.batches("select", derive(seed, "random", "select"))
    return float(torch.stack([problem.losses(problem.model, batches[n]).mean() for n in range(BATCHES)]).mean())
