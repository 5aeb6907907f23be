"""Losses of whole architectures in the supernet's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from morenas.base.errors import InputError
from morenas.search.data import SearchData
from morenas.search.objective import Objective
from morenas.supernet import Supernet
from morenas.tasks.batches import Batches

MEASURED_BATCHES = 4  # of the architecture's data, that an architecture's loss is measured on
DECISIVE_BATCHES = 8  # that trained architectures are compared on
MEASUREMENTS = 0.15  # architectures measured, as a share of the weight steps
FEWEST_MEASUREMENTS = 12  # or one for 5 weight steps, where that is less


class Measurement:
    """Measures architectures, one choice index per group. The supernet computes the last one from then on."""

    def __init__(self, supernet: Supernet, objective: Objective, data: SearchData) -> None:
        self._supernet, self._objective, self._data = supernet, objective, data

    def draw(self, picks: Sequence[int]) -> None:
        """Let the supernet compute one architecture."""
        self._supernet.draw(self._supernet.space.shapes(picks))

    def __call__(self, picks: Sequence[int]) -> float:
        """The loss of an architecture on the first val batches.

        Raises:
            InputError: If it is not finite.
        """
        self.draw(picks)
        return self._mean_loss(self._data.val, MEASURED_BATCHES)

    def drawn(self) -> float:
        """The loss of the architecture drawn on what decides between trained ones: the first select batches.

        Raises:
            InputError: If it is not finite.
        """
        return self._mean_loss(self._data.decisive, DECISIVE_BATCHES)

    @torch.no_grad()
    def _mean_loss(self, batches: Batches, count: int) -> float:
        loss = float(torch.stack([self._objective.evaluate(batches[number]) for number in range(count)]).mean())
        if not math.isfinite(loss):
            raise InputError(
                f"Search: the loss of an architecture in the supernet's weights is {loss}. "
                "Lower search.learning_rate or training.learning_rate, or look at the data."
            )
        return loss


def usual_measurements(steps: int) -> int:
    """Architectures to measure after so many weight steps: few in a short search, which they would outweigh."""
    return max(round(MEASUREMENTS * steps), min(FEWEST_MEASUREMENTS, steps // 5), 1)
