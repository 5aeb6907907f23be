"""Ours beside a rival, over tasks and seeds: intervals, signed-rank tests, and p-values corrected for their number.

All metrics are in points, a hundredth of their range; above 0 ours is better. Pairs are runs of equal task and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from morenas.benchmark.measures import Interval, bootstrap, paired

ROPE = 0.3
"""Points; a smaller difference is practically none (region of practical equivalence)."""
FEWEST_SEEDS = 2  # in common, for an interval
SAMPLES = 20_000

Scores = Mapping[int, float]
"""Metric by seed."""


@dataclass(frozen=True)
class Comparison:
    """Ours less a rival's.

    Attributes:
        rival: The other method.
        tasks: Tasks on which both have seeds in common, ``FEWEST_SEEDS`` at least; others are left out.
        pairs: Seeds in common, of all these tasks.
        difference: Mean over tasks; a resample draws tasks, then seeds within each.
        p: Two-sided Wilcoxon signed-rank test of the tasks' mean differences.
        holm: The same, corrected for the number of rivals.
        worse: Probability that ours is worse, by the Bayesian signed-rank test of these means.
        equal: That the difference lies within ``ROPE``.
        better: That ours is better.
    """

    rival: str
    tasks: int
    pairs: int
    difference: Interval
    p: float
    holm: float
    worse: float
    equal: float
    better: float


def differences(ours: Scores, other: Scores) -> list[float]:
    """Ours less the other's for every seed that both have; none where these are fewer than ``FEWEST_SEEDS``."""
    common = sorted(ours.keys() & other.keys())
    return [ours[seed] - other[seed] for seed in common] if len(common) >= FEWEST_SEEDS else []


def difference_of_seeds(ours: Scores, other: Scores) -> Interval | None:
    """Mean difference on one task with its bootstrap interval over seeds; None for too few seeds in common."""
    found = differences(ours, other)
    return bootstrap(found, [0] * len(found)) if found else None


def compare(ours: Mapping[str, Scores], rivals: Mapping[str, Mapping[str, Scores]]) -> list[Comparison]:
    """Ours beside every rival that has tasks in common with it, as scores by task and seed."""
    found = [one for rival, scores in rivals.items() if (one := _compare(ours, rival, scores))]
    corrected = holm([one.p for one in found])
    return [replace(one, holm=p) for one, p in zip(found, corrected, strict=True)]


def _compare(ours: Mapping[str, Scores], rival: str, scores: Mapping[str, Scores]) -> Comparison | None:
    by_task = {task: differences(ours[task], scores[task]) for task in ours if task in scores}
    pairs = [(task, value) for task, values in by_task.items() for value in values]
    if not pairs:
        return None
    tasks, values = zip(*pairs, strict=True)
    tested = paired(values, np.zeros(len(values)), tasks)
    shares = bayesian_signed_rank([fmean(values) for values in by_task.values() if values])
    return Comparison(rival, tested.problems, tested.pairs, tested.difference, tested.p, tested.p, *shares)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for all hypotheses together, in the order given (Holm 1979)."""
    found, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = largest
    return found


def bayesian_signed_rank(
    values: ArrayLike, rope: float = ROPE, prior: float = 0.5, samples: int = SAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Probabilities that the differences lie below the region of practical equivalence, within it, and above it.

    A draw gives the differences weights of a Dirichlet distribution and asks where most of the weight of their pairwise
    (Walsh) averages lies; a probability is the share of draws. The prior is one difference of 0 that counts ``prior``.

    Source: Benavoli et al. 2014, "A Bayesian Wilcoxon signed-rank test based on the Dirichlet process"; with the region
    as in Benavoli et al. 2017, section 4.2.
    """
    observed = np.concatenate([[0.0], np.asarray(values, dtype=float)])
    weights = np.random.default_rng(seed).dirichlet([prior, *np.ones(len(observed) - 1)], size=samples)
    walsh = (observed[:, None] + observed) / 2
    regions = np.stack([walsh < -rope, np.abs(walsh) <= rope, walsh > rope]).astype(float)
    mass = np.einsum("si,rij,sj->sr", weights, regions, weights, optimize=True)
    worse, equal, better = np.bincount(mass.argmax(axis=1), minlength=3) / samples
    return float(worse), float(equal), float(better)
