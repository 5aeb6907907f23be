"""How good what a search found is: regret, rank correlation, recovery, intervals, paired comparison, anytime curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000

Floats = NDArray[np.float64]
Correlation = Callable[[ArrayLike, ArrayLike], float]


def normalized_regret(loss: float, best: float, random: float) -> float:
    """``(loss - best) / (random - best)``, not clipped: below 0 for what beats the reference.

    Raises:
        ValueError: If a loss is not finite, or random architectures are no worse than the best, so that there is
            nothing to find.
    """
    if not all(map(math.isfinite, (loss, best, random))):
        raise ValueError(f"regret of loss={loss}, best={best}, random={random}: every loss must be finite.")
    if random <= best:
        raise ValueError(
            f"random={random} is not above best={best}: regret needs a mean random loss above the best loss; "
            "look for a better reference, or leave the problem out."
        )
    return (loss - best) / (random - best)


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b; 0 where one of the two is constant, for it ranks nothing."""
    return _correlation(stats.kendalltau, a, b)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho; 0 where one of the two is constant."""
    return _correlation(stats.spearmanr, a, b)


def _correlation(of: Callable[..., tuple[float, float]], a: ArrayLike, b: ArrayLike) -> float:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"rank correlation of shapes {first.shape} and {second.shape}: give two equal lists, 2 or more."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("rank correlation: every value must be finite.")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(of(first, second)[0])


def top_fifth(losses: ArrayLike) -> NDArray[np.intp]:
    """Indices of the lowest fifth, rounded up and two at least, best first; of equal losses the earlier."""
    values = np.asarray(losses, dtype=float)
    return np.argsort(values, kind="stable")[: max(2, -(-len(values) // 5))]


def agreement(score: ArrayLike, losses: ArrayLike, correlation: Correlation = kendall, top: bool = False) -> float:
    """How a score ranks architectures, against alone-trained losses of several seeds.

    For each seed in turn: correlation of the score with the mean loss of the *other* seeds; then the mean of these.
    A score is thus held against the same references as a single seed is in ``seed_ceiling``. With a single seed the
    reference is that seed.

    Args:
        score: One an architecture, lower is better.
        losses: Shape ``(seeds, architectures)``.
        top: Within the true top fifth alone: that of the reference, never of the score.
    """
    table, references = _references(losses)
    scores = np.broadcast_to(np.asarray(score, dtype=float), table.shape)
    return _mean_correlation(scores, references, correlation, top)


def seed_ceiling(losses: ArrayLike, correlation: Correlation = kendall, top: bool = False) -> float:
    """Seed-to-seed agreement: what one training alone of every architecture would reach as a score.

    For each seed in turn: correlation of its losses with the mean loss of the other seeds; then the mean of these. It
    is ``agreement`` with a score that is the left-out seed itself, which the reference has not seen. It bounds scores
    that are as noisy as one training; a score with less noise can lie above it. Held against all seeds' mean in place
    of ``agreement``, a score's correlation would come out a little too high beside it.

    Args:
        losses: Shape ``(seeds, architectures)``, two seeds at least.
        top: Within the top fifth of the reference alone.
    Raises:
        ValueError: If there is one seed alone.
    """
    table, references = _references(losses)
    if len(table) < 2:
        raise ValueError("seed-to-seed ceiling of one seed: train every architecture with at least two.")
    return _mean_correlation(table, references, correlation, top)


def scored(score: ArrayLike, losses: ArrayLike) -> dict[str, float]:
    """Agreement of a score and its ceiling, as ``BenchmarkRow.details`` names them.

    Keys: "tau", "spearman", "ceiling" and "spearman_ceiling", each also with "_top" for the true top fifth; no
    ceilings with a single seed.
    """
    found = {}
    for suffix, top in (("", False), ("_top", True)):
        found[f"tau{suffix}"] = agreement(score, losses, kendall, top)
        found[f"spearman{suffix}"] = agreement(score, losses, spearman, top)
        if len(np.atleast_2d(losses)) > 1:
            found[f"ceiling{suffix}"] = seed_ceiling(losses, kendall, top)
            found[f"spearman_ceiling{suffix}"] = seed_ceiling(losses, spearman, top)
    return found


def _references(losses: ArrayLike) -> tuple[Floats, Floats]:
    """Losses, and for every seed the mean of the others, each ``(seeds, architectures)``."""
    table = np.atleast_2d(np.asarray(losses, dtype=float))
    if len(table) == 1:
        return table, table
    return table, np.stack([np.delete(table, seed, axis=0).mean(axis=0) for seed in range(len(table))])


def _mean_correlation(scores: Floats, references: Floats, correlation: Correlation, top: bool) -> float:
    found = []
    for score, reference in zip(scores, references, strict=True):
        within = top_fifth(reference) if top else slice(None)
        found.append(correlation(score[within], reference[within]))
    return float(np.mean(found))


def adapters(shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """An architecture without the modules that have no adapter; two are the same where this is equal."""
    return {name: (shape[0], shape[1]) for name, shape in shapes.items() if shape[1]}


def exact_recovery(
    found: Mapping[str, tuple[int, int]], planted: Mapping[str, tuple[int, int]], modules: Sequence[str]
) -> float:
    """Share of modules whose ``(nblocks, blk_r)`` is the planted one.

    Absent and ``blk_r`` 0 are the same, and right where nothing was planted.

    Args:
        modules: Every module of the space.
    Raises:
        ValueError: If an architecture names a module that the space lacks, or there is none.
    """
    ours, theirs = adapters(found), adapters(planted)
    strangers = sorted((set(ours) | set(theirs)) - set(modules))
    if strangers or not modules:
        raise ValueError(f"recovery over {len(modules)} modules: {strangers} are none of them.")
    return sum(ours.get(name) == theirs.get(name) for name in modules) / len(modules)


def right_side(found: Mapping[str, tuple[int, int]], planted: Mapping[str, tuple[int, int]]) -> float:
    """Share of the planted adapters where what was found is on their side of N: one block, or several.

    A module that was left without an adapter is on neither side, and one where nothing was planted is not counted.

    Raises:
        ValueError: If nothing was planted.
    """
    ours, theirs = adapters(found), adapters(planted)
    if not theirs:
        raise ValueError("right side of N: nothing was planted, so that no side is the right one.")
    return sum(name in ours and (ours[name][0] > 1) == (n > 1) for name, (n, _) in theirs.items()) / len(theirs)


@dataclass(frozen=True)
class Interval:
    """A mean, and where it lies with probability ``LEVEL``."""

    mean: float
    low: float
    high: float


def bootstrap(values: ArrayLike, problems: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over problems of the mean over seeds, with its percentile interval.

    A resample draws problems, then seeds within each drawn one. With one problem it says how far seeds vary and
    nothing of other problems; with one run it is a point.

    Args:
        values: One a run, shape ``(runs,)``.
        problems: The problem of each run.
    """
    means, low, high = band(np.asarray(values, dtype=float)[:, None], problems, resamples, seed)
    return Interval(float(means[0]), float(low[0]), float(high[0]))


def band(
    values: Floats, problems: Sequence[Hashable], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """As ``bootstrap``, column by column of shape ``(runs, columns)``: means, lower and upper ends."""
    numbers = {problem: number for number, problem in enumerate(dict.fromkeys(problems))}
    labels = np.array([numbers[problem] for problem in problems])
    if len(labels) != len(values) or not len(labels):
        raise ValueError(f"bootstrap of {len(values)} runs on {len(labels)} problems: name the problem of every run.")
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    runs = values[order]
    means = (np.repeat(1 / sizes, sizes) @ runs) / len(sizes)
    drawn = _weights(tuple(sizes.tolist()), resamples, seed) @ runs
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return means, low, high


@lru_cache(maxsize=4)
def _weights(sizes: tuple[int, ...], resamples: int, seed: int) -> Floats:
    """What every run weighs in each resample's mean, ``(resamples, runs)``; runs lie problem by problem.

    A problem drawn c times, with n seeds drawn each time, has c n draws spread evenly over its n seeds.
    """
    rng = np.random.default_rng(seed)
    problems = len(sizes)
    picked = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    weights = np.empty((resamples, starts[-1]))
    for size in sorted(set(sizes)):
        which = np.flatnonzero(np.array(sizes) == size)
        draws = rng.multinomial(picked[:, which] * size, np.full(size, 1 / size))
        columns = starts[which][:, None] + np.arange(size)
        weights[:, columns] = draws / (size * problems)
    return weights


@dataclass(frozen=True)
class Paired:
    """Ours beside another method on the same problems and seeds.

    Attributes:
        difference: Ours less the other's; below 0 is better.
        wins: Share of pairs that ours wins, a tie counted half.
        ties: Share of pairs.
        p: Two-sided Wilcoxon signed-rank test of per-problem mean differences; 1 where all are 0.
    """

    pairs: int
    problems: int
    difference: Interval
    wins: Interval
    ties: float
    p: float


def paired(
    ours: ArrayLike, others: ArrayLike, problems: Sequence[Hashable], same: Sequence[bool] | None = None
) -> Paired:
    """Compare regrets pair by pair.

    Args:
        ours: One a pair; ``others`` likewise.
        problems: The problem of each pair.
        same: Whether both found the same architecture, which is a tie whatever rounding made of its losses.
    """
    difference = np.asarray(ours, dtype=float) - np.asarray(others, dtype=float)
    ties = (difference == 0) | (False if same is None else np.asarray(same, dtype=bool))
    wins = np.where(ties, 0.5, difference < 0)
    return Paired(
        pairs=len(difference),
        problems=len(set(problems)),
        difference=bootstrap(difference, problems),
        wins=bootstrap(wins, problems),
        ties=float(ties.mean()),
        p=_wilcoxon(difference, problems),
    )


def _wilcoxon(difference: Floats, problems: Sequence[Hashable]) -> float:
    groups: dict[Hashable, list[float]] = {}
    for problem, value in zip(problems, difference, strict=True):
        groups.setdefault(problem, []).append(float(value))
    means = np.array([np.mean(group) for group in groups.values()])
    return float(stats.wilcoxon(means).pvalue) if means.any() else 1.0


def anytime(curves: Sequence[Sequence[Sequence[float]]], grid: ArrayLike) -> Floats:
    """Step functions on a common grid, shape ``(curves, grid)``.

    Args:
        curves: Pairs of a place and the value from there on; the last value stays.
        grid: Places, in the curves' unit.
    Returns:
        The value of the last pair at or before each place; NaN before a curve's first.
    """
    places = np.asarray(grid, dtype=float)
    found = np.full((len(curves), len(places)), np.nan)
    for row, curve in zip(found, curves, strict=True):
        starts, values = np.array(sorted(curve, key=lambda pair: pair[0]), dtype=float).T
        index = np.searchsorted(starts, places, side="right") - 1
        row[index >= 0] = values[index[index >= 0]]
    return found
