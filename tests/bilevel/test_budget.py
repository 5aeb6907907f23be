from __future__ import annotations

import pytest
import torch
from torch import Tensor

from morenas.bilevel import expected_cost, hold_budget


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
