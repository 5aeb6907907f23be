"""The recipe's optimizer on any weights of a problem's model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from morenas.benchmark.cohort import RAMP
from morenas.benchmark.problem import Problem
from morenas.bilevel.loop import ramp_and_cosine


def descend(
    problem: Problem,
    weights: Iterable[Tensor],
    steps: int,
    seed: int,
    before: Callable[[int], None] = lambda step: None,
    learning_rate: float | None = None,
    split: str = "search_train",
    ramp: float = RAMP,
) -> None:
    """Train ``weights`` on a split for so many steps; ``before`` is called with the number of each.

    Args:
        learning_rate: Peak; None for the recipe's.
        ramp: Share of the steps over which it rises before it falls to zero; 0 to begin at the peak.
    """
    recipe, weights = problem.recipe, list(weights)
    peak = learning_rate or recipe.learning_rate
    optimizer = torch.optim.AdamW(weights, lr=peak, weight_decay=recipe.weight_decay)
    batches = problem.batches(split, seed)
    problem.model.eval()
    for step in range(steps):
        before(step)
        for group in optimizer.param_groups:
            group["lr"] = peak * ramp_and_cosine(step, steps, ramp)
        optimizer.zero_grad(set_to_none=True)
        problem.losses(problem.model, batches[step]).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.max_grad_norm)
        optimizer.step()
