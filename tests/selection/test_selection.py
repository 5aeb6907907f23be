"""Every selection: never above the budget; the exact one against enumeration and against an integer program."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.selection import Evidence, Selection, argmax, budgeted, knapsack

SELECTIONS: dict[str, Selection] = {name: registry("selection").build(name) for name in registry("selection").names()}
BY_SCORES: dict[str, Selection] = {"budgeted": budgeted, "argmax": argmax}


def evidence(scores: Tensor, costs: Tensor, budget: int) -> Evidence:
    """Scores in which ``-inf`` forbids a choice, and a loss that the scores say the opposite of."""
    allowed = scores.isfinite()
    known = scores.masked_fill(~allowed, 0.0)
    return Evidence(
        [known],
        costs,
        allowed,
        budget,
        torch.Generator().manual_seed(0),
        measure=lambda picks: total(picks, known),
        train_and_measure=lambda picks: -total(picks, known),
        usual_measurements=6,
        finalists=2,
    )


def total(picks: Sequence[int], table: Tensor) -> float:
    return float(sum(table[group, pick] for group, pick in enumerate(picks)))


def by_enumeration(scores: Tensor, costs: Tensor, budget: int) -> tuple[float, float]:
    """The best total under the budget, and the least that it costs, negated."""
    groups, choices = scores.shape
    selections = torch.tensor(list(itertools.product(range(choices), repeat=groups)))
    values, spent = (table[torch.arange(groups), selections].sum(dim=1).tolist() for table in (scores, costs))
    return max((value, -cost) for value, cost in zip(values, spent, strict=True) if cost <= budget)


def by_integer_program(scores: Tensor, costs: Tensor, budget: int) -> float:
    """The best total under the budget, by scipy's solver: one 0/1 variable per group and choice."""
    groups, choices = scores.shape
    one_a_group = np.kron(np.eye(groups), np.ones(choices))
    found = milp(
        -scores.masked_fill(scores.isinf(), 0.0).flatten().numpy(),
        integrality=1,
        bounds=Bounds(0, scores.isfinite().flatten().double().numpy()),
        constraints=[LinearConstraint(one_a_group, 1, 1), LinearConstraint(costs.flatten().numpy(), ub=budget)],
        options={"mip_rel_gap": 0.0},
    )
    return -float(found.fun)


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
def test_the_knapsack_is_the_cheapest_of_the_best_by_enumeration(problem: tuple[Tensor, Tensor, int]) -> None:
    scores, costs, budget = problem
    picks = knapsack(scores, costs, budget)
    assert total(picks, costs) <= budget
    assert (total(picks, scores), -total(picks, costs)) == by_enumeration(scores, costs, budget)


@pytest.mark.parametrize("seed", range(6))
def test_the_knapsack_is_the_best_by_an_integer_program_where_there_are_too_many_to_enumerate(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(24, 21, generator=generator, dtype=torch.float64)
    scores[torch.rand(24, 21, generator=generator) < 0.2] = -torch.inf
    scores[:, 0] = 0.0
    costs = torch.randint(1, 10_007, (24, 21), generator=generator)
    costs[:, 0] = 0
    budget = int(torch.randint(0, 120_000, (), generator=generator))
    picks = knapsack(scores, costs, budget)
    assert total(picks, costs) <= budget
    assert total(picks, scores) == pytest.approx(by_integer_program(scores, costs, budget), abs=1e-9)


def assert_within(name: str, scores: Tensor, costs: Tensor, budget: int) -> None:
    picks = SELECTIONS[name](given := evidence(scores, costs, budget))
    given.check(picks, name)
    assert total(picks, costs) <= budget and total(picks, scores) > -float("inf"), name


@settings(max_examples=100, deadline=None)
@given(problems())
def test_no_selection_by_scores_exceeds_the_budget_or_takes_what_is_forbidden(
    problem: tuple[Tensor, Tensor, int],
) -> None:
    for name in BY_SCORES:
        assert_within(name, *problem)


@pytest.mark.parametrize("name", SELECTIONS)
@settings(max_examples=5, deadline=None)
@given(problems())
def test_no_selection_exceeds_the_budget_or_takes_what_is_forbidden(
    name: str, problem: tuple[Tensor, Tensor, int]
) -> None:
    assert_within(name, *problem)


@pytest.mark.parametrize("name", BY_SCORES)
def test_a_loose_budget_gives_every_group_its_best(name: str) -> None:
    scores = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    costs = torch.arange(5).repeat(7, 1)
    assert BY_SCORES[name](evidence(scores, costs, 1000)) == scores.argmax(dim=1).tolist()


@pytest.mark.parametrize("name", SELECTIONS)
def test_an_impossible_budget_and_forbidden_choices_are_respected(name: str) -> None:
    scores, costs = torch.zeros(3, 2), torch.tensor([[5, 9]] * 3)
    with pytest.raises(ValueError, match="at most 14"):
        SELECTIONS[name](evidence(scores, costs, 14))
    scores[:, 0] = -torch.inf
    assert list(SELECTIONS[name](evidence(scores, costs, 27))) == [1, 1, 1]


@pytest.mark.parametrize("picks", [[0, 0], [0, 0, 2], [0, 0, -1], [1, 1, 1], [0, 0, 1]])
def test_what_is_no_architecture_within_the_budget_is_refused(picks: list[int]) -> None:
    scores = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, -torch.inf]])
    given = evidence(scores, torch.tensor([[1, 5]] * 3), 11)
    given.check([1, 1, 0], "mine")
    with pytest.raises(InputError, match="selection=mine: chose"):
        given.check(picks, "mine")


def test_evidence_without_a_supernet_says_so() -> None:
    given = Evidence([torch.zeros(1, 1)], torch.zeros(1, 1), torch.ones(1, 1).bool(), 0, torch.Generator())
    with pytest.raises(RuntimeError, match="no supernet"):
        given.measure([0])
    with pytest.raises(RuntimeError, match="no supernet"):
        given.train_and_measure([0])


@pytest.mark.parametrize(("asked", "usual", "least", "count"), [(None, 9, 1, 9), (None, 3, 4, 4), (2, 9, 4, 2)])
def test_as_many_are_measured_as_were_asked_for_else_the_usual_number(
    asked: int | None, usual: int, least: int, count: int
) -> None:
    empty = torch.zeros(1, 1)
    given = Evidence([empty], empty, empty.bool(), 0, torch.Generator(), measurements=asked, usual_measurements=usual)
    assert given.count(least) == count


def test_the_knapsack_stays_exact_and_quick_on_a_large_space_with_awkward_costs() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(150, 41, generator=generator)
    costs = torch.randint(0, 100_003, (150, 41), generator=generator)
    costs[:, 0] = 0
    picks = knapsack(scores, costs, 2_000_003)
    assert total(picks, costs) <= 2_000_003
    # The linear relaxation bounds every selection from above; an exact selection lies within one group of it.
    assert total(picks, scores) <= linear_bound(scores, costs, 2_000_003) + 1e-6
    assert total(picks, scores) >= linear_bound(scores, costs, 2_000_003) - 0.05


def linear_bound(scores: Tensor, costs: Tensor, budget: int) -> float:
    prices = torch.logspace(-9, 0, 4000, dtype=torch.float64).unsqueeze(1).unsqueeze(1)
    dual = (scores.double() - prices * costs).max(dim=2).values.sum(dim=1) + prices.flatten() * budget
    return float(dual.min())
