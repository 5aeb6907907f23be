"""Proposals and what is learnt of their losses, against enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from grids import in_turn
from torch import Tensor

from morenas.selection import Evidence, Picks, surrogate
from morenas.selection.standard import standardized
from morenas.selection.surrogate import LossModel


class Additive:
    """A loss that is a sum of one number a choice, with an optional part that is not; it keeps what was measured."""

    def __init__(self, seed: int, groups: int = 5, choices: int = 4, forbid: bool = True, rough: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.rand(groups, choices, generator=generator, dtype=torch.float64)
        self.costs = torch.randint(1, 60, (groups, choices), generator=generator)
        self.costs[:, 0] = 0
        self.allowed = torch.ones(groups, choices, dtype=torch.bool)
        if forbid:
            self.allowed[torch.arange(groups), torch.randint(1, choices, (groups,), generator=generator)] = False
        self.budget = int(self.costs.max(dim=1).values.sum()) // 2
        self.noise = torch.randn(groups, choices, generator=generator)
        self.rough, self.measured = rough, list[Picks]()

    def spent(self, picks: Sequence[int]) -> int:
        return sum(int(self.costs[group, pick]) for group, pick in enumerate(picks))

    def fits(self, picks: Sequence[int]) -> bool:
        return self.spent(picks) <= self.budget and all(bool(self.allowed[g, p]) for g, p in enumerate(picks))

    def loss(self, picks: Sequence[int]) -> float:
        self.measured.append(tuple(picks))
        total = 3 + sum(float(self.table[group, pick]) for group, pick in enumerate(picks))
        return total + self.rough * torch.rand((), generator=torch.Generator().manual_seed(hash(tuple(picks)))).item()

    def everything(self) -> list[Picks]:
        groups, choices = self.costs.shape
        return [picks for picks in itertools.product(range(choices), repeat=groups) if self.fits(picks)]

    def best(self) -> float:
        return min(3 + sum(float(self.table[g, p]) for g, p in enumerate(picks)) for picks in self.everything())

    def choose(self, priors: Sequence[Tensor], count: int, seed: int = 0) -> Picks:
        return surrogate(self.evidence(priors, self.loss, count, seed))

    def evidence(
        self, priors: Sequence[Tensor], loss: Callable[[Sequence[int]], float], count: int = 20, seed: int = 0
    ) -> Evidence:
        generator = torch.Generator().manual_seed(seed)
        return Evidence(priors, self.costs, self.allowed, self.budget, generator, measure=loss, measurements=count)


PRIORS = {
    "noise": lambda task: [task.noise],
    "two noises": lambda task: [task.noise, task.noise.flip(0)],
    "zero": lambda task: [torch.zeros(task.costs.shape)],
    "constant": lambda task: [torch.full(task.costs.shape, 0.1), torch.full(task.costs.shape, -7.3)],
    "misleading": lambda task: [task.table],
    "true": lambda task: [-task.table],
    "one true": lambda task: [task.noise, -task.table],
}


@in_turn(kind=PRIORS, seed=range(2))
def test_the_best_of_an_additive_loss_is_found_within_twenty_measurements(kind: str, seed: int) -> None:
    task = Additive(seed)
    assert len(task.everything()) > 100
    picks = task.choose(PRIORS[kind](task), 20)
    assert task.loss(picks) == pytest.approx(task.best(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_true_prior_needs_a_single_measurement(seed: int) -> None:
    task = Additive(seed)
    picks = task.choose(PRIORS["true"](task), 1)
    assert len(task.measured) == 1 and task.loss(picks) == pytest.approx(task.best(), abs=1e-12)


@in_turn(kind=PRIORS, count=[0, 1, 2, 3, 20])
def test_what_is_measured_fits_is_never_measured_twice_and_no_more_than_allowed(kind: str, count: int) -> None:
    task = Additive(5, rough=2.0)
    picks = task.choose(PRIORS[kind](task), count)
    assert len(task.measured) == len(set(task.measured)) <= max(count, 1)
    assert all(task.fits(other) for other in task.measured)
    assert picks == min(list(task.measured), key=task.loss)


def test_of_a_space_smaller_than_the_count_it_measures_no_more_than_there_is() -> None:
    task = Additive(0, groups=2, choices=3)
    picks = task.choose([task.noise], 50)
    assert set(task.measured) <= set(task.everything())
    assert task.loss(picks) == pytest.approx(task.best())


@pytest.mark.parametrize("kind", PRIORS)
def test_scores_are_finite_and_forbidden_choices_get_no_correction(kind: str) -> None:
    task = Additive(7)
    model = LossModel(PRIORS[kind](task), task.costs, task.allowed, task.budget, torch.Generator().manual_seed(0))
    model.improve(task.loss, 12)
    scores = model.scores()
    assert scores.shape == task.costs.shape and scores.dtype == torch.float64 and bool(scores.isfinite().all())
    assert float(scores[~task.allowed].abs().max()) < 1e-9


def test_without_measurements_the_priors_decide() -> None:
    task = Additive(8)
    priors = [task.noise, -task.table]
    model = LossModel(priors, task.costs, task.allowed, task.budget, torch.Generator())
    assert torch.equal(model.scores(), torch.stack(list(model.priors)).mean(dim=0))
    model.measured = {(0,) * 5: 1.0}
    assert torch.equal(model.scores(), torch.stack(list(model.priors)).mean(dim=0))


def test_choices_that_were_never_measured_have_the_scores_of_a_multiple_of_the_prior() -> None:
    task = Additive(9, forbid=False)
    model = LossModel([-task.table], task.costs, task.allowed, task.budget, torch.Generator())
    for picks in ((0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (1, 1, 0, 1, 0)):
        model.measured[picks] = task.loss(picks)
    unseen = model.scores()[:, 2:] / model.priors[0][:, 2:]
    assert float(unseen.min()) >= 0
    torch.testing.assert_close(unseen, unseen.mean().expand_as(unseen))


def test_a_prior_that_contradicts_the_losses_is_never_turned_round() -> None:
    task = Additive(10)
    model = LossModel([task.table], task.costs, task.allowed, task.budget, torch.Generator().manual_seed(0))
    model.improve(task.loss, 20)
    seen = {(group, pick) for picks in model.measured for group, pick in enumerate(picks)}
    unseen = [(g, p) for g in range(5) for p in range(4) if task.allowed[g, p] and (g, p) not in seen]
    assert all(model.scores()[g, p] * model.priors[0][g, p] >= 0 for g, p in unseen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_standardized_scores_have_mean_zero_a_group_and_deviation_one(scale: float, dtype: torch.dtype) -> None:
    task = Additive(11)
    found = standardized((scale * task.table + 3 * scale).to(dtype), task.allowed)
    assert not found[~task.allowed].any()
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(found[task.allowed].square().mean()) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e20, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_scores_are_zeros_and_not_their_rounding(value: float, dtype: torch.dtype) -> None:
    allowed = torch.ones(3, 7, dtype=torch.bool)
    allowed[:, 2] = False
    scores = torch.full((3, 7), value, dtype=dtype).masked_fill(~allowed, -torch.inf)
    assert not standardized(scores, allowed).any()


def test_equal_losses_and_a_single_architecture_give_no_nan() -> None:
    task = Additive(12)
    evidence = task.evidence([task.noise], lambda picks: 0.25, 6)
    assert task.fits(surrogate(evidence))
    only = torch.zeros_like(task.allowed)
    only[:, 0] = True
    assert surrogate(replace(evidence, allowed=only)) == (0,) * 5


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(loss: float) -> None:
    task = Additive(13)
    with pytest.raises(ValueError, match="must be finite"):
        surrogate(task.evidence([task.noise], lambda picks: loss))


def test_a_budget_that_nothing_fits_is_refused() -> None:
    task = Additive(14)
    task.budget = -1
    with pytest.raises(ValueError, match="at most -1"):
        surrogate(task.evidence([task.noise], task.loss))
