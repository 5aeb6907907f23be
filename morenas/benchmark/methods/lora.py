"""LoRA with as many parameters, the same rank everywhere as nearly as they allow."""

from __future__ import annotations

from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem
from morenas.finetune.methods import equal_parameter_lora
from morenas.space import Choice


def equal_lora(problem: Problem, seed: int) -> SearchResult:
    """Nothing is searched: N = 1 with the ranks that spend the budget evenly."""
    ranks = equal_parameter_lora(problem.budget, problem.space.modules)
    return SearchResult({name: Choice(1, rank) for name, rank in ranks.items() if rank}, 0.0)
