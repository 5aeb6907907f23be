"""EVA's ranks: where the inputs of layers have most of their variance in few directions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from morenas.base.seeds import derive
from morenas.benchmark.methods.ranked import lora_shapes, most_ranks
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem
from morenas.search.objective import FORWARD
from morenas.supernet.spectrum import sample_inputs

SAMPLED = 8  # batches that inputs are taken from
RHO = 2.0  # largest rank, in even ranks: PEFT's default


def eva_ranks(problem: Problem, seed: int) -> SearchResult:
    """Rank the components of all layers' inputs by the share of variance that each explains.

    PEFT counts ranks; here the ranking ends where the parameters are spent. Ranks alone are EVA's, the start is LoRA's.

    Source: Paischer et al. 2024, "Parameter efficient fine-tuning via explained variance adaptation"; ``EvaConfig``.
    """
    batches = problem.batches("search_train", derive(seed, "eva"))
    layers = {name: problem.model.get_submodule(name) for name in problem.space.modules}
    problem.model.eval()
    losses = [partial(lambda number: problem.losses(problem.model, batches[number]).mean(), n) for n in range(SAMPLED)]
    inputs = sample_inputs(layers, losses)
    most = most_ranks(problem, RHO)
    values = {name: explained(x)[:most].tolist() for name, x in inputs.items()}
    return SearchResult(lora_shapes(problem, values), SAMPLED * FORWARD)


def explained(x: Tensor) -> Tensor:
    """Share of the variance of rows ``(tokens, n)`` along each principal component, descending."""
    squares = torch.linalg.svdvals(x.double() - x.double().mean(dim=0)).square()
    return squares / squares.sum()
