"""The selector on logits that know nothing: what it adds by itself."""

from __future__ import annotations

import torch

from morenas.base.seeds import derive
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem
from morenas.selection import knapsack


def random_logits(problem: Problem, seed: int) -> SearchResult:
    """Logits drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(derive(seed, "random", "logits"))
    costs = problem.space.costs()
    picks = knapsack(torch.randn(costs.shape, generator=generator), costs, problem.budget)
    return SearchResult(problem.space.shapes(picks), 0.0)


def untrained_logits(problem: Problem, seed: int) -> SearchResult:
    """Logits as they start, all zero: among equals the selector takes the cheapest."""
    costs = problem.space.costs()
    return SearchResult(problem.space.shapes(knapsack(torch.zeros(costs.shape), costs, problem.budget)), 0.0)
