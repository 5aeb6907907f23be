"""Ranks in proportion to each layer's Fisher information."""

from __future__ import annotations

import torch

from morenas.base.seeds import derive
from morenas.benchmark.methods.ranked import lora_shapes, most_ranks
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.methods.scores import unfrozen
from morenas.benchmark.problem import Problem

BATCHES = 8
MOST = 4.0  # largest rank, in even ranks


def fisher_ranks(problem: Problem, seed: int) -> SearchResult:
    """Share ranks out in proportion to the mean squared gradient of each frozen weight, before anything is trained.

    The empirical Fisher information of a batch's loss, its trace over a weight. Highest averages (D'Hondt) share out:
    a layer's k-th rank is worth its trace over k.
    """
    batches = problem.batches("search_train", derive(seed, "fisher"))
    with unfrozen(problem) as (weights, _):
        traces = dict.fromkeys(weights, 0.0)
        for number in range(BATCHES):
            loss = problem.losses(problem.model, batches[number]).mean()
            for name, grad in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                traces[name] += float(grad.square().sum())
    most = most_ranks(problem, MOST)
    values = {name: [trace / k for k in range(1, most + 1)] for name, trace in traces.items()}
    return SearchResult(lora_shapes(problem, values), float(BATCHES))
