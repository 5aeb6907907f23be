"""Losses of whole architectures in the supernet's weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from morenas.base import processes
from morenas.base.errors import RunError
from morenas.search.data import SearchData
from morenas.search.objective import Objective
from morenas.selection import Picks
from morenas.space import Choice
from morenas.supernet import Supernet
from morenas.tasks.batches import Batches

MEASURED_BATCHES = 4  # of the architecture's data, that an architecture's loss is measured on
DECISIVE_BATCHES = 8  # that trained architectures are compared on
MEASUREMENTS = 0.15  # architectures measured, as a share of the weight steps
FEWEST_MEASUREMENTS = 12  # or one for 5 weight steps, where that is less


@dataclass(frozen=True)
class Candidate:
    """A whole architecture that was measured in the supernet's weights.

    Attributes:
        shapes: Module name to ``(nblocks, blk_r)``; modules without an adapter are absent.
        params: Adapter parameters.
        losses: On the val batches from the first on.
        found: Whether it is the one that was found.
    """

    shapes: dict[str, Choice]
    params: int
    losses: tuple[float, ...]
    found: bool

    @property
    def loss(self) -> float:
        """Mean over its batches."""
        return sum(self.losses) / len(self.losses)

    def document(self) -> dict[str, Any]:
        """A line of ``search/candidates.jsonl``."""
        modules = {name: {"nblocks": n, "blk_r": r} for name, (n, r) in self.shapes.items()}
        losses = list(self.losses)
        return {"found": self.found, "loss": self.loss, "params": self.params, "losses": losses, "modules": modules}


class Measurement:
    """Measures architectures, one choice index per group. The supernet computes the last one from then on.

    Attributes:
        measured: Of every architecture, the loss by number of each val batch that it was measured on.
    """

    def __init__(self, supernet: Supernet, objective: Objective, data: SearchData) -> None:
        self._supernet, self._objective, self._data = supernet, objective, data
        self.measured: dict[Picks, dict[int, float]] = {}

    def draw(self, picks: Sequence[int]) -> None:
        """Let the supernet compute one architecture."""
        self._supernet.draw(self._supernet.space.shapes(picks))

    def __call__(self, picks: Sequence[int]) -> float:
        """The loss of an architecture on the first val batches.

        Raises:
            RunError: If it is not finite.
        """
        return float(np.mean(self.on_batches([(tuple(picks), number) for number in range(MEASURED_BATCHES)])))

    def on_batches(self, pairs: Sequence[tuple[Picks, int]]) -> list[float]:
        """The losses of architectures, each on the val batch of the number beside it.

        Raises:
            RunError: If one is not finite.
        """
        losses = self._losses(self._data.val, pairs)
        for (picks, number), loss in zip(pairs, losses, strict=True):
            self.measured.setdefault(picks, {})[number] = loss
        return losses

    def candidates(self, found: Sequence[int]) -> tuple[Candidate, ...]:
        """Every architecture that was measured, in order; ``found`` is the one that was taken."""
        space = self._supernet.space
        params, rows = space.params(), range(len(space.groups))
        return tuple(
            Candidate(
                space.shapes(one), int(params[rows, list(one)].sum()), tuple(losses.values()), one == tuple(found)
            )
            for one, losses in self.measured.items()
        )

    def on_decisive(self, picks: Sequence[int], numbers: Iterable[int]) -> list[float]:
        """The losses of an architecture on numbered batches that chose nothing: of select.

        Raises:
            RunError: If one is not finite.
        """
        return self._losses(self._data.decisive, [(tuple(picks), number) for number in numbers])

    def trained(self, picks: Sequence[int]) -> float:
        """The loss of an architecture on what decides between trained ones: the first select batches.

        Raises:
            RunError: If it is not finite.
        """
        return float(np.mean(self.on_decisive(picks, range(DECISIVE_BATCHES))))

    @torch.no_grad()
    def _losses(self, batches: Batches, pairs: Sequence[tuple[Picks, int]]) -> list[float]:
        """Losses of architectures on numbered batches; several processes share them."""

        def loss(pair: tuple[Picks, int]) -> float:
            picks, number = pair
            self.draw(picks)
            return float(self._objective.evaluate(batches[number]))

        losses = processes.collect(pairs, loss)
        if not all(map(math.isfinite, losses)):
            raise RunError(
                f"Search: the loss of an architecture in the supernet's weights is {np.mean(losses)}. "
                "Lower search.learning_rate or training.learning_rate, or look at the data."
            )
        self.draw(pairs[-1][0])  # in every process
        return losses


def usual_measurements(steps: int) -> int:
    """Architectures to measure after so many weight steps: few in a short search, which they would outweigh."""
    return max(round(MEASUREMENTS * steps), min(FEWEST_MEASUREMENTS, steps // 5), 1)
