from __future__ import annotations

import pytest
import torch

from morenas.supernet import RELAXATIONS, Gumbel, Softmax


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", sorted(RELAXATIONS))
def test_rows_are_distributions_and_gradients_reach_every_logit(name: str) -> None:
    logits = torch.randn(4, 6, generator=generator(1)).requires_grad_()
    probs = RELAXATIONS[name].mixing_probs(logits, 0.7, generator())
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(4))
    (grad,) = torch.autograd.grad((probs * torch.randn(4, 6, generator=generator(2))).sum(), logits)
    assert (grad != 0).all()


def test_softmax_sharpens_as_the_temperature_falls() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    torch.testing.assert_close(Softmax().mixing_probs(logits, 1.0, generator()), torch.softmax(logits, dim=-1))
    assert float(Softmax().mixing_probs(logits, 0.01, generator())[0, 2]) == pytest.approx(1.0)


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
