"""Architectures trained alone: each from the same weights, and the best one's weights left behind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from morenas.bilevel import BilevelLoop, BilevelProblem, Level, NonFiniteLoss, Schedule, first_order
from morenas.search.alone import TrainedAlone


class Race:
    """One weight; architecture ``(k,)`` pulls it towards ``k``, and the judge likes it near 2."""

    def __init__(self) -> None:
        self.weight = torch.zeros(1, requires_grad=True)
        self.arch = torch.zeros(1, requires_grad=True)
        self.drawn: Sequence[int] = ()
        self.starts: list[float] = []
        self.alone = TrainedAlone([self.weight], self.draw, self.begin, lambda _: abs(float(self.weight.detach()) - 2))

    def draw(self, picks: Sequence[int]) -> None:
        self.drawn = picks
        self.starts.append(float(self.weight.detach()))

    def begin(self) -> BilevelLoop:
        level = Level("lower", lambda n: (self.weight - self.drawn[0]).square().sum())
        problem = BilevelProblem(level, level, [self.weight], [self.arch])
        rates = torch.optim.SGD([self.weight], lr=0.4), torch.optim.SGD([self.arch], lr=0.1)
        schedule = Schedule(30, 30, 1, ramp=0, max_grad_norm=0, restart=True)
        return BilevelLoop(problem, first_order, *rates, schedule)


def test_each_starts_from_the_first_weights_and_the_best_ones_are_left() -> None:
    race = Race()
    losses = [race.alone((pick,)) for pick in (0, 2, 5)]
    assert losses == pytest.approx([2, 0, 3], abs=1e-2) and race.starts == [0.0, 0.0, 0.0]
    assert float(race.weight.detach()) == pytest.approx(5, abs=1e-2)
    race.alone.leave((2,))
    assert float(race.weight.detach()) == pytest.approx(2, abs=1e-2)


def test_an_architecture_that_did_not_win_is_left_the_first_weights_and_no_other_ones() -> None:
    race = Race()
    for pick in (2, 5):
        race.alone((pick,))
    race.alone.leave((5,))
    assert race.weight.tolist() == [0.0]


def test_where_none_was_trained_the_weights_stay() -> None:
    race = Race()
    with torch.no_grad():
        race.weight.fill_(7)
    race.alone.leave((3,))
    assert race.weight.tolist() == [7.0]


def test_a_loss_that_is_not_finite_is_told() -> None:
    with pytest.raises(NonFiniteLoss):
        Race().alone((float("nan"),))  # type: ignore[arg-type]
