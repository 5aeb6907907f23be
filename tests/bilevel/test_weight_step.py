from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from morenas.bilevel import WeightStep

Make = Callable[[list[Any]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1),
    "adamw_betas": lambda groups: torch.optim.AdamW(groups, lr=0.02, betas=(0.5, 0.9), eps=1e-3),
    "adam_decay": lambda groups: torch.optim.Adam(groups, lr=0.02, weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.02, weight_decay=0.1),
}


def weights_and_grads(seed: int) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(4, 3), (5,)] * 2]
    return [tensor.requires_grad_() for tensor in made[:2]], made[2:]


def take(optimizer: torch.optim.Optimizer, weights: list[Tensor], grads: list[Tensor], max_norm: float) -> None:
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad.clone()
    if max_norm:
        torch.nn.utils.clip_grad_norm_(weights, max_norm)
    optimizer.step()


def warmed(name: str, steps: int, max_norm: float) -> tuple[torch.optim.Optimizer, list[Tensor], list[Tensor]]:
    """After some steps, two groups at different rates."""
    weights, grads = weights_and_grads(0)
    optimizer = OPTIMIZERS[name]([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.3}])
    for number in range(steps):
        take(optimizer, weights, weights_and_grads(number + 1)[1], max_norm)
    return optimizer, weights, grads


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6, float("inf")])
@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_it_is_the_step_that_the_optimizer_takes(name: str, steps: int, max_norm: float) -> None:
    optimizer, weights, grads = warmed(name, steps, max_norm)
    foreseen = WeightStep(optimizer, max_norm).after(weights, grads)
    take(optimizer, weights, grads, max_norm)
    torch.testing.assert_close(foreseen, [weight.detach() for weight in weights], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("max_norm", [0.0, 0.5])
@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_its_derivative_is_that_of_finite_differences(name: str, steps: int, max_norm: float) -> None:
    optimizer, weights, grads = warmed(name, steps, max_norm)
    ahead = WeightStep(optimizer, max_norm)
    inputs = tuple(grad.requires_grad_() for grad in grads)
    assert torch.autograd.gradcheck(lambda *given: tuple(ahead.after(weights, given)), inputs, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_weights_and_state_are_left_as_they_are(name: str) -> None:
    optimizer, weights, grads = warmed(name, 3, 1.0)
    before, kept = copy.deepcopy(optimizer.state_dict()), [weight.detach().clone() for weight in weights]
    WeightStep(optimizer, 1.0).after(weights, grads)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)
    assert all(torch.equal(weight, old) for weight, old in zip(weights, kept, strict=True))


def test_an_entry_that_never_had_a_gradient_stays_where_it_is_and_has_no_slope() -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    take(optimizer, [weight], [torch.tensor([0.0, 1.0, 0.0])], 0.0)
    grad = torch.tensor([0.0, 0.3, 1.0], requires_grad=True)
    (after,) = WeightStep(optimizer).after([weight], [grad])
    (slope,) = torch.autograd.grad(after.sum(), grad)
    assert after[0] == 1 and slope[0] == 0
    assert torch.isfinite(slope).all() and slope[1] < 0 and after[2] < 1


def test_a_gradient_of_zero_has_a_slope_under_clipping() -> None:
    weight, grad = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    (after,) = WeightStep(torch.optim.SGD([weight], lr=0.1), 1.0).after([weight], [grad])
    (slope,) = torch.autograd.grad(after.sum(), grad)
    torch.testing.assert_close(slope, torch.full((3,), -0.1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda tensors: torch.optim.RMSprop(tensors), "RMSprop is not modelled; those of AdamW, Adam, SGD are"),
        (lambda tensors: torch.optim.AdamW(tensors, amsgrad=True), "AdamW is modelled without amsgrad"),
        (lambda tensors: torch.optim.SGD(tensors, lr=0.1, momentum=0.9), "SGD is modelled without momentum"),
    ],
)
def test_a_step_that_is_not_modelled_is_refused(make: Make, said: str) -> None:
    weights, grads = weights_and_grads(0)
    with pytest.raises(ValueError, match=said):
        WeightStep(make(weights)).after(weights, grads)
