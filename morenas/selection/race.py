"""A race between the architectures that the gradient led through: few batches for many, many batches for few.

All are measured on the same batches, so that what a batch has of its own cancels in the differences. The architecture
that the gradients have come to in the end leads, and keeps the lead unless another is better by more than chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from morenas.selection.evidence import Evidence, Picks
from morenas.selection.knapsack import knapsack

ROUNDS = (4, 8, 16)  # batches that those still in the race have been measured on
ENTRANTS = 8  # at most; in a short search an eighth of the measurements that are usual
SURE = 2.0  # standard errors of the paired difference


def race(evidence: Evidence) -> Picks:
    """The last vertex, or the architecture that is measured to be better than it.

    In every round what is worse than the best by more than chance falls out, and of the others the worse half.

    Raises:
        ValueError: If nothing fits the budget, or a loss is not finite.
    """
    entrants = _entrants(evidence)
    leader, losses = entrants[0], {picks: list[float]() for picks in entrants}
    for batches in ROUNDS:
        if len(losses) == 1:
            break
        pairs = [(picks, number) for picks, known in losses.items() for number in range(len(known), batches)]
        for (picks, _), loss in zip(pairs, evidence.batch_losses(pairs), strict=True):
            losses[picks].append(_finite(loss, picks))
        best = min(losses, key=lambda picks: sum(losses[picks]))
        near = [picks for picks in losses if not _surely_above(losses[picks], losses[best])]
        near.sort(key=lambda picks: sum(losses[picks]))
        left = near[: -(-len(losses) // 2)]
        losses = {picks: losses[picks] for picks in losses if picks in left or (picks == leader and picks in near)}
    return leader if leader in losses else min(losses, key=lambda picks: sum(losses[picks]))


def usual_entrants(measurements: int) -> int:
    """Architectures that race where so many measurements are usual: in a short search the last vertex runs alone."""
    return max(1, min(ENTRANTS, measurements // 8))


def most_batches(entrants: int) -> int:
    """Batches that a race of so many architectures takes, summed over them, if the leader stays behind to the end."""
    batches, known = 0, 0
    for until in ROUNDS:
        if entrants == 1:
            break
        batches, known = batches + entrants * (until - known), until
        entrants = min(entrants, -(-entrants // 2) + 1)
    return batches


def paired(losses: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean difference of losses on the same batches, and its standard error; infinite for a single batch."""
    differences = [a - b for a, b in zip(losses, others, strict=False)]
    if len(differences) < 2:
        return differences[0], math.inf
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


def surely_apart(losses: Sequence[float], others: Sequence[float]) -> bool:
    """Whether losses on the same batches differ by more than chance."""
    difference, error = paired(losses, others)
    return abs(difference) > SURE * error


def _surely_above(losses: Sequence[float], best: Sequence[float]) -> bool:
    difference, error = paired(losses, best)
    return difference > SURE * error


def _entrants(evidence: Evidence) -> list[Picks]:
    """The vertices, the last one first, then the best of every prior: as many as may be measured."""
    by_prior = [
        tuple(knapsack(prior.masked_fill(~evidence.allowed, -math.inf), evidence.costs, evidence.budget))
        for prior in evidence.priors
    ]
    most = evidence.measurements or usual_entrants(evidence.usual_measurements)
    return list(dict.fromkeys([*reversed(evidence.vertices), *by_prior]))[:most]


def _finite(loss: float, picks: Picks) -> float:
    if not math.isfinite(loss):
        raise ValueError(f"The loss of architecture {picks} is {loss}; it must be finite.")
    return loss
