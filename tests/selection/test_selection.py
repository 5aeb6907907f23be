"""Both selections: never above the budget; the exact one against enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from morenas.selection import SELECTIONS, budgeted


def total(picks: list[int], table: Tensor) -> float:
    return float(sum(table[group, pick] for group, pick in enumerate(picks)))


def brute_force(scores: Tensor, costs: Tensor, budget: int) -> tuple[float, float]:
    """The best total under the budget, and the least that it costs, negated."""
    groups, choices = scores.shape
    selections = (list(picks) for picks in itertools.product(range(choices), repeat=groups))
    return max((total(picks, scores), -total(picks, costs)) for picks in selections if total(picks, costs) <= budget)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    groups, choices = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    score = st.integers(-32, 32).map(lambda eighths: eighths / 8)  # sums are exact
    forbidden = st.lists(st.just(float("-inf")) | score, min_size=choices - 1, max_size=choices - 1)
    scores = torch.tensor(draw(st.lists(st.tuples(score, forbidden), min_size=groups, max_size=groups).map(_rows)))
    cost = st.integers(0, 40)
    costs = torch.tensor(
        draw(st.lists(st.lists(cost, min_size=choices, max_size=choices), min_size=groups, max_size=groups))
    )
    least = int(costs.masked_fill(scores.isinf(), 1000).min(dim=1).values.sum())
    return scores.double(), costs, least + draw(st.integers(0, 80))


def _rows(drawn: list[tuple[float, list[float]]]) -> list[list[float]]:
    """Every group keeps one choice that is allowed."""
    return [[allowed, *rest] if index % 2 else [*rest, allowed] for index, (allowed, rest) in enumerate(drawn)]


@settings(max_examples=150, deadline=None)
@given(problems())
def test_budgeted_is_the_cheapest_of_the_best_by_enumeration(problem: tuple[Tensor, Tensor, int]) -> None:
    scores, costs, budget = problem
    picks = budgeted(scores, costs, budget)
    assert total(picks, costs) <= budget
    assert (total(picks, scores), -total(picks, costs)) == brute_force(scores, costs, budget)


@settings(max_examples=100, deadline=None)
@given(problems())
def test_no_selection_exceeds_the_budget(problem: tuple[Tensor, Tensor, int]) -> None:
    scores, costs, budget = problem
    for name, select in SELECTIONS.items():
        picks = select(scores, costs, budget)
        assert total(picks, costs) <= budget and total(picks, scores) > -float("inf"), name


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_a_loose_budget_gives_every_group_its_best(name: str) -> None:
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    costs = torch.arange(5).repeat(7, 1)
    assert SELECTIONS[name](scores, costs, 1000) == scores.argmax(dim=1).tolist()


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_an_impossible_budget_and_forbidden_choices_are_respected(name: str) -> None:
    scores, costs = torch.zeros(3, 2), torch.tensor([[5, 9]] * 3)
    with pytest.raises(ValueError, match="at most 14"):
        SELECTIONS[name](scores, costs, 14)
    scores[:, 0] = -torch.inf
    assert SELECTIONS[name](scores, costs, 27) == [1, 1, 1]


def test_budgeted_stays_exact_and_quick_on_a_large_space_with_awkward_costs() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(150, 41, generator=generator)
    costs = torch.randint(0, 100_003, (150, 41), generator=generator)
    costs[:, 0] = 0
    picks = budgeted(scores, costs, 2_000_003)
    assert total(picks, costs) <= 2_000_003
    # The linear relaxation bounds every selection from above; an exact selection lies within one group of it.
    assert total(picks, scores) <= linear_bound(scores, costs, 2_000_003) + 1e-6
    assert total(picks, scores) >= linear_bound(scores, costs, 2_000_003) - 0.05


def linear_bound(scores: Tensor, costs: Tensor, budget: int) -> float:
    prices = torch.logspace(-9, 0, 4000, dtype=torch.float64).unsqueeze(1).unsqueeze(1)
    dual = (scores.double() - prices * costs).max(dim=2).values.sum(dim=1) + prices.flatten() * budget
    return float(dual.min())
