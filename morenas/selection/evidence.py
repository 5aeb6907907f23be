"""What every selection is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from morenas.base.errors import InputError

Picks = tuple[int, ...]
"""An architecture: one choice index per group."""


def _no_supernet(asked: Any) -> Any:
    raise RuntimeError("This evidence has no supernet to measure or train an architecture in.")


@dataclass(frozen=True)
class Evidence:
    """What there is to choose an architecture by: scores of every choice, and losses of whole architectures.

    Attributes:
        priors: One or more scores of every choice, higher is better, each ``(groups, choices)`` and finite. The first
            are the search's own, those of its logits.
        costs: Of every choice, whole numbers, same shape.
        allowed: Which choices may be taken, same shape, bool.
        budget: The most that the choices of an architecture may cost together.
        generator: Of every random draw.
        vertices: Whole architectures within the budget that architecture steps led through, in order; empty where they
            led through mixtures alone.
        measure: Loss of an architecture in the supernet's weights, on data that trained no weight.
        batch_losses: The same of many, each on the batch of that data whose number stands beside it. What is given at
            once is shared by several processes.
        train_and_measure: Loss of an architecture that is first trained alone for a while, from the supernet's weights,
            on data that trained neither them nor the logits. Costs many times as much as ``measure``.
        measurements: Architectures to measure, at most, as the user asked; None where that is left open.
        usual_measurements: How many then are worth their time.
        finalists: Architectures to train and measure, at most.
    """

    priors: Sequence[Tensor]
    costs: Tensor
    allowed: Tensor
    budget: int
    generator: torch.Generator
    vertices: Sequence[Picks] = ()
    measure: Callable[[Sequence[int]], float] = _no_supernet
    batch_losses: Callable[[Sequence[tuple[Picks, int]]], list[float]] = _no_supernet
    train_and_measure: Callable[[Sequence[int]], float] = _no_supernet
    measurements: int | None = None
    usual_measurements: int = 1
    finalists: int = 1

    @property
    def scores(self) -> Tensor:
        """The search's own scores; ``-inf`` where a choice may not be taken."""
        return self.priors[0].masked_fill(~self.allowed, -torch.inf)

    def count(self, least: int = 1) -> int:
        """Architectures to measure: as many as were asked for; else the usual number, and no fewer than ``least``."""
        return max(self.usual_measurements, least) if self.measurements is None else self.measurements

    def check(self, picks: Sequence[int], name: str) -> None:
        """Refuse what a selection chose if it is no architecture of the space, or exceeds the budget.

        Args:
            name: What the selection is called.
        Raises:
            InputError: If so.
        """
        groups, choices = self.costs.shape
        if len(picks) != groups or not all(0 <= pick < choices for pick in picks):
            raise InputError(
                f"selection={name}: chose {list(picks)}; a selection returns one choice, 0 to {choices - 1}, for each "
                f"of {groups} groups."
            )
        rows, chosen = torch.arange(groups), torch.tensor(picks)
        spent = int(self.costs[rows, chosen].sum())
        if spent > self.budget or not bool(self.allowed[rows, chosen].all()):
            raise InputError(
                f"selection={name}: chose {list(picks)}, which costs {spent:,}; a selection stays within the budget "
                f"({self.budget:,}), and takes only choices that are allowed."
            )


class Selection(Protocol):
    """Chooses an architecture, once the search has ended."""

    def __call__(self, evidence: Evidence) -> Sequence[int]:
        """Return one choice index per group, all of them allowed and together within the budget.

        Raises:
            ValueError: If nothing fits the budget.
        """
        ...
