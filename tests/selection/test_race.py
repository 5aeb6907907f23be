"""The race between the architectures that the gradient led through."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from morenas.selection import Evidence, Picks, race
from morenas.selection.race import ROUNDS, paired

VERTICES: list[Picks] = [(0, 1), (1, 1), (1, 0), (2, 0)]
LAST = VERTICES[-1]


def raced(
    mean: dict[Picks, float], spread: float, vertices: list[Picks] = VERTICES
) -> tuple[Picks, list[tuple[Picks, int]]]:
    """What wins, and every batch that was asked for; losses are means, what a batch has of its own, and noise."""
    asked: list[tuple[Picks, int]] = []

    def batch_loss(picks: Picks, number: int) -> float:
        asked.append((picks, number))
        shared = torch.randn((), generator=torch.Generator().manual_seed(number)).item()
        own = torch.randn((), generator=torch.Generator().manual_seed(hash((picks, number)) % 2**31)).item()
        return mean.get(picks, 9.0) + 5 * shared + spread * own

    return race(evidence(batch_loss, vertices)), asked


def evidence(batch_loss: Callable[[Picks, int], float], vertices: list[Picks] = VERTICES) -> Evidence:
    return Evidence(
        priors=[torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])],
        costs=torch.ones(2, 3, dtype=torch.long),
        allowed=torch.ones(2, 3, dtype=torch.bool),
        budget=2,
        generator=torch.Generator(),
        vertices=vertices,
        batch_losses=lambda pairs: [batch_loss(*pair) for pair in pairs],
        usual_measurements=64,
    )


def test_what_is_surely_better_wins_whatever_the_batches_have_in_common() -> None:
    assert raced({(1, 1): 1.0, (1, 0): 2.0, LAST: 2.0, (0, 1): 2.0}, spread=0.05)[0] == (1, 1)


def test_the_last_vertex_stays_where_nothing_is_surely_better() -> None:
    for mean in (1.0, 1.02):
        assert raced({(0, 1): 1.0, (1, 1): 1.0, (1, 0): 1.0, LAST: mean}, spread=0.3)[0] == LAST


def test_few_batches_for_many_and_many_for_few() -> None:
    mean = {(0, 1): 1.3, (1, 1): 1.2, (1, 0): 1.01, LAST: 1.0}
    asked = raced(mean, spread=0.5)[1]
    batches = {picks: sum(one == picks for one, _ in asked) for picks in {one for one, _ in asked}}
    assert batches[(0, 0)] == ROUNDS[0]  # the prior's own, which is far off
    assert batches[LAST] == max(batches.values())
    assert len(asked) == len(set(asked)) < len(batches) * ROUNDS[-1]


def test_all_are_measured_on_the_same_batches() -> None:
    asked = raced({LAST: 1.0}, spread=0.1)[1]
    for picks in {one for one, _ in asked}:
        numbers = [number for one, number in asked if one == picks]
        assert numbers == [*range(len(numbers))]


def test_no_more_are_measured_than_was_asked() -> None:
    seen: set[Picks] = set()

    def batch_loss(picks: Picks, number: int) -> float:
        seen.add(picks)
        return 1.0 + number % 3

    assert race(replace(evidence(batch_loss), measurements=2)) == LAST
    assert seen == {LAST, (1, 0)}
    seen.clear()
    assert race(replace(evidence(batch_loss), measurements=1)) == LAST and not seen


def test_without_vertices_the_priors_own_best_is_taken() -> None:
    assert raced({}, spread=0.1, vertices=[])[0] == (0, 0)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="nan; it must be finite"):
        race(evidence(lambda picks, number: math.nan))


def test_a_paired_difference_has_its_standard_error() -> None:
    assert paired([3.0, 5.0, 4.0], [1.0, 2.0, 2.0]) == (pytest.approx(7 / 3), pytest.approx(1 / 3))
    assert paired([3.0], [1.0]) == (2.0, math.inf)
