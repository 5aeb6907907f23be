"""Scores without a search: a dense gradient or a dense change of the weights, projected onto every class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from morenas.base.seeds import derive
from morenas.benchmark.descend import descend
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes
from morenas.search.objective import FORWARD
from morenas.selection import knapsack
from morenas.supernet.prepare import trainable_head
from morenas.supernet.spectrum import Sample, kept, projections, sample_inputs

EARLY = 8  # batches of an early gradient
SAMPLED = 8  # batches that the inputs' covariance is taken from
SHARE = 0.7  # of the recipe's steps that the full fine-tune gets
RATE = 0.3  # of the recipe's learning rate, at which dense weights learn best


def early_gradient(problem: Problem, seed: int) -> SearchResult:
    """The gradient of the frozen weights, before anything is trained, in the place of their change."""
    batches = problem.batches("search_train", derive(seed, "early"))
    with unfrozen(problem) as (weights, _):
        losses = [problem.losses(problem.model, batches[number]).mean() for number in range(EARLY)]
        grads = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
        samples = _inputs(problem, seed)
    return SearchResult(_project(problem, dict(zip(weights, grads, strict=True)), samples), EARLY + SAMPLED * FORWARD)


def dense_change(problem: Problem, seed: int) -> SearchResult:
    """What a short full fine-tune changes, projected in the norm that the inputs' covariance gives."""
    changes, samples, passes = _fine_tuned(problem, seed)
    return SearchResult(_project(problem, changes, samples), passes)


def dense_energy(problem: Problem, seed: int) -> SearchResult:
    """The same change, projected in the Frobenius norm."""
    changes, _, passes = _fine_tuned(problem, seed)
    return SearchResult(_project(problem, changes, None), passes)


def _fine_tuned(problem: Problem, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    steps = round(SHARE * problem.recipe.steps)
    with unfrozen(problem) as (weights, head):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        rate = RATE * problem.recipe.learning_rate
        descend(problem, [*weights.values(), *head], steps, derive(seed, "dense"), learning_rate=rate)
        changes = {name: weight.detach() - before[name] for name, weight in weights.items()}
        samples = _inputs(problem, seed)
    return changes, samples, steps + SAMPLED * FORWARD


@contextmanager
def unfrozen(problem: Problem) -> Iterator[tuple[dict[str, Tensor], list[Tensor]]]:
    """The searched layers' weights and the head's, trainable until the end, when all are what they were."""
    weights = {name: problem.model.get_submodule(name).get_parameter("weight") for name in problem.space.modules}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with trainable_head(problem.model, problem.head) as head:
        for weight in weights.values():
            weight.requires_grad_(True)
        try:
            yield dict(weights), list(head.values())
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(before[name])


def _inputs(problem: Problem, seed: int) -> dict[str, Tensor]:
    batches = problem.batches("search_train", derive(seed, "inputs"))
    layers = {name: problem.model.get_submodule(name) for name in problem.space.modules}

    def loss(number: int) -> Tensor:
        return problem.losses(problem.model, batches[number]).mean()

    return sample_inputs(layers, [partial(loss, number) for number in range(SAMPLED)])


@torch.no_grad()
def _project(problem: Problem, changes: Mapping[str, Tensor], inputs: Mapping[str, Tensor] | None) -> Shapes:
    """The best total under the budget of what every class keeps of the changes."""
    space = problem.space
    scores = torch.zeros(len(space.groups), len(space.choices))
    for group, names in enumerate(space.groups.values()):
        for name in names:
            change = changes[name]
            sample = None if inputs is None else Sample(inputs[name], torch.eye(len(change)))
            scores[group] += kept(change, projections(change, space.choices), space.choices, sample)
    return space.shapes(knapsack(scores, space.costs(), problem.budget))
