"""The perturbation: never worse than its start, never above the budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from morenas.selection import Measurements, budgeted, perturbation, surrogate

Picks = tuple[int, ...]
Selection = Callable[[Sequence[Tensor], Tensor, Tensor, int, Measurements], Sequence[int]]
GROUPS, CHOICES = 5, 4


class Task:
    """A random loss, costs, a prior and a choice forbidden in each group; it keeps what it is asked."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.losses = torch.randn((CHOICES,) * GROUPS, generator=generator)
        self.costs = torch.randint(0, 40, (GROUPS, CHOICES), generator=generator)
        self.prior = torch.randn(GROUPS, CHOICES, generator=generator)
        self.allowed = torch.ones(GROUPS, CHOICES, dtype=torch.bool)
        self.allowed[torch.arange(GROUPS), torch.randint(CHOICES, (GROUPS,), generator=generator)] = False
        cheapest = self.costs.masked_fill(~self.allowed, 1000).min(dim=1).values.sum()
        self.budget = int(cheapest) + 25
        self.asked: list[Picks] = []

    def loss(self, picks: Sequence[int]) -> float:
        self.asked.append(tuple(picks))
        return float(self.losses[tuple(picks)])

    def fits(self, picks: Sequence[int]) -> bool:
        rows = torch.arange(GROUPS)
        chosen = torch.tensor(picks)
        return int(self.costs[rows, chosen].sum()) <= self.budget and bool(self.allowed[rows, chosen].all())

    def start(self) -> Picks:
        return tuple(budgeted(self.prior.masked_fill(~self.allowed, -torch.inf), self.costs, self.budget))

    def choose(self, count: int, seed: int = 0) -> Picks:
        asked = Measurements(self.loss, count, torch.Generator().manual_seed(seed))
        return tuple(perturbation([self.prior], self.costs, self.allowed, self.budget, asked))


def apart(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_worse_than_its_start_nor_above_the_budget(seed: int, count: int) -> None:
    task = Task(seed)
    picks = task.choose(count)
    assert all(task.fits(asked) for asked in task.asked)
    assert len(task.asked) == len(set(task.asked)) <= max(count, 1)
    assert task.asked[0] == task.start()
    assert task.losses[picks] == min(task.losses[asked] for asked in task.asked)


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
    for number in range(1, len(task.asked)):
        best = min(task.asked[:number], key=lambda picks: task.losses[picks])
        assert apart(task.asked[number], best) == 1


def test_no_group_is_tried_again_before_the_others() -> None:
    task = Task(0)
    task.budget, task.allowed[:] = 10_000, True
    task.losses[:] = 1.0  # nothing is better than the start
    task.choose(1 + GROUPS)
    tried = [group for picks in task.asked[1:] for group in range(GROUPS) if picks[group] != task.asked[0][group]]
    assert sorted(tried) == list(range(GROUPS))


@pytest.mark.parametrize("select", [perturbation, surrogate])
def test_it_is_a_function_of_the_generator_alone(select: Selection) -> None:
    runs = []
    for seed in (0, 0, 1):
        task = Task(7)
        torch.rand(2)  # the global generator has no say
        asked = Measurements(task.loss, 15, torch.Generator().manual_seed(seed))
        found = select([task.prior, -task.prior], task.costs, task.allowed, task.budget, asked)
        runs.append((tuple(found), task.asked))
    assert runs[0] == runs[1] and runs[0][1] != runs[2][1]


@pytest.mark.parametrize("select", [perturbation, surrogate])
def test_a_budget_that_nothing_fits_is_refused(select: Selection) -> None:
    task = Task(8)
    asked = Measurements(task.loss, 15, torch.Generator())
    with pytest.raises(ValueError, match="at most -1"):
        select([task.prior], task.costs, task.allowed, -1, asked)
    assert not task.asked
