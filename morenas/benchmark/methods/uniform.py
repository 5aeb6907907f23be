"""One shape for every module: for each block count the largest rank that fits, trained alone."""

from __future__ import annotations

from morenas.benchmark.alone import train_alone
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes, cost
from morenas.space import Choice


def best_uniform(problem: Problem, seed: int) -> SearchResult:
    """The best on "select" of the uniform architectures, one a block count; all are trained, whatever it costs."""
    candidates = uniform_architectures(problem)
    losses = [trained.select for trained in train_alone(problem, candidates, seed)]
    best = candidates[losses.index(min(losses))]
    return SearchResult(best, float(problem.recipe.steps * (len(candidates) - 1)))


def uniform_architectures(problem: Problem) -> list[Shapes]:
    """For each block count the largest rank of the space that fits on all modules; where none does, the smallest on as
    many modules as fit, the last ones left out."""
    counts = sorted({choice.nblocks for choice in problem.space.choices if choice.blk_r})
    return [_uniform(problem, count) for count in counts]


def _uniform(problem: Problem, count: int) -> Shapes:
    ranks = sorted((c.blk_r for c in problem.space.choices if c.nblocks == count and c.blk_r), reverse=True)
    for rank in ranks:
        shapes = dict.fromkeys(problem.space.modules, Choice(count, rank))
        if cost(problem.space, shapes) <= problem.budget:
            return shapes
    shapes = {}
    for names in problem.space.groups.values():
        more = shapes | dict.fromkeys(names, Choice(count, ranks[-1]))
        if cost(problem.space, more) <= problem.budget:
            shapes = more
    return shapes
