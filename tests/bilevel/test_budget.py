from __future__ import annotations

import pytest
import torch
from grids import pairs
from torch import Tensor

from morenas.bilevel import expected_cost, hold_budget, sharpened


def problem(seed: int, groups: int = 6, choices: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(groups, choices, generator=generator, dtype=torch.float64)
    costs = torch.randint(1, 9, (groups, choices), generator=generator) * 384
    costs[:, 0] = 0
    return logits, costs


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_expected_cost_meets_a_budget_that_binds(temperature: float, share: float) -> None:
    logits, costs = problem(0)
    free = float(expected_cost(torch.softmax(logits / temperature, dim=-1), costs))
    tilted = hold_budget(logits, costs, share * free, temperature)
    spent = float(expected_cost(torch.softmax(tilted / temperature, dim=-1), costs))
    assert spent == pytest.approx(share * free, rel=1e-6)


def test_logits_within_the_budget_come_back_unchanged() -> None:
    logits, costs = problem(1)
    assert hold_budget(logits, costs, 1e9) is logits


def test_one_group_of_two_choices_has_the_closed_form() -> None:
    logits, costs = torch.tensor([[0.3, 1.7]], dtype=torch.float64), torch.tensor([[0, 100]])
    tilted = hold_budget(logits, costs, 25)
    probs = torch.softmax(tilted, dim=-1)
    torch.testing.assert_close(probs, torch.tensor([[0.75, 0.25]], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_gradient_equals_finite_differences_through_the_price(temperature: float) -> None:
    logits, costs = problem(2)
    weights = torch.randn(costs.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def value(at: Tensor) -> Tensor:
        return (torch.softmax(hold_budget(at, costs, 4000, temperature) / temperature, dim=-1) * weights).sum()

    at = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(at), at)
    numeric = torch.zeros_like(logits)
    for index in range(logits.numel()):
        step = torch.zeros_like(logits).view(-1)
        step[index] = 1e-5
        step = step.view_as(logits)
        numeric.view(-1)[index] = (value(logits + step) - value(logits - step)) / 2e-5
    torch.testing.assert_close(gradient, numeric, atol=1e-5, rtol=1e-4)


def test_descending_the_gradient_does_not_spend_more() -> None:
    logits, costs = problem(4)
    at = logits.clone().requires_grad_()
    probs = torch.softmax(hold_budget(at, costs, 4000), dim=-1)
    (gradient,) = torch.autograd.grad(expected_cost(probs, costs), at)
    assert float(gradient.abs().max()) < 1e-6 * float(costs.max())


def test_forbidden_choices_stay_impossible() -> None:
    logits, costs = problem(5)
    logits[:, 2] = -torch.inf
    at = logits.clone().requires_grad_()
    probs = torch.softmax(hold_budget(at, costs, 3000), dim=-1)
    assert float(probs[:, 2].detach().abs().max()) == 0.0
    (gradient,) = torch.autograd.grad((probs**2).sum(), at)
    assert torch.isfinite(gradient).all()


def test_a_budget_below_the_cheapest_choices_is_refused() -> None:
    logits, costs = problem(6)
    with pytest.raises(ValueError, match="more than the budget"):
        hold_budget(logits[:, 1:], costs[:, 1:], 100)


def held(logits: Tensor, costs: Tensor, budget: float) -> Tensor:
    return torch.softmax(hold_budget(logits.double(), costs, budget), dim=-1)


def entropy_of(logits: Tensor, costs: Tensor, budget: float) -> float:
    return float(torch.special.entr(held(logits, costs, budget)).sum(dim=-1).mean())


@pairs(budget=[2500.0, 5000.0, 1e9], scale=[1e-9, 1.0, 1e7], entropy=[0.2, 0.5, 0.9])
def test_sharpened_scores_have_the_entropy_asked_for_once_held(entropy: float, scale: float, budget: float) -> None:
    scores, costs = problem(7)
    logits = sharpened(scale * scores, costs, budget, entropy)
    assert logits.dtype == torch.float32
    assert entropy_of(logits, costs, budget) == pytest.approx(entropy, rel=1e-4)
    assert float(expected_cost(held(logits, costs, budget), costs)) <= budget * (1 + 1e-6)


@pytest.mark.parametrize("budget", [2500.0, 1e9])
def test_sharpened_scores_are_a_positive_multiple_within_every_group(budget: float) -> None:
    scores, costs = problem(8)
    logits = sharpened(scores, costs, budget, 0.5).double()
    ratio = (logits - logits.mean(dim=1, keepdim=True)) / (scores - scores.mean(dim=1, keepdim=True))
    assert float(ratio.min()) > 0
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
    assert torch.equal(logits.argsort(dim=1), scores.argsort(dim=1))


def test_two_choices_sharpen_to_the_closed_form() -> None:
    # Without a binding budget the logits' difference d solves H(sigmoid(d)) = entropy, at d = 2 here.
    scores, costs = torch.tensor([[0.0, 0.3]]), torch.tensor([[0, 1]])
    p = torch.sigmoid(torch.tensor(2.0, dtype=torch.float64))
    entropy = float(torch.special.entr(torch.stack([p, 1 - p])).sum())
    logits = sharpened(scores, costs, 10, entropy)
    torch.testing.assert_close(logits, torch.tensor([[-2.0, 0.0]]), rtol=1e-5, atol=0)


def test_what_a_groups_scores_have_in_common_does_not_matter() -> None:
    scores, costs = problem(9)
    shifted = scores + 1e6 * torch.arange(6.0, dtype=torch.float64).unsqueeze(1)
    found = sharpened(shifted, costs, 4000, 0.5)
    torch.testing.assert_close(found, sharpened(scores, costs, 4000, 0.5), rtol=1e-4, atol=1e-4)
    assert entropy_of(found, costs, 4000) == pytest.approx(0.5, rel=1e-4)


def test_forbidden_choices_stay_forbidden_when_sharpened() -> None:
    scores, costs = problem(10)
    forbidden = torch.zeros_like(scores, dtype=torch.bool)
    forbidden[:, 2] = forbidden[0, 0] = True
    scores.masked_fill_(forbidden, -torch.inf)
    logits = sharpened(scores, costs, 5000, 0.4)
    assert torch.equal(logits == -torch.inf, forbidden) and bool(logits[~forbidden].isfinite().all())
    assert entropy_of(logits, costs, 5000) == pytest.approx(0.4, rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 3.5])
@pytest.mark.parametrize("budget", [2500.0, 1e9])
def test_scores_that_are_all_equal_sharpen_to_zeros(budget: float, value: float) -> None:
    _, costs = problem(11)
    scores = torch.full(costs.shape, value)
    assert not sharpened(scores, costs, budget, 0.5).any()
    scores[:, 1] = -torch.inf
    assert not sharpened(scores, costs, budget, 0.5)[:, [0, 2, 3, 4]].any()


def test_an_entropy_above_what_there_is_leaves_scores_level_and_one_below_makes_them_sharp() -> None:
    scores, costs = problem(12)
    level, sharp = (sharpened(scores, costs, 1e9, entropy) for entropy in (100.0, 0.0))
    assert float(level.abs().max()) < 2e-3 and bool(sharp.isfinite().all())
    assert entropy_of(sharp, costs, 1e9) < 0.02 and float(sharp.abs().max()) < 1000
    tied = torch.tensor([[1.0, 1.0, 0.0]] * 3)
    sharp = sharpened(tied, torch.zeros(3, 3), 1.0, 0.1)  # a tie keeps log 2 whatever the factor
    assert entropy_of(sharp, torch.zeros(3, 3), 1.0) == pytest.approx(0.6931, abs=0.01)
    assert float(sharp.abs().max()) < 20


def test_an_entropy_that_the_budget_does_not_allow_does_not_send_the_logits_to_infinity() -> None:
    # Under half of the only dear choice's cost, the only group keeps log 2 whatever the factor.
    scores, costs = torch.tensor([[0.0, 1.0, -3.0]]), torch.tensor([[0, 100, 50]])
    logits = sharpened(scores, costs, 50, 0.5)
    assert entropy_of(logits, costs, 50) == pytest.approx(0.6931, abs=0.01)
    assert float(logits.abs().max()) < 50


def test_a_budget_of_the_cheapest_choices_leaves_no_entropy_and_finite_logits() -> None:
    scores, costs = problem(13)
    costs = costs + 384
    costs[:, 1:] += 384
    assert bool(sharpened(scores, costs, float(costs[:, 0].sum()), 0.5).isfinite().all())


def test_groups_of_a_single_choice_are_sharpened_to_finite_logits() -> None:
    assert not sharpened(torch.tensor([[2.0], [5.0]]), torch.tensor([[1], [1]]), 2, 0.5).any()


def test_sharpening_under_a_budget_below_the_cheapest_choices_is_refused() -> None:
    scores, costs = problem(14)
    with pytest.raises(ValueError, match="more than the budget"):
        sharpened(scores, costs + 384, 100, 0.5)
    with pytest.raises(ValueError, match="more than the budget"):
        sharpened(torch.full_like(scores, -torch.inf), costs, 100, 0.5)
