"""The length of a run is what it costs: weight steps are what scores, architecture steps and selection leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import shallow
from tiny_search import STARTS, search

from morenas.search.length import FEWEST_STEPS, RunLength, passes_beside
from morenas.search.settings import SearchSettings
from morenas.selection import Evidence, Picks, race
from morenas.selection.race import most_batches

SHARE = 0.57


def settings(steps: int, **changes: Any) -> SearchSettings:
    return SearchSettings(**{"steps": steps, "warmup": steps, **changes})


@pytest.mark.parametrize("finetune", [40, 75, 195, 600, 5000])
@pytest.mark.parametrize("length", [1.05, 1.25])
def test_what_a_search_may_take_and_what_it_finds_fit_into_the_length(finetune: int, length: float) -> None:
    whole = RunLength(length * finetune, SHARE)
    steps = whole.search_steps(settings)
    least, most = steps, steps + passes_beside(settings(steps))
    assert whole.excess(settings(steps)) <= 0.5  # found steps are whole numbers
    for searched in (least, most):  # whatever the race measures
        assert searched + whole.found_steps(searched) == pytest.approx(whole.passes, abs=0.5)
    assert whole.found_steps(most) / (steps + whole.found_steps(most)) == pytest.approx(
        1 - SHARE, abs=0.05
    )  # in whole steps


def test_one_step_more_would_take_from_what_is_found() -> None:
    whole = RunLength(240, SHARE)
    steps = whole.search_steps(settings)
    assert steps <= SHARE * (240 - passes_beside(settings(steps)))
    assert steps + 1 > SHARE * (240 - passes_beside(settings(steps + 1)))


def test_a_run_too_short_for_a_search_takes_longer_and_says_by_how_much() -> None:
    whole = RunLength(12, SHARE)
    assert whole.search_steps(settings) == FEWEST_STEPS
    searched = FEWEST_STEPS + passes_beside(settings(FEWEST_STEPS))
    assert whole.found_steps(searched) == round(0.43 * 12 / 2)
    assert whole.excess(settings(FEWEST_STEPS)) == pytest.approx(searched + 3 - 12)


@pytest.mark.parametrize(
    "changes",
    [
        {"selection": "race", "gradient_accumulation": 2},
        {"selection": "playoff", "measurements": 3, "playoff": 2, "playoff_steps": 3},
        {"selection": "argmax", "start": "level", "arch_steps": None, "warmup": 4, "hypergradient": "mixed_level"},
        {"selection": "budgeted", "arch_steps": None, "warmup": 10, "hypergradient": "neumann"},
    ],
)
def test_the_passes_of_a_search_are_known_before_it_begins(changes: dict[str, Any]) -> None:
    one = replace(STARTS["spectral alone"], **changes)
    passes = search(shallow(), one).architecture.search["passes"]
    assert passes <= one.steps + passes_beside(one) + 0.01
    if one.selection in ("budgeted", "argmax"):  # nothing that may end early
        assert passes == pytest.approx(one.steps + passes_beside(one), abs=0.01)


@pytest.mark.parametrize("entrants", range(1, 9))
def test_a_race_takes_no_more_batches_than_it_may(entrants: int) -> None:
    noise = torch.randn(entrants, 16, generator=torch.Generator().manual_seed(entrants)).tolist()
    assert len(_raced(entrants, lambda pick, number: noise[pick][number])) <= most_batches(entrants)


def test_a_race_takes_the_most_batches_where_its_leader_seems_worse_but_is_not_surely_so() -> None:
    """The last vertex, which leads, is pick 1."""
    assert len(_raced(2, lambda pick, number: pick * (0.1 + (-1) ** number))) == most_batches(2) == 2 * 16


def _raced(entrants: int, loss: Callable[[int, int], float]) -> list[Picks]:
    """Every measurement of a race, where picks have such a loss on a numbered batch."""
    asked = list[Picks]()

    def measure(picks: Sequence[int], number: int) -> float:
        asked.append(tuple(picks))
        return loss(picks[0], number)

    race(_evidence([(pick,) for pick in range(entrants)], measure))
    return asked


def _evidence(vertices: list[Picks], loss: Any) -> Evidence:
    def losses(pairs: Sequence[tuple[Picks, int]]) -> list[float]:
        return [loss(*pair) for pair in pairs]

    costs = torch.ones(1, len(vertices), dtype=torch.long)
    generator = torch.Generator()
    allowed = torch.ones_like(costs, dtype=torch.bool)
    return Evidence([], costs, allowed, 1, generator, vertices, batch_losses=losses, measurements=len(vertices))
