"""The play-off: who comes into it, and who wins."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from morenas.selection import Evidence, playoff


@pytest.mark.parametrize("finalists", [1, 2, 3, 100])
def test_the_finalists_are_the_best_measured_and_the_best_trained_wins(finalists: int) -> None:
    """Measured, the lower choices are better; trained, the higher ones are."""
    trained: list[tuple[int, ...]] = []

    def trained_loss(picks: Sequence[int]) -> float:
        trained.append(tuple(picks))
        return -float(sum(picks))

    scores, costs = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    priors = [torch.randn(2, 3, generator=torch.Generator().manual_seed(1)), scores]
    evidence = Evidence(
        priors,
        costs,
        torch.ones(2, 3, dtype=torch.bool),
        budget=0,
        generator=torch.Generator().manual_seed(0),
        measure=lambda picks: float(10 * picks[0] + picks[1]),
        train_and_measure=trained_loss,
        measurements=9,
        finalists=finalists,
    )
    winner = playoff(evidence)
    assert len(trained) <= finalists and sorted(map(tuple, trained)) == [*map(tuple, trained)]  # best measured first
    assert tuple(winner) == max(trained, key=sum)
