"""The perturbation: never worse than its start, never above the budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from morenas.selection import Evidence, Picks, Selection, knapsack, perturbation, surrogate

GROUPS, CHOICES = 5, 4


class Task:
    """A random loss, costs, a prior and a choice forbidden in each group; it keeps what was measured."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.losses = torch.randn((CHOICES,) * GROUPS, generator=generator)
        self.costs = torch.randint(0, 40, (GROUPS, CHOICES), generator=generator)
        self.prior = torch.randn(GROUPS, CHOICES, generator=generator)
        self.allowed = torch.ones(GROUPS, CHOICES, dtype=torch.bool)
        self.allowed[torch.arange(GROUPS), torch.randint(CHOICES, (GROUPS,), generator=generator)] = False
        cheapest = self.costs.masked_fill(~self.allowed, 1000).min(dim=1).values.sum()
        self.budget = int(cheapest) + 25
        self.measured: list[Picks] = []

    def loss(self, picks: Sequence[int]) -> float:
        self.measured.append(tuple(picks))
        return float(self.losses[tuple(picks)])

    def fits(self, picks: Sequence[int]) -> bool:
        rows = torch.arange(GROUPS)
        chosen = torch.tensor(picks)
        return int(self.costs[rows, chosen].sum()) <= self.budget and bool(self.allowed[rows, chosen].all())

    def start(self) -> Picks:
        return tuple(knapsack(self.prior.masked_fill(~self.allowed, -torch.inf), self.costs, self.budget))

    def evidence(self, count: int, seed: int = 0) -> Evidence:
        generator = torch.Generator().manual_seed(seed)
        priors = [self.prior, -self.prior]
        return Evidence(priors, self.costs, self.allowed, self.budget, generator, measure=self.loss, measurements=count)

    def choose(self, count: int, seed: int = 0) -> Picks:
        return tuple(perturbation(self.evidence(count, seed)))


def apart(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_worse_than_its_start_nor_above_the_budget(seed: int, count: int) -> None:
    task = Task(seed)
    picks = task.choose(count)
    assert all(task.fits(other) for other in task.measured)
    assert len(task.measured) == len(set(task.measured)) <= max(count, 1)
    assert task.measured[0] == task.start()
    assert task.losses[picks] == min(task.losses[other] for other in task.measured)


@pytest.mark.parametrize("seed", range(5))
def test_with_measurements_enough_no_single_change_that_fits_is_better(seed: int) -> None:
    task = Task(seed)
    picks = task.choose(10_000)
    everything = itertools.product(range(CHOICES), repeat=GROUPS)
    neighbours = [other for other in everything if apart(other, picks) == 1 and task.fits(other)]
    assert neighbours and all(task.losses[other] >= task.losses[picks] for other in neighbours)


def test_every_measurement_differs_from_the_best_until_then_in_one_group() -> None:
    task = Task(6)
    task.choose(40)
    for number in range(1, len(task.measured)):
        best = min(task.measured[:number], key=lambda picks: task.losses[picks])
        assert apart(task.measured[number], best) == 1


def test_no_group_is_tried_again_before_the_others() -> None:
    task = Task(0)
    task.budget, task.allowed[:] = 10_000, True
    task.losses[:] = 1.0  # nothing is better than the start
    task.choose(1 + GROUPS)
    tried = [group for picks in task.measured[1:] for group in range(GROUPS) if picks[group] != task.measured[0][group]]
    assert sorted(tried) == list(range(GROUPS))


@pytest.mark.parametrize("select", [perturbation, surrogate])
def test_it_is_a_function_of_the_generator_alone(select: Selection) -> None:
    runs = []
    for seed in (0, 0, 1):
        task = Task(7)
        torch.rand(2)  # the global generator has no say
        found = select(task.evidence(8, seed))
        runs.append((tuple(found), task.measured))
    assert runs[0] == runs[1] and runs[0][1] != runs[2][1]


@pytest.mark.parametrize("select", [perturbation, surrogate])
def test_a_budget_that_nothing_fits_is_refused(select: Selection) -> None:
    task = Task(8)
    task.budget = -1
    with pytest.raises(ValueError, match="at most -1"):
        select(task.evidence(15))
    assert not task.measured
