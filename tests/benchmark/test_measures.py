"""Measures: closed forms, and what must not crash."""

from __future__ import annotations

import numpy as np
import pytest

from morenas.benchmark import measures


@pytest.mark.parametrize(("loss", "regret"), [(0.2, 0.0), (1.2, 1.0), (0.7, 0.5), (0.1, -0.1), (2.2, 2.0)])
def test_regret_is_0_at_the_best_and_1_at_the_random_mean(loss: float, regret: float) -> None:
    assert measures.normalized_regret(loss, best=0.2, random=1.2) == pytest.approx(regret)


@pytest.mark.parametrize("random", [0.2, 0.1])
def test_regret_refuses_a_reference_that_random_reaches(random: float) -> None:
    with pytest.raises(ValueError, match=r"not above best=0\.2"):
        measures.normalized_regret(0.5, best=0.2, random=random)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_regret_refuses_what_is_not_finite(loss: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        measures.normalized_regret(loss, best=0.2, random=1.0)


def test_correlations_of_known_permutations() -> None:
    assert measures.kendall([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert measures.kendall([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert measures.kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert measures.spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)


def test_a_constant_score_ranks_nothing() -> None:
    assert measures.kendall([1, 1, 1], [1, 2, 3]) == measures.spearman([1, 2, 3], [5, 5, 5]) == 0


@pytest.mark.parametrize("other", [[1.0, 2.0, 3.0], [1.0, float("nan")]])
def test_correlation_refuses_unequal_or_unfinished_lists(other: list[float]) -> None:
    with pytest.raises(ValueError, match="rank correlation"):
        measures.kendall([1.0, 2.0], other)


def test_the_right_side_of_n_is_one_block_or_several_and_none_at_all_is_on_neither() -> None:
    planted = {"a": (4, 1), "b": (1, 2), "c": (2, 1), "d": (1, 4)}
    found = {"a": (2, 4), "b": (1, 1), "c": (1, 1), "d": (1, 0), "e": (4, 4)}
    assert measures.right_side(found, planted) == 0.5
    assert measures.right_side(planted, planted) == 1 and measures.right_side({}, planted) == 0
    with pytest.raises(ValueError, match="nothing was planted"):
        measures.right_side(found, {"a": (4, 0)})


def test_the_top_fifth_is_the_lowest_rounded_up() -> None:
    assert measures.top_fifth([5, 1, 4, 2, 3, 9, 8, 7, 6, 10, 11]).tolist() == [1, 3, 4]
    assert measures.top_fifth([3, 1, 2]).tolist() == [1, 2]


def test_seeds_that_agree_have_ceiling_1_and_a_copy_reaches_it() -> None:
    losses = np.tile(np.arange(20.0), (3, 1))
    assert measures.seed_ceiling(losses) == measures.seed_ceiling(losses, top=True) == pytest.approx(1)
    assert all(value == pytest.approx(1) for value in measures.scored(losses[0], losses).values())


def test_the_ceiling_of_two_seeds_is_their_correlation() -> None:
    losses = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]]
    assert measures.seed_ceiling(losses) == pytest.approx(4 / 6)
    assert measures.seed_ceiling(losses, measures.spearman) == pytest.approx(0.8)


def test_a_further_seed_as_score_reaches_the_ceiling_in_the_mean() -> None:
    """Ceiling and agreement are one measure: a score that is one more training lies at the ceiling."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(100):
        losses = rng.normal(size=(1, 60)) + rng.normal(size=(4, 60))
        for top in (False, True):
            differences.append(
                measures.agreement(losses[3], losses[:3], top=top) - measures.seed_ceiling(losses[:3], top=top)
            )
    assert abs(np.mean(differences[::2])) < 0.015
    assert abs(np.mean(differences[1::2])) < 0.06


def test_the_top_fifth_is_the_references_not_the_scores() -> None:
    losses = np.tile(np.arange(20.0), (2, 1))
    score = np.r_[[3.0, 2.0, 1.0, 0.0], np.arange(4.0, 20.0)]
    found = measures.scored(score, losses)
    assert found["tau_top"] == pytest.approx(-1)
    assert found["tau"] == pytest.approx(1 - 2 * 6 / 190)


def test_one_seed_has_agreement_and_no_ceiling() -> None:
    assert set(measures.scored([1, 2, 3], [[1, 2, 3]])) == {"tau", "tau_top", "spearman", "spearman_top"}
    with pytest.raises(ValueError, match="one seed"):
        measures.seed_ceiling([[1, 2, 3]])


def test_recovery_counts_modules_without_an_adapter() -> None:
    planted = {"a": (4, 2), "b": (1, 1)}
    modules = ["a", "b", "c", "d"]
    assert measures.exact_recovery(planted, planted, modules) == 1
    assert measures.exact_recovery({"a": (4, 2), "b": (1, 2), "c": (8, 0)}, planted, modules) == 0.75
    assert measures.exact_recovery({"a": (4, 2), "b": (1, 1), "d": (1, 1)}, planted, modules) == 0.75
    assert measures.exact_recovery({}, planted, modules) == 0.5


def test_recovery_refuses_modules_that_the_space_lacks() -> None:
    with pytest.raises(ValueError, match="'x'"):
        measures.exact_recovery({"x": (1, 1)}, {}, ["a"])


def test_the_bootstrap_covers_a_known_mean() -> None:
    rng = np.random.default_rng(1)
    problems = np.repeat(np.arange(30), 5).tolist()
    covered = 0
    for _ in range(100):
        values = 3 + np.repeat(rng.normal(size=30), 5) + 0.5 * rng.normal(size=150)
        found = measures.bootstrap(values, problems, resamples=1000)
        covered += found.low <= 3 <= found.high
        assert found.mean == pytest.approx(values.mean())
    assert covered >= 88


def test_the_interval_is_as_wide_as_problems_and_seeds_say() -> None:
    """The variance of a resampled mean: V_problems / P and, within them, V_seeds / (P n)."""
    values = np.array([[0.0, 2.0], [10.0, 16.0], [5.0, 5.0]])
    weights = measures._weights((2, 2, 2), 200_000, 0)
    expected = values.mean(axis=1).var() / 3 + values.var(axis=1).mean() / 6
    assert (weights @ values.ravel()).var() == pytest.approx(expected, rel=0.02)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_problems_weigh_the_same_however_many_runs_they_have() -> None:
    found = measures.bootstrap([0, 0, 0, 0, 1], ["a", "a", "a", "a", "b"])
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)


def test_runs_of_a_problem_need_not_lie_together() -> None:
    apart = measures.bootstrap([0, 5, 1, 7], ["a", "b", "a", "b"])
    assert apart == measures.bootstrap([0, 1, 5, 7], ["a", "a", "b", "b"])


def test_one_problem_gives_the_spread_of_its_seeds() -> None:
    found = measures.bootstrap([1.0, 2.0, 3.0], ["a"] * 3)
    assert found.mean == 2 and 1 <= found.low < 2 < found.high <= 3
    assert measures.bootstrap([4.0], ["a"]) == measures.Interval(4, 4, 4)


def test_a_band_is_the_bootstrap_of_every_column() -> None:
    values, problems = np.random.default_rng(2).normal(size=(6, 3)), [0, 0, 1, 1, 2, 2]
    means, low, high = measures.band(values, problems)
    for column in range(3):
        one = measures.bootstrap(values[:, column], problems)
        np.testing.assert_allclose([means[column], low[column], high[column]], [one.mean, one.low, one.high])


def test_the_bootstrap_refuses_runs_of_no_problem() -> None:
    with pytest.raises(ValueError, match="every run"):
        measures.bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="0 runs"):
        measures.bootstrap([], [])


def test_identical_runs_tie_and_have_p_1() -> None:
    found = measures.paired([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], ["a", "a", "b"])
    assert (found.ties, found.p, found.wins.mean, found.difference.mean) == (1, 1, 0.5, 0)


def test_what_wins_every_pair() -> None:
    problems = np.repeat(np.arange(10), 2).tolist()
    others = np.linspace(0.5, 1, 20)
    found = measures.paired(others - np.linspace(0.1, 0.2, 20), others, problems)
    assert (found.wins.mean, found.wins.low) == (pytest.approx(1), pytest.approx(1))
    assert (found.ties, found.pairs, found.problems) == (0, 20, 10)
    assert found.difference.high < 0
    assert found.p == pytest.approx(2 / 2**10)


def test_one_problem_is_compared_without_a_test_that_says_anything() -> None:
    found = measures.paired([0.1, 0.2], [0.3, 0.1], ["a", "a"])
    assert (found.wins.mean, found.ties, found.p) == (0.5, 0, 1)


def test_the_same_architecture_is_a_tie_whatever_rounding_says() -> None:
    found = measures.paired([0.1, 0.2], [0.1 + 1e-9, 0.3], ["a", "b"], same=[True, False])
    assert (found.ties, found.wins.mean) == (0.5, 0.75)


def test_an_anytime_curve_keeps_the_last_incumbent() -> None:
    found = measures.anytime([[[2, 0.5], [4, 0.25]], [[1, 1.0]]], [1, 2, 3, 4, 9])
    np.testing.assert_array_equal(found, [[np.nan, 0.5, 0.5, 0.25, 0.25], [1, 1, 1, 1, 1]])
