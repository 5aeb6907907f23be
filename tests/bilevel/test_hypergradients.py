"""Every hypergradient against its closed form on quadratics."""

from __future__ import annotations

import pytest
import torch
from bilevel.quadratic import Quadratic

from morenas.bilevel import HYPERGRADIENTS, BilevelProblem, Level, Step

SETTINGS = [(3, 2, 0.5, 0), (6, 4, 0.0, 1), (5, 7, 2.0, 2)]


@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_first_order_is_the_direct_term(n: int, m: int, rho: float, seed: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    losses, (gradient,) = HYPERGRADIENTS["first_order"](quadratic.problem(), Step(0, 0))
    torch.testing.assert_close(gradient, quadratic.direct_gradient())
    assert losses.read() == pytest.approx(float(quadratic.upper_loss(0)))


@pytest.mark.parametrize(("n", "m", "rho", "seed"), SETTINGS)
def test_single_level_is_the_gradient_of_the_lower_loss(n: int, m: int, rho: float, seed: int) -> None:
    quadratic = Quadratic.build(n, m, rho, seed)
    losses, (gradient,) = HYPERGRADIENTS["single_level"](quadratic.problem(), Step(0, 0))
    torch.testing.assert_close(gradient, quadratic.lower_arch_gradient())
    assert losses.read() == pytest.approx(float(quadratic.lower_loss(0)))


@pytest.mark.parametrize(("name", "read"), [("first_order", ("upper", 2)), ("single_level", ("lower", 11))])
def test_each_reads_its_own_level_at_the_step_of_that_level(name: str, read: tuple[str, int]) -> None:
    weights, arch = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    seen: list[tuple[str, int]] = []

    def level(called: str) -> Level:
        def loss(number: int) -> torch.Tensor:
            seen.append((called, number))
            return (weights * arch).sum()

        return Level(called, loss)

    HYPERGRADIENTS[name](BilevelProblem(level("lower"), level("upper"), [weights], [arch]), Step(upper=2, lower=11))
    assert seen == [read]


@pytest.mark.parametrize("name", sorted(HYPERGRADIENTS))
def test_no_hypergradient_changes_a_parameter_or_leaves_a_grad(name: str) -> None:
    quadratic = Quadratic.build(4, 3, 1.0, 3)
    before = quadratic.weights.detach().clone(), quadratic.arch.detach().clone()
    HYPERGRADIENTS[name](quadratic.problem(), Step(0, 0))
    assert torch.equal(quadratic.weights, before[0])
    assert torch.equal(quadratic.arch, before[1])
    assert quadratic.weights.grad is None
    assert quadratic.arch.grad is None
