"""Architectures trained alone for a while, each from the supernet's weights: what a play-off compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from morenas.bilevel import BilevelLoop, BilevelProblem, Schedule
from morenas.search.loops import new_loop
from morenas.search.measure import Measurement
from morenas.search.objective import Objective
from morenas.search.settings import SearchSettings

STEPS = 0.05  # weight steps of an architecture that is trained alone, as a share of the search's


@dataclass
class TrainedAlone:
    """Trains one architecture after another, each from the weights that there were at first.

    Attributes:
        weights: What is trained: factors of the supernet, and the head.
        draw: Makes the supernet compute one architecture, one choice a group.
        begin: A new loop over ``weights``, whose losses are those of the architecture drawn.
        judge: Loss of an architecture, on data that trained nothing.
    """

    weights: Sequence[Tensor]
    draw: Callable[[Sequence[int]], None]
    begin: Callable[[], BilevelLoop]
    judge: Callable[[Sequence[int]], float]
    lowest: float = math.inf
    first: list[Tensor] = field(default_factory=list)
    best: list[Tensor] = field(default_factory=list)
    winner: tuple[int, ...] = ()

    def __call__(self, picks: Sequence[int]) -> float:
        """Loss of an architecture once it is trained; its weights are kept if it is the lowest so far.

        Raises:
            NonFiniteLoss: If a loss in training is NaN or infinite.
        """
        self.first = self.first or _copies(self.weights)
        _fill(self.weights, self.first)
        self.draw(picks)
        self.begin().run()
        loss = self.judge(picks)
        if loss < self.lowest:
            self.lowest, self.best, self.winner = loss, _copies(self.weights), tuple(picks)
        return loss

    def leave(self, picks: Sequence[int]) -> None:
        """Leave the weights behind that go with an architecture.

        Those that it was trained to where its loss was the lowest; else those that there were at first, and no others'.
        """
        if self.first:
            _fill(self.weights, self.best if tuple(picks) == self.winner else self.first)


def train_alone(
    problem: BilevelProblem, objective: Objective, measurement: Measurement, settings: SearchSettings
) -> TrainedAlone:
    """Trains architectures of a search on train batches after its own, each on the same ones; select decides."""
    steps = usual_playoff_steps(settings)
    schedule = Schedule(steps, steps, 1, settings.ramp, settings.max_grad_norm, restart=True)
    alone = replace(problem, lower=objective.lower(begin=settings.steps))
    return TrainedAlone(
        problem.weights, measurement.draw, lambda: new_loop(alone, schedule, settings), measurement.trained
    )


def usual_playoff_steps(settings: SearchSettings) -> int:
    """Weight steps of an architecture that is trained alone: as many as were asked for, or a share of the search's."""
    return settings.playoff_steps or max(1, round(STEPS * settings.steps))


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _fill(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)
