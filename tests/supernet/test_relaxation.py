from __future__ import annotations

import pytest
import torch
from torch import Tensor

from morenas.base.registry import BUILTIN, registry
from morenas.bilevel import expected_cost, hold_budget
from morenas.supernet import Dirichlet, Gumbel, Midpoint, Softmax


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Corners:
    """The first choice everywhere as the best architecture; what is drawn has any choice in every group."""

    def best(self) -> Tensor:
        return torch.eye(6)[torch.zeros(4, dtype=torch.long)]

    def drawn(self, generator: torch.Generator) -> Tensor:
        return torch.eye(6)[torch.randint(6, (4,), generator=generator)]


@pytest.mark.parametrize("name", BUILTIN["relaxation"])
def test_rows_are_distributions_and_gradients_reach_every_logit(name: str) -> None:
    logits = torch.randn(4, 6, generator=generator(1)).requires_grad_()
    made = registry("relaxation").build(name)
    made = made.over(Corners()) if isinstance(made, Midpoint) else made
    probs = made.mixing_probs(logits, 0.7, generator())
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(4))
    (grad,) = torch.autograd.grad((probs * torch.randn(4, 6, generator=generator(2))).sum(), logits)
    assert (grad != 0).all()


def test_softmax_sharpens_as_the_temperature_falls() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    torch.testing.assert_close(Softmax().mixing_probs(logits, 1.0, generator()), torch.softmax(logits, dim=-1))
    assert float(Softmax().mixing_probs(logits, 0.01, generator())[0, 2]) == pytest.approx(1.0)


def test_a_midpoint_is_half_of_either_architecture_with_the_gradient_of_the_softmax() -> None:
    logits = torch.randn(4, 6, generator=generator(1)).requires_grad_()
    probs = Midpoint().over(Corners()).mixing_probs(logits, 0.7, generator(2))
    drawn = Corners().drawn(generator(2))
    assert torch.equal(probs, (Corners().best() + drawn) / 2) and (drawn[:, 0] < 1).any()
    weights = torch.randn(4, 6, generator=generator(3))
    (grad,) = torch.autograd.grad((probs * weights).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((torch.softmax(logits / 0.7, dim=-1) * weights).sum(), logits)
    torch.testing.assert_close(grad, expected)


def test_a_midpoint_of_no_search_is_refused() -> None:
    with pytest.raises(ValueError, match="of two architectures"):
        Midpoint().mixing_probs(torch.zeros(4, 6), 1.0, generator())


def test_gumbel_draws_are_exactly_one_hot_with_softmax_frequencies() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.7])).repeat(20_000, 1)
    draws = Gumbel().mixing_probs(logits, 3.0, generator())
    assert torch.equal(draws.sort(dim=1).values, torch.tensor([0.0, 0.0, 1.0]).repeat(20_000, 1))
    torch.testing.assert_close(draws.mean(dim=0), torch.tensor([0.1, 0.2, 0.7]), atol=0.01, rtol=0)


def test_gumbel_repeats_with_its_generator_and_never_draws_a_forbidden_choice() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]]).repeat(500, 1)
    first = Gumbel().mixing_probs(logits, 1.0, generator(3))
    assert torch.equal(first, Gumbel().mixing_probs(logits, 1.0, generator(3)))
    assert float(first[:, 1].sum()) == 0.0


def test_gumbel_gradient_is_that_of_the_softened_draw() -> None:
    logits = torch.randn(3, 5, generator=generator(4)).requires_grad_()
    weights = torch.randn(3, 5, generator=generator(5))
    (grad,) = torch.autograd.grad((Gumbel().mixing_probs(logits, 2.0, generator(6)) * weights).sum(), logits)
    noise = torch.empty(3, 5, dtype=torch.float64).exponential_(generator=generator(6)).log().neg()
    soft = torch.softmax((logits + noise.float()) / 2.0, dim=-1)
    (expected,) = torch.autograd.grad((soft * weights).sum(), logits)
    torch.testing.assert_close(grad, expected)


def dirichlet_mean(logits: Tensor) -> Tensor:
    concentrations = torch.nn.functional.elu(logits) + 1
    return concentrations / concentrations.sum(dim=1, keepdim=True)


def test_dirichlet_draws_have_the_mean_and_the_variance_of_their_concentrations() -> None:
    logits = torch.tensor([-1.5, 0.0, 2.0])
    draws = Dirichlet().mixing_probs(Dirichlet().scores(logits.repeat(20_000, 1)), 1.0, generator())
    mean, total = dirichlet_mean(logits[None])[0], float((torch.nn.functional.elu(logits) + 1).sum())
    torch.testing.assert_close(draws.mean(dim=0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(draws.var(dim=0), mean * (1 - mean) / (total + 1), atol=0.005, rtol=0)


def test_dirichlet_repeats_with_its_generator_and_leaves_torchs_own_alone() -> None:
    scores = torch.randn(5, 4, generator=generator(1))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = Dirichlet().mixing_probs(scores, 1.0, generator(3))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, Dirichlet().mixing_probs(scores, 1.0, generator(3)))
    assert not torch.equal(first, Dirichlet().mixing_probs(scores, 1.0, generator(4)))


def test_dirichlet_gives_a_forbidden_choice_nothing_and_the_others_their_own_distribution() -> None:
    logits = torch.tensor([0.5, -torch.inf, -1.0]).repeat(20_000, 1).requires_grad_()
    draws = Dirichlet().mixing_probs(Dirichlet().scores(logits), 1.0, generator())
    assert torch.equal(draws[:, 1], torch.zeros(20_000))
    mean = dirichlet_mean(torch.tensor([[0.5, -1.0]]))[0]
    torch.testing.assert_close(draws.detach().mean(dim=0)[[0, 2]], mean, atol=0.01, rtol=0)
    (grad,) = torch.autograd.grad(draws[:, 0].sum(), logits)
    assert grad.isfinite().all() and float(grad[:, 1].abs().max()) == 0.0


def test_dirichlet_gradient_is_that_of_the_mean() -> None:
    logits = torch.tensor([-0.5, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    scores = Dirichlet().scores(logits.expand(200_000, 3))
    draws = Dirichlet().mixing_probs(scores, 1.0, generator(2))
    (found,) = torch.autograd.grad((draws @ weights).mean(), logits)
    (expected,) = torch.autograd.grad((dirichlet_mean(logits[None]) @ weights).sum(), logits)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("budget", [500.0, 3000.0, 1e9])
def test_dirichlet_under_a_budget_costs_no_more_in_expectation_and_scatters_as_it_did(budget: float) -> None:
    logits = 2 * torch.randn(12, 6, generator=generator(8))
    logits[0, 3] = -torch.inf
    costs = torch.randint(0, 1000, (12, 6), generator=generator(9))
    costs[:, 0] = 0
    free = Dirichlet().scores(logits)
    held = Dirichlet().scores(logits, lambda scores: hold_budget(scores, costs, budget))
    torch.testing.assert_close(held.exp().sum(dim=1), free.exp().sum(dim=1))
    mean = held.exp() / held.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(mean, torch.softmax(held, dim=1))
    assert float(expected_cost(mean, costs)) <= budget * (1 + 1e-5)
    seeds = (Dirichlet().mixing_probs(held, 1.0, generator(seed)) for seed in range(3000))
    spent = torch.stack([expected_cost(draw, costs) for draw in seeds])
    assert float(spent.mean()) <= budget + 4 * float(spent.std()) / 3000**0.5


def test_dirichlet_under_a_budget_that_all_but_forbids_has_gradients_that_are_finite() -> None:
    logits = torch.randn(3, 21, generator=generator(1)).requires_grad_()
    costs = torch.arange(21).repeat(3, 1) * 100
    scores = Dirichlet().scores(logits, lambda scores: hold_budget(scores, costs, 1.0))
    draws = Dirichlet().mixing_probs(scores, 1.0, generator())
    torch.testing.assert_close(draws.sum(dim=1), torch.ones(3))
    assert torch.autograd.grad(draws[:, 1:].sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("name", BUILTIN["relaxation"])
def test_logits_are_found_back_from_scores_up_to_a_constant_a_group(name: str) -> None:
    scores = 3 * torch.randn(4, 5, generator=generator(1))
    scores[0, 2] = -torch.inf
    found = registry("relaxation").build(name).scores(registry("relaxation").build(name).logits(scores).float())
    torch.testing.assert_close(torch.softmax(found, dim=1), torch.softmax(scores, dim=1))
