"""A play-off among the few that measurement in the supernet's weights likes best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from morenas.selection.measured import Measurements
from morenas.selection.surrogate import Surrogate


@dataclass(frozen=True)
class Finals(Measurements):
    """What may be asked, of trained architectures too.

    Attributes:
        finalists: Architectures to train, at most.
        trained_loss: Of an architecture that was trained alone for a while, on data that trained no weight.
    """

    finalists: int
    trained_loss: Callable[[Sequence[int]], float]


def playoff(priors: Sequence[Tensor], costs: Tensor, allowed: Tensor, budget: int, asked: Finals) -> Sequence[int]:
    """Of the architectures of lowest loss that ``surrogate`` measures, the best once each was trained for a while.

    Args:
        priors: As ``surrogate`` takes them, and the rest.
    Raises:
        ValueError: If nothing fits the budget, or a loss in the supernet's weights is not finite.
    """
    met = Surrogate(priors, costs, allowed, budget, asked.generator)
    met.improve(asked.loss, asked.count)
    finalists = sorted(met.measured, key=lambda picks: met.measured[picks])[: asked.finalists]
    return min(finalists, key=asked.trained_loss)
