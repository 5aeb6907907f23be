"""A play-off among the few architectures of lowest measured loss: each is trained alone for a while."""

from __future__ import annotations

from collections.abc import Sequence

from morenas.selection.evidence import Evidence
from morenas.selection.surrogate import LossModel


def playoff(evidence: Evidence) -> Sequence[int]:
    """Of the architectures of lowest loss that ``surrogate`` measures, the best once each was trained for a while.

    Raises:
        ValueError: If nothing fits the budget, or a loss in the supernet's weights is not finite.
    """
    model = LossModel.of(evidence)
    model.improve(evidence.measure, evidence.count(least=evidence.finalists))
    finalists = sorted(model.measured, key=lambda picks: model.measured[picks])[: evidence.finalists]
    return min(finalists, key=evidence.train_and_measure)
